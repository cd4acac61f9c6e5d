//! The UDP sockets that all peers of a shard share: offloads, pinned source addresses, bounded
//! queues.
//!
//! One socket for each address family, bound to the wildcard address. A received datagram carries
//! the local address at which it arrived, and a sent one names its source, so that a host with
//! several addresses answers from the address that the request was sent to.

mod group;

pub use group::{BoundSockets, BufferSizes, SocketGroup};

use crate::readiness::{ReadTurns, watch};
use futures_util::Stream;
use group::BoundSocket;
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use postern_core::packet::buffer::BUFFER_BYTES;
use postern_core::packet::{Buffer, DatagramBatch, Ecn, Path};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One socket in an event loop. The event loop reports arrivals always, and room in the send buffer
/// only while an actor waits for it: the kernel would report it after each datagram that has left.
pub struct UdpPort {
    socket: UdpSocket,
    /// `None` if another shard receives for this one.
    arrivals: Option<AsyncFd<OwnedFd>>,
    state: RefCell<UdpSocketState>,
    port: u16,
}

/// The sockets of both families. Cheap to clone.
#[derive(Clone)]
pub struct UdpPorts {
    v4: Option<Rc<UdpPort>>,
    v6: Option<Rc<UdpPort>>,
}

impl UdpPorts {
    /// Registers the sockets with the event loop of the current thread.
    pub fn new(bound: BoundSockets) -> io::Result<Self> {
        let port = bound.port;
        let register = |bound: Option<BoundSocket>| {
            bound
                .map(|bound| UdpPort::new(bound, port).map(Rc::new))
                .transpose()
        };
        Ok(Self {
            v4: register(bound.v4)?,
            v6: register(bound.v6)?,
        })
    }

    /// Endless streams of the datagrams of both families. None if another shard receives them.
    pub fn receivers(&self) -> impl Iterator<Item = DatagramStream> + use<> {
        let ports = [self.v4.clone(), self.v6.clone()];
        let read = ports
            .into_iter()
            .flatten()
            .filter(|port| port.arrivals.is_some());
        read.map(DatagramStream::new)
    }

    /// The socket that reaches `remote`, if the host has that family.
    pub fn for_remote(&self, remote: SocketAddr) -> Option<&Rc<UdpPort>> {
        match remote {
            SocketAddr::V4(_) => self.v4.as_ref(),
            SocketAddr::V6(_) => self.v6.as_ref(),
        }
    }
}

impl UdpPort {
    fn new(bound: BoundSocket, port: u16) -> io::Result<Self> {
        let BoundSocket { socket, is_read } = bound;
        let arrivals = is_read.then(|| watch(&socket, Interest::READABLE));
        Ok(Self {
            arrivals: arrivals.transpose()?,
            state: RefCell::new(offloads(&socket)?),
            socket,
            port,
        })
    }

    /// Sends a batch except its first `skip` datagrams, in GSO writes where the kernel accepts
    /// them. Returns how many datagrams of the batch the kernel has taken.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when the send buffer is full, or another error of the kernel,
    /// with the number of datagrams that were taken before.
    pub fn send(&self, batch: &DatagramBatch, skip: usize) -> Result<usize, (usize, io::Error)> {
        let segment = batch.segment_bytes();
        let mut sent = skip;
        while sent < batch.len() {
            let run = self.max_segments().min(batch.len() - sent);
            let start = sent * segment;
            let end = (start + run * segment).min(batch.bytes().len());
            match self.write(batch, &batch.bytes()[start..end]) {
                Ok(()) => sent += run,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err((sent, error));
                }
                // quinn-udp has switched offloads off. The next try, without them, shows the cause.
                Err(_) if run > 1 && self.max_segments() == 1 => {}
                Err(error) => {
                    self.restore_offloads(&error);
                    return Err((sent, error));
                }
            }
        }
        Ok(sent)
    }

    fn max_segments(&self) -> usize {
        self.state.borrow().max_gso_segments()
    }

    /// quinn-udp takes EINVAL and EIO for a kernel without offloads and ECN, and switches both off.
    /// If a single datagram is refused, the cause is an address: an invalid one of a client, or a
    /// local one that was removed.
    fn restore_offloads(&self, error: &io::Error) {
        let errno = error.raw_os_error().map(Errno::from_raw);
        let has_switched_off = matches!(errno, Some(Errno::EINVAL | Errno::EIO));
        if has_switched_off && let Ok(state) = offloads(&self.socket) {
            self.state.replace(state);
        }
    }

    fn write(&self, batch: &DatagramBatch, contents: &[u8]) -> io::Result<()> {
        let local = batch.path.local.ip();
        let transmit = Transmit {
            destination: batch.path.remote,
            ecn: codepoint(batch.ecn),
            contents,
            segment_size: Some(batch.segment_bytes()),
            src_ip: (!local.is_unspecified()).then_some(local),
        };
        let state = self.state.borrow();
        state.try_send((&self.socket).into(), &transmit)
    }

    /// Waits until the send buffer has room.
    pub async fn writable(&self) -> io::Result<()> {
        let room = watch(&self.socket, Interest::WRITABLE)?;
        room.writable().await.map(|_| ())
    }
}

/// Determines the offloads of the kernel for this socket.
fn offloads(socket: &UdpSocket) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(socket.into())?;
    // quinn-udp 0.6 enables receive timestamps. With them, the control messages of a GRO read
    // do not fit its buffer: the kernel cuts off the last one, which holds the ECN mark.
    setsockopt(socket, sockopt::ReceiveTimestampns, &false)?;
    Ok(state)
}

/// Datagrams as the kernel delivers them: each item is the result of one read.
pub struct DatagramStream {
    port: Rc<UdpPort>,
    reader: Reader,
    turns: ReadTurns,
}

struct Reader {
    buffers: Vec<Buffer>,
    /// Number of buffers that the next read may fill.
    width: usize,
}

impl DatagramStream {
    fn new(port: Rc<UdpPort>) -> Self {
        let buffers = (0..BATCH_SIZE).map(|_| Buffer::with_room(BUFFER_BYTES));
        let reader = Reader {
            buffers: buffers.collect(),
            width: NARROW_WIDTH,
        };
        // An ICMP error about a datagram that was sent surfaces in a read.
        let turns = ReadTurns::new("receiving", READS_MAX, ERRORS_MAX);
        Self {
            port,
            reader,
            turns,
        }
    }
}

impl Reader {
    /// Returns the received datagrams, and whether there may be more: a read that fills fewer
    /// buffers than it may has taken the last.
    fn read(&mut self, port: &UdpPort) -> io::Result<(Vec<DatagramBatch>, bool)> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut slices: Vec<IoSliceMut<'_>> = self.buffers[..self.width]
            .iter_mut()
            .map(|buffer| IoSliceMut::new(buffer.room_mut(BUFFER_BYTES)))
            .collect();
        let state = port.state.borrow();
        let count = state.recv((&port.socket).into(), &mut slices, &mut metas)?;
        drop(slices);
        let bytes: usize = metas[..count].iter().map(|meta| meta.len).sum();
        let has_more = count == self.width;
        self.width = next_width(count, bytes);
        let received = metas.iter().zip(&mut self.buffers).take(count);
        let batches = received.map(|(meta, buffer)| to_batch(meta, buffer, port.port));
        Ok((batches.collect(), has_more))
    }
}

impl Stream for DatagramStream {
    type Item = Vec<DatagramBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self {
            port,
            reader,
            turns,
        } = &mut *self;
        let Some(arrivals) = &port.arrivals else {
            return Poll::Ready(None);
        };
        turns.poll(arrivals, cx, || match reader.read(port) {
            Ok((batches, has_more)) => (Some(batches), Ok(has_more)),
            Err(error) => (None, Err(error)),
        })
    }
}

/// Takes the received datagrams out of `buffer`.
fn to_batch(meta: &RecvMeta, buffer: &mut Buffer, port: u16) -> DatagramBatch {
    buffer.set_len(meta.len);
    let unspecified: IpAddr = match meta.addr {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let path = Path::direct(
        SocketAddr::new(meta.dst_ip.unwrap_or(unspecified), port),
        meta.addr,
    );
    let ecn = meta
        .ecn
        .map_or(Ecn::NotEct, |ecn| Ecn::from_bits(ecn as u8));
    DatagramBatch::new(path, ecn, meta.stride, buffer.take_fitted())
}

fn codepoint(ecn: Ecn) -> Option<EcnCodepoint> {
    EcnCodepoint::from_bits(ecn as u8)
}

/// Batches that wait for room in the send buffer, oldest first.
#[derive(Default)]
pub struct SendQueue {
    waiting: VecDeque<(DatagramBatch, usize)>,
}

impl SendQueue {
    /// Limit of the waiting batches.
    pub const LIMIT: usize = 64;

    /// Sends `batch`, or queues it behind others. Returns how many datagrams are lost: the queue is
    /// full, the host lacks the family, or the kernel refuses.
    pub fn send(&mut self, ports: &UdpPorts, batch: DatagramBatch) -> usize {
        if !self.waiting.is_empty() {
            return self.enqueue(batch, 0);
        }
        self.attempt(ports, batch, 0)
    }

    /// Sends the waiting batches. Returns how many datagrams are lost.
    pub fn flush(&mut self, ports: &UdpPorts) -> usize {
        let mut lost = 0;
        for _ in 0..self.waiting.len() {
            let Some((batch, sent)) = self.waiting.pop_front() else {
                break;
            };
            let before = self.waiting.len();
            lost += self.attempt(ports, batch, sent);
            let is_blocked = self.waiting.len() > before;
            if is_blocked {
                self.waiting.rotate_right(1);
                break;
            }
        }
        lost
    }

    /// The socket of the first waiting batch.
    pub fn blocked_port<'a>(&self, ports: &'a UdpPorts) -> Option<&'a Rc<UdpPort>> {
        let (batch, _) = self.waiting.front()?;
        ports.for_remote(batch.path.remote)
    }

    fn attempt(&mut self, ports: &UdpPorts, batch: DatagramBatch, sent: usize) -> usize {
        // No receiver can have port 0 (RFC 768), but a client may name it, or send from it.
        let remote = Some(batch.path.remote).filter(|remote| remote.port() != 0);
        let Some(port) = remote.and_then(|remote| ports.for_remote(remote)) else {
            return batch.len() - sent;
        };
        match port.send(&batch, sent) {
            Ok(_) => 0,
            Err((sent, error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.enqueue(batch, sent)
            }
            Err((sent, error)) => {
                tracing::debug!(%error, remote = %batch.path.remote, "sending");
                batch.len() - sent
            }
        }
    }

    fn enqueue(&mut self, batch: DatagramBatch, sent: usize) -> usize {
        if self.waiting.len() >= Self::LIMIT {
            return batch.len() - sent;
        }
        self.waiting.push_back((batch, sent));
        0
    }
}

/// How many buffers the next read may fill, after one of `bytes` in `count` buffers: twice as many,
/// so that a single datagram does not pay for the room of many.
fn next_width(count: usize, bytes: usize) -> usize {
    match bytes / count.max(1) {
        0..LARGE_BYTES => (2 * count).clamp(NARROW_WIDTH, BATCH_SIZE),
        _ => NARROW_WIDTH,
    }
}

/// From so many bytes a buffer, few buffers are better: datagrams stay in the cache until they are
/// opened.
const LARGE_BYTES: usize = 16 * 1024;
/// One more than a single datagram fills, so that one read is enough for it.
const NARROW_WIDTH: usize = 2;
/// Errors about sent datagrams come one by one, between reads that succeed.
const ERRORS_MAX: usize = 1000;
/// One read may be 64 datagrams of 64 segments; two of these fill no mailbox.
const READS_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    const BUFFERS: BufferSizes = BufferSizes {
        receive_bytes: 1 << 20,
        send_bytes: 1 << 20,
    };

    fn ports() -> (UdpPorts, u16) {
        let group = SocketGroup::bind(0, BUFFERS, 1).expect("a free port");
        let bound = group.member(0).expect("a descriptor");
        (UdpPorts::new(bound).expect("registered"), group.port())
    }

    fn batch(from: u16, to: u16, segments: usize) -> DatagramBatch {
        let path = Path::direct(([127, 0, 0, 1], from).into(), ([127, 0, 0, 1], to).into());
        let bytes: Vec<u8> = (0..segments).flat_map(|n| [n as u8; 1000]).collect();
        DatagramBatch::new(path, Ecn::Ect0, 1000, bytes)
    }

    #[tokio::test]
    async fn a_batch_arrives_whole_with_its_addresses_and_its_ecn_mark() {
        let ((sender, from), (receiver, to)) = (ports(), ports());
        let mut queue = SendQueue::default();
        assert_eq!(queue.send(&sender, batch(from, to, 10)), 0);
        // A fresh socket is not known to be writable until the event loop has looked.
        while let Some(blocked) = queue.blocked_port(&sender) {
            blocked.writable().await.expect("the event loop runs");
            assert_eq!(queue.flush(&sender), 0);
        }
        let mut stream = receiver.receivers().next().expect("IPv4");
        let mut datagrams = Vec::new();
        while datagrams.len() < 10 {
            for received in stream.next().await.expect("a read") {
                assert_eq!(received.path.local, ([127, 0, 0, 1], to).into());
                assert_eq!(received.path.remote, ([127, 0, 0, 1], from).into());
                assert_eq!(received.ecn, Ecn::Ect0);
                datagrams.extend(received.segments().map(<[u8]>::to_vec));
            }
        }
        let expected: Vec<_> = (0..10).map(|n| vec![n; 1000]).collect();
        assert_eq!(datagrams, expected);
    }

    #[tokio::test]
    async fn an_unreachable_address_does_not_switch_offloads_off() {
        let (sender, from) = ports();
        let port = sender.v4.clone().expect("IPv4");
        let before = port.max_segments();
        assert!(before > 1, "this kernel has no GSO to lose");
        let mut queue = SendQueue::default();
        assert_eq!(queue.send(&sender, batch(from, 0, 1)), 1, "port 0");
        let to = |remote: [u8; 4]| {
            let mut batch = batch(from, 9, 3);
            batch.path.remote = (remote, 9).into();
            batch
        };
        assert_eq!(queue.send(&sender, to([0, 0, 0, 1])), 3, "no address");
        let mut vanished = batch(from, 9, 3);
        vanished.path.local = ([192, 0, 2, 1], from).into();
        assert_eq!(queue.send(&sender, vanished), 3, "no source of ours");
        assert_eq!(port.max_segments(), before);
    }
}
