//! The DNS server for applications: UDP and TCP sockets, and limits on what waits.
//!
//! It sits on addresses that the client gives its own interface ([`IPV4`], [`IPV6`]), so that it is
//! there as long as the process is, with a portal or without, and leaves nothing behind. Packets to
//! it never enter the tunnel: the kernel delivers them to itself. Refuses to be a cache. Source:
//! docs/protocol.md 5.4 and 5.8; RFC 1035, section 4.2.

mod exchange;
mod resolver;

pub use exchange::Transport;
pub use resolver::{Asked, Resolver};

use super::names::{IPV4_SENTINELS, IPV6_SENTINELS};
use exchange::{MESSAGE_BYTES, read_message, write_message};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Where the client answers, as Firezone's clients do.
pub const IPV4: Ipv4Addr = Ipv4Addr::new(100, 100, 111, 1);
/// Where the client answers, as Firezone's clients do.
pub const IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x2021, 0x1111, 0x8000, 0x100, 0x100, 0x111, 1);
/// The port that `resolv.conf` takes for granted.
pub const PORT: u16 = 53;

/// Whether `ip` is kept for clients' DNS servers: nothing that they could ask in turn.
#[must_use]
pub fn is_sentinel(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => IPV4_SENTINELS.contains(&ip),
        IpAddr::V6(ip) => IPV6_SENTINELS.contains(&ip),
    }
}

/// The server on one address. Dropping it ends it.
pub struct Stub {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Stub {
    /// Listens on `address`, on one port for both transports.
    ///
    /// # Errors
    /// When a socket cannot be bound: the address is nobody's here, the port is taken, or binding
    /// needs CAP_NET_BIND_SERVICE.
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

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
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
        // Applications ask again.
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

/// One question after the other, until the application has no more.
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

/// Whatever ails a listening socket is not cured by asking it again at once.
async fn pause(error: &io::Error) {
    tracing::debug!(%error, "the DNS server's socket fails");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Queries over UDP that wait for an answer; further ones are dropped.
const QUERIES_MAX: usize = 256;
/// Connections; further ones are closed.
const CONNECTIONS_MAX: usize = 64;
/// A connection that is silent for so long is closed (RFC 7766, section 6.2.3, asks for seconds).
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
