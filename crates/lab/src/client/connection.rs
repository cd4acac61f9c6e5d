//! The connection to one gateway: an ICE agent, a WireGuard session, and the task that drives both.
//!
//! [`Connection::send`] takes packets of applications; packets of the gateway pass the router's
//! check and go to the sink. The task ends when its owner drops the connection, when the gateway
//! says goodbye, or when path or handshake fail. It never retries by itself: the next packet asks
//! the portal again. Source: docs/protocol.md 3.3.1, 3.4, 3.7, 4, 5.9 and 12.

use super::clock::now;
use super::control::{self, Control};
use super::data_plane::DataPlane;
use super::ice::{self, Dialer, IceAgent, IceEvent, Path};
use super::packet::is_prohibited;
use super::vocabulary::{DomainStatus, GatewayId, IceCredentials, Key};
use super::wireguard::{BUFFER_BYTES, Identity, Opened, Sealed, Session};
use futures_util::FutureExt as _;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// The identity of a transport: a grant with equal keys keeps the connection, one with other keys
/// replaces it (docs/protocol.md 3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The gateway's WireGuard key.
    pub public_key: Key,
    pub preshared_key: Key,
    pub local_ice: IceCredentials,
    pub remote_ice: IceCredentials,
}

pub struct Opening {
    pub gateway: GatewayId,
    /// Tells events of this connection from those of one that it replaced.
    pub epoch: u32,
    pub keys: Keys,
    pub ice: ice::Settings,
}

#[derive(Debug)]
pub struct ConnectionEvent {
    pub gateway: GatewayId,
    /// The number of the connection, from [`Opening`].
    pub epoch: u32,
    pub kind: EventKind,
}

#[derive(Debug)]
pub enum EventKind {
    /// Local candidates to signal.
    Candidates(Vec<String>),
    /// ICE nominated a pair: the client's address and the gateway's.
    PathNominated(SocketAddr, SocketAddr),
    /// The WireGuard session is established.
    HandshakeCompleted,
    /// The first packet for an application arrived.
    FirstPacket,
    DomainStatus(DomainStatus),
    /// The gateway dropped its end. The connection has ended.
    Goodbye,
    /// Path or handshake failed. The connection has ended.
    Lost(&'static str),
}

enum Command {
    AddCandidates(Vec<String>),
    Refresh,
    Goodbye,
}

/// A handle to the task.
pub struct Connection {
    pub keys: Keys,
    pub epoch: u32,
    link: Arc<Link>,
    commands: mpsc::UnboundedSender<Command>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Starts looking for a path at once.
    pub fn open(
        opening: Opening,
        identity: &Identity,
        data_plane: Arc<DataPlane>,
        events: mpsc::UnboundedSender<ConnectionEvent>,
    ) -> Self {
        let (keys, epoch) = (opening.keys.clone(), opening.epoch);
        let session = Session::new(identity, keys.public_key, keys.preshared_key, epoch);
        let link = Arc::new(Link {
            session: Mutex::new(session),
            path: OnceLock::new(),
        });
        let (commands, receiver) = mpsc::unbounded_channel();
        let driver = Driver {
            opening,
            link: Arc::clone(&link),
            data_plane,
            events,
            commands: receiver,
            dialing: None,
            has_reported_handshake: false,
            has_reported_packet: false,
        };
        Self {
            keys,
            epoch,
            link,
            commands,
            task: tokio::spawn(driver.run()),
        }
    }

    /// Sends a packet, or holds it until the session is established. `scratch` has
    /// [`BUFFER_BYTES`].
    pub async fn send(&self, packet: &[u8], scratch: &mut [u8]) {
        self.link.send(packet, scratch).await;
    }

    /// Takes candidates of the gateway.
    pub fn add_candidates(&self, candidates: Vec<String>) {
        let _ = self.commands.send(Command::AddCandidates(candidates));
    }

    /// Handles a repeated grant with the same keys.
    pub fn refresh(&self) {
        let _ = self.commands.send(Command::Refresh);
    }

    /// Says goodbye to the gateway and ends.
    pub async fn leave(self) {
        let _ = self.commands.send(Command::Goodbye);
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.task).await;
    }
}

/// The state that both directions share.
struct Link {
    session: Mutex<Session>,
    path: OnceLock<Path>,
}

impl Link {
    fn session(&self) -> MutexGuard<'_, Session> {
        let session = self.session.lock();
        session.expect("sealing and opening do not panic")
    }

    async fn send(&self, packet: &[u8], scratch: &mut [u8]) {
        let sealed = self.session().seal(packet, scratch, now());
        match sealed {
            Sealed::Datagram(len) => self.transmit(&scratch[..len]).await,
            // Holding a packet may have started a handshake.
            Sealed::Held => self.flush().await,
            Sealed::Dropped => {}
        }
    }

    async fn flush(&self) {
        loop {
            let datagram = self.session().poll_transmit();
            let Some(datagram) = datagram else { return };
            self.transmit(&datagram).await;
        }
    }

    async fn transmit(&self, datagram: &[u8]) {
        let Some(path) = self.path.get() else { return };
        if let Err(error) = path.send(datagram).await {
            tracing::trace!(%error, "a datagram was not sent");
        }
    }
}

/// The task behind a connection.
struct Driver {
    opening: Opening,
    link: Arc<Link>,
    data_plane: Arc<DataPlane>,
    events: mpsc::UnboundedSender<ConnectionEvent>,
    commands: mpsc::UnboundedReceiver<Command>,
    dialing: Option<JoinHandle<anyhow::Result<Path>>>,
    has_reported_handshake: bool,
    has_reported_packet: bool,
}

/// `Break` ends the connection, with the event that says why unless its owner ends it.
type Flow = ControlFlow<Option<EventKind>>;

fn lost(reason: &'static str) -> Flow {
    ControlFlow::Break(Some(EventKind::Lost(reason)))
}

impl Driver {
    async fn run(mut self) {
        let ice = IceAgent::new(&self.opening.ice, &self.opening.keys.local_ice).await;
        let mut agent = match ice {
            Ok(agent) => agent,
            Err(error) => {
                tracing::warn!(%error, "cannot start ICE");
                return self.emit(EventKind::Lost("ICE does not start"));
            }
        };
        let end = self.drive(&mut agent).await.break_value().flatten();
        if let Some(dialing) = self.dialing.take() {
            dialing.abort();
        }
        agent.dialer().close().await;
        if let Some(end) = end {
            self.emit(end);
        }
    }

    async fn drive(&mut self, agent: &mut IceAgent) -> Flow {
        let dialer = agent.dialer();
        let mut datagram = vec![0; BUFFER_BYTES];
        let mut tick = interval(TIMER_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let started = now();
        loop {
            tokio::select! {
                received = receive(self.link.path.get(), &mut datagram) => match received {
                    Some(len) => self.handle_burst(&mut datagram, len).await?,
                    None => return lost("the path was closed"),
                },
                event = agent.next_event() => self.handle_ice(event, agent)?,
                command = self.commands.recv() => self.handle_command(command, agent).await?,
                path = dialed(&mut self.dialing) => match path {
                    Ok(path) => self.handle_path(path, &dialer).await,
                    Err(error) => {
                        tracing::warn!(%error, "ICE refuses to dial");
                        return lost("ICE refuses to dial");
                    }
                },
                _ = tick.tick() => self.handle_tick(started).await?,
            }
        }
    }

    /// Signals candidates in batches.
    fn handle_ice(&self, event: IceEvent, agent: &mut IceAgent) -> Flow {
        let mut candidates = Vec::new();
        let mut next = Some(event);
        let mut flow = ControlFlow::Continue(());
        while let Some(event) = next {
            match event {
                IceEvent::Candidate(candidate) => candidates.push(candidate),
                IceEvent::Connected => tracing::debug!("the path answers"),
                IceEvent::Disconnected => tracing::debug!("the path is silent"),
                IceEvent::Failed => flow = lost("no answer on any path"),
            }
            next = agent.try_event();
        }
        if !candidates.is_empty() {
            self.emit(EventKind::Candidates(candidates));
        }
        flow
    }

    /// Without a command, the owner has dropped the connection.
    async fn handle_command(&mut self, command: Option<Command>, agent: &IceAgent) -> Flow {
        match command {
            Some(Command::AddCandidates(new)) => self.add_candidates(&new, agent),
            Some(Command::Refresh) => {
                self.link.session().refresh(now());
                self.link.flush().await;
            }
            Some(Command::Goodbye) => {
                let mut scratch = vec![0; BUFFER_BYTES];
                self.link.send(&control::goodbye(), &mut scratch).await;
                return ControlFlow::Break(None);
            }
            None => return ControlFlow::Break(None),
        }
        ControlFlow::Continue(())
    }

    fn add_candidates(&mut self, candidates: &[String], agent: &IceAgent) {
        let mut has_usable = false;
        for candidate in candidates {
            match agent.add_remote_candidate(candidate) {
                Ok(()) => has_usable = true,
                Err(error) => tracing::debug!(candidate, %error, "skipping a candidate"),
            }
        }
        // Checks without a remote candidate only fill the log.
        if has_usable && self.is_idle() {
            let remote = self.opening.keys.remote_ice.clone();
            self.dialing = Some(tokio::spawn(agent.dialer().dial(remote)));
        }
    }

    /// Whether the search for a path has not started.
    fn is_idle(&self) -> bool {
        self.dialing.is_none() && self.link.path.get().is_none()
    }

    async fn handle_path(&mut self, path: Path, dialer: &Dialer) {
        self.dialing = None;
        if self.link.path.set(path).is_err() {
            return;
        }
        if let Some((local, remote)) = dialer.nominated() {
            self.emit(EventKind::PathNominated(local, remote));
        }
        self.link.session().handle_path_up(now());
        self.link.flush().await;
    }

    async fn handle_tick(&mut self, started: Instant) -> Flow {
        let elapsed = now().saturating_duration_since(started);
        if self.is_idle() && elapsed >= CANDIDATE_TIMEOUT {
            return lost("the gateway sent no candidates");
        }
        let is_dead = {
            let mut session = self.link.session();
            session.handle_timeout(now());
            session.is_dead(now())
        };
        self.link.flush().await;
        if is_dead {
            return lost("handshake unanswered");
        }
        ControlFlow::Continue(())
    }

    /// Handles this datagram and those queued behind it, up to a limit that lets other tasks run.
    async fn handle_burst(&mut self, datagram: &mut [u8], len: usize) -> Flow {
        let mut plain = [0; BUFFER_BYTES];
        self.handle_datagram(&datagram[..len], &mut plain)?;
        for _ in 0..BURST {
            let next = receive(self.link.path.get(), datagram).now_or_never();
            let Some(len) = next.flatten() else { break };
            self.handle_datagram(&datagram[..len], &mut plain)?;
        }
        self.link.flush().await;
        ControlFlow::Continue(())
    }

    fn handle_datagram(&mut self, datagram: &[u8], plain: &mut [u8]) -> Flow {
        let link = Arc::clone(&self.link);
        let mut session = link.session();
        let opened = session.open(datagram, plain);
        if !self.has_reported_handshake && session.is_established() {
            self.has_reported_handshake = true;
            self.emit(EventKind::HandshakeCompleted);
        }
        drop(session);
        match opened {
            Opened::Packet(packet) => return self.handle_packet(packet),
            Opened::Nothing => {}
            Opened::Invalid => self.data_plane.counters.count_invalid(),
        }
        ControlFlow::Continue(())
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Flow {
        match control::parse(packet) {
            Some(Control::Goodbye) => return ControlFlow::Break(Some(EventKind::Goodbye)),
            Some(Control::DomainStatus(status)) => self.emit(EventKind::DomainStatus(status)),
            Some(Control::Ignored(kind)) => tracing::debug!(kind, "ignoring a control packet"),
            None => self.deliver(packet),
        }
        ControlFlow::Continue(())
    }

    fn deliver(&mut self, packet: &[u8]) {
        let gateway = self.opening.gateway;
        let check = self.data_plane.router().check_inbound(gateway, packet);
        if let Err(reason) = check {
            return self.data_plane.counters.count_drop(reason);
        }
        if is_prohibited(packet) {
            self.data_plane.counters.count_prohibited();
        }
        self.data_plane.sink.deliver(packet);
        if !self.has_reported_packet {
            self.has_reported_packet = true;
            self.emit(EventKind::FirstPacket);
        }
    }

    fn emit(&self, kind: EventKind) {
        // Only fails during shutdown.
        let _ = self.events.send(ConnectionEvent {
            gateway: self.opening.gateway,
            epoch: self.opening.epoch,
            kind,
        });
    }
}

/// The next datagram's length; `None` when the path is closed; pending without a path.
async fn receive(path: Option<&Path>, datagram: &mut [u8]) -> Option<usize> {
    match path {
        Some(path) => path.recv(datagram).await.ok(),
        None => std::future::pending().await,
    }
}

/// The outcome of the dialing task; pending without one.
async fn dialed(dialing: &mut Option<JoinHandle<anyhow::Result<Path>>>) -> anyhow::Result<Path> {
    match dialing {
        // Only a panic in the library cancels the task while this future exists.
        Some(task) => task.await.unwrap_or_else(|error| Err(error.into())),
        None => std::future::pending().await,
    }
}

/// Pause between two calls of WireGuard's timers.
const TIMER_INTERVAL: Duration = Duration::from_millis(100);
/// Without a candidate for this long the connection fails, as Firezone's connections do.
const CANDIDATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Datagrams handled before other tasks get their turn.
const BURST: usize = 32;
/// Ending a connection must not delay the end of the process for longer.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
