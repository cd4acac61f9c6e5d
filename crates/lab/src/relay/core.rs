//! The relay's decisions, without sockets: one datagram in, at most one datagram out.
//!
//! It answers STUN Binding, and TURN just far enough that a Firezone client keeps it as a STUN
//! server permanently: a *signed* 401 to an Allocate without nonce, a signed 486 to an
//! authenticated one, a signed 437 to requests about allocations (there are none). It refuses to
//! relay anything.
//!
//! It keeps at most [`MAX_NONCES`] nonces and counts dropped datagrams. Source: docs/protocol.md
//! 3.6, 8.0 and 12.4; RFC 8489; RFC 8656.

use super::credentials::{self, REALM};
use crate::secret::keyed;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use stun::agent::TransactionId;
use stun::attributes::{
    ATTR_FINGERPRINT, ATTR_MESSAGE_INTEGRITY, ATTR_NONCE, ATTR_REALM, ATTR_SOFTWARE, ATTR_USERNAME,
    AttrType,
};
use stun::error_code::{ErrorCode, ErrorCodeAttribute};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, METHOD_ALLOCATE, METHOD_BINDING,
    METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_REFRESH, Message, MessageClass,
    MessageType, Setter,
};
use stun::textattrs::TextAttribute;
use stun::xoraddr::XorMappedAddress;

/// Client sockets with a nonce. Beyond that the oldest loses its nonce: its owner gets one "stale
/// nonce" and continues with a new one.
pub(super) const MAX_NONCES: usize = 10_000;

/// Requests that one nonce is good for (docs/protocol.md 3.6).
const REQUESTS_PER_NONCE: u32 = 10_000;

/// Longer datagrams cannot be requests: no request of the protocol comes near an Ethernet frame.
const MAX_REQUEST_BYTES: usize = 1500;

/// Counts of datagrams, for people and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RelayCounters {
    /// Binding requests answered.
    pub(super) bindings: u64,
    /// Requests answered with 401 or 438.
    pub(super) challenged: u64,
    /// Authenticated requests answered with 486 or 437.
    pub(super) refused: u64,
    /// Dropped datagrams that are no STUN message.
    pub(super) malformed: u64,
    /// Dropped indications, responses, ChannelData and unknown methods.
    pub(super) ignored: u64,
}

/// A relay with one secret. Serves any number of sockets.
pub(super) struct RelayCore {
    secret: String,
    nonces: Nonces,
    counters: RelayCounters,
}

impl RelayCore {
    /// `secret` is shared with the portal; `seed` makes nonces unpredictable.
    pub(super) fn new(secret: String, seed: [u8; 32]) -> Self {
        Self {
            secret,
            nonces: Nonces::new(seed),
            counters: RelayCounters::default(),
        }
    }

    pub(super) fn counters(&self) -> RelayCounters {
        self.counters
    }

    /// The answer to `datagram` from `from`. It must leave from the address that received the
    /// datagram.
    pub(super) fn handle(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        unix_now: u64,
    ) -> Option<Vec<u8>> {
        if matches!(datagram.first(), Some(64..=79)) {
            self.counters.ignored += 1;
            return None;
        }
        let Some(mut request) = parse(datagram) else {
            self.counters.malformed += 1;
            return None;
        };
        if request.typ.class != CLASS_REQUEST {
            self.counters.ignored += 1;
            return None;
        }
        let method = request.typ.method;
        if method == METHOD_BINDING {
            self.counters.bindings += 1;
            return binding_success(&request, from);
        }
        let refusal = match method {
            METHOD_ALLOCATE => (486, "Allocation Quota Reached"),
            METHOD_REFRESH | METHOD_CHANNEL_BIND | METHOD_CREATE_PERMISSION => {
                (437, "Allocation Mismatch")
            }
            _ => {
                self.counters.ignored += 1;
                return None;
            }
        };
        let key = self.valid_key(&mut request, unix_now);
        let challenge = match key {
            Some(_) => self.challenge(&request, from),
            None => Some(UNAUTHORIZED),
        };
        match challenge {
            Some(error) => {
                self.counters.challenged += 1;
                let nonce = self.nonces.issue(from);
                error_response(&request, error, Some(nonce), key)
            }
            None => {
                self.counters.refused += 1;
                error_response(&request, refusal, None, key)
            }
        }
    }

    /// The error that asks for a new nonce, or `None` when the signed request has a good one.
    fn challenge(&mut self, request: &Message, from: SocketAddr) -> Option<ErrorText> {
        let nonce = text_of(request, ATTR_NONCE);
        let has_realm = text_of(request, ATTR_REALM).as_deref() == Some(REALM);
        match nonce.filter(|_| has_realm) {
            Some(nonce) if self.nonces.spend(from, &nonce) => None,
            Some(_) => Some((438, "Stale Nonce")),
            None => Some(UNAUTHORIZED),
        }
    }

    /// The key of the request, if it is signed with it. Every answer to such a request is signed
    /// too: Firezone ignores even a 401 with a wrong MESSAGE-INTEGRITY (docs/protocol.md 8.0).
    fn valid_key(&self, request: &mut Message, unix_now: u64) -> Option<MessageIntegrity> {
        let key = self.key_of(request, unix_now)?;
        key.check(request).is_ok().then_some(key)
    }

    /// The long-term key of the request's user, or `None` when the request has no valid user name
    /// or no signature.
    fn key_of(&self, request: &Message, unix_now: u64) -> Option<MessageIntegrity> {
        const INTEGRITY_BYTES: usize = 20;
        let (integrity, present) = request.attributes.get(ATTR_MESSAGE_INTEGRITY);
        if !present || integrity.value.len() != INTEGRITY_BYTES {
            return None;
        }
        let username = text_of(request, ATTR_USERNAME)?;
        let password = credentials::verify(&username, &self.secret, unix_now)?;
        Some(MessageIntegrity::new_long_term_integrity(
            username,
            REALM.to_owned(),
            password,
        ))
    }
}

/// A STUN message that fills its datagram exactly and has a valid FINGERPRINT or none.
fn parse(datagram: &[u8]) -> Option<Message> {
    if datagram.len() > MAX_REQUEST_BYTES || !stun::message::is_message(datagram) {
        return None;
    }
    let mut message = Message::new();
    message.unmarshal_binary(datagram).ok()?;
    let announced = stun::message::MESSAGE_HEADER_SIZE + usize::try_from(message.length).ok()?;
    if announced != datagram.len() {
        return None;
    }
    if message.contains(ATTR_FINGERPRINT) && FINGERPRINT.check(&message).is_err() {
        return None;
    }
    Some(message)
}

fn text_of(message: &Message, attribute: AttrType) -> Option<String> {
    let (raw, present) = message.attributes.get(attribute);
    present.then(|| String::from_utf8(raw.value).ok()).flatten()
}

fn binding_success(request: &Message, from: SocketAddr) -> Option<Vec<u8>> {
    let mut setters = header(request, CLASS_SUCCESS_RESPONSE);
    setters.push(Box::new(XorMappedAddress {
        ip: from.ip(),
        port: from.port(),
    }));
    if request.contains(ATTR_FINGERPRINT) {
        setters.push(Box::new(FINGERPRINT));
    }
    build(&setters)
}

type ErrorText = (u16, &'static str);
const UNAUTHORIZED: ErrorText = (401, "Unauthorized");

/// MESSAGE-INTEGRITY covers all before it, FINGERPRINT is last (RFC 8489, 14.5, 14.7).
fn error_response(
    request: &Message,
    (code, reason): ErrorText,
    nonce: Option<String>,
    key: Option<MessageIntegrity>,
) -> Option<Vec<u8>> {
    let mut setters = header(request, CLASS_ERROR_RESPONSE);
    setters.push(Box::new(ErrorCodeAttribute {
        code: ErrorCode(code),
        reason: reason.as_bytes().to_vec(),
    }));
    if let Some(nonce) = nonce {
        let realm = TextAttribute::new(ATTR_REALM, REALM.to_owned());
        setters.push(Box::new(realm));
        setters.push(Box::new(TextAttribute::new(ATTR_NONCE, nonce)));
    }
    if let Some(key) = key {
        setters.push(Box::new(key));
    }
    if request.contains(ATTR_FINGERPRINT) {
        setters.push(Box::new(FINGERPRINT));
    }
    build(&setters)
}

fn header(request: &Message, class: MessageClass) -> Vec<Box<dyn Setter>> {
    vec![
        Box::new(TransactionId(request.transaction_id.0)),
        Box::new(MessageType::new(request.typ.method, class)),
        Box::new(TextAttribute::new(
            ATTR_SOFTWARE,
            "postern-relay".to_owned(),
        )),
    ]
}

fn build(setters: &[Box<dyn Setter>]) -> Option<Vec<u8>> {
    let mut message = Message::new();
    message.build(setters).ok()?;
    Some(message.raw)
}

/// The nonce of each client socket; the oldest gives way when there are too many.
struct Nonces {
    seed: [u8; 32],
    issued: u64,
    by_socket: HashMap<SocketAddr, Nonce>,
    oldest_first: VecDeque<SocketAddr>,
}

struct Nonce {
    value: String,
    requests_left: u32,
}

impl Nonces {
    fn new(seed: [u8; 32]) -> Self {
        Self {
            seed,
            issued: 0,
            by_socket: HashMap::new(),
            oldest_first: VecDeque::new(),
        }
    }

    /// The socket's nonce; the same one until it is spent, so that retransmissions agree.
    fn issue(&mut self, socket: SocketAddr) -> String {
        if let Some(nonce) = self.by_socket.get(&socket)
            && nonce.requests_left > 0
        {
            return nonce.value.clone();
        }
        let value = self.fresh();
        let nonce = Nonce {
            value: value.clone(),
            requests_left: REQUESTS_PER_NONCE,
        };
        if self.by_socket.insert(socket, nonce).is_none() {
            self.oldest_first.push_back(socket);
        }
        if self.by_socket.len() > MAX_NONCES
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_socket.remove(&oldest);
        }
        value
    }

    /// Whether `value` is the nonce of the socket and not yet used up; counts this use.
    fn spend(&mut self, socket: SocketAddr, value: &str) -> bool {
        match self.by_socket.get_mut(&socket) {
            Some(nonce) if nonce.value == value && nonce.requests_left > 0 => {
                nonce.requests_left -= 1;
                true
            }
            Some(_) | None => false,
        }
    }

    fn fresh(&mut self) -> String {
        self.issued += 1;
        let random = keyed(&self.seed, &format!("nonce:{}", self.issued));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&random[..16]);
        uuid::Builder::from_random_bytes(bytes)
            .into_uuid()
            .to_string()
    }
}

#[cfg(test)]
mod tests;
