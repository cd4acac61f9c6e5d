//! The single forwarding thread: waits for the interface, the socket or a deadline, and serves both
//! directions.

use super::clock::Timestamp;
use super::device::TunDevice;
use super::inbound::{Inbound, ReceivedControl};
use super::link::Link;
use super::outbound::Outbound;
use super::session::{Opener, Sealer};
use super::socket::GsoSocket;
use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// State of the other end: fixed keys, or a link with handshakes.
pub(super) trait RemoteEnd {
    /// Receiving halves of the sessions.
    fn openers(&self) -> &[Opener];
    /// Destination of packets and the sending half of the session.
    fn sender(&mut self) -> Option<(SocketAddr, &mut Sealer)>;
    /// Consumes received data that is not for the interface, and performs what is due.
    fn progress(&mut self, control: &mut ReceivedControl, now: Timestamp);
    /// Time of the next call of [`Self::progress`] without received data.
    fn poll_timeout(&self) -> Option<Instant>;
    /// The next datagram that is not a packet.
    fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)>;
}

/// The floor's end: keys and nothing else; learns the address if it is not given.
pub(super) struct FixedKeys {
    pub(super) peer: Option<SocketAddr>,
    pub(super) sealer: Sealer,
    pub(super) openers: [Opener; 1],
}

impl RemoteEnd for FixedKeys {
    fn openers(&self) -> &[Opener] {
        &self.openers
    }

    fn sender(&mut self) -> Option<(SocketAddr, &mut Sealer)> {
        self.peer.map(|peer| (peer, &mut self.sealer))
    }

    fn progress(&mut self, control: &mut ReceivedControl, _: Timestamp) {
        self.peer = control.authentic.take().or(self.peer);
        control.datagrams.clear();
        control.control_packets.clear();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        None
    }
}

/// A link, and a callback for when it is ready.
pub(super) struct LinkEnd<F> {
    pub(super) link: Link,
    pub(super) ready: Option<F>,
}

impl<F: FnOnce()> RemoteEnd for LinkEnd<F> {
    fn openers(&self) -> &[Opener] {
        self.link.openers()
    }

    fn sender(&mut self) -> Option<(SocketAddr, &mut Sealer)> {
        self.link.sender()
    }

    fn progress(&mut self, control: &mut ReceivedControl, now: Timestamp) {
        for (_, datagram) in control.datagrams.drain(..) {
            self.link.handle_datagram(&datagram, now);
        }
        for packet in control.control_packets.drain(..) {
            self.link.handle_control_packet(&packet);
        }
        self.link.handle_timeout(now);
        if self.link.is_ready()
            && let Some(ready) = self.ready.take()
        {
            ready();
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.link.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.link.poll_transmit()
    }
}

/// Forwards without end.
pub(super) fn forward(
    device: &TunDevice,
    socket: &mut GsoSocket,
    end: &mut impl RemoteEnd,
) -> Result<()> {
    let (mut outbound, mut inbound) = (Outbound::new(), Inbound::new());
    let mut control = ReceivedControl::default();
    loop {
        let now = Timestamp::now();
        end.progress(&mut control, now);
        while let Some((to, datagram)) = end.poll_transmit() {
            if let Err(error) = socket.send(to, &datagram, datagram.len()) {
                tracing::debug!(%error, "sending");
            }
        }
        let more_out = outbound.forward(device, socket, end.sender())?;
        let more_in = inbound.forward(device, socket, end.openers(), &mut control)?;
        let is_idle = !more_out && !more_in && control.datagrams.is_empty();
        if is_idle && control.control_packets.is_empty() {
            wait(device, socket, end.poll_timeout(), now.instant)?;
        }
    }
}

fn wait(
    device: &TunDevice,
    socket: &GsoSocket,
    deadline: Option<Instant>,
    now: Instant,
) -> Result<()> {
    let timeout = deadline.map(|at| at.saturating_duration_since(now) + MILLISECOND);
    let timeout = timeout.and_then(|it| i32::try_from(it.as_millis()).ok());
    let timeout = timeout.and_then(|it| PollTimeout::try_from(it).ok());
    let mut readable = [
        PollFd::new(device.as_fd(), PollFlags::POLLIN),
        PollFd::new(socket.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut readable, timeout.unwrap_or(PollTimeout::NONE)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// `poll` counts whole milliseconds; rounding up keeps it from waking too early.
const MILLISECOND: Duration = Duration::from_millis(1);
