//! The TUN interface: super-packets of the kernel on one side, batches of packets on the other.
//!
//! The kernel hands over TCP and UDP super-packets of up to 64 KiB and takes such; they are cut and
//! merged where they are sealed and opened. An old kernel that takes no UDP super-packets gets the
//! datagrams one by one.

use crate::readiness::watch;
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
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tun_rs::{DeviceBuilder, SyncDevice};

/// Creates the interface `name`, up and with the tunnel's MTU, without addresses. It lasts as long
/// as one of its queues, whoever reads from them.
///
/// The kernel puts a flow into the queue that last wrote a packet of it; one that it does not know,
/// or has forgotten after three seconds of silence, into any.
///
/// # Errors
/// What the kernel says: no /dev/net/tun, no CAP_NET_ADMIN, the name is taken.
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
    let further = (1..queues).map(|_| device.try_clone());
    let further = further.collect::<io::Result<Vec<_>>>()?;
    let mut all = vec![device];
    all.extend(further);
    for queue in &all {
        queue.set_nonblocking(true)?;
    }
    Ok(all)
}

/// One queue of the interface in an event loop, which is told of what can be read only: nobody
/// waits to write.
pub struct TunQueue {
    device: Arc<SyncDevice>,
    arrivals: AsyncFd<OwnedFd>,
}

impl TunQueue {
    /// Registers `device`, which is shared by all lives of its actor, with the event loop of the
    /// current thread.
    ///
    /// # Errors
    /// When the process has no descriptor left, or the kernel refuses.
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

    fn write_one(&self, header: &[u8], packet: &[u8]) -> bool {
        let parts = [IoSlice::new(header), IoSlice::new(packet)];
        let written = uio::writev(&self.device, &parts);
        if let Err(error) = &written {
            tracing::debug!(%error, "writing to the tunnel interface");
        }
        written.is_ok()
    }
}

/// Packets from the interface: each item is what was read at one go.
pub struct PacketStream {
    queue: Rc<TunQueue>,
    reads: usize,
    errors: usize,
}

impl PacketStream {
    /// Reads from `queue`.
    #[must_use]
    pub fn new(queue: Rc<TunQueue>) -> Self {
        Self {
            queue,
            reads: 0,
            errors: 0,
        }
    }

    /// Reads into `batch` until it is full, and says why it ended before that.
    fn fill(&self, batch: &mut PacketBatch) -> io::Result<()> {
        let device = &self.queue.device;
        while batch.has_room(READ_BYTES) && batch.len() + batch.refused() < MAX_PACKETS {
            batch.push_offloaded(READ_BYTES, |room| unistd::read(device, room))?;
        }
        Ok(())
    }
}

impl Stream for PacketStream {
    type Item = PacketBatch;

    /// Yields to the other actors of the shard after a few reads.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PacketBatch>> {
        let queue = Rc::clone(&self.queue);
        if self.reads >= READS_BEFORE_YIELD {
            self.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            let Ok(mut ready) = ready!(queue.arrivals.poll_read_ready(cx)) else {
                return Poll::Ready(None);
            };
            let mut batch = PacketBatch::with_capacity(BUFFER_BYTES);
            match self.fill(&mut batch) {
                Ok(()) => self.reads += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    self.reads = 0;
                }
                Err(error) => {
                    tracing::debug!(%error, "reading from the tunnel interface");
                    self.errors += 1;
                    if self.errors >= ERRORS_BEFORE_GIVING_UP {
                        tracing::error!(%error, "reading from the tunnel interface fails for good");
                        return Poll::Ready(None);
                    }
                }
            }
            if !batch.is_empty() || batch.refused() > 0 {
                self.errors = 0;
                return Poll::Ready(Some(batch));
            }
        }
    }
}

/// What Firezone's gateway asks for (docs/protocol.md 6.
const TX_QUEUE_LEN: u32 = 10_000;
/// What one read may bring: the header of the queue and a super-packet.
const READ_BYTES: usize = VNET_HEADER_BYTES + 65_535;
/// Small packets that are read at one go.
const MAX_PACKETS: usize = 256;
const NO_OFFLOAD: [u8; VNET_HEADER_BYTES] = [0; VNET_HEADER_BYTES];
/// In a row: a queue whose interface was deleted fails every time.
const ERRORS_BEFORE_GIVING_UP: usize = 16;
/// Of up to 128 KiB: they fill no mailbox and keep the others of the shard fed.
const READS_BEFORE_YIELD: usize = 4;
