//! The client's answers to DNS queries.
//!
//! Answers A and AAAA of a resource's name with proxy IPs; forwards SRV and TXT to the resource's
//! site, through the tunnel; answers other types of such a name with no records. Forwards a query
//! for any other name unchanged to the configured servers. Refuses zone transfers, updates and
//! other rare operations. Source: docs/protocol.md 5.4 and 5.8.

use super::super::clock::now;
use super::super::data_plane::SharedRouter;
use super::super::names::Answer;
use super::super::router::SiteServer;
use super::super::vocabulary::ResourceId;
use super::exchange::{MESSAGE_BYTES, Transport, exchange};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// An event for the application loop.
#[derive(Debug, PartialEq, Eq)]
pub enum StubEvent {
    /// The stub answered with proxy IPs; announcements may be due.
    Answered {
        /// Lower case, without a trailing dot.
        name: String,
        /// The query type, `A` or `AAAA`.
        kind: &'static str,
    },
    /// A query for the site needs access to this resource.
    AccessWanted(ResourceId),
}

pub struct Resolver {
    routes: SharedRouter,
    upstream: Vec<SocketAddr>,
    /// The port of the DNS servers on gateways; tests use another.
    pub(super) gateway_port: u16,
    events: mpsc::Sender<StubEvent>,
}

type Outcome = Result<Reply, ResponseCode>;

enum Reply {
    Records(Vec<Record>),
    /// The unchanged answer of another server.
    Verbatim(Vec<u8>),
}

impl Resolver {
    /// Forwards queries for names outside all resources to `upstream`, in this order; refuses them
    /// when it is empty.
    pub fn new(
        routes: SharedRouter,
        upstream: Vec<SocketAddr>,
        events: mpsc::Sender<StubEvent>,
    ) -> Self {
        Self {
            routes,
            upstream,
            gateway_port: GATEWAY_PORT,
            events,
        }
    }

    /// The answer to `query`; `None` for bytes that are no query.
    pub async fn answer(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let Ok(message) = Message::from_vec(query) else {
            return unreadable(query);
        };
        if message.metadata.message_type != MessageType::Query {
            return None;
        }
        match self.decide(&message, query, transport).await {
            Ok(Reply::Verbatim(answer)) => Some(answer),
            Ok(Reply::Records(records)) => write(&message, ResponseCode::NoError, records),
            Err(code) => write(&message, code, Vec::new()),
        }
    }

    async fn decide(&self, message: &Message, query: &[u8], transport: Transport) -> Outcome {
        if message.metadata.op_code != OpCode::Query {
            return Err(ResponseCode::NotImp);
        }
        let [question] = message.queries.as_slice() else {
            return Err(ResponseCode::FormErr);
        };
        if question.query_class() != DNSClass::IN {
            return Err(ResponseCode::Refused);
        }
        let outcome = match plain(question.name()) {
            Some(name) => {
                self.decide_resource(&name, question, query, transport)
                    .await
            }
            None => None,
        };
        match outcome {
            Some(outcome) => outcome,
            None => self.forward(query, transport).await,
        }
    }

    /// `None` when the name belongs to no resource.
    async fn decide_resource(
        &self,
        name: &str,
        question: &Query,
        query: &[u8],
        transport: Transport,
    ) -> Option<Outcome> {
        let kind = question.query_type();
        if kind == RecordType::A {
            self.addresses(name, question, "A").await
        } else if kind == RecordType::AAAA {
            self.addresses(name, question, "AAAA").await
        } else if matches!(kind, RecordType::SRV | RecordType::TXT) {
            self.ask_site(name, query, transport).await
        } else if kind == RecordType::PTR
            && let Some(record) = self.pointer(question)
        {
            Some(Ok(Reply::Records(vec![record])))
        } else {
            let resources = self.routes.lock().names.resources_of(name);
            (!resources.is_empty()).then(|| Ok(Reply::Records(Vec::new())))
        }
    }

    async fn addresses(&self, name: &str, question: &Query, kind: &'static str) -> Option<Outcome> {
        let answer = self.routes.lock().names.handle_question(name, now())?;
        let Answer::ProxyIps(ips) = answer else {
            tracing::warn!("too many names of resources were asked for");
            return Some(Err(ResponseCode::ServFail));
        };
        let data: [RData; 4] = if question.query_type() == RecordType::A {
            ips.ipv4.map(|ip| RData::A(A(ip)))
        } else {
            ips.ipv6.map(|ip| RData::AAAA(AAAA(ip)))
        };
        let record = |data| Record::from_rdata(question.name().clone(), TTL_SECS, data);
        self.report(StubEvent::Answered {
            name: name.to_owned(),
            kind,
        })
        .await;
        Some(Ok(Reply::Records(data.map(record).into())))
    }

    /// The PTR record with the name of a proxy IP.
    fn pointer(&self, question: &Query) -> Option<Record> {
        let net = question.name().parse_arpa_name().ok()?;
        if net.prefix_len() != net.max_prefix_len() {
            return None;
        }
        let router = self.routes.lock();
        let (name, _) = router.names.behind(net.addr())?;
        let mut target = Name::from_ascii(name.as_ref()).ok()?;
        target.set_fqdn(true);
        let data = RData::PTR(PTR(target));
        Some(Record::from_rdata(question.name().clone(), TTL_SECS, data))
    }

    /// Forwards the query to the DNS server on a gateway that serves the name, after its grant.
    async fn ask_site(&self, name: &str, query: &[u8], transport: Transport) -> Option<Outcome> {
        let gateway = match timeout(GRANT_TIMEOUT, self.gateway_for(name)).await {
            Ok(gateway) => gateway?,
            Err(_) => return Some(Err(ResponseCode::ServFail)),
        };
        let server = (gateway, self.gateway_port).into();
        let answer = exchange(query, server, transport).await;
        Some(answer.map(Reply::Verbatim).map_err(|error| {
            tracing::debug!(%gateway, %error, "the gateway's DNS server does not answer");
            ResponseCode::ServFail
        }))
    }

    async fn gateway_for(&self, name: &str) -> Option<Ipv4Addr> {
        loop {
            let mut granted = std::pin::pin!(self.routes.granted.notified());
            // From here on the task misses no grant.
            granted.as_mut().enable();
            let site = self.routes.lock().handle_site_question(name, now())?;
            match site {
                SiteServer::At(gateway) => return Some(gateway.ipv4),
                SiteServer::RequestAccess(resource) => {
                    self.report(StubEvent::AccessWanted(resource)).await;
                }
                SiteServer::Requested => {}
            }
            granted.await;
        }
    }

    async fn forward(&self, query: &[u8], transport: Transport) -> Outcome {
        for server in &self.upstream {
            match exchange(query, *server, transport).await {
                Ok(answer) => return Ok(Reply::Verbatim(answer)),
                Err(error) => tracing::debug!(%server, %error, "an upstream does not answer"),
            }
        }
        if self.upstream.is_empty() {
            Err(ResponseCode::Refused)
        } else {
            Err(ResponseCode::ServFail)
        }
    }

    async fn report(&self, event: StubEvent) {
        // Only fails during shutdown.
        let _ = self.events.send(event).await;
    }
}

/// The name in the form of resources' patterns. Names with other characters belong to no resource.
fn plain(name: &Name) -> Option<String> {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'.' | b'\\');
    let plain = |label: &[u8]| {
        let text = String::from_utf8_lossy(label);
        label
            .iter()
            .all(is_plain)
            .then(|| text.to_ascii_lowercase())
    };
    let labels: Option<Vec<String>> = name.iter().map(plain).collect();
    labels
        .map(|labels| labels.join("."))
        .filter(|name| !name.is_empty())
}

fn write(query: &Message, code: ResponseCode, records: Vec<Record>) -> Option<Vec<u8>> {
    let mut answer = Message::error_msg(query.metadata.id, query.metadata.op_code, code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_queries(query.queries.iter().cloned());
    answer.add_answers(records);
    if query.edns.is_some() {
        // RFC 6891, 6.1.1: the answer to a query with an OPT record has one.
        let mut edns = Edns::new();
        edns.set_max_payload(MESSAGE_BYTES as u16);
        answer.set_edns(edns);
    }
    let written = answer.to_vec();
    written
        .inspect_err(|error| tracing::debug!(%error, "an answer cannot be written"))
        .ok()
}

/// The answer to bytes that begin like a query but are malformed.
fn unreadable(query: &[u8]) -> Option<Vec<u8>> {
    let [high, low, flags, ..] = *query else {
        return None;
    };
    let is_response = flags & 0x80 != 0;
    let id = u16::from_be_bytes([high, low]);
    let answer = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    answer.to_vec().ok().filter(|_| !is_response)
}

/// Short, because every new lookup must make the gateway resolve the name again
/// (docs/protocol.md 5.4).
const TTL_SECS: u32 = 1;
/// The port on which gateways answer SRV and TXT queries (docs/protocol.md 5.8).
const GATEWAY_PORT: u16 = 53535;
/// Longest wait of a query for a grant.
const GRANT_TIMEOUT: Duration = Duration::from_secs(4);
