//! The sockets around the hub: websockets in, frames out, deadlines kept.
//!
//! Decides nothing. One task for each connection reads and writes. Every call of the hub hands out
//! its outputs under the same lock, so that the order of the hub's decisions is the order on every
//! wire. A peer that does not read is cut off when too many frames wait for it.

use super::hub::{Hub, Output, PeerId, Refusal, Session, Ticket, Upgrade};
use crate::clock::ClockReading;
use futures_util::{SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{
    ErrorResponse, Request, Response as UpgradeResponse,
};
use tokio_tungstenite::tungstenite::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use tokio_tungstenite::tungstenite::http::header::{HeaderValue, RETRY_AFTER, USER_AGENT};
use tokio_tungstenite::tungstenite::http::{Response, StatusCode};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tracing::{debug, warn};

/// A connection without input for this time is closed (docs/protocol.md 1.6).
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(37);
/// Frames that may wait for one peer.
const QUEUED_FRAMES: usize = 1024;
/// For the whole HTTP upgrade.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(15);
/// For one frame to be taken by the peer's kernel.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest message of the protocol, a batch of candidates, has a few kilobytes.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// Pause after a failed accept, when the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The hub and the connections of its peers.
pub(super) struct PortalServer {
    inner: Mutex<Inner>,
    /// Signals that the hub's next deadline may have moved.
    deadline_moved: Notify,
    /// Signals that grants have changed and are to be saved.
    pub(super) grants_changed: Notify,
    /// Set once, when the portal stops.
    pub(super) stopping: watch::Sender<bool>,
}

struct Inner {
    hub: Hub,
    peers: BTreeMap<PeerId, mpsc::Sender<Outgoing>>,
    tickets: BTreeMap<Ticket, oneshot::Sender<Result<u64, String>>>,
}

/// A command to a connection's task.
enum Outgoing {
    Text { text: String, grant: Option<String> },
    Close(&'static str),
}

impl PortalServer {
    /// A server without connections.
    pub(super) fn new(hub: Hub) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                hub,
                peers: BTreeMap::new(),
                tickets: BTreeMap::new(),
            }),
            deadline_moved: Notify::new(),
            grants_changed: Notify::new(),
            stopping: watch::Sender::new(false),
        })
    }

    /// Calls the hub and executes its outputs.
    pub(super) fn with_hub<R>(&self, call: impl FnOnce(&mut Hub) -> R) -> R {
        self.with(|inner| call(&mut inner.hub))
    }

    /// As [`Self::with_hub`], for a call that returns a ticket: also returns the receiver of its
    /// result.
    pub(super) fn with_ticket<T, E>(
        &self,
        call: impl FnOnce(&mut Hub) -> Result<T, E>,
        ticket_of: impl FnOnce(&T) -> Option<Ticket>,
    ) -> Result<(T, oneshot::Receiver<Result<u64, String>>), E> {
        self.with(|inner| {
            let value = call(&mut inner.hub)?;
            let (settle, settled) = oneshot::channel();
            if let Some(ticket) = ticket_of(&value) {
                inner.tickets.insert(ticket, settle);
            }
            Ok((value, settled))
        })
    }

    fn with<R>(&self, call: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.lock();
        let result = call(&mut inner);
        inner.hand_out();
        if inner.hub.take_grants_changed() {
            self.grants_changed.notify_one();
        }
        drop(inner);
        self.deadline_moved.notify_one();
        result
    }

    /// A panic elsewhere leaves the hub between two decisions at worst; going on is better than
    /// taking every connection down with it.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, session: Session) -> (PeerId, mpsc::Receiver<Outgoing>) {
        let (sender, receiver) = mpsc::channel(QUEUED_FRAMES);
        let peer = self.with(|inner| {
            let peer = inner.hub.handle_connected(session);
            inner.peers.insert(peer, sender);
            peer
        });
        (peer, receiver)
    }

    fn disconnect(&self, peer: PeerId) {
        self.with(|inner| {
            inner.peers.remove(&peer);
            inner.hub.handle_disconnected(peer);
        });
    }
}

impl Inner {
    fn hand_out(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Send { peer, text, grant } => {
                    self.queue(peer, Outgoing::Text { text, grant });
                }
                Output::Close { peer, reason } => {
                    self.queue(peer, Outgoing::Close(reason));
                    self.peers.remove(&peer);
                }
                Output::Settled { ticket, result } => {
                    if let Some(settle) = self.tickets.remove(&ticket) {
                        // The other end of the control connection may be closed.
                        let _ = settle.send(result);
                    }
                }
            }
        }
    }

    /// Dropping the sender ends the connection's task after what is queued already.
    fn queue(&mut self, peer: PeerId, outgoing: Outgoing) {
        let Some(sender) = self.peers.get(&peer) else {
            return;
        };
        if sender.try_send(outgoing).is_err() {
            warn!(connection = peer.0, "does not read its frames; cut off");
            self.peers.remove(&peer);
        }
    }
}

/// Keeps the hub's deadlines. Never returns.
pub(super) async fn keep_time(server: Arc<PortalServer>) {
    loop {
        let deadline = server.lock().hub.poll_timeout();
        let moved = server.deadline_moved.notified();
        let Some(deadline) = deadline else {
            moved.await;
            continue;
        };
        tokio::select! {
            () = moved => {}
            () = tokio::time::sleep_until(Instant::from_std(deadline)) => {
                server.with_hub(|hub| hub.handle_timeout(ClockReading::now()));
            }
        }
    }
}

/// Listens on exactly `address`: `[::]` does not take 0.0.0.0 with it, so that both may be listed.
///
/// # Errors
/// When the address is taken or belongs to another host.
pub(super) fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    /// Connections that the kernel completes before they are accepted.
    const BACKLOG: i32 = 256;
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restarted portal must not wait for the old connections' TIME-WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the portal stops.
pub(super) async fn listen(listener: TcpListener, server: Arc<PortalServer>) {
    let mut stopping = server.stopping.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stopping) => return,
        };
        match accepted {
            Ok((stream, from)) => {
                tokio::spawn(serve(stream, from, Arc::clone(&server)));
            }
            Err(error) => {
                warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the portal is gone altogether.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn serve(stream: TcpStream, from: SocketAddr, server: Arc<PortalServer>) {
    // Set-up times are measured in microseconds here; Nagle's algorithm would add milliseconds.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%from, %error, "TCP_NODELAY");
    }
    let upgraded = tokio::time::timeout(UPGRADE_TIMEOUT, upgrade(stream, from, &server)).await;
    let (socket, session) = match upgraded {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => {
            debug!(%from, %error, "not upgraded");
            return;
        }
        Err(_) => {
            debug!(%from, "upgrade timed out");
            return;
        }
    };
    let (peer, outgoing) = server.connect(session);
    if let Err(error) = converse(socket, peer, outgoing, &server).await {
        debug!(connection = peer.0, %error, "connection failed");
    }
    server.disconnect(peer);
}

async fn upgrade(
    stream: TcpStream,
    from: SocketAddr,
    server: &PortalServer,
) -> Result<(WebSocketStream<TcpStream>, Session), WsError> {
    let mut session = None;
    #[expect(
        clippy::result_large_err,
        reason = "the signature is the websocket library's"
    )]
    let decide =
        |request: &Request, response: UpgradeResponse| match authorize(request, from, server) {
            Ok(admitted) => {
                session = Some(admitted);
                Ok(response)
            }
            Err(refusal) => Err(problem(&refusal)),
        };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let socket =
        tokio_tungstenite::accept_hdr_async_with_config(stream, decide, Some(config)).await?;
    match session {
        Some(session) => Ok((socket, session)),
        None => Err(WsError::ConnectionClosed),
    }
}

fn authorize(
    request: &Request,
    from: SocketAddr,
    server: &PortalServer,
) -> Result<Session, Refusal> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.and_then(|value| value.to_str().ok())
    };
    let upgrade = Upgrade {
        path: request.uri().path(),
        query: request.uri().query().unwrap_or_default(),
        authorization: header("x-authorization"),
        user_agent: header(USER_AGENT.as_str()).unwrap_or_default(),
        remote_ip: from.ip(),
    };
    let decision = server.with_hub(|hub| hub.authorize_upgrade(&upgrade));
    if let Err(refusal) = &decision {
        warn!(
            path = upgrade.path,
            code = refusal.code,
            "connection refused"
        );
    }
    decision
}

fn problem(refusal: &Refusal) -> ErrorResponse {
    let body = refusal.body();
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Some(body));
    let status = StatusCode::from_u16(refusal.status);
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/problem+json");
    headers.insert(CONTENT_TYPE, json);
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Reads and writes until either side is done. Frames that are queued before a close are written.
async fn converse(
    mut socket: WebSocketStream<TcpStream>,
    peer: PeerId,
    mut outgoing: mpsc::Receiver<Outgoing>,
    server: &PortalServer,
) -> Result<(), WsError> {
    let mut stopping = server.stopping.subscribe();
    let mut idle_at = Instant::now() + IDLE_TIMEOUT;
    loop {
        tokio::select! {
            incoming = socket.next() => {
                let now = ClockReading::now();
                idle_at = Instant::from_std(now.instant) + IDLE_TIMEOUT;
                match incoming.transpose()? {
                    Some(Message::Text(text)) => {
                        server.with_hub(|hub| hub.handle_text(peer, &text, now));
                    }
                    Some(Message::Close(_)) | None => return Ok(()),
                    Some(Message::Binary(_)) => debug!(connection = peer.0, "binary ignored"),
                    Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                }
            }
            next = outgoing.recv() => match next {
                Some(Outgoing::Text { text, grant }) => {
                    if let Some(reference) = grant {
                        let at = Instant::now().into_std();
                        server.with_hub(|hub| hub.handle_sent(&reference, at));
                    }
                    write(&mut socket, Message::text(text)).await?;
                }
                Some(Outgoing::Close(reason)) => {
                    return close(socket, CloseCode::Normal, reason).await;
                }
                None => return close(socket, CloseCode::Policy, "too slow").await,
            },
            () = stopped(&mut stopping) => {
                return close(socket, CloseCode::Away, "the portal stops").await;
            }
            () = tokio::time::sleep_until(idle_at) => {
                return close(socket, CloseCode::Normal, "idle").await;
            }
        }
    }
}

async fn write(socket: &mut WebSocketStream<TcpStream>, frame: Message) -> Result<(), WsError> {
    let written = tokio::time::timeout(WRITE_TIMEOUT, socket.send(frame)).await;
    written.unwrap_or_else(|_| {
        let slow = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Err(WsError::Io(slow))
    })
}

async fn close(
    mut socket: WebSocketStream<TcpStream>,
    code: CloseCode,
    reason: &'static str,
) -> Result<(), WsError> {
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    write(&mut socket, Message::Close(Some(frame))).await
}
