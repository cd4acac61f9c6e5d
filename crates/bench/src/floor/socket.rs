//! A UDP socket that sends and receives many datagrams in one call (UDP_SEGMENT, UDP_GRO).
//!
//! Refuses to lose what the send buffer has no room for: it waits, within a bound.

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What one call may send: the largest payload of a UDP datagram, less an IPv6 header.
pub const BATCH_BYTES: usize = 65_487;
/// What one call may send, `UDP_MAX_SEGMENTS` of older kernels.
pub const BATCH_DATAGRAMS: usize = 64;

/// A socket, never blocking.
pub struct GsoSocket {
    socket: UdpSocket,
    control: Vec<u8>,
}

/// What one call received: datagrams of one sender, equally long but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// All together.
    pub bytes: usize,
    /// Each but the last.
    pub datagram_bytes: usize,
    /// Who sent them.
    pub from: SocketAddr,
}

impl GsoSocket {
    /// Binds `address`.
    ///
    /// # Errors
    /// The address is taken, or the kernel has no UDP_GRO.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        // Both fail without CAP_NET_ADMIN; the default sizes work, with more loss under bursts.
        let _smaller = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES);
        let _smaller = setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER_BYTES);
        Ok(Self {
            socket,
            control: control_room(),
        })
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Sends `bytes`, cut into datagrams of `datagram_bytes`, at most [`BATCH_DATAGRAMS`] and
    /// [`BATCH_BYTES`].
    ///
    /// # Errors
    /// What the kernel says; [`io::ErrorKind::WouldBlock`] when the send buffer stays full.
    pub fn send(&self, to: SocketAddr, bytes: &[u8], datagram_bytes: usize) -> io::Result<()> {
        let to = SockaddrStorage::from(to);
        let slices = [IoSlice::new(bytes)];
        let segment = u16::try_from(datagram_bytes).map_err(|_| Errno::EMSGSIZE)?;
        let segments = [ControlMessage::UdpGsoSegments(&segment)];
        let control = match bytes.len() > datagram_bytes {
            true => &segments[..],
            false => &[],
        };
        let attempt = || {
            let fd = self.socket.as_raw_fd();
            sendmsg(fd, &slices, control, MsgFlags::empty(), Some(&to))
        };
        match attempt() {
            Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                let mut writable = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                poll(&mut writable, PollTimeout::from(ROOM_MS_MAX))?;
                attempt()?;
            }
            sent => {
                sent?;
            }
        }
        Ok(())
    }

    /// Receives what the kernel has gathered of one sender; `None` when there is nothing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        receive_group(&self.socket, buffer, &mut self.control)
    }
}

/// Receives what the kernel has gathered of one sender, where UDP_GRO is switched on; `None` when
/// there is nothing. `control` is room for what the kernel says about it ([`control_room`]).
///
/// # Errors
/// What the kernel says.
pub fn receive_group(
    socket: &UdpSocket,
    buffer: &mut [u8],
    control: &mut [u8],
) -> io::Result<Option<Received>> {
    let mut slices = [IoSliceMut::new(buffer)];
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    let received = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(control), flags);
    let received = match received {
        Ok(received) => received,
        // An ICMP error about something we sent says nothing about what comes.
        Err(Errno::EAGAIN | Errno::ECONNREFUSED | Errno::EHOSTUNREACH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let gathered = received.cmsgs()?.find_map(|it| {
        let ControlMessageOwned::UdpGroSegments(bytes) = it else {
            return None;
        };
        usize::try_from(bytes).ok()
    });
    let bytes = received.bytes;
    let from = received.address.as_ref().and_then(socket_addr);
    Ok(from.map(|from| Received {
        bytes,
        datagram_bytes: gathered.unwrap_or(bytes).max(1),
        from,
    }))
}

/// For [`receive_group`].
#[must_use]
pub fn control_room() -> Vec<u8> {
    cmsg_space!(i32)
}

impl AsFd for GsoSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// As the standard library has it; `None` for families that are not IP.
#[must_use]
pub fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in();
    let v4 = v4.map(|it| SocketAddr::V4(SocketAddrV4::new(it.ip(), it.port())));
    let v6 = || {
        let it = address.as_sockaddr_in6()?;
        let (flow, scope) = (it.flowinfo(), it.scope_id());
        let v6 = SocketAddrV6::new(it.ip(), it.port(), flow, scope);
        Some(SocketAddr::V6(v6))
    };
    v4.or_else(v6)
}

/// As the gateway asks for by default.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;
const SEND_BUFFER_BYTES: usize = 2 << 20;
/// A virtual link takes a full buffer within a few milliseconds.
const ROOM_MS_MAX: u8 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (GsoSocket, GsoSocket) {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let bind = || GsoSocket::bind(loopback).expect("a free port");
        (bind(), bind())
    }

    fn received(socket: &mut GsoSocket, buffer: &mut [u8]) -> Received {
        let mut readable = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut readable, PollTimeout::from(5000_u16)).expect("waits");
        socket.receive(buffer).expect("works").expect("arrived")
    }

    #[test]
    fn a_batch_arrives_whole_and_in_order() {
        let (sender, mut receiver) = pair();
        let (to, from) = (receiver.local_addr(), sender.local_addr());
        let sent: Vec<u8> = (0..10_100_u32).map(|n| (n % 251) as u8).collect();
        sender
            .send(to.expect("bound"), &sent, 1000)
            .expect("is sent");
        let mut buffer = vec![0; 65_536];
        let mut arrived = Vec::new();
        while arrived.len() < sent.len() {
            let batch = received(&mut receiver, &mut buffer);
            assert_eq!(batch.from, *from.as_ref().expect("bound"));
            assert!(batch.datagram_bytes <= 1000);
            arrived.extend_from_slice(&buffer[..batch.bytes]);
        }
        assert_eq!(arrived, sent);
        assert_eq!(receiver.receive(&mut buffer).expect("works"), None);
    }

    #[test]
    fn a_single_datagram_is_its_own_batch() {
        let (sender, mut receiver) = pair();
        let to = receiver.local_addr().expect("bound");
        sender.send(to, b"hello", 5).expect("is sent");
        let mut buffer = [0; 64];
        let batch = received(&mut receiver, &mut buffer);
        assert_eq!((batch.bytes, batch.datagram_bytes), (5, 5));
    }
}
