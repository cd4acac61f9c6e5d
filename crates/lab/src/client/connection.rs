//! The connection to one gateway: an ICE agent, a WireGuard session, and the task that drives both.
//!
//! Packets of applications enter by [`Connection::send`]; packets of the gateway are checked by the
//! router and go to the sink. The task ends when the connection is dropped, when the gateway says
//! goodbye, or when path or handshake fail; it never retries by itself: the next packet asks the
//! portal again. Source: docs/protocol.md 3.3.1, 3.4, 3.7, 4, 5.9 and 12.

use super::Shared;
use super::control::{self, Control, DomainStatus};
use super::ice::{Credentials, Dialer, IceAgent, IceError, IceEvent, Path, Settings};
use super::packet::is_prohibited;
use super::wire::GatewayId;
use super::wireguard::{BUFFER_BYTES, Identity, Opened, PeerKeys, Sealed, Session};
use futures_util::FutureExt as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// Everything that tells one transport from another (docs/protocol.md 3.4: a grant with
/// equal keys keeps the connection, one with other keys replaces it.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// WireGuard.
    pub peer: PeerKeys,
    /// Our ICE credentials.
    pub local: Credentials,
    /// The gateway's ICE credentials.
    pub remote: Credentials,
}

/// What a connection starts with.
pub struct Opening {
    /// To whom.
    pub gateway: GatewayId,
    /// Tells events of this connection from those of one that it replaced.
    pub epoch: u32,
    /// With which keys.
    pub keys: Keys,
    /// How to look for a path.
    pub ice: Settings,
}

/// Something happened on a connection.
#[derive(Debug)]
pub struct ConnectionEvent {
    /// Whose connection.
    pub gateway: GatewayId,
    /// Which of its connections.
    pub epoch: u32,
    /// What.
    pub news: News,
}

/// What can happen on a connection.
#[derive(Debug)]
pub enum News {
    /// Local candidates to signal.
    Candidates(Vec<String>),
    /// ICE has a pair: our address and the gateway's.
    PathNominated(SocketAddr, SocketAddr),
    /// Packets can flow.
    HandshakeCompleted,
    /// And they do.
    FirstPacket,
    /// What the gateway makes of a name.
    DomainStatus(DomainStatus),
    /// The gateway has dropped us. The connection has ended.
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
    keys: Keys,
    epoch: u32,
    link: Arc<Link>,
    commands: mpsc::UnboundedSender<Command>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Starts looking for a path at once.
    #[must_use]
    pub fn open(
        opening: Opening,
        identity: &Identity,
        shared: Arc<Shared>,
        events: mpsc::UnboundedSender<ConnectionEvent>,
    ) -> Self {
        let link = Arc::new(Link {
            session: Mutex::new(Session::new(identity, opening.keys.peer, opening.epoch)),
            path: OnceLock::new(),
        });
        let (commands, receiver) = mpsc::unbounded_channel();
        let (keys, epoch) = (opening.keys.clone(), opening.epoch);
        let driver = Driver {
            opening,
            link: Arc::clone(&link),
            shared,
            events,
            commands: receiver,
            dialing: None,
            announced: Announced::default(),
        };
        Self {
            keys,
            epoch,
            link,
            commands,
            task: tokio::spawn(driver.run()),
        }
    }

    /// The keys that it was opened with.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The number that it was opened with.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Sends a packet, or keeps it until the session stands. `scratch` has [`BUFFER_BYTES`].
    pub async fn send(&self, packet: &[u8], scratch: &mut [u8]) {
        self.link.send(packet, scratch).await;
    }

    /// Takes candidates of the gateway.
    pub fn add_candidates(&self, candidates: Vec<String>) {
        let _ = self.commands.send(Command::AddCandidates(candidates));
    }

    /// The portal granted with the same keys again.
    pub fn refresh(&self) {
        let _ = self.commands.send(Command::Refresh);
    }

    /// Says goodbye to the gateway and ends.
    pub async fn leave(self) {
        let _ = self.commands.send(Command::Goodbye);
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.task).await;
    }
}

/// What both directions share.
struct Link {
    session: Mutex<Session>,
    path: OnceLock<Path>,
}

impl Link {
    fn session(&self) -> MutexGuard<'_, Session> {
        self.session
            .lock()
            .expect("sealing and opening do not panic")
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
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<ConnectionEvent>,
    commands: mpsc::UnboundedReceiver<Command>,
    dialing: Option<JoinHandle<Result<Path, IceError>>>,
    announced: Announced,
}

/// What was told already.
#[derive(Default)]
struct Announced {
    handshake: bool,
    first_packet: bool,
}

/// How a connection ends by itself; `None` when its owner ends it.
type End = Option<News>;

impl Driver {
    async fn run(mut self) {
        let news = match IceAgent::new(&self.opening.ice, &self.opening.keys.local).await {
            Ok(mut agent) => {
                let end = self.drive(&mut agent).await;
                if let Some(dialing) = self.dialing.take() {
                    dialing.abort();
                }
                agent.dialer().close().await;
                end
            }
            Err(error) => {
                tracing::warn!(%error, "cannot start ICE");
                Some(News::Lost("ICE does not start"))
            }
        };
        if let Some(news) = news {
            self.tell(news);
        }
    }

    async fn drive(&mut self, agent: &mut IceAgent) -> End {
        let dialer = agent.dialer();
        let mut datagram = vec![0; BUFFER_BYTES];
        let mut tick = interval(TIMER_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let started = now();
        loop {
            tokio::select! {
                received = receive(self.link.path.get(), &mut datagram) => match received {
                    Some(len) => if let Some(end) = self.take_burst(&mut datagram, len).await {
                        return Some(end);
                    },
                    None => return Some(News::Lost("the path was closed")),
                },
                event = agent.next_event() => if self.handle_ice(event, agent) {
                    return Some(News::Lost("no answer on any path"));
                },
                command = self.commands.recv() => match command {
                    Some(Command::AddCandidates(new)) => self.add_candidates(&new, agent),
                    Some(Command::Refresh) => {
                        self.link.session().refresh(now());
                        self.link.flush().await;
                    }
                    Some(Command::Goodbye) => {
                        let mut scratch = vec![0; BUFFER_BYTES];
                        self.link.send(&control::goodbye(), &mut scratch).await;
                        return None;
                    }
                    None => return None,
                },
                path = dialed(&mut self.dialing) => match path {
                    Ok(path) => self.handle_path(path, &dialer).await,
                    Err(error) => {
                        tracing::warn!(%error, "ICE refuses to dial");
                        return Some(News::Lost("ICE refuses to dial"));
                    }
                },
                _ = tick.tick() => if let Some(end) = self.handle_tick(started).await {
                    return Some(end);
                },
            }
        }
    }

    /// Signals candidates in batches. `true` when ICE has failed.
    fn handle_ice(&self, event: IceEvent, agent: &mut IceAgent) -> bool {
        let mut candidates = Vec::new();
        let mut next = Some(event);
        let mut failed = false;
        while let Some(event) = next {
            match event {
                IceEvent::Candidate(candidate) => candidates.push(candidate),
                IceEvent::Connected => tracing::debug!("the path answers"),
                IceEvent::Disconnected => tracing::debug!("the path is silent"),
                IceEvent::Failed => failed = true,
            }
            next = agent.try_event();
        }
        if !candidates.is_empty() {
            self.tell(News::Candidates(candidates));
        }
        failed
    }

    fn add_candidates(&mut self, candidates: &[String], agent: &IceAgent) {
        let mut usable = false;
        for candidate in candidates {
            match agent.add_remote_candidate(candidate) {
                Ok(()) => usable = true,
                Err(error) => tracing::debug!(candidate, %error, "skipping a candidate"),
            }
        }
        // Checks without anybody to check only fill the log.
        if usable && self.dialing.is_none() && self.link.path.get().is_none() {
            let remote = self.opening.keys.remote.clone();
            self.dialing = Some(tokio::spawn(agent.dialer().dial(remote)));
        }
    }

    async fn handle_path(&mut self, path: Path, dialer: &Dialer) {
        self.dialing = None;
        if self.link.path.set(path).is_err() {
            return;
        }
        if let Some((local, remote)) = dialer.nominated() {
            self.tell(News::PathNominated(local, remote));
        }
        self.link.session().handle_path_up(now());
        self.link.flush().await;
    }

    async fn handle_tick(&mut self, started: Instant) -> End {
        let silent = self.dialing.is_none() && self.link.path.get().is_none();
        if silent && now().saturating_duration_since(started) >= CANDIDATE_TIMEOUT {
            return Some(News::Lost("the gateway sent no candidates"));
        }
        let dead = {
            let mut session = self.link.session();
            session.handle_timeout(now());
            session.is_dead(now())
        };
        self.link.flush().await;
        dead.then_some(News::Lost("handshake unanswered"))
    }

    /// Handles the datagram at hand and those right behind it, then lets others have their turn.
    async fn take_burst(&mut self, datagram: &mut [u8], len: usize) -> End {
        let mut plain = [0; BUFFER_BYTES];
        let mut len = Some(len);
        for _ in 0..BURST {
            let Some(received) = len else { break };
            if let Some(end) = self.handle_datagram(&datagram[..received], &mut plain) {
                return Some(end);
            }
            len = receive(self.link.path.get(), datagram)
                .now_or_never()
                .flatten();
        }
        if let Some(received) = len
            && let Some(end) = self.handle_datagram(&datagram[..received], &mut plain)
        {
            return Some(end);
        }
        self.link.flush().await;
        None
    }

    fn handle_datagram(&mut self, datagram: &[u8], plain: &mut [u8]) -> End {
        let link = Arc::clone(&self.link);
        let mut session = link.session();
        let opened = session.open(datagram, plain);
        if !self.announced.handshake && session.is_established() {
            self.announced.handshake = true;
            self.tell(News::HandshakeCompleted);
        }
        drop(session);
        match opened {
            Opened::Packet(packet) => self.handle_packet(packet),
            Opened::Nothing => None,
            Opened::Invalid => {
                self.shared.counters.count_invalid();
                None
            }
        }
    }

    fn handle_packet(&mut self, packet: &[u8]) -> End {
        match control::parse(packet) {
            Some(Control::Goodbye) => return Some(News::Goodbye),
            Some(Control::DomainStatus(status)) => {
                self.tell(News::DomainStatus(status));
                return None;
            }
            Some(Control::Ignored(kind)) => {
                tracing::debug!(kind, "ignoring a control packet");
                return None;
            }
            None => {}
        }
        let check = self
            .shared
            .router()
            .check_inbound(self.opening.gateway, packet);
        if let Err(reason) = check {
            self.shared.counters.count_drop(reason);
            return None;
        }
        if is_prohibited(packet) {
            self.shared.counters.count_prohibited();
        }
        self.shared.sink.deliver(packet);
        if !self.announced.first_packet {
            self.announced.first_packet = true;
            self.tell(News::FirstPacket);
        }
        None
    }

    fn tell(&self, news: News) {
        // Only fails when the client is on its way out.
        let _ = self.events.send(ConnectionEvent {
            gateway: self.opening.gateway,
            epoch: self.opening.epoch,
            news,
        });
    }
}

/// The next datagram's length; `None` when the path is closed; pending while there is no path.
async fn receive(path: Option<&Path>, datagram: &mut [u8]) -> Option<usize> {
    match path {
        Some(path) => path.recv(datagram).await.ok(),
        None => std::future::pending().await,
    }
}

/// The path once it stands; pending while nobody dials.
async fn dialed(
    dialing: &mut Option<JoinHandle<Result<Path, IceError>>>,
) -> Result<Path, IceError> {
    match dialing {
        Some(task) => match task.await {
            Ok(result) => result,
            // The task is only aborted after this future is gone, so this is a panic in the
            // library.
            Err(_) => Err(IceError::Candidate("the dialing task died")),
        },
        None => std::future::pending().await,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// How often WireGuard's timers are looked at.
const TIMER_INTERVAL: Duration = Duration::from_millis(100);
/// As Firezone's connections: no candidate for so long is a failure.
const CANDIDATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Datagrams handled before other tasks get their turn.
const BURST: usize = 32;
/// Ending a connection must not hold up the process.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
