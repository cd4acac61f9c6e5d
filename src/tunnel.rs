//! The TUN interface: super-packets of the kernel on one side, batches of packets on the other.
//!
//! The kernel sends and accepts TCP and UDP super-packets of up to 64 KiB. They are cut before they
//! are sealed, and merged after they are opened, not here. An old kernel that accepts no UDP
//! super-packets gets the datagrams one by one.

use crate::readiness::{ReadTurns, watch};
use futures_util::Stream;
use nix::sys::uio;
use nix::unistd;
use postern_core::packet::buffer::BUFFER_BYTES;
use postern_core::packet::offload::{self, VNET_HEADER_BYTES};
use postern_core::packet::{PacketBatch, TUNNEL_MTU_BYTES};
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tun_rs::{DeviceBuilder, SyncDevice};

/// Creates the interface `name`, up and with the tunnel's MTU, without addresses. It exists until
/// the last of its queues is closed.
///
/// The kernel puts a flow into the queue that last wrote a packet of it. It puts an unknown flow,
/// or one that was silent for three seconds, into any queue.
///
/// # Errors
/// Those of the kernel: no /dev/net/tun, no CAP_NET_ADMIN, the name is taken.
pub fn create(name: &str, queues: u8) -> io::Result<Vec<SyncDevice>> {
    let mtu = u16::try_from(TUNNEL_MTU_BYTES).expect("1280 fits");
    let device = DeviceBuilder::new()
        .name(name)
        .mtu(mtu)
        .with(|builder| {
            let builder = builder.offload(true).tx_queue_len(TX_QUEUE_LEN);
            builder.multi_queue(queues > 1);
        })
        .build_sync()?;
    let mut all = vec![device];
    for _ in 1..queues {
        all.push(all[0].try_clone()?);
    }
    for queue in &all {
        queue.set_nonblocking(true)?;
    }
    Ok(all)
}

/// One queue of the interface in an event loop. The event loop reports readable packets only: no
/// actor waits to write.
pub struct TunQueue {
    device: Arc<SyncDevice>,
    arrivals: AsyncFd<OwnedFd>,
}

impl TunQueue {
    /// Registers `device` with the event loop of the current thread. All instances of the actor
    /// share the device.
    pub fn new(device: Arc<SyncDevice>) -> io::Result<Self> {
        let arrivals = watch(&device, Interest::READABLE)?;
        Ok(Self { device, arrivals })
    }

    /// Writes packets in order, super-packets whole. Returns how many packets were lost.
    pub fn write(&self, mut packets: PacketBatch) -> usize {
        let takes_datagrams = self.device.udp_gso();
        let mut lost = 0;
        packets.for_each_mut(|mut packet| {
            let is_whole = (packet.segmentation).is_none_or(|it| it.is_tcp() || takes_datagrams);
            if is_whole {
                let header = offload::transmit(packet.bytes, packet.segmentation);
                let is_written = self.write_one(&header, packet.bytes);
                lost += if is_written { 0 } else { packet.segments() };
            } else {
                packet.cut(|segment| lost += usize::from(!self.write_one(&NO_OFFLOAD, segment)));
            }
        });
        lost
    }

    /// Reads into `batch` until it is full, or returns the error that ended it before.
    fn fill(&self, batch: &mut PacketBatch) -> io::Result<()> {
        let device = &self.device;
        while batch.has_room(READ_BYTES) && batch.len() + batch.refused() < MAX_PACKETS {
            batch.push_offloaded(READ_BYTES, |room| unistd::read(device, room))?;
        }
        Ok(())
    }

    fn write_one(&self, header: &[u8], packet: &[u8]) -> bool {
        let parts = [IoSlice::new(header), IoSlice::new(packet)];
        let written = uio::writev(&self.device, &parts);
        if let Err(error) = &written {
            tracing::debug!(%error, "writing to the tunnel interface");
        }
        written.is_ok()
    }
}

/// Packets from the interface: each item is one batch of reads.
pub struct PacketStream {
    queue: Rc<TunQueue>,
    turns: ReadTurns,
}

impl PacketStream {
    pub fn new(queue: Rc<TunQueue>) -> Self {
        let turns = ReadTurns::new("reading from the tunnel interface", READS_MAX, ERRORS_MAX);
        Self { queue, turns }
    }
}

impl Stream for PacketStream {
    type Item = PacketBatch;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PacketBatch>> {
        let queue = Rc::clone(&self.queue);
        self.turns.poll(&queue.arrivals, cx, || {
            let mut batch = PacketBatch::with_capacity(BUFFER_BYTES);
            let filled = queue.fill(&mut batch);
            let has_packets = !batch.is_empty() || batch.refused() > 0;
            (has_packets.then_some(batch), filled.map(|()| true))
        })
    }
}

/// As Firezone's gateway sets it (docs/protocol.md 6).
const TX_QUEUE_LEN: u32 = 10_000;
/// The most that one read returns: the virtio header and a super-packet.
const READ_BYTES: usize = VNET_HEADER_BYTES + 65_535;
/// Limit of a batch of small packets.
const MAX_PACKETS: usize = 256;
const NO_OFFLOAD: [u8; VNET_HEADER_BYTES] = [0; VNET_HEADER_BYTES];
/// A queue of a deleted interface fails every time.
const ERRORS_MAX: usize = 16;
/// Each of up to 128 KiB: they fill no mailbox and leave time for the other actors of the shard.
const READS_MAX: usize = 4;
