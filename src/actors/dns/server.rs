//! One name server, and the connections to it.
//!
//! Sends a query and waits; the resolver decides when to repeat it. Over UDP each query has its own
//! connected socket with a random port, so that packets of other hosts do not get in and an ICMP
//! error is noticed immediately; hickory's sockets are not connected, so this file does the IO. A
//! query is repeated on the same socket: a silent server must not cost a socket per second. TCP,
//! TLS and HTTPS share a connection until a query on it fails or stays unanswered for a while; the
//! next query opens another. An answer counts only if it repeats the query.

use crate::config::{DnsServer, DnsTransport};
use crate::shell;
use hickory_resolver::config::{ConnectionConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Header, Message, MessageType};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::proto::serialize::binary::BinDecodable as _;
use hickory_resolver::{ConnectionProvider, PoolContext, TlsConfig};
use postern_core::names::NameFailure;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, OnceCell};

/// Shared by all servers: hickory's time-outs, and the authorities that TLS trusts.
pub(super) fn context(tls: rustls::ClientConfig) -> Arc<PoolContext> {
    let mut options = ResolverOpts::default();
    options.timeout = NEVER_FIRST;
    options.max_active_requests = MAX_ACTIVE;
    Arc::new(PoolContext::new(options, TlsConfig { config: tls }))
}

pub(super) struct NameServer {
    config: DnsServer,
    /// For everything but UDP.
    stream_config: ConnectionConfig,
    context: Arc<PoolContext>,
    /// Owns the tasks that drive the connections; they end with it.
    provider: TokioRuntimeProvider,
    connection: RefCell<Rc<Connection>>,
    /// Number of answers so far.
    answers: Cell<u64>,
    /// Tries without an answer since the last answer.
    failed_tries: Cell<u32>,
    /// Whether its silence was reported.
    is_silent: Cell<bool>,
    last_error: RefCell<Option<NetError>>,
}

/// Repeats a query that waits at a server.
#[derive(Default)]
pub(super) struct Again {
    wanted: Notify,
    is_heard: Cell<bool>,
}

impl Again {
    /// Returns whether the query is repeated. If not, it needs a new try.
    pub(super) fn ask(&self) -> bool {
        if self.is_heard.get() {
            self.wanted.notify_one();
        }
        self.is_heard.get()
    }
}

type Connection = OnceCell<DnsExchange<TokioRuntimeProvider>>;

impl NameServer {
    pub(super) fn new(config: DnsServer, context: Arc<PoolContext>) -> Self {
        let mut stream_config = match &config.transport {
            // UDP falls back to TCP.
            DnsTransport::Udp | DnsTransport::Tcp => ConnectionConfig::tcp(),
            DnsTransport::Tls { name } => ConnectionConfig::tls(name.as_str().into()),
            DnsTransport::Https { name, path } => {
                ConnectionConfig::https(name.as_str().into(), Some(path.as_str().into()))
            }
        };
        stream_config.port = config.address.port();
        Self {
            config,
            stream_config,
            context,
            provider: TokioRuntimeProvider::new(),
            connection: RefCell::default(),
            answers: Cell::default(),
            failed_tries: Cell::default(),
            is_silent: Cell::default(),
            last_error: RefCell::default(),
        }
    }

    /// Sends `query`, and over UDP repeats it whenever `again` requests it. Waits without a limit
    /// if the server does not answer. A denial of the name or the records is an answer, not an
    /// error.
    pub(super) async fn ask(&self, query: &Query, again: &Again) -> Result<Message, NameFailure> {
        let attempt = Try::new(self);
        let mut outcome = self.ask_with(&request(query, true), again).await;
        if outcome.as_ref().is_ok_and(knows_no_edns) {
            outcome = self.ask_with(&request(query, false), again).await;
        }
        match outcome {
            Ok(message) => {
                attempt.succeeded();
                answered(message)
            }
            Err(error) => {
                tracing::debug!(server = %self.config, %error, "a question failed");
                let failure = classify(&error);
                attempt.failed(error);
                Err(failure)
            }
        }
    }

    async fn ask_with(&self, request: &DnsRequest, again: &Again) -> Result<Message, NetError> {
        match self.config.transport {
            DnsTransport::Udp => {
                again.is_heard.set(true);
                let whole = self.ask_by_datagram(request, again).await;
                again.is_heard.set(false);
                match whole? {
                    Some(message) => Ok(message),
                    None => self.ask_by_stream(request).await,
                }
            }
            DnsTransport::Tcp | DnsTransport::Tls { .. } | DnsTransport::Https { .. } => {
                self.ask_by_stream(request).await
            }
        }
    }

    /// Returns `None` if the answer does not fit into a datagram.
    async fn ask_by_datagram(
        &self,
        request: &Message,
        again: &Again,
    ) -> Result<Option<Message>, NetError> {
        let address = self.config.address;
        let local: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((local, 0)).await?;
        socket.connect(address).await?;
        let question = request.to_vec()?;
        socket.send(&question).await?;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            let length = tokio::select! {
                received = receive(&socket, &mut buffer) => received?,
                () = again.wanted.notified() => {
                    socket.send(&question).await?;
                    continue;
                }
            };
            let datagram = &buffer[..length];
            // A forged or late datagram must not end the wait for the true answer.
            let Some(header) = response_header(request.metadata.id, datagram) else {
                continue;
            };
            if header.truncation {
                return Ok(None);
            }
            let answer = Message::from_vec(datagram)?;
            if is_about(&request.queries, &answer) {
                return Ok(Some(answer));
            }
        }
    }

    async fn ask_by_stream(&self, request: &DnsRequest) -> Result<Message, NetError> {
        let connection = Rc::clone(&self.connection.borrow());
        let was_used = connection.initialized();
        let outcome = self.ask_over(&connection, request).await;
        // Servers may close idle connections at any time.
        if was_used && outcome.is_err() {
            let connection = Rc::clone(&self.connection.borrow());
            return self.ask_over(&connection, request).await;
        }
        outcome
    }

    async fn ask_over(
        &self,
        connection: &Rc<Connection>,
        request: &DnsRequest,
    ) -> Result<Message, NetError> {
        let mut asking = std::pin::pin!(self.exchange(connection, request));
        let outcome = match tokio::time::timeout(SUSPICIOUS, &mut asking).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.retire(connection);
                asking.await
            }
        };
        if outcome.is_err() {
            self.retire(connection);
        }
        outcome
    }

    async fn exchange(
        &self,
        connection: &Connection,
        request: &DnsRequest,
    ) -> Result<Message, NetError> {
        let connect = || async {
            let (ip, config) = (self.config.address.ip(), &self.stream_config);
            let connecting = self.provider.new_connection(ip, config, &self.context)?;
            connecting.await
        };
        let exchange = connection.get_or_try_init(connect).await?;
        let answer = loop {
            match exchange.send(request.clone()).first_answer().await {
                // Its queue of a few dozen queries is full; it drains as fast as the network
                // allows.
                Err(NetError::Busy) => tokio::time::sleep(QUEUE_IS_FULL).await,
                outcome => break outcome?.into_message(),
            }
        };
        if !is_about(&request.queries, &answer) {
            return Err(ProtoError::from("the answer is to another question").into());
        }
        Ok(answer)
    }

    /// Makes the next query open another connection. Queries on this one keep waiting.
    fn retire(&self, connection: &Rc<Connection>) {
        let mut current = self.connection.borrow_mut();
        if Rc::ptr_eq(&current, connection) {
            *current = Rc::default();
        }
    }

    /// Logs once that a server is silent; `note_answer` logs once that it answers again
    /// (docs/lessons.md 4).
    fn note_failed_try(&self) {
        let count = self.failed_tries.get().saturating_add(1);
        self.failed_tries.set(count);
        if count >= FAILED_TRIES && !self.is_silent.replace(true) {
            let error = self.last_error.take().unwrap_or(NetError::Timeout);
            tracing::warn!(server = %self.config, %error, "a name server does not answer");
        }
    }

    fn note_answer(&self) {
        self.answers.set(self.answers.get() + 1);
        self.failed_tries.set(0);
        self.last_error.take();
        if self.is_silent.replace(false) {
            tracing::info!(server = %self.config, "a name server answers again");
        }
    }
}

/// One query at a server. If it is dropped after a while, it counts as failed, unless the server
/// answered others meanwhile: some servers never answer AAAA and work otherwise.
struct Try<'a> {
    server: &'a NameServer,
    since: Instant,
    answers_before: u64,
    is_over: Cell<bool>,
}

impl<'a> Try<'a> {
    fn new(server: &'a NameServer) -> Self {
        Self {
            server,
            since: shell::now(),
            answers_before: server.answers.get(),
            is_over: Cell::new(false),
        }
    }

    fn succeeded(&self) {
        self.is_over.set(true);
        self.server.note_answer();
    }

    fn failed(&self, error: NetError) {
        self.is_over.set(true);
        self.server.last_error.replace(Some(error));
        self.server.note_failed_try();
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        let has_waited = shell::now().duration_since(self.since) >= SUSPICIOUS;
        let is_alone = self.server.answers.get() == self.answers_before;
        if !self.is_over.get() && has_waited && is_alone {
            self.server.note_failed_try();
        }
    }
}

fn request(query: &Query, use_edns: bool) -> DnsRequest {
    let mut options = DnsRequestOptions::default();
    options.use_edns = use_edns;
    DnsRequest::from_query(query.clone(), options)
}

/// A server older than EDNS must be asked without it (RFC 6891, section 7).
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the codes are the DNS's; two of them mean this"
)]
fn knows_no_edns(answer: &Message) -> bool {
    match answer.metadata.response_code {
        ResponseCode::FormErr | ResponseCode::NotImp => answer.edns.is_none(),
        _ => false,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the codes are the DNS's; all that are not answers are failures of the server"
)]
fn answered(message: Message) -> Result<Message, NameFailure> {
    match message.metadata.response_code {
        ResponseCode::NoError if is_referral(&message) => Err(NameFailure::ServerFailure),
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(message),
        _ => Err(NameFailure::ServerFailure),
    }
}

/// A server that does not recurse and refers to another has not denied the data.
fn is_referral(message: &Message) -> bool {
    let has = |kind| {
        message
            .authorities
            .iter()
            .any(|it| it.record_type() == kind)
    };
    message.answers.is_empty()
        && !message.metadata.recursion_available
        && has(RecordType::NS)
        && !has(RecordType::SOA)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the errors are many and grow; all others are failures of the network"
)]
fn classify(error: &NetError) -> NameFailure {
    match error {
        NetError::Timeout => NameFailure::Timeout,
        NetError::Dns(DnsError::ResponseCode(_)) | NetError::Proto(_) => NameFailure::ServerFailure,
        _ => NameFailure::Network,
    }
}

/// The header, if it is that of a response with this id.
fn response_header(id: u16, datagram: &[u8]) -> Option<Header> {
    let header = Header::from_bytes(datagram).ok()?;
    let is_response = header.message_type == MessageType::Response;
    (is_response && header.id == id).then_some(header)
}

/// Whether the answer is to these queries. A server that reports a failure may omit them.
fn is_about(queries: &[Query], answer: &Message) -> bool {
    let code = answer.metadata.response_code;
    let has_failed = code != ResponseCode::NoError && code != ResponseCode::NXDomain;
    answer.queries == queries || (has_failed && answer.queries.is_empty())
}

/// Reads a datagram, or the ICMP error that came instead: those do not wake readers.
async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    let would_block = || io::Error::from(io::ErrorKind::WouldBlock);
    loop {
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        let outcome = if ready.is_error() {
            let error = || Err(socket.take_error()?.unwrap_or_else(would_block));
            socket.try_io(Interest::ERROR, error)
        } else {
            socket.try_recv(buffer)
        };
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}

/// More than the 1232 bytes that we announce, for servers that send more.
const DATAGRAM_BYTES: usize = 4_096;
/// The resolver's deadline always comes first.
const NEVER_FIRST: Duration = Duration::from_secs(60);
/// All queries that can be in flight fit on one connection.
const MAX_ACTIVE: usize = 4_096;
/// A connection on which a query waits for this long may be dead.
const SUSPICIOUS: Duration = Duration::from_secs(1);
/// Two names, in both families.
const FAILED_TRIES: u32 = 4;
/// A round trip within a building.
const QUEUE_IS_FULL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn give_up(mut attempt: Try<'_>) {
        attempt.since -= SUSPICIOUS;
    }

    /// docs/lessons.md 4: a server that leaves some queries unanswered is not down.
    #[test]
    fn a_server_counts_as_silent_only_if_it_answers_nothing() {
        let tls = crate::reload::trust(None).expect("the public authorities");
        let config = "10.0.0.53".parse().expect("a server");
        let server = NameServer::new(config, context(tls));
        // No answers for AAAA, and all the others.
        for _ in 0..2 * FAILED_TRIES {
            let (v4, v6) = (Try::new(&server), Try::new(&server));
            v4.succeeded();
            give_up(v6);
        }
        assert!(!server.is_silent.get());
        for _ in 0..FAILED_TRIES {
            drop(Try::new(&server));
        }
        assert!(!server.is_silent.get(), "these were dropped immediately");
        for _ in 1..FAILED_TRIES {
            give_up(Try::new(&server));
        }
        assert!(!server.is_silent.get());
        Try::new(&server).failed(NetError::Timeout);
        assert!(server.is_silent.get());
        Try::new(&server).succeeded();
        assert!(!server.is_silent.get());
    }
}
