//! Answers the SRV and TXT queries that clients send to the gateway's own tunnel addresses
//! (docs/protocol.md 5.8. [`super::reply`] decides what to say; this carries it.
//!
//! Only clients are served: whoever else can route to the gateway would have a resolver there.
//! Queries and connections are bounded in all and per source: beyond that a query is answered
//! SERVFAIL at once, and a connection closed. Every query is read and looked up in a task of its
//! own, so nothing in one can end the rest.

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
    service: JoinHandle<()>,
}

impl Responder {
    /// Listens on both addresses, over UDP and TCP, as soon as they exist and `previous` has let go
    /// of its own.
    pub(super) fn start(
        addresses: TunnelAddresses,
        port: u16,
        desk: Desk,
        previous: Option<Self>,
    ) -> Self {
        let v4 = SocketAddr::new(addresses.ipv4.into(), port);
        let v6 = SocketAddr::new(addresses.ipv6.into(), port);
        let service = actix_rt::spawn(async move {
            if let Some(previous) = previous {
                previous.stop().await;
            }
            let desk = Rc::new(desk);
            tokio::join!(
                desk.serve_udp(v4),
                desk.serve_udp(v6),
                desk.serve_tcp(v4),
                desk.serve_tcp(v6),
            );
        });
        Self { addresses, service }
    }

    pub(super) fn addresses(&self) -> TunnelAddresses {
        self.addresses
    }

    /// The sockets are closed when this is done.
    async fn stop(mut self) {
        self.service.abort();
        let _ = (&mut self.service).await;
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.service.abort();
    }
}

/// Where queries are taken in.
pub(super) struct Desk {
    resolver: Rc<Resolver>,
    is_client: fn(IpAddr) -> bool,
    queries: Rc<Quota>,
    connections: Rc<Quota>,
}

impl Desk {
    /// Serves sources that are clients.
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
            // An error of the socket is about a reply that came back, or the end of the interface.
            while let Ok((length, source)) = socket.recv_from(&mut buffer).await {
                if !(self.is_client)(source.ip()) {
                    continue;
                }
                let query = buffer[..length].to_vec();
                // A query under way does not keep the address.
                let (desk, socket) = (Rc::clone(self), Rc::downgrade(&socket));
                actix_rt::spawn(async move {
                    let reply = desk.handle(&query, source.ip(), Carrier::Udp).await;
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
                    let desk = Rc::clone(self);
                    actix_rt::spawn(async move {
                        let conversation = desk.converse(stream, source.ip());
                        let _ = tokio::time::timeout(CONVERSATION, conversation).await;
                        drop(slot);
                    });
                }
            }
            tokio::time::sleep(BACKOFF_MIN).await;
        }
    }

    /// One query after the other, each behind its length (RFC 1035, section 4.2.2), until the
    /// client says nothing for a while, or something that is no query.
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

    /// The reply, if any.
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

/// Tries until it succeeds: the address appears when the interface is configured.
async fn bind<T, F: Future<Output = io::Result<T>>>(at: SocketAddr, attempt: impl Fn() -> F) -> T {
    let mut backoff = BACKOFF_MIN;
    loop {
        match attempt().await {
            Ok(socket) => return socket,
            // Said once, when it can no longer be a matter of waiting for the interface.
            Err(error) if backoff == BACKOFF_MAX / 2 => {
                tracing::warn!(%at, %error, "SRV and TXT queries of clients are not answered");
            }
            Err(error) => tracing::debug!(%at, %error, "cannot listen yet"),
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// How many at one time, in all and for one source.
struct Quota {
    max: usize,
    max_per_source: usize,
    taken: RefCell<BTreeMap<IpAddr, usize>>,
}

/// One of a quota, until it is dropped.
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
/// RFC 7766, section 6.2.3, leaves it to the server: some seconds.
const IDLE: Duration = Duration::from_secs(10);
/// Whoever has more to ask comes again; the slot is not for keeps.
const CONVERSATION: Duration = Duration::from_secs(60);
/// The tunnel's MTU is 1280 bytes; a query has less.
const DATAGRAM_BYTES_MAX: usize = 2_048;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// A power of two times the minimum.
const BACKOFF_MAX: Duration = Duration::from_millis(3_200);
