//! The client's channel to the portal: connect, join, heartbeat, reconnect.
//!
//! One task owns the websocket. It reports the portal's messages and sends the client's. Without a
//! channel it keeps the client's candidates (the gateway needs them) and drops requests (the next
//! packet repeats them). The data plane does not depend on it. It stops for good only on 401, on a
//! refused join, and on `disconnect`. Source: docs/protocol.md 1.1 to 1.7.

use super::config::Token;
use super::tunnel::SOCKET_MARK;
use super::wire::generation0::Question;
use super::wire::{self, Generation, Incoming, Outgoing, Push};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request, StatusCode};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use url::Url;
use uuid::Uuid;

#[derive(Clone, Debug)]
pub struct Settings {
    /// The portal's base URL.
    pub url: Url,
    pub token: Token,
    /// Name that the portal shows.
    pub name: String,
    /// Stable identity of this client.
    pub id: String,
    pub generation: Generation,
    /// The client's WireGuard key.
    pub public_key: [u8; 32],
}

#[derive(Debug)]
pub enum PortalEvent {
    /// The portal accepted the join.
    Joined,
    Push(Push),
    /// The portal answered a question of generation 0, or refused it with a reason.
    Answered(Question, Result<Value, String>),
    /// The channel broke; the task reconnects.
    Lost(String),
    /// The portal refuses this client for good; no event follows.
    Refused(String),
}

/// A handle to the task. Dropping it, or [`PortalHandle::close`], leaves the portal.
pub struct PortalHandle {
    messages: mpsc::UnboundedSender<Outgoing>,
    task: tokio::task::JoinHandle<()>,
}

impl PortalHandle {
    /// Sends `message`, now or after the next join.
    pub fn send(&self, message: Outgoing) {
        // Only fails after a refusal, which ends the process anyway.
        let _ = self.messages.send(message);
    }

    /// Closes the websocket in order.
    pub async fn close(self) {
        drop(self.messages);
        let _ = timeout(Duration::from_secs(1), self.task).await;
    }
}

/// Starts the task, which sends its events to `events`.
pub fn spawn(settings: Settings, events: mpsc::UnboundedSender<PortalEvent>) -> PortalHandle {
    let (messages, receiver) = mpsc::unbounded_channel();
    let channel = Channel {
        settings,
        events,
        messages: receiver,
        kept: VecDeque::new(),
        failures: 0,
    };
    let task = tokio::spawn(channel.run());
    PortalHandle { messages, task }
}

struct Channel {
    settings: Settings,
    events: mpsc::UnboundedSender<PortalEvent>,
    messages: mpsc::UnboundedReceiver<Outgoing>,
    /// Candidates that wait for a channel.
    kept: VecDeque<Outgoing>,
    /// Failed connections since the last join.
    failures: u32,
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("{0}")]
    Connect(#[from] io::Error),
    #[error("{0}")]
    Websocket(#[from] Box<tungstenite::Error>),
    #[error("the portal answered HTTP {status}")]
    Http {
        status: StatusCode,
        retry_after: Option<Duration>,
    },
    #[error("{0}")]
    Lost(&'static str),
    #[error("{0}")]
    Fatal(String),
}

type Websocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Channel {
    async fn run(mut self) {
        while let Err(error) = self.session().await {
            let wait = match &error {
                SessionError::Fatal(reason) => {
                    return self.report(PortalEvent::Refused(reason.clone()));
                }
                SessionError::Http {
                    retry_after: Some(wait),
                    ..
                } => (*wait).min(LONGEST_BACKOFF),
                SessionError::Http { .. }
                | SessionError::Connect(_)
                | SessionError::Websocket(_)
                | SessionError::Lost(_) => backoff(self.failures),
            };
            self.failures = self.failures.saturating_add(1);
            self.report(PortalEvent::Lost(error.to_string()));
            if self.wait(wait).await.is_break() {
                return;
            }
        }
    }

    /// One connection, from the TCP handshake to its end. `Ok` when the client left.
    async fn session(&mut self) -> Result<(), SessionError> {
        let websocket = timeout(CONNECT_TIMEOUT, connect(&self.settings))
            .await
            .map_err(|_| SessionError::Lost("timed out while connecting"))??;
        let mut session = Session {
            websocket,
            generation: self.settings.generation,
            next_reference: 0,
            has_joined: false,
            questions: BTreeMap::new(),
            unanswered_heartbeats: 0,
        };
        session.write(Outgoing::Join).await?;
        let join_deadline = Instant::now() + JOIN_TIMEOUT;
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT_INTERVAL, HEARTBEAT_INTERVAL);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                frame = session.websocket.next() => match frame {
                    Some(frame) => self.handle_frame(&mut session, frame.map_err(Box::new)?).await?,
                    None => return Err(SessionError::Lost("the portal closed the connection")),
                },
                message = self.messages.recv() => match message {
                    None => {
                        let _ = session.websocket.close(None).await;
                        return Ok(());
                    }
                    Some(message) if session.has_joined => session.write(message).await?,
                    Some(message) => self.keep(message),
                },
                _ = heartbeat.tick() => session.write_heartbeat().await?,
                () = tokio::time::sleep_until(join_deadline), if !session.has_joined => {
                    return Err(SessionError::Lost("the join was not answered"));
                }
            }
        }
    }

    async fn handle_frame(
        &mut self,
        session: &mut Session,
        frame: Message,
    ) -> Result<(), SessionError> {
        let text = match &frame {
            Message::Text(text) => text.as_str(),
            Message::Close(_) => {
                return Err(SessionError::Lost("the portal closed the connection"));
            }
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                return Ok(());
            }
        };
        match wire::read(text) {
            Ok(Incoming::Push(Push::Disconnect(reason))) => {
                return Err(SessionError::Fatal(format!(
                    "told to disconnect: {reason}; get a new token"
                )));
            }
            Ok(Incoming::Push(push)) => self.report(PortalEvent::Push(push)),
            Ok(Incoming::Closed) => return Err(SessionError::Lost("the channel was closed")),
            Ok(Incoming::Reply { reference, outcome }) => {
                self.handle_reply(session, reference, outcome).await?;
            }
            Ok(Incoming::Ignored(event)) => tracing::debug!(event, "ignoring a frame"),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "ignoring a malformed frame");
            }
        }
        Ok(())
    }

    async fn handle_reply(
        &mut self,
        session: &mut Session,
        reference: u64,
        outcome: Result<Value, String>,
    ) -> Result<(), SessionError> {
        if let Some(question) = session.questions.remove(&reference) {
            self.report(PortalEvent::Answered(question, outcome));
            return Ok(());
        }
        let is_join = !session.has_joined && reference == JOIN_REFERENCE;
        match outcome {
            Ok(_) if is_join => {
                session.has_joined = true;
                self.failures = 0;
                self.report(PortalEvent::Joined);
                if session.generation == Generation::V2 {
                    session.write(Outgoing::Capabilities).await?;
                }
                while let Some(message) = self.kept.pop_front() {
                    session.write(message).await?;
                }
            }
            Ok(_) => session.unanswered_heartbeats = 0,
            Err(reason) if is_join => {
                let reason = format!("the join was refused: {reason}");
                return Err(SessionError::Fatal(reason));
            }
            Err(reason) if reason == "unmatched topic" => {
                return Err(SessionError::Lost("the portal has forgotten our join"));
            }
            Err(reason) => tracing::warn!(reference, reason, "the portal refused a message"),
        }
        Ok(())
    }

    /// Waits, and keeps the messages that arrive meanwhile. `Break` when the client leaves.
    async fn wait(&mut self, wait: Duration) -> ControlFlow<()> {
        let until = tokio::time::sleep(wait);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return ControlFlow::Continue(()),
                message = self.messages.recv() => match message {
                    Some(message) => self.keep(message),
                    None => return ControlFlow::Break(()),
                }
            }
        }
    }

    fn keep(&mut self, message: Outgoing) {
        if matches!(message, Outgoing::NewCandidates { .. }) {
            if self.kept.len() >= KEPT_MESSAGES {
                self.kept.pop_front();
            }
            self.kept.push_back(message);
        }
    }

    fn report(&self, event: PortalEvent) {
        // Only fails during shutdown.
        let _ = self.events.send(event);
    }
}

/// The state of one connection.
struct Session {
    websocket: Websocket,
    generation: Generation,
    /// Counts the client's messages on this connection.
    next_reference: u64,
    has_joined: bool,
    /// Unanswered questions by reference. A lost connection loses them; the next packet repeats
    /// them.
    questions: BTreeMap<u64, Question>,
    unanswered_heartbeats: u32,
}

impl Session {
    async fn write(&mut self, message: Outgoing) -> Result<(), SessionError> {
        let reference = self.next_reference;
        self.next_reference += 1;
        let text = message.write(self.generation, reference);
        let sent = self.websocket.send(Message::text(text)).await;
        sent.map_err(Box::new)?;
        if let Outgoing::Ask(question) = message {
            // The portal leaves some questions unanswered: the oldest give way.
            if self.questions.len() >= MAX_QUESTIONS {
                self.questions.pop_first();
            }
            self.questions.insert(reference, question);
        }
        Ok(())
    }

    async fn write_heartbeat(&mut self) -> Result<(), SessionError> {
        if self.unanswered_heartbeats > MAX_UNANSWERED_HEARTBEATS {
            return Err(SessionError::Lost("the portal does not answer heartbeats"));
        }
        self.unanswered_heartbeats += 1;
        self.write(Outgoing::Heartbeat).await
    }
}

async fn connect(settings: &Settings) -> Result<Websocket, SessionError> {
    let request = upgrade_request(settings)?;
    let stream = dial(&settings.url).await?;
    match client_async_tls_with_config(request, stream, None, None).await {
        Ok((websocket, _)) => Ok(websocket),
        Err(tungstenite::Error::Http(response)) => {
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED {
                return Err(SessionError::Fatal(
                    "the portal answered 401: the token is not valid".into(),
                ));
            }
            let retry_after = response.headers().get("retry-after");
            let retry_after = retry_after
                .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                .map(Duration::from_secs);
            Err(SessionError::Http {
                status,
                retry_after,
            })
        }
        Err(error) => Err(Box::new(error).into()),
    }
}

/// Connects outside the tunnel, even if the portal's address lies in a resource's network.
async fn dial(url: &Url) -> io::Result<TcpStream> {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(443);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the portal's name has no address");
    for addr in tokio::net::lookup_host((host, port)).await? {
        match timeout(TCP_TIMEOUT, dial_one(addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        }
    }
    Err(last)
}

async fn dial_one(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Err(error) = socket2::SockRef::from(&socket).set_mark(SOCKET_MARK) {
        tracing::debug!(%error, "cannot mark the portal's socket");
    }
    let stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn upgrade_request(settings: &Settings) -> Result<Request<()>, SessionError> {
    let url = websocket_url(settings);
    let mut request = url.as_str().into_client_request().map_err(Box::new)?;
    let bearer = format!("Bearer {}", settings.token.reveal());
    let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| {
        SessionError::Fatal("the token contains characters that a header cannot carry".into())
    })?;
    bearer.set_sensitive(true);
    let headers = request.headers_mut();
    headers.insert(HeaderName::from_static("x-authorization"), bearer);
    headers.insert(
        HeaderName::from_static("user-agent"),
        HeaderValue::from_static(match settings.generation {
            Generation::V0 => OLD_USER_AGENT,
            Generation::V1 | Generation::V2 => USER_AGENT,
        }),
    );
    Ok(request)
}

/// The base URL with the channel's path and the client's identity.
fn websocket_url(settings: &Settings) -> Url {
    let mut url = settings.url.clone();
    let scheme = match url.scheme() {
        "https" => "wss",
        "http" => "ws",
        other => other,
    }
    .to_owned();
    url.set_scheme(&scheme)
        .expect("from http to ws is a change between special schemes");
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push("client");
        if settings.generation == Generation::V2 {
            path.push("v2");
        }
        path.push("websocket");
    }
    url.query_pairs_mut()
        .clear()
        .append_pair("external_id", &external_id(&settings.id))
        .append_pair("name", &settings.name)
        .append_pair("public_key", &STANDARD.encode(settings.public_key));
    url
}

/// Replaces a UUID by its SHA-256; keeps any other id.
fn external_id(id: &str) -> String {
    if Uuid::parse_str(id).is_err() {
        return id.to_owned();
    }
    data_encoding::HEXLOWER.encode(&Sha256::digest(id.as_bytes()))
}

/// 0.5 s, multiplied by 1.5 after each failure up to a minute, ±50 %.
fn backoff(failures: u32) -> Duration {
    let steps = i32::try_from(failures.min(32)).unwrap_or(32);
    let seconds = (0.5 * 1.5_f64.powi(steps)).min(LONGEST_BACKOFF.as_secs_f64());
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    let jitter = 0.5 + f64::from(random) / f64::from(u32::MAX);
    Duration::from_secs_f64(seconds * jitter)
}

/// Names the component that this client plays, with a version that the portal accepts.
const USER_AGENT: &str = "Linux/6.8 headless-client/1.5.12 (x86_64; 6.8.0)";
/// The user agent of a client of generation 0.
const OLD_USER_AGENT: &str = "Linux/6.8 headless-client/1.3.7 (x86_64; 6.8.0)";
/// Covers TCP, TLS and upgrade together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Covers one address of the portal's name.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// The join is the first message on a connection.
const JOIN_REFERENCE: u64 = 0;
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);
const MAX_UNANSWERED_HEARTBEATS: u32 = 3;
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);
/// Batches of candidates kept without a channel; the oldest give way.
const KEPT_MESSAGES: usize = 32;

/// Questions that wait for an answer at the same time.
const MAX_QUESTIONS: usize = 256;

#[cfg(test)]
mod tests;
