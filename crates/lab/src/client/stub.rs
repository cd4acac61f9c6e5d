//! The DNS server for applications: UDP and TCP sockets, and limits on queries and connections.
//!
//! It listens on addresses of the client's own interface, so that it works as long as the process
//! runs, with a portal or without, and leaves nothing behind. Packets to it never enter the tunnel:
//! the kernel delivers them locally. It has no cache. Source: docs/protocol.md 5.4 and 5.8;
//! RFC 1035, 4.2.

mod exchange;
mod resolver;

pub use exchange::Transport;
pub use resolver::{Resolver, StubEvent};

use exchange::{MESSAGE_BYTES, read_message, write_message};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The server on one address. Dropping it closes its sockets.
pub struct Stub {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Stub {
    /// Listens on `address`, on one port for both transports.
    ///
    /// # Errors
    /// When a socket cannot be bound: the host does not have the address, the port is taken, or
    /// binding needs CAP_NET_BIND_SERVICE.
    pub async fn start(address: SocketAddr, resolver: Arc<Resolver>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let socket = UdpSocket::bind(address).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(socket, Arc::clone(&resolver)));
        tasks.spawn(serve_tcp(listener, resolver));
        Ok(Self {
            address,
            _tasks: tasks,
        })
    }
}

async fn serve_udp(socket: UdpSocket, resolver: Arc<Resolver>) {
    let (socket, permits) = (Arc::new(socket), Arc::new(Semaphore::new(QUERIES_MAX)));
    let mut buffer = [0; MESSAGE_BYTES];
    loop {
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        // Applications repeat a query without an answer.
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            continue;
        };
        let (query, socket, resolver) = (
            buffer[..len].to_vec(),
            Arc::clone(&socket),
            Arc::clone(&resolver),
        );
        tokio::spawn(async move {
            if let Some(answer) = resolver.answer(&query, Transport::Udp).await
                && let Err(error) = socket.send_to(&answer, from).await
            {
                tracing::debug!(%error, "an answer was not sent");
            }
            drop(permit);
        });
    }
}

async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            continue;
        };
        let resolver = Arc::clone(&resolver);
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &resolver).await {
                tracing::debug!(%error, "a conversation was broken off");
            }
            drop(permit);
        });
    }
}

/// Answers one query after the other until the application closes the connection.
async fn converse(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    while let Ok(query) = timeout(IDLE_TIMEOUT, read_message(&mut stream)).await {
        let Some(query) = query? else { break };
        let Some(answer) = resolver.answer(&query, Transport::Tcp).await else {
            break;
        };
        timeout(IDLE_TIMEOUT, write_message(&mut stream, &answer)).await??;
    }
    Ok(())
}

/// A failing socket would fail again at once: waits before the next attempt.
async fn pause(error: &io::Error) {
    tracing::debug!(%error, "the DNS server's socket fails");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// UDP queries that wait for an answer; the stub drops further ones.
const QUERIES_MAX: usize = 256;
/// TCP connections; the stub closes further ones.
const CONNECTIONS_MAX: usize = 64;
/// The stub closes a connection after this silence (RFC 7766, 6.2.3, requires a few seconds).
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
