//! What becomes of a query: decided from its bytes, without sockets.

use super::counters::{Counters, Open};
use super::mode::Mode;
use super::zone::{Found, NAMES_MAX, NameRecords, Zone, key};
use anyhow::{Result, ensure};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::RecordType;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The largest UDP answer, whatever the asker claims to take (RFC 9715, section 3.1).
const UDP_BYTES_MAX: u16 = 1232;

/// How a query came, which limits how long its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Answers have a limit, and say so when they were cut.
    Udp,
    /// Answers have no limit that matters here.
    Tcp,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Send this at once.
    Answer(Vec<u8>),
    /// Send this later, and say so to [`Server::answered`].
    Later(Vec<u8>, Duration, Ticket),
    /// Nothing.
    Swallow,
}

/// A query that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    name: String,
    kind: RecordType,
    open: Open,
}

/// The records, how to behave, and what was asked.
#[derive(Debug)]
pub struct Server {
    zone: Zone,
    mode: Mode,
    modes: BTreeMap<String, Mode>,
    counters: Counters,
}

impl Server {
    /// With nothing asked yet.
    #[must_use]
    pub fn new(zone: Zone, mode: Mode) -> Self {
        Self {
            zone,
            mode,
            modes: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// Takes a query from the wire. What cannot be read is swallowed.
    pub fn handle(
        &mut self,
        bytes: &[u8],
        from: SocketAddr,
        transport: Transport,
        unix_ms: f64,
    ) -> Verdict {
        let Ok(message) = Message::from_vec(bytes) else {
            return Verdict::Swallow;
        };
        if message.metadata.message_type != MessageType::Query {
            return Verdict::Swallow;
        }
        let [query] = &message.queries[..] else {
            return answer(refusal(&message, ResponseCode::FormErr), transport);
        };
        if message.metadata.op_code != OpCode::Query {
            return answer(refusal(&message, ResponseCode::NotImp), transport);
        }
        let name = key(&query.name.to_ascii());
        let ticket = Ticket {
            name,
            kind: query.query_type,
            open: (from, message.metadata.id),
        };
        self.counters.asked(&ticket.name, ticket.kind, unix_ms);
        let mode = self.modes.get(&ticket.name).copied().unwrap_or(self.mode);
        match mode {
            Mode::Healthy => answer(self.resolve(&message, query), transport),
            Mode::Slow(delay) => match answer(self.resolve(&message, query), transport) {
                Verdict::Answer(bytes) => {
                    self.counters
                        .opened(&ticket.name, ticket.kind, ticket.open, false);
                    Verdict::Later(bytes, delay, ticket)
                }
                other @ (Verdict::Later(..) | Verdict::Swallow) => other,
            },
            Mode::Silent => {
                self.counters
                    .opened(&ticket.name, ticket.kind, ticket.open, true);
                Verdict::Swallow
            }
            Mode::Servfail => answer(refusal(&message, ResponseCode::ServFail), transport),
            Mode::Refused => answer(refusal(&message, ResponseCode::Refused), transport),
        }
    }

    /// A slow query was answered, or given up.
    pub fn answered(&mut self, ticket: &Ticket) {
        self.counters
            .answered(&ticket.name, ticket.kind, ticket.open);
    }

    /// Replaces all records of a name.
    ///
    /// # Errors
    /// Those of [`Zone::set`].
    pub fn set(&mut self, records: NameRecords) -> Result<()> {
        self.zone.set(records)
    }

    /// Takes a name out; says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.zone.remove(name)
    }

    /// Behaves differently: for one name, or for all that have no mode of their own. `None` makes a
    /// name behave like all others again, or everything healthy.
    ///
    /// # Errors
    /// Too many names have a mode of their own.
    pub fn set_mode(&mut self, name: Option<&str>, mode: Option<Mode>) -> Result<()> {
        match (name, mode) {
            (None, mode) => self.mode = mode.unwrap_or_default(),
            (Some(name), None) => drop(self.modes.remove(&key(name))),
            (Some(name), Some(mode)) => {
                let room = self.modes.len() < NAMES_MAX;
                ensure!(room, "{NAMES_MAX} names have modes already");
                self.modes.insert(key(name), mode);
            }
        }
        Ok(())
    }

    /// What was asked since the beginning or the last [`Self::forget`].
    #[must_use]
    pub fn counters(&self) -> Value {
        self.counters.told()
    }

    /// Begins to count anew.
    pub fn forget(&mut self) {
        self.counters = Counters::default();
    }

    fn resolve(&self, message: &Message, query: &Query) -> Message {
        let mut response = refusal(message, ResponseCode::NoError);
        match self.zone.find(&query.name, query.query_type) {
            Found::Records(records) => response.answers = records,
            Found::NoData => response.authorities.extend(self.zone.authority()),
            Found::NoSuchName => {
                response.authorities.extend(self.zone.authority());
                response.metadata.response_code = ResponseCode::NXDomain;
            }
            Found::NotOurs => response.metadata.response_code = ResponseCode::Refused,
        }
        let refused = response.metadata.response_code == ResponseCode::Refused;
        response.metadata.authoritative = !refused;
        response
    }
}

/// A response with nothing but the question and a code.
fn refusal(message: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(message.metadata.id, message.metadata.op_code);
    response.metadata.recursion_desired = message.metadata.recursion_desired;
    // What asks here is a stub resolver, which wants to be told that it need not ask elsewhere.
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.queries.clone_from(&message.queries);
    response.edns = message.edns.as_ref().map(|edns| {
        let mut ours = Edns::new();
        ours.set_max_payload(edns.max_payload().clamp(512, UDP_BYTES_MAX));
        ours
    });
    response
}

/// The bytes, cut to what the transport takes.
fn answer(response: Message, transport: Transport) -> Verdict {
    let Ok(bytes) = response.to_vec() else {
        return Verdict::Swallow;
    };
    let limit = response.max_payload().min(UDP_BYTES_MAX);
    if transport == Transport::Tcp || bytes.len() <= usize::from(limit) {
        return Verdict::Answer(bytes);
    }
    match response.truncate().to_vec() {
        Ok(bytes) => Verdict::Answer(bytes),
        Err(_) => Verdict::Swallow,
    }
}
