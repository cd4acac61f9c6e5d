//! Sending and receiving many datagrams in one call: each by itself (`sendmmsg`, `recvmmsg`), as
//! applications without offloads do, or in groups (`UDP_SEGMENT`, `UDP_GRO`), as QUIC does.

use super::wire::{HEADER_BYTES, Header, Kind, PAYLOAD_BYTES_MAX, Plan};
use crate::floor::socket::{control_room, receive_group, socket_addr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, sendmsg,
};
use nix::sys::time::TimeSpec;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;
use tokio::time::Instant;

/// Datagrams of one call.
const BATCH: usize = 64;
/// Datagrams of one group: what QUIC servers hand over at once.
const GROUP: usize = 16;
/// How long the sender sleeps when it is ahead of its plan.
const AHEAD: Duration = Duration::from_micros(200);

/// Sends a load, no faster than planned, to where the socket is connected if it is not said.
/// Returns how many were sent. What the socket has no room for is waited for: what is lost is lost
/// on the way.
///
/// # Errors
/// What the kernel says.
pub(super) fn send(
    socket: &UdpSocket,
    to: Option<SockaddrStorage>,
    flow: u32,
    plan: Plan,
) -> io::Result<u64> {
    let datagram_bytes = usize::from(plan.payload_bytes);
    let mut bytes = vec![0; datagram_bytes * BATCH];
    let mut sender = Sender {
        socket,
        to: [to; BATCH],
        headers: MultiHeaders::preallocate(BATCH, None),
        datagram_bytes: plan.payload_bytes,
        is_grouped: plan.is_grouped,
    };
    let begun = Instant::now();
    let end = Duration::from_millis(plan.millis.into());
    let mut sent = 0;
    loop {
        let elapsed = begun.elapsed();
        if elapsed >= end {
            return Ok(sent);
        }
        let due = (elapsed.as_secs_f64() * f64::from(plan.per_second)) as u64;
        let count = usize::try_from(due - sent.min(due))
            .unwrap_or(BATCH)
            .min(BATCH);
        if count == 0 {
            pause(AHEAD);
            continue;
        }
        let datagrams = bytes.chunks_exact_mut(datagram_bytes);
        for (datagram, number) in datagrams.zip(sent..).take(count) {
            Header::new(Kind::Data, flow, number).write(datagram);
        }
        sent += sender.send(&bytes[..count * datagram_bytes])?;
    }
}

/// Lets a moment pass; a signal may end it early.
pub(super) fn pause(moment: Duration) {
    let _woken = ppoll(&mut [], Some(TimeSpec::from_duration(moment)), None);
}

struct Sender<'a> {
    socket: &'a UdpSocket,
    to: [Option<SockaddrStorage>; BATCH],
    headers: MultiHeaders<SockaddrStorage>,
    datagram_bytes: u16,
    is_grouped: bool,
}

impl Sender<'_> {
    /// Returns how many datagrams the kernel took.
    fn send(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let sent = match self.is_grouped {
            true => self.send_grouped(bytes),
            false => self.send_singly(bytes),
        };
        match sent {
            Err(Errno::ENOBUFS | Errno::ECONNREFUSED | Errno::EINTR) => Ok(0),
            sent => Ok(sent?),
        }
    }

    fn send_singly(&mut self, bytes: &[u8]) -> nix::Result<u64> {
        let datagrams = bytes.chunks_exact(self.datagram_bytes.into());
        let slices: Vec<[IoSlice<'_>; 1]> = datagrams.map(|it| [IoSlice::new(it)]).collect();
        let control: [ControlMessage<'_>; 0] = [];
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        let sent = sendmmsg(fd, &mut self.headers, &slices, self.to, control, flags)?;
        Ok(sent.count() as u64)
    }

    fn send_grouped(&self, bytes: &[u8]) -> nix::Result<u64> {
        let datagram_bytes = usize::from(self.datagram_bytes);
        let segments = [ControlMessage::UdpGsoSegments(&self.datagram_bytes)];
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        let mut sent = 0;
        for group in bytes.chunks(GROUP * datagram_bytes) {
            let slices = [IoSlice::new(group)];
            let control = match group.len() > datagram_bytes {
                true => &segments[..],
                false => &[],
            };
            match sendmsg(fd, &slices, control, flags, self.to[0].as_ref()) {
                Ok(taken) => sent += (taken / datagram_bytes) as u64,
                Err(_) if sent > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }
}

/// Receives many at once.
pub(super) enum Receiver {
    Singly {
        buffers: Vec<[u8; DATAGRAM_BYTES]>,
        headers: MultiHeaders<SockaddrStorage>,
    },
    Grouped {
        buffer: Box<[u8]>,
        control: Vec<u8>,
    },
}

impl Receiver {
    /// One for a socket that gathers what arrives, or does not.
    pub(super) fn new(is_grouped: bool) -> Self {
        match is_grouped {
            true => Self::Grouped {
                buffer: vec![0; GROUP_BYTES].into(),
                control: control_room(),
            },
            false => Self::Singly {
                buffers: vec![[0; DATAGRAM_BYTES]; BATCH],
                headers: MultiHeaders::preallocate(BATCH, None),
            },
        }
    }

    /// Waits for datagrams, at most for `limit`, and hands all that are there to `take`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        limit: Duration,
        mut take: impl FnMut(&[u8], Option<SocketAddr>),
    ) -> io::Result<()> {
        let mut readable = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut readable, Some(TimeSpec::from_duration(limit)), None) {
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match self {
            Self::Singly { buffers, headers } => receive_singly(socket, buffers, headers, take),
            Self::Grouped { buffer, control } => {
                while let Some(group) = receive_group(socket, buffer, control)? {
                    for datagram in buffer[..group.bytes].chunks(group.datagram_bytes) {
                        take(datagram, Some(group.from));
                    }
                }
                Ok(())
            }
        }
    }
}

fn receive_singly(
    socket: &UdpSocket,
    buffers: &mut [[u8; DATAGRAM_BYTES]],
    headers: &mut MultiHeaders<SockaddrStorage>,
    mut take: impl FnMut(&[u8], Option<SocketAddr>),
) -> io::Result<()> {
    let slices = buffers.iter_mut().map(|it| [IoSliceMut::new(it)]);
    let mut slices: Vec<[IoSliceMut<'_>; 1]> = slices.collect();
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
    match recvmmsg(fd, headers, slices.iter_mut(), flags, None) {
        Ok(received) => {
            for message in received {
                let from = message.address.as_ref().and_then(socket_addr);
                message.iovs().for_each(|bytes| take(bytes, from));
            }
            Ok(())
        }
        Err(Errno::EAGAIN | Errno::ECONNREFUSED | Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The most that the kernel gathers.
const GROUP_BYTES: usize = 65_535;
/// The largest that is sent.
const DATAGRAM_BYTES: usize = PAYLOAD_BYTES_MAX as usize;
const _: () = assert!(DATAGRAM_BYTES > HEADER_BYTES);
