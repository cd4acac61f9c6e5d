//! The portal's websocket: dialling, reading, writing. Does not interpret frames.
//!
//! Reading and writing do not wait for each other, and neither waits for the data path: both run on
//! the main thread (docs/lessons.md 24). Source: docs/protocol.md 1.2, 1.6 and 1.7.

use futures_util::future::select_ok;
use futures_util::stream::{self, SplitSink, SplitStream, Stream};
use futures_util::{SinkExt, StreamExt};
use postern_core::portal::{ConnectRequest, Headers, UpgradeFailure};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Response, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) enum OpenError {
    /// The portal answered the upgrade with another status.
    Refused(UpgradeFailure),
    /// No answer; the text has no names and addresses.
    Unreachable(String),
}

/// An item from a websocket; `Closed` is the last.
pub(super) enum Incoming {
    Text(Utf8Bytes),
    Binary,
    Closed(String),
}

/// Writes to the portal: a bounded queue into a writing task. Dropping it closes the websocket.
pub(super) struct Writer {
    frames: mpsc::Sender<String>,
    task: JoinHandle<()>,
}

/// Opens the websocket. The caller bounds the time that it may take.
pub(super) async fn open(request: ConnectRequest) -> Result<Socket, OpenError> {
    let unreachable = |error: &dyn std::fmt::Display| OpenError::Unreachable(error.to_string());
    // Fails only if a provider is installed already, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let upgrade = upgrade(&request).map_err(|error| unreachable(&error))?;
    let tcp = dial(&request.host, request.port)
        .await
        .map_err(|error| unreachable(&error))?;
    let limits = WebSocketConfig::default().max_frame_size(Some(MAX_FRAME_BYTES));
    match client_async_tls_with_config(upgrade, tcp, Some(limits), None).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(OpenError::Refused(failure(&response))),
        Err(error) => Err(unreachable(&error)),
    }
}

/// Resolves the name again for each attempt, so that a portal that moved is found.
async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = lookup_host((host, port)).await?;
    let tcp = race(addresses.take(MAX_ADDRESSES)).await?;
    // An acknowledgement is one small segment: Nagle's algorithm would hold it back.
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Dials all addresses at the same time; the first to answer wins. docs/lessons.md 28: a dead
/// address family must not cost a time-out.
async fn race(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let attempts: Vec<_> = addresses
        .map(|address| Box::pin(TcpStream::connect(address)))
        .collect();
    if attempts.is_empty() {
        return Err(io::Error::other("the portal's name has no address"));
    }
    match timeout(DIAL_TIMEOUT, select_ok(attempts)).await {
        Ok(first) => first.map(|(tcp, _)| tcp),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer within 5 s",
        )),
    }
}

/// The library's upgrade request with our headers.
fn upgrade(request: &ConnectRequest) -> Result<Request, Error> {
    let Headers {
        host,
        user_agent,
        authorization,
    } = &request.headers;
    let mut upgrade = request.url.as_str().into_client_request()?;
    let headers = upgrade.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_str(host)?);
    headers.insert(header::USER_AGENT, HeaderValue::from_str(user_agent)?);
    let mut authorization = HeaderValue::from_str(authorization)?;
    authorization.set_sensitive(true);
    headers.insert(HeaderName::from_static("x-authorization"), authorization);
    Ok(upgrade)
}

fn failure(response: &Response<Option<Vec<u8>>>) -> UpgradeFailure {
    let retry_after = response.headers().get(header::RETRY_AFTER);
    UpgradeFailure {
        status: response.status().as_u16(),
        body: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned(),
        retry_after: retry_after.and_then(|value| value.to_str().ok().map(str::to_owned)),
    }
}

/// Splits a websocket into its reading and its writing half.
pub(super) fn split(socket: Socket) -> (impl Stream<Item = Incoming>, Writer) {
    let (sink, source) = socket.split();
    let (frames, queue) = mpsc::channel(MAX_UNWRITTEN);
    let task = actix_rt::spawn(write(sink, queue));
    (incoming(source), Writer { frames, task })
}

impl Writer {
    /// Queues a frame; `false` if the portal has read so little that the queue is full, or if the
    /// socket is broken.
    pub(super) fn send(&self, frame: String) -> bool {
        self.frames.try_send(frame).is_ok()
    }

    /// Drains the queue and closes with code 1000; the returned task ends when that is done.
    pub(super) fn close(self) -> JoinHandle<()> {
        self.task
    }
}

fn incoming(source: SplitStream<Socket>) -> impl Stream<Item = Incoming> {
    stream::unfold(Some(source), |source| async move {
        let mut source = source?;
        let item = next(&mut source).await;
        let open = !matches!(item, Incoming::Closed(_));
        Some((item, open.then_some(source)))
    })
}

async fn next(source: &mut SplitStream<Socket>) -> Incoming {
    loop {
        match source.next().await {
            Some(Ok(Message::Text(text))) => return Incoming::Text(text),
            Some(Ok(Message::Binary(_))) => return Incoming::Binary,
            // The library has prepared the answer to a ping and sends it at the next read.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(_))) => {
                // As for a ping: the next read echoes the close frame.
                let _ = timeout(CLOSE_TIMEOUT, source.next()).await;
                return Incoming::Closed("the portal closed the websocket".to_owned());
            }
            Some(Err(error)) => return Incoming::Closed(error.to_string()),
            None => return Incoming::Closed("the websocket ended".to_owned()),
        }
    }
}

/// Writes queued frames, in as few segments as possible, and closes when the queue's sender is
/// dropped.
async fn write(mut sink: SplitSink<Socket, Message>, mut queue: mpsc::Receiver<String>) {
    while let Some(frame) = queue.recv().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            if !in_time(sink.feed(Message::text(frame))).await {
                return;
            }
            next = queue.try_recv().ok();
        }
        if !in_time(sink.flush()).await {
            return;
        }
    }
    let close = CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::default(),
    };
    let _ = timeout(CLOSE_TIMEOUT, sink.send(Message::Close(Some(close)))).await;
}

async fn in_time(writing: impl Future<Output = Result<(), Error>>) -> bool {
    matches!(timeout(WRITE_TIMEOUT, writing).await, Ok(Ok(())))
}

/// For TCP alone (docs/protocol.md 1.6).
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of the portal's name that are dialled; real names have two to eight.
const MAX_ADDRESSES: usize = 16;

/// For one write. A portal that reads nothing for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// For the close handshake, which is a courtesy.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Frames that wait to be written: as many as one turn of the event loop can produce for thousands
/// of clients.
const MAX_UNWRITTEN: usize = 8_192;

/// An `init` with the grants of all clients comes in one frame; 130 bytes a grant make room for
/// half a million.
const MAX_FRAME_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// docs/lessons.md 28: a dead address must not cost a time-out.
    #[actix::test]
    async fn a_closed_address_does_not_delay_an_open_one() {
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (open_at, closed_at) = (open.local_addr().unwrap(), closed.local_addr().unwrap());
        drop(closed);
        let tcp = race([closed_at, open_at].into_iter()).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), open_at);
    }

    #[actix::test]
    async fn a_name_without_addresses_is_an_error_and_no_panic() {
        assert!(race(std::iter::empty()).await.is_err());
    }

    #[actix::test]
    async fn nagles_algorithm_is_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(dial("127.0.0.1", port).await.unwrap().nodelay().unwrap());
    }
}
