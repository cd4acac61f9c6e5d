//! The TUN interface: super-packets of the kernel on one side, batches of packets on the other.
//!
//! With offloads the kernel hands over TCP super-packets of up to 64 KiB and takes such; they are
//! cut and merged here. Without (an old kernel), packets pass one by one.

use futures_util::Stream;
use postern_core::packet::{PacketBatch, TUNNEL_MTU_BYTES};
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tun_rs::{DeviceBuilder, GROTable, SyncDevice, VIRTIO_NET_HDR_LEN};

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

/// One queue of the interface in an event loop.
pub struct TunQueue {
    device: AsyncFd<Arc<SyncDevice>>,
    writer: RefCell<Writer>,
}

struct Writer {
    merger: GROTable,
    slots: Vec<Vec<u8>>,
}

impl TunQueue {
    /// Registers `device` with the event loop of the current thread.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(device: Arc<SyncDevice>) -> io::Result<Self> {
        let slot = |_| Vec::with_capacity(SLOT_BYTES);
        let slots = (0..PacketBatch::MAX_PACKETS).map(slot).collect();
        // SAFETY: the device owns its descriptor and never exchanges it; the `Arc` keeps it open.
        #[expect(
            unsafe_code,
            reason = "the one device is shared by all lives of its actor"
        )]
        let device = unsafe { AsyncFd::register(device) };
        Ok(Self {
            device: device.map_err(io::Error::from)?,
            writer: RefCell::new(Writer {
                merger: GROTable::new(),
                slots,
            }),
        })
    }

    /// Writes packets in order, merged where they belong together. Returns how many were lost.
    pub fn write(&self, packets: &PacketBatch) -> usize {
        let mut writer = self.writer.borrow_mut();
        let Writer { merger, slots } = &mut *writer;
        let mut lost = 0;
        let mut remaining = packets.iter().peekable();
        while remaining.peek().is_some() {
            let mut count = 0;
            for (slot, packet) in slots
                .iter_mut()
                .zip(remaining.by_ref().take(PacketBatch::MAX_PACKETS))
            {
                slot.clear();
                slot.resize(VIRTIO_NET_HDR_LEN, 0);
                slot.extend_from_slice(packet);
                count += 1;
            }
            let filled = &mut slots[..count];
            let device = self.device.get_ref();
            if let Err(error) = device.send_multiple(merger, filled, VIRTIO_NET_HDR_LEN) {
                tracing::debug!(%error, "writing to the tunnel interface");
                lost += count;
            }
        }
        lost
    }
}

/// Packets from the interface: each item is what one read returned.
pub struct PacketStream {
    queue: Rc<TunQueue>,
    raw: Vec<u8>,
    packets: Vec<Vec<u8>>,
    sizes: Vec<usize>,
    reads: usize,
    errors: usize,
}

impl PacketStream {
    /// Reads from `queue`.
    #[must_use]
    pub fn new(queue: Rc<TunQueue>) -> Self {
        Self {
            queue,
            raw: vec![0; VIRTIO_NET_HDR_LEN + MAX_SUPER_PACKET_BYTES],
            packets: vec![vec![0; MAX_SUPER_PACKET_BYTES.min(2048)]; MAX_SEGMENTS],
            sizes: vec![0; MAX_SEGMENTS],
            reads: 0,
            errors: 0,
        }
    }

    fn read(&mut self) -> io::Result<PacketBatch> {
        let device = self.queue.device.get_ref();
        let count = device.recv_multiple(&mut self.raw, &mut self.packets, &mut self.sizes, 0)?;
        let total = self.sizes[..count].iter().sum();
        let mut batch = PacketBatch::with_capacity(total);
        for (packet, size) in self.packets.iter().zip(&self.sizes).take(count) {
            batch.push(&packet[..*size]);
        }
        Ok(batch)
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
            let Ok(mut ready) = ready!(queue.device.poll_read_ready(cx)) else {
                return Poll::Ready(None);
            };
            match self.read() {
                Ok(batch) => {
                    self.reads += 1;
                    self.errors = 0;
                    return Poll::Ready(Some(batch));
                }
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
        }
    }
}

/// What Firezone's gateway asks for (protocol page, section 6).
const TX_QUEUE_LEN: u32 = 10_000;
const MAX_SUPER_PACKET_BYTES: usize = 65_535;
/// A super-packet of the smallest useful segments still fits.
const MAX_SEGMENTS: usize = 256;
/// Merging grows the first packet of a flow in place, up to the kernel's limit.
const SLOT_BYTES: usize = VIRTIO_NET_HDR_LEN + MAX_SUPER_PACKET_BYTES;
/// In a row: a queue whose interface was deleted fails every time.
const ERRORS_BEFORE_GIVING_UP: usize = 16;
/// One read is up to 64 KiB; these fill no mailbox and keep the others of the shard fed.
const READS_BEFORE_YIELD: usize = 16;
