//! Decides on each query from its bytes, without sockets.

use super::counters::{QueryCounts, QueryKey};
use super::mode::Mode;
use super::zone::{NAMES_MAX, NameRecords, Zone, ZoneLookup, key};
use anyhow::{Result, ensure};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The largest UDP answer, whatever size the sender announces (RFC 9715, 3.1).
const UDP_BYTES_MAX: u16 = 1232;

/// The transport of a query, which limits the length of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Answers have a limit and are marked when they were cut.
    Udp,
    /// Answers have no limit that matters here.
    Tcp,
}

/// The reaction to a query.
#[derive(Clone, Debug, PartialEq)]
pub enum Reaction {
    /// Send this immediately.
    Answer(Vec<u8>),
    /// Send this after the delay, and call [`Responder::answered`].
    Later(Vec<u8>, Duration, QueryKey),
    Swallow,
}

/// The records, the modes, and the counts of queries.
#[derive(Debug)]
pub struct Responder {
    zone: Zone,
    mode: Mode,
    /// Of the names that have a mode of their own.
    modes: BTreeMap<String, Mode>,
    counts: QueryCounts,
}

impl Responder {
    #[must_use]
    pub fn new(zone: Zone, mode: Mode) -> Self {
        Self {
            zone,
            mode,
            modes: BTreeMap::new(),
            counts: QueryCounts::default(),
        }
    }

    /// Takes a query from the wire. Swallows unreadable ones.
    pub fn handle(
        &mut self,
        bytes: &[u8],
        from: SocketAddr,
        transport: Transport,
        unix_ms: f64,
    ) -> Reaction {
        let Ok(message) = Message::from_vec(bytes) else {
            return Reaction::Swallow;
        };
        if message.metadata.message_type != MessageType::Query {
            return Reaction::Swallow;
        }
        let refuse = |code| answer(refusal(&message, code), transport);
        let [query] = &message.queries[..] else {
            return refuse(ResponseCode::FormErr);
        };
        if message.metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        let counted = QueryKey {
            name: key(&query.name.to_ascii()),
            kind: query.query_type,
            sender: (from, message.metadata.id),
        };
        self.counts.arrived(&counted, unix_ms);
        let mode = self.modes.get(&counted.name).copied().unwrap_or(self.mode);
        match mode {
            Mode::Healthy => answer(self.resolve(&message, query), transport),
            Mode::Slow(delay) => match answer(self.resolve(&message, query), transport) {
                Reaction::Answer(bytes) => {
                    self.counts.opened(&counted, false);
                    Reaction::Later(bytes, delay, counted)
                }
                other @ (Reaction::Later(..) | Reaction::Swallow) => other,
            },
            Mode::Silent => {
                self.counts.opened(&counted, true);
                Reaction::Swallow
            }
            Mode::Servfail => refuse(ResponseCode::ServFail),
            Mode::Refused => refuse(ResponseCode::Refused),
        }
    }

    /// A slow query was answered or dropped.
    pub fn answered(&mut self, query: &QueryKey) {
        self.counts.answered(query);
    }

    /// Replaces all records of a name.
    ///
    /// # Errors
    /// Those of [`Zone::set`].
    pub fn set(&mut self, records: NameRecords) -> Result<()> {
        self.zone.set(records)
    }

    /// Removes a name. Returns whether it existed.
    pub fn remove(&mut self, name: &str) -> bool {
        self.zone.remove(name)
    }

    /// Sets the mode of one name, or of all names without a mode of their own. `None` removes the
    /// mode of a name, or makes all others healthy.
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

    /// The counts since the start or the last [`Self::forget`].
    #[must_use]
    pub fn counts(&self) -> Value {
        self.counts.report()
    }

    pub fn forget(&mut self) {
        self.counts = QueryCounts::default();
    }

    fn resolve(&self, message: &Message, query: &Query) -> Message {
        let mut response = refusal(message, ResponseCode::NoError);
        match self.zone.find(&query.name, query.query_type) {
            ZoneLookup::Records(records) => response.answers = records,
            ZoneLookup::NoData => response.authorities.extend(self.zone.authority()),
            ZoneLookup::NoSuchName => {
                response.authorities.extend(self.zone.authority());
                response.metadata.response_code = ResponseCode::NXDomain;
            }
            ZoneLookup::OutsideZone => response.metadata.response_code = ResponseCode::Refused,
        }
        let refused = response.metadata.response_code == ResponseCode::Refused;
        response.metadata.authoritative = !refused;
        response
    }
}

/// A response with a code and the question only.
fn refusal(message: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(message.metadata.id, message.metadata.op_code);
    response.metadata.recursion_desired = message.metadata.recursion_desired;
    // The senders are stub resolvers, which expect a server that resolves everything.
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

/// The encoded response, cut to the limit of the transport.
fn answer(response: Message, transport: Transport) -> Reaction {
    let Ok(bytes) = response.to_vec() else {
        return Reaction::Swallow;
    };
    let limit = response.max_payload().min(UDP_BYTES_MAX);
    if transport == Transport::Tcp || bytes.len() <= usize::from(limit) {
        return Reaction::Answer(bytes);
    }
    match response.truncate().to_vec() {
        Ok(bytes) => Reaction::Answer(bytes),
        Err(_) => Reaction::Swallow,
    }
}
