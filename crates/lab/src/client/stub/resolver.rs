//! What the client answers to which question.
//!
//! Addresses of a resource's names are proxy IPs; SRV and TXT are asked for at the resource's site,
//! through the tunnel; everything else about such a name does not exist; and what belongs to no
//! resource is none of our business and goes to the configured servers as it came. Refuses zone
//! transfers, updates and other curiosities. Source: docs/protocol.md 5.4 and 5.8.

use super::super::SharedRouter;
use super::super::names::Answer;
use super::super::router::Site;
use super::super::wire::ResourceId;
use super::exchange::{MESSAGE_BYTES, Transport, exchange};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// What a question means for the rest of the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// The addresses of a resource's name were given; announcements may be due.
    Answered {
        /// Lower case, without a trailing dot.
        name: String,
        /// `A` or `AAAA`.
        kind: &'static str,
    },
    /// Access to this resource is wanted.
    Access(ResourceId),
}

/// Answers questions.
pub struct Resolver {
    routes: SharedRouter,
    upstream: Vec<SocketAddr>,
    gateway_port: u16,
    events: mpsc::Sender<Asked>,
}

/// An answer, or the code that says why there is none.
type Outcome = Result<Reply, ResponseCode>;

enum Reply {
    /// Our own records.
    Records(Vec<Record>),
    /// Somebody else's answer, as it came.
    Verbatim(Vec<u8>),
}

impl Resolver {
    /// Asks `upstream`, one after the other, about names that are no resource's; none refuses them.
    #[must_use]
    pub fn new(
        routes: SharedRouter,
        upstream: Vec<SocketAddr>,
        events: mpsc::Sender<Asked>,
    ) -> Self {
        Self {
            routes,
            upstream,
            gateway_port: GATEWAY_PORT,
            events,
        }
    }

    /// Looks for gateways' DNS servers on another port.
    #[cfg(test)]
    pub(super) fn with_gateway_port(self, gateway_port: u16) -> Self {
        Self {
            gateway_port,
            ..self
        }
    }

    /// The answer to `query`; `None` when it is no question at all.
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
        let ours = match plain(question.name()) {
            Some(name) => self.decide_ours(&name, question, query, transport).await,
            None => None,
        };
        match ours {
            Some(outcome) => outcome,
            None => self.forward(query, transport).await,
        }
    }

    /// `None` when the name is no resource's.
    async fn decide_ours(
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
            let is_ours = self.routes.lock().is_resource(name);
            is_ours.then(|| Ok(Reply::Records(Vec::new())))
        }
    }

    async fn addresses(&self, name: &str, question: &Query, kind: &'static str) -> Option<Outcome> {
        let answer = self.routes.lock().handle_question(name, now())?;
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
        self.report(Asked::Answered {
            name: name.to_owned(),
            kind,
        })
        .await;
        Some(Ok(Reply::Records(data.map(record).into())))
    }

    /// The name behind a proxy IP.
    fn pointer(&self, question: &Query) -> Option<Record> {
        let net = question.name().parse_arpa_name().ok()?;
        if net.prefix_len() != net.max_prefix_len() {
            return None;
        }
        let name = self.routes.lock().name_behind(net.addr())?;
        let mut target = Name::from_ascii(name.as_ref()).ok()?;
        target.set_fqdn(true);
        let data = RData::PTR(PTR(target));
        Some(Record::from_rdata(question.name().clone(), TTL_SECS, data))
    }

    /// Asks the DNS server on a gateway that serves the name, once there is one.
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
            // From here on no grant is missed.
            granted.as_mut().enable();
            let site = self.routes.lock().handle_site_question(name, now())?;
            match site {
                Site::At(gateway) => return Some(gateway.ipv4),
                Site::Ask(resource) => self.report(Asked::Access(resource)).await,
                Site::Asked => {}
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

    async fn report(&self, asked: Asked) {
        // Only fails when the client is on its way out.
        let _ = self.events.send(asked).await;
    }
}

/// A name as resources know names. Others, with strange characters in them, are no resource's.
fn plain(name: &Name) -> Option<String> {
    let mut text = String::new();
    for label in name.iter() {
        let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'.' | b'\\');
        if !label.iter().all(is_plain) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(
            label
                .iter()
                .map(|byte| char::from(byte.to_ascii_lowercase())),
        );
    }
    (!text.is_empty()).then_some(text)
}

fn write(query: &Message, code: ResponseCode, records: Vec<Record>) -> Option<Vec<u8>> {
    let mut answer = Message::error_msg(query.metadata.id, query.metadata.op_code, code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_queries(query.queries.iter().cloned());
    answer.add_answers(records);
    if query.edns.is_some() {
        // RFC 6891, section 6.1.1: who is asked with an OPT record answers with one.
        let mut edns = Edns::new();
        edns.set_max_payload(MESSAGE_BYTES as u16);
        answer.set_edns(edns);
    }
    let written = answer.to_vec();
    if let Err(error) = &written {
        tracing::debug!(%error, "an answer cannot be written");
    }
    written.ok()
}

/// What to say to something that begins like a question and does not go on like one.
fn unreadable(query: &[u8]) -> Option<Vec<u8>> {
    let [high, low, flags, ..] = *query else {
        return None;
    };
    let id = u16::from_be_bytes([high, low]);
    let is_response = flags & 0x80 != 0;
    let answer = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
    if is_response {
        None
    } else {
        answer.to_vec().ok()
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Proxy IPs may be cached for so long: every new lookup is to make the gateway look again
/// (docs/protocol.md 5.4.
const TTL_SECS: u32 = 1;
/// Where gateways answer SRV and TXT questions (docs/protocol.md 5.8.
const GATEWAY_PORT: u16 = 53535;
/// How long a question waits for the portal.
const GRANT_TIMEOUT: Duration = Duration::from_secs(4);
