//! The one thread that forwards: it waits for the interface, the socket or a deadline, and lets
//! both directions do what they can.

use super::clock::Moment;
use super::device::TunDevice;
use super::inbound::{Inbound, Mail};
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

/// What is known of the other end.
pub(super) trait End {
    /// What opens data messages.
    fn openers(&self) -> &[Opener];
    /// Where packets go, and what seals them.
    fn outlet(&mut self) -> Option<(SocketAddr, &mut Sealer)>;
    /// Takes what is not for the interface, leaving nothing, and does what is due.
    fn progress(&mut self, mail: &mut Mail, now: Moment);
    /// When to call [`Self::progress`] again without mail.
    fn poll_timeout(&self) -> Option<Instant>;
    /// The next datagram that is no packet.
    fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)>;
}

/// The floor's: keys and nothing else; the address may be learned.
pub(super) struct Static {
    pub(super) peer: Option<SocketAddr>,
    pub(super) sealer: Sealer,
    pub(super) openers: [Opener; 1],
}

impl End for Static {
    fn openers(&self) -> &[Opener] {
        &self.openers
    }

    fn outlet(&mut self) -> Option<(SocketAddr, &mut Sealer)> {
        self.peer.map(|peer| (peer, &mut self.sealer))
    }

    fn progress(&mut self, mail: &mut Mail, _: Moment) {
        self.peer = mail.authentic.take().or(self.peer);
        mail.datagrams.clear();
        mail.control_packets.clear();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        None
    }
}

/// A link, and who is told when it is ready.
pub(super) struct Client<F> {
    pub(super) link: Link,
    pub(super) ready: Option<F>,
}

impl<F: FnOnce()> End for Client<F> {
    fn openers(&self) -> &[Opener] {
        self.link.openers()
    }

    fn outlet(&mut self) -> Option<(SocketAddr, &mut Sealer)> {
        self.link.outlet()
    }

    fn progress(&mut self, mail: &mut Mail, now: Moment) {
        for (_, datagram) in mail.datagrams.drain(..) {
            self.link.handle_datagram(&datagram, now);
        }
        for packet in mail.control_packets.drain(..) {
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

/// Forwards for ever.
///
/// # Errors
/// The interface or the socket is gone.
pub(super) fn forward(
    device: &TunDevice,
    socket: &mut GsoSocket,
    end: &mut impl End,
) -> Result<()> {
    let (mut outbound, mut inbound) = (Outbound::new(), Inbound::new());
    let mut mail = Mail::default();
    loop {
        let now = Moment::now();
        end.progress(&mut mail, now);
        while let Some((to, datagram)) = end.poll_transmit() {
            if let Err(error) = socket.send(to, &datagram, datagram.len()) {
                tracing::debug!(%error, "sending");
            }
        }
        let more_out = outbound.forward(device, socket, end.outlet())?;
        let more_in = inbound.forward(device, socket, end.openers(), &mut mail)?;
        let is_idle = !more_out && !more_in && mail.datagrams.is_empty();
        if is_idle && mail.control_packets.is_empty() {
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

/// `poll` counts whole ones, and must not wake too early.
const MILLISECOND: Duration = Duration::from_millis(1);
