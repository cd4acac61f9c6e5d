//! Connectivity checks of a controlling ICE agent that knows one path and wants no other.
//!
//! Source: RFC 8445, section 7; docs/protocol.md 3.3.1. Every check nominates. The gateway's
//! own checks are answered. Refuses what is not authentic.

use postern_core::portal::wire::IceCredentials;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use stun::agent::TransactionId;
use stun::attributes::{ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter};
use stun::xoraddr::XorMappedAddress;

/// The credentials of both ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IcePair {
    /// Ours.
    pub client: IceCredentials,
    /// The gateway's.
    pub gateway: IceCredentials,
}

/// What a STUN message comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// The path works, and the gateway knows it.
    Confirmed,
    /// The gateway checks; this is the answer.
    Asked(Vec<u8>),
    /// Neither.
    Nothing,
}

/// The agent.
#[derive(Debug)]
pub struct Checks {
    pair: IcePair,
    tie_breaker: u64,
    last: Option<TransactionId>,
}

impl Checks {
    /// `tie_breaker` decides nothing here, and should be random.
    #[must_use]
    pub fn new(pair: IcePair, tie_breaker: u64) -> Self {
        Self {
            pair,
            tie_breaker,
            last: None,
        }
    }

    /// A check that nominates the path. Only its answer counts from here on.
    pub fn check(&mut self) -> Option<Vec<u8>> {
        let mut request = Message::new();
        request.set_type(BINDING_REQUEST);
        request.new_transaction_id().ok()?;
        request.write_header();
        let username = format!(
            "{}:{}",
            self.pair.gateway.username, self.pair.client.username
        );
        request.add(ATTR_USERNAME, username.as_bytes());
        request.add(ATTR_PRIORITY, &PEER_REFLEXIVE_PRIORITY.to_be_bytes());
        request.add(ATTR_ICE_CONTROLLING, &self.tie_breaker.to_be_bytes());
        request.add(ATTR_USE_CANDIDATE, &[]);
        sign(&mut request, &self.pair.gateway.password)?;
        self.last = Some(request.transaction_id);
        Some(request.raw)
    }

    /// Takes a STUN message that came from `from`.
    pub fn handle(&self, bytes: &[u8], from: SocketAddr) -> Heard {
        let mut message = Message::new();
        if message.unmarshal_binary(bytes).is_err() {
            return Heard::Nothing;
        }
        if message.typ == BINDING_SUCCESS {
            let is_ours = self.last == Some(message.transaction_id);
            let is_authentic = is_signed(&mut message, &self.pair.gateway.password);
            return match is_ours && is_authentic {
                true => Heard::Confirmed,
                false => Heard::Nothing,
            };
        }
        if message.typ != BINDING_REQUEST || !is_signed(&mut message, &self.pair.client.password) {
            return Heard::Nothing;
        }
        self.answer(&message, from)
            .map_or(Heard::Nothing, Heard::Asked)
    }

    fn answer(&self, request: &Message, from: SocketAddr) -> Option<Vec<u8>> {
        let mut answer = Message::new();
        answer.set_type(BINDING_SUCCESS);
        answer.transaction_id = request.transaction_id;
        answer.write_header();
        let mapped = XorMappedAddress {
            ip: from.ip(),
            port: from.port(),
        };
        mapped.add_to(&mut answer).ok()?;
        sign(&mut answer, &self.pair.client.password)?;
        Some(answer.raw)
    }
}

fn sign(message: &mut Message, password: &str) -> Option<()> {
    let integrity = MessageIntegrity::new_short_term_integrity(password.to_owned());
    integrity.add_to(message).ok()?;
    FINGERPRINT.add_to(message).ok()
}

fn is_signed(message: &mut Message, password: &str) -> bool {
    let integrity = MessageIntegrity::new_short_term_integrity(password.to_owned());
    integrity.check(message).is_ok()
}

/// Of the first peer-reflexive candidate over IPv4 (docs/protocol.md 3.3.2.
const PEER_REFLEXIVE_PRIORITY: u32 = (110 << 24) | (49_150 << 8) | 255;

#[cfg(test)]
mod tests {
    use super::*;
    use is::stun::{StunMessage, StunPacket};
    use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};
    use std::time::{Duration, Instant};

    fn pair() -> IcePair {
        let credentials = |username: &str, password: &str| IceCredentials {
            username: username.to_owned(),
            password: password.to_owned(),
        };
        IcePair {
            client: credentials("eokn", "5enp7ct6775ebzonvunxjy"),
            gateway: credentials("6m26", "gj5f2zjrxg6cwvtrtqgfva"),
        }
    }

    const CLIENT: &str = "192.0.2.1:4000";
    const GATEWAY: &str = "203.0.113.10:52625";

    /// A controlled agent as the gateway's, by another implementation.
    fn controlled() -> IceAgent {
        let credentials = |it: &IceCredentials| IceCreds {
            ufrag: it.username.clone(),
            pass: it.password.clone(),
        };
        let IcePair { client, gateway } = pair();
        let mut agent = IceAgent::new(credentials(&gateway));
        agent.set_remote_credentials(credentials(&client));
        agent.set_controlling(false);
        agent.set_timing_advance(Duration::ZERO);
        let address = GATEWAY.parse().expect("an address");
        agent.add_local_candidate(Candidate::host(address, Protocol::Udp).expect("valid"));
        agent
    }

    /// Hands a message to the agent, and returns what it sends.
    fn exchange(agent: &mut IceAgent, message: Option<&[u8]>, now: Instant) -> Vec<Vec<u8>> {
        if let Some(bytes) = message {
            let packet = StunPacket {
                proto: Protocol::Udp,
                source: CLIENT.parse().expect("an address"),
                destination: GATEWAY.parse().expect("an address"),
                message: StunMessage::parse(bytes).expect("a STUN message"),
            };
            agent.handle_packet(now, packet);
        }
        agent.handle_timeout(now);
        std::iter::from_fn(|| agent.poll_transmit())
            .map(|it| it.contents.into())
            .collect()
    }

    #[test]
    fn another_implementation_answers_checks_and_takes_the_nomination() {
        let (mut agent, mut checks) = (controlled(), Checks::new(pair(), 1));
        let mut now = crate::floor::clock::Moment::now().instant;
        let from = GATEWAY.parse().expect("an address");
        let mut is_confirmed = false;
        for _ in 0..5 {
            let check = checks.check().expect("a check");
            let mut sent = exchange(&mut agent, Some(&check), now);
            while let Some(message) = sent.pop() {
                match checks.handle(&message, from) {
                    Heard::Confirmed => is_confirmed = true,
                    Heard::Asked(answer) => {
                        sent.extend(exchange(&mut agent, Some(&answer), now));
                    }
                    Heard::Nothing => panic!("not understood"),
                }
            }
            now += Duration::from_millis(300);
        }
        assert!(is_confirmed);
        let client: SocketAddr = CLIENT.parse().expect("an address");
        let nominated = std::iter::from_fn(|| agent.poll_event()).any(|event| {
            matches!(event, IceAgentEvent::NominatedSend { destination, .. }
                if destination == client)
        });
        assert!(nominated);
    }

    #[test]
    fn what_somebody_else_signed_is_nothing() {
        let mut strangers = pair();
        strangers.client.password = "another".to_owned();
        strangers.gateway.password = "another".to_owned();
        let mut checks = Checks::new(pair(), 1);
        let from = GATEWAY.parse().expect("an address");
        let check = checks.check().expect("a check");
        assert_eq!(checks.handle(&check, from), Heard::Nothing, "our own");
        let mut theirs = Checks::new(strangers, 1);
        let request = theirs.check().expect("a check");
        assert_eq!(checks.handle(&request, from), Heard::Nothing);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_messages_are_nothing(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        ) {
            let mut checks = Checks::new(pair(), 1);
            checks.check();
            let from = GATEWAY.parse().expect("an address");
            proptest::prop_assert_eq!(checks.handle(&bytes, from), Heard::Nothing);
        }
    }
}
