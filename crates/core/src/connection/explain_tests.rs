//! Tests of the facts of a connection.

use super::tests::{CLIENT, Pair, WEB, resource};
use super::*;
use crate::packet::samples::{Shape, packet};
use crate::peer::testing::ipv4_packet;
use crate::policy::Access;
use crate::replies::{RefusalKind, ReplyStatus};
use crate::target::{Service, Target};
use std::time::Duration;

const RST_ACK: u8 = 0x14;
const ACK: u8 = 0x10;

fn web() -> Target {
    "10.20.0.100:80".parse().expect("a target")
}

/// A segment from port 80 of the resource, with these flags and this sequence number.
fn from_web(flags: u8, sequence: u32) -> Vec<u8> {
    let shape = Shape::Tcp {
        from: 80,
        to: 50000,
    };
    let mut bytes = packet(WEB.into(), CLIENT.into(), shape, b"");
    bytes[20 + 13] = flags;
    bytes[20 + 4..20 + 8].copy_from_slice(&sequence.to_be_bytes());
    bytes
}

impl Pair {
    fn explain(&self) -> ConnectionFacts {
        self.connection.explain(&web(), self.now)
    }

    fn status(&self) -> ReplyStatus {
        let replies = self.explain().replies.expect("it is remembered");
        replies.status(Service::Tcp(80))
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.connection
            .handle_packets(PacketBatch::of(bytes), self.now);
    }
}

#[test]
fn explains_a_client_from_its_grant_to_its_session() {
    let mut pair = Pair::new();
    let transport = |pair: &Pair| pair.explain().transport;
    assert_eq!(transport(&pair), TransportFacts::None { lost: None });

    pair.grant(resource(1, vec![]));
    let TransportFacts::Peer(trying) = transport(&pair) else {
        panic!("it has keys");
    };
    assert_eq!(
        (trying.path, trying.session, trying.has_candidates),
        (None, None, false)
    );

    pair.connect();
    let TransportFacts::Peer(found) = transport(&pair) else {
        panic!("it has keys");
    };
    assert!(found.is_nominated && found.path.is_some() && found.has_candidates);
    assert_eq!(found.session, None);

    pair.establish();
    pair.wait(3000);
    let TransportFacts::Peer(up) = transport(&pair) else {
        panic!("it has keys");
    };
    assert_eq!(up.session, Some(Duration::from_secs(3)));
    assert_eq!(up.heard, Some(Duration::from_secs(3)));
}

#[test]
fn explains_a_failed_transport_as_lost() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.wait(11_000);
    pair.connection.handle_timeout(pair.now);
    pair.wait(4000);
    let lost = Some(Duration::from_secs(4));
    assert_eq!(pair.explain().transport, TransportFacts::None { lost });
}

#[test]
fn records_packets_and_replies_of_a_network_by_address() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    assert_eq!(pair.explain().replies, None);

    pair.receive(&from_web(ACK, 7));
    pair.wait(2000);
    let ago = Duration::from_secs(2);
    assert_eq!(pair.status(), ReplyStatus::Answered { ago });
    let other = "10.20.0.101".parse().expect("a target");
    assert_eq!(pair.connection.explain(&other, pair.now).replies, None);
}

#[test]
fn a_reset_of_a_handshake_is_a_refusal_and_others_are_not() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    pair.receive(&from_web(RST_ACK, 0));
    let refused = ReplyStatus::Refused {
        ago: Duration::ZERO,
        how: RefusalKind::Reset,
    };
    assert_eq!(pair.status(), refused);

    pair.wait(1000);
    pair.receive(&from_web(RST_ACK, 7));
    let ago = Duration::ZERO;
    assert_eq!(pair.status(), ReplyStatus::Answered { ago });
}

#[test]
fn counts_packets_until_a_reply() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    for _ in 0..3 {
        let packet = ipv4_packet(CLIENT, WEB, b"anybody there?");
        pair.send_packet(&packet);
        pair.wait(3000);
    }
    let unanswered = ReplyStatus::Unanswered {
        since: Duration::from_secs(9),
        packets: 3,
        replied: None,
    };
    assert_eq!(pair.status(), unanswered);
}

#[test]
fn explaining_changes_nothing_and_agrees_with_the_policy() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    let before = pair.events().len();
    let facts = pair.explain();
    assert!(before > 0);
    assert_eq!(pair.events().len(), 0);
    let [(Service::Tcp(80), tcp), (Service::Udp(80), udp)] = &facts.policy.access[..] else {
        panic!("{facts:?}");
    };
    assert!(tcp.is_permitted() && udp.is_permitted());
    let strange = "192.0.2.1".parse().expect("a target");
    let facts = pair.connection.explain(&strange, pair.now);
    assert_eq!(facts.policy.access, [(Service::Any, Access::Uncovered)]);
}
