//! One name server, and the connections to it.
//!
//! Puts a question once and waits; asking again is the resolver's affair. Over UDP each question
//! has a socket of its own, with a random port, connected, so that nobody else's packets get in and
//! an ICMP error is noticed at once; hickory's sockets are not connected, so this is done here.
//! TCP, TLS and HTTPS share a connection, until a question on it fails or goes unanswered for a
//! while: then the next question opens another.

use crate::config::{DnsServer, DnsTransport};
use crate::shell;
use hickory_resolver::config::{ConnectionConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Message};
use hickory_resolver::proto::op::{MessageType, Query, ResponseCode};
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::{ConnectionProvider, PoolContext, TlsConfig};
use postern_core::names::NameFailure;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::OnceCell;

/// What all servers share: how long hickory waits, and whom TLS trusts.
pub(super) fn context(tls: rustls::ClientConfig) -> Arc<PoolContext> {
    let mut options = ResolverOpts::default();
    options.timeout = NEVER_FIRST;
    options.max_active_requests = MAX_ACTIVE;
    Arc::new(PoolContext::new(options, TlsConfig { config: tls }))
}

/// See the module's documentation.
pub(super) struct Server {
    config: DnsServer,
    /// For everything but UDP.
    stream_config: ConnectionConfig,
    context: Arc<PoolContext>,
    /// Keeps the tasks that drive the connections; they end with it.
    provider: TokioRuntimeProvider,
    connection: RefCell<Rc<Connection>>,
    /// The first question since the last answer.
    silent_since: Cell<Option<Instant>>,
    /// Whether its silence was reported.
    is_silent: Cell<bool>,
    last_error: RefCell<Option<NetError>>,
}

type Connection = OnceCell<DnsExchange<TokioRuntimeProvider>>;

impl Server {
    pub(super) fn new(config: DnsServer, context: Arc<PoolContext>) -> Self {
        let mut stream_config = match &config.transport {
            // TCP is what UDP falls back to.
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
            silent_since: Cell::default(),
            is_silent: Cell::default(),
            last_error: RefCell::default(),
        }
    }

    /// Puts `query` once. Waits for ever if nobody answers.
    ///
    /// # Errors
    ///
    /// How the server failed. That a name does not exist, or has no such records, is an answer.
    pub(super) async fn ask(&self, query: &Query) -> Result<Message, NameFailure> {
        self.note_question();
        let outcome = match self.config.transport {
            DnsTransport::Udp => self.ask_by_datagram(query).await,
            DnsTransport::Tcp | DnsTransport::Tls { .. } | DnsTransport::Https { .. } => {
                self.ask_by_stream(query).await
            }
        };
        match outcome {
            Ok(message) => {
                self.note_answer();
                answered(message)
            }
            Err(error) => {
                tracing::debug!(server = %self.config, %error, "a question failed");
                let failure = classify(&error);
                self.last_error.replace(Some(error));
                Err(failure)
            }
        }
    }

    async fn ask_by_datagram(&self, query: &Query) -> Result<Message, NetError> {
        let (request, _) = request(query).into_parts();
        let address = self.config.address;
        let local: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((local, 0)).await?;
        socket.connect(address).await?;
        socket.send(&request.to_vec()?).await?;
        let mut buffer = vec![0; DATAGRAM_BYTES];
        loop {
            let length = receive(&socket, &mut buffer).await?;
            let answer = match Message::from_vec(&buffer[..length]) {
                // Cut in the middle of a record; what is whole comes over TCP.
                Err(_) if is_marked_cut(&buffer[..length]) => {
                    return self.ask_by_stream(query).await;
                }
                read => read?,
            };
            if !is_answer_to(&request, &answer) {
                continue;
            }
            return match answer.metadata.truncation {
                true => self.ask_by_stream(query).await,
                false => Ok(answer),
            };
        }
    }

    async fn ask_by_stream(&self, query: &Query) -> Result<Message, NetError> {
        let connection = Rc::clone(&self.connection.borrow());
        let was_used = connection.initialized();
        let outcome = self.ask_over(&connection, query).await;
        // Servers close idle connections when they like.
        if was_used && outcome.is_err() {
            let connection = Rc::clone(&self.connection.borrow());
            return self.ask_over(&connection, query).await;
        }
        outcome
    }

    async fn ask_over(
        &self,
        connection: &Rc<Connection>,
        query: &Query,
    ) -> Result<Message, NetError> {
        let mut asking = std::pin::pin!(self.exchange(connection, query));
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

    async fn exchange(&self, connection: &Connection, query: &Query) -> Result<Message, NetError> {
        let connect = || async {
            let (ip, config) = (self.config.address.ip(), &self.stream_config);
            let connecting = self.provider.new_connection(ip, config, &self.context)?;
            connecting.await
        };
        let exchange = connection.get_or_try_init(connect).await?;
        loop {
            match exchange.send(request(query)).first_answer().await {
                // Its queue of a few dozen is full; it drains as fast as the network takes it.
                Err(NetError::Busy) => tokio::time::sleep(QUEUE_IS_FULL).await,
                outcome => return outcome.map(|answer| answer.into_message()),
            }
        }
    }

    /// The next question opens another connection. Questions on this one keep waiting.
    fn retire(&self, connection: &Rc<Connection>) {
        let mut current = self.connection.borrow_mut();
        if Rc::ptr_eq(&current, connection) {
            *current = Rc::default();
        }
    }

    /// Says once that a server answers nothing, and below once that it does again (lesson 4).
    fn note_question(&self) {
        let now = shell::now();
        let since = self.silent_since.get().unwrap_or(now);
        self.silent_since.set(Some(since));
        if now.duration_since(since) >= SILENCE && !self.is_silent.replace(true) {
            let error = self.last_error.take().unwrap_or(NetError::Timeout);
            tracing::warn!(server = %self.config, %error, "a name server does not answer");
        }
    }

    fn note_answer(&self) {
        self.silent_since.set(None);
        if self.is_silent.replace(false) {
            tracing::info!(server = %self.config, "a name server answers again");
        }
    }
}

fn request(query: &Query) -> DnsRequest {
    DnsRequest::from_query(query.clone(), DnsRequestOptions::default())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the codes are the DNS's; whatever is not an answer is the server's failure"
)]
fn answered(message: Message) -> Result<Message, NameFailure> {
    match message.metadata.response_code {
        ResponseCode::NoError if is_referral(&message) => Err(NameFailure::ServerFailure),
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(message),
        _ => Err(NameFailure::ServerFailure),
    }
}

/// A server that does not recurse and sends us elsewhere has not said that there is no data.
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
    reason = "the errors are many and grow; whatever is no answer is the network's fault"
)]
fn classify(error: &NetError) -> NameFailure {
    match error {
        NetError::Timeout => NameFailure::Timeout,
        NetError::Dns(DnsError::ResponseCode(_)) | NetError::Proto(_) => NameFailure::ServerFailure,
        _ => NameFailure::Network,
    }
}

/// The bit TC of the header (RFC 1035, section 4.1.1).
fn is_marked_cut(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// Whether the answer is to this request; anything else was forged, or is late. A server that
/// fails may do so without repeating the question.
fn is_answer_to(request: &Message, answer: &Message) -> bool {
    let has_failed = answer.metadata.response_code != ResponseCode::NoError;
    let is_question_ours = answer.queries == request.queries;
    answer.metadata.id == request.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && (is_question_ours || (has_failed && answer.queries.is_empty()))
}

/// Reads a datagram, or the ICMP error that came instead: readers are not woken for those.
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

/// Whom TLS trusts: the public authorities and the certificates in the file, if there is one.
///
/// # Errors
///
/// What is wrong with the file, in words that name it.
pub(super) fn trust(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        let shown = path.display();
        let wrong = |error: &dyn std::fmt::Display| {
            format!("dns.ca_file: {shown}: {error}; name a file with certificates in PEM")
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
        let mut count = 0;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
            count += 1;
        }
        if count == 0 {
            return Err(wrong(&"no certificate in it"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// More than the 1232 bytes that we say we take; nobody who sends more is punished for it.
const DATAGRAM_BYTES: usize = 4_096;
/// The resolver's deadline always comes first.
const NEVER_FIRST: Duration = Duration::from_secs(60);
/// Every question that can be in flight fits on one connection.
const MAX_ACTIVE: usize = 4_096;
/// A connection on which a question waits for this long may be dead.
const SUSPICIOUS: Duration = Duration::from_secs(1);
/// Longer than a busy server takes, shorter than the patience of whoever waits.
const SILENCE: Duration = Duration::from_secs(4);
/// One round trip in a building.
const QUEUE_IS_FULL: Duration = Duration::from_millis(5);
