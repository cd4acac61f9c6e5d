//! Sending and receiving many datagrams in one call (`sendmmsg`, `recvmmsg`), each by itself: no
//! offloads, as applications without them do.

use super::wire::{HEADER_BYTES, Header, Kind, PAYLOAD_BYTES_MAX, Plan};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg,
};
use nix::sys::time::TimeSpec;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;
use tokio::time::Instant;

/// Datagrams of one call.
const BATCH: usize = 64;
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
    let mut buffers = vec![vec![0; usize::from(plan.payload_bytes)]; BATCH];
    let mut sender = Sender {
        socket,
        to: [to; BATCH],
        headers: MultiHeaders::preallocate(BATCH, None),
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
        for (buffer, number) in buffers.iter_mut().zip(sent..).take(count) {
            Header::new(Kind::Data, flow, number).write(buffer);
        }
        sent += sender.send(&buffers[..count])?;
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
}

impl Sender<'_> {
    fn send(&mut self, buffers: &[Vec<u8>]) -> io::Result<u64> {
        let slices: Vec<[IoSlice<'_>; 1]> = buffers.iter().map(|it| [IoSlice::new(it)]).collect();
        let control: [ControlMessage<'_>; 0] = [];
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::empty());
        match sendmmsg(fd, &mut self.headers, &slices, self.to, control, flags) {
            Ok(results) => Ok(results.count() as u64),
            Err(Errno::ENOBUFS | Errno::ECONNREFUSED | Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// Receives many at once.
pub(super) struct Receiver {
    buffers: Vec<[u8; DATAGRAM_BYTES]>,
    headers: MultiHeaders<SockaddrStorage>,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            buffers: vec![[0; DATAGRAM_BYTES]; BATCH],
            headers: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Waits for datagrams, at most for `limit`, and hands all that are there to `take`. Returns
    /// whether there were any.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        limit: Duration,
        mut take: impl FnMut(&[u8], Option<&SockaddrStorage>),
    ) -> io::Result<bool> {
        let mut readable = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut readable, Some(TimeSpec::from_duration(limit)), None) {
            Ok(0) | Err(Errno::EINTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = self
            .buffers
            .iter_mut()
            .map(|it| [IoSliceMut::new(it)])
            .collect();
        let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let received = recvmmsg(fd, &mut self.headers, slices.iter_mut(), flags, None);
        match received {
            Ok(received) => {
                for message in received {
                    for bytes in message.iovs() {
                        take(bytes, message.address.as_ref());
                    }
                }
                Ok(true)
            }
            Err(Errno::EAGAIN | Errno::ECONNREFUSED | Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The largest that is sent.
const DATAGRAM_BYTES: usize = PAYLOAD_BYTES_MAX as usize;
const _: () = assert!(DATAGRAM_BYTES > HEADER_BYTES);
