//! The sockets of the name server. Holds at most [`WAITING_MAX`] slow answers and
//! [`CONNECTIONS_MAX`] connections: swallows further queries and lets further connections wait.

use super::counters::QueryKey;
use super::server::{Reaction, Responder, Transport};
use crate::clock::unix_ms;
use anyhow::Result;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

const WAITING_MAX: usize = 4096;
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may be idle (RFC 7766, 6.2.3, leaves it to the server).
const IDLE_MAX: Duration = Duration::from_secs(10);

/// The responder of all sockets, and their limits.
pub(super) struct SharedResponder {
    responder: Mutex<Responder>,
    waiting: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl SharedResponder {
    pub(super) fn new(responder: Responder) -> Self {
        Self {
            responder: Mutex::new(responder),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }

    /// The responder. Not to be held across an await.
    pub(super) fn responder(&self) -> MutexGuard<'_, Responder> {
        self.responder
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, bytes: &[u8], from: SocketAddr, transport: Transport) -> Reaction {
        self.responder().handle(bytes, from, transport, unix_ms())
    }
}

/// Answers datagrams. Returns only when the socket is broken.
pub(super) async fn datagrams(socket: UdpSocket, shared: Arc<SharedResponder>) -> Result<()> {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error about an earlier answer: the next read works.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error.into()),
        };
        match shared.handle(&buffer[..length], from, Transport::Udp) {
            Reaction::Answer(bytes) => send(&socket, &bytes, from).await,
            Reaction::Later(bytes, delay, query) => {
                let socket = Arc::clone(&socket);
                let reply = async move { send(&socket, &bytes, from).await };
                wait(&shared, delay, query, reply);
            }
            Reaction::Swallow => {}
        }
    }
}

async fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, to).await {
        tracing::debug!(%error, %to, "an answer was not sent");
    }
}

/// Replies after `delay`, unless too many wait already.
fn wait(
    shared: &Arc<SharedResponder>,
    delay: Duration,
    query: QueryKey,
    reply: impl Future<Output = ()> + Send + 'static,
) {
    let Ok(slot) = Arc::clone(&shared.waiting).try_acquire_owned() else {
        shared.responder().answered(&query);
        return;
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        shared.responder().answered(&query);
        reply.await;
        drop(slot);
    });
}

/// Accepts connections. Returns only when the socket is broken.
pub(super) async fn connections(listener: TcpListener, shared: Arc<SharedResponder>) -> Result<()> {
    loop {
        let slot = Arc::clone(&shared.connections).acquire_owned().await?;
        let (stream, from) = listener.accept().await?;
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Err(error) = converse(stream, from, &shared).await {
                tracing::debug!(%error, %from, "a connection ended early");
            }
            drop(slot);
        });
    }
}

/// Answers one query after the other, each with its length before it (RFC 1035, 4.2.2).
async fn converse(
    mut stream: TcpStream,
    from: SocketAddr,
    shared: &Arc<SharedResponder>,
) -> Result<()> {
    loop {
        let mut length = [0; 2];
        let read = tokio::time::timeout(IDLE_MAX, stream.read_exact(&mut length)).await;
        let Ok(Ok(_)) = read else {
            return Ok(());
        };
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        tokio::time::timeout(IDLE_MAX, stream.read_exact(&mut query)).await??;
        let bytes = match shared.handle(&query, from, Transport::Tcp) {
            Reaction::Answer(bytes) => bytes,
            Reaction::Later(bytes, delay, query) => {
                tokio::time::sleep(delay).await;
                shared.responder().answered(&query);
                bytes
            }
            Reaction::Swallow => continue,
        };
        let length = u16::try_from(bytes.len())?.to_be_bytes();
        stream.write_all(&[&length[..], &bytes].concat()).await?;
    }
}
