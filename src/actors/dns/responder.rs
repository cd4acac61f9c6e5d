//! Answers the SRV and TXT queries that clients send to the gateway's own tunnel addresses
//! (docs/protocol.md 5.8). [`super::reply`] makes the replies; this file does the IO.
//!
//! Serves only clients: any other host with a route to the gateway would have an open resolver.
//! Queries and connections are limited in total and per source: beyond that, a query gets SERVFAIL
//! immediately, and a connection is closed. Every query has its own task, so a panic in one does
//! not end the others.
//!
//! hickory-server would add a listener without these limits per source, and needs `Send` handlers;
//! the messages themselves are hickory's.

use super::reply::{self, Asked, Carrier, Received};
use super::resolver::Resolver;
use crate::shell;
use postern_core::grant::TunnelAddresses;
use postern_core::names::NameFailure;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// Listens until it is dropped.
pub(super) struct Responder {
    addresses: TunnelAddresses,
    task: JoinHandle<()>,
}

impl Responder {
    /// Listens on both addresses, over UDP and TCP, as soon as they exist and `previous` has closed
    /// its sockets.
    pub(super) fn start(
        addresses: TunnelAddresses,
        port: u16,
        service: Service,
        previous: Option<Self>,
    ) -> Self {
        let v4 = SocketAddr::new(addresses.ipv4.into(), port);
        let v6 = SocketAddr::new(addresses.ipv6.into(), port);
        let task = actix_rt::spawn(async move {
            if let Some(previous) = previous {
                previous.stop().await;
            }
            let service = Rc::new(service);
            tokio::join!(
                service.serve_udp(v4),
                service.serve_udp(v6),
                service.serve_tcp(v4),
                service.serve_tcp(v6),
            );
        });
        Self { addresses, task }
    }

    pub(super) fn addresses(&self) -> TunnelAddresses {
        self.addresses
    }

    /// Returns when the sockets are closed.
    async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Shared by the tasks of a responder.
pub(super) struct Service {
    resolver: Rc<Resolver>,
    is_client: fn(IpAddr) -> bool,
    queries: Rc<Quota>,
    connections: Rc<Quota>,
}

impl Service {
    pub(super) fn new(resolver: &Rc<Resolver>, is_client: fn(IpAddr) -> bool) -> Self {
        Self {
            resolver: Rc::clone(resolver),
            is_client,
            queries: Rc::new(Quota::new(QUERIES, QUERIES_PER_SOURCE)),
            connections: Rc::new(Quota::new(CONNECTIONS, CONNECTIONS_PER_SOURCE)),
        }
    }

    async fn serve_udp(self: &Rc<Self>, at: SocketAddr) {
        loop {
            let socket = Rc::new(bind(at, || UdpSocket::bind(at)).await);
            let mut buffer = [0; DATAGRAM_BYTES_MAX];
            // A socket error reports an undeliverable reply, or the end of the interface.
            while let Ok((length, source)) = socket.recv_from(&mut buffer).await {
                if !(self.is_client)(source.ip()) {
                    continue;
                }
                let query = buffer[..length].to_vec();
                // A query under way must not keep the address bound.
                let (service, socket) = (Rc::clone(self), Rc::downgrade(&socket));
                actix_rt::spawn(async move {
                    let reply = service.handle(&query, source.ip(), Carrier::Udp).await;
                    if let Some((bytes, socket)) = reply.zip(socket.upgrade()) {
                        let _ = socket.send_to(&bytes, source).await;
                    }
                });
            }
            tokio::time::sleep(BACKOFF_MIN).await;
        }
    }

    async fn serve_tcp(self: &Rc<Self>, at: SocketAddr) {
        loop {
            let listener = bind(at, || TcpListener::bind(at)).await;
            while let Ok((stream, source)) = listener.accept().await {
                if !(self.is_client)(source.ip()) {
                    continue;
                }
                if let Some(slot) = self.connections.take(source.ip()) {
                    let service = Rc::clone(self);
                    actix_rt::spawn(async move {
                        let conversation = service.converse(stream, source.ip());
                        let _ = tokio::time::timeout(CONVERSATION, conversation).await;
                        drop(slot);
                    });
                }
            }
            tokio::time::sleep(BACKOFF_MIN).await;
        }
    }

    /// Reads one query after another, each prefixed by its length (RFC 1035, section 4.2.2), until
    /// the client is idle or sends something that is not a query.
    async fn converse(&self, mut stream: TcpStream, source: IpAddr) -> io::Result<()> {
        loop {
            let reading = async {
                let length = stream.read_u16().await?;
                let mut bytes = vec![0; length.into()];
                stream.read_exact(&mut bytes).await?;
                Ok::<_, io::Error>(bytes)
            };
            let query = tokio::time::timeout(IDLE, reading).await??;
            let Some(bytes) = self.handle(&query, source, Carrier::Tcp).await else {
                return Ok(());
            };
            let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
            let framed = [&length.to_be_bytes(), bytes.as_slice()].concat();
            tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
        }
    }

    async fn handle(&self, query: &[u8], source: IpAddr, by: Carrier) -> Option<Vec<u8>> {
        match reply::read(query) {
            Received::Ask(asked) => Some(self.look_up(&asked, source, by).await),
            Received::Reply(bytes) => Some(bytes),
            Received::Silence => None,
        }
    }

    async fn look_up(&self, asked: &Asked, source: IpAddr, by: Carrier) -> Vec<u8> {
        let Some(_slot) = self.queries.take(source) else {
            return asked.reply(Err(NameFailure::Quota), by);
        };
        let deadline = shell::now() + LIMIT;
        let outcome = self.resolver.ask(&asked.query, deadline).await;
        asked.reply(outcome, by)
    }
}

/// Retries until it succeeds: the address appears when the interface is configured.
async fn bind<T, F: Future<Output = io::Result<T>>>(at: SocketAddr, attempt: impl Fn() -> F) -> T {
    let mut backoff = BACKOFF_MIN;
    loop {
        match attempt().await {
            Ok(socket) => return socket,
            // Logged once, when the interface should have been configured long ago.
            Err(error) if backoff == BACKOFF_MAX / 2 => {
                tracing::warn!(%at, %error, "SRV and TXT queries of clients are not answered");
            }
            Err(error) => tracing::debug!(%at, %error, "cannot listen yet"),
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Limits a number, in total and per source.
struct Quota {
    max: usize,
    max_per_source: usize,
    taken: RefCell<BTreeMap<IpAddr, usize>>,
}

/// One unit of a quota, until it is dropped.
struct Slot {
    quota: Rc<Quota>,
    source: IpAddr,
}

impl Quota {
    fn new(max: usize, max_per_source: usize) -> Self {
        Self {
            max,
            max_per_source,
            taken: RefCell::default(),
        }
    }

    fn take(self: &Rc<Self>, source: IpAddr) -> Option<Slot> {
        let mut taken = self.taken.borrow_mut();
        let of_source = taken.get(&source).copied().unwrap_or_default();
        if of_source >= self.max_per_source || taken.values().sum::<usize>() >= self.max {
            return None;
        }
        taken.insert(source, of_source + 1);
        Some(Slot {
            quota: Rc::clone(self),
            source,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.quota.taken.borrow_mut();
        if let Some(count) = taken.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.source);
            }
        }
    }
}

/// docs/protocol.md 5.8.
const LIMIT: Duration = Duration::from_secs(5);
const QUERIES: usize = 256;
const QUERIES_PER_SOURCE: usize = 16;
const CONNECTIONS: usize = 128;
const CONNECTIONS_PER_SOURCE: usize = 4;
/// RFC 7766, section 6.2.3 leaves it to the server: some seconds.
const IDLE: Duration = Duration::from_secs(10);
/// A client with more queries reconnects; the slot is needed by others.
const CONVERSATION: Duration = Duration::from_secs(60);
/// More than any query: the tunnel's MTU is 1280 bytes.
const DATAGRAM_BYTES_MAX: usize = 2_048;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// A power of two times the minimum.
const BACKOFF_MAX: Duration = Duration::from_millis(3_200);
