//! The facts of the NAT for a diagnosis, step by step.

use super::*;
use crate::domains::FamilyFacts;
use crate::replies::{RefusalKind, ReplyStatus};
use crate::target::{Service, Target};

const NAME: &str = "app.example";

impl Scene {
    fn explain(&self, target: &str) -> NatFacts {
        let target: Target = target.parse().expect("a target");
        self.nat.explain(client(1).0, &target, self.now)
    }

    fn v4(&self) -> FamilyFacts {
        let mapping = self.explain(NAME).mapping.expect("it was announced");
        let [v4, _] = mapping.families;
        v4
    }

    fn status(&self) -> ReplyStatus {
        self.v4().replies.status(Service::Tcp(80))
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

/// With the sequence number zero, as from a host that answers a SYN.
fn refusing(mut reset: Vec<u8>) -> Vec<u8> {
    reset[20 + 4..20 + 8].fill(0);
    reset
}

#[test]
fn explains_an_unknown_client_and_an_unknown_name() {
    let scene = Scene::new(&[2]);
    assert_eq!(scene.explain(NAME), NatFacts::default());
    let attached = Scene::new(&[1]).explain(NAME);
    assert!(attached.is_attached);
    assert_eq!(attached.mapping, None);
}

#[test]
fn finds_a_name_by_itself_and_by_its_proxy_ips() {
    let scene = Scene::resolved();
    let by_name = scene.explain(NAME);
    let proxy = proxy_v4(0, 1).to_string();
    assert_eq!(scene.explain(&proxy), by_name);
    let mapping = by_name.mapping.expect("it was announced");
    assert_eq!(mapping.name.as_str(), NAME);
    assert_eq!(
        mapping.proxy_ips[0],
        (0..4).map(|place| proxy_v4(0, place)).collect::<Vec<_>>()
    );
    assert_eq!(mapping.families[0].addresses[0].ip.to_string(), REAL);
    assert_eq!(mapping.asking, None);
    assert_eq!(by_name.names.0, 1);
}

#[test]
fn explains_a_lookup_its_failures_and_held_packets() {
    let mut scene = Scene::new(&[1]);
    scene.assign(1, NAME, 0);
    scene.send(&syn(proxy_v4(0, 0), 5000));
    scene.wait(1);
    let mapping = scene.explain(NAME).mapping.expect("it was announced");
    assert_eq!(mapping.asking, Some(Duration::from_secs(1)));
    assert_eq!(mapping.held_packets, 1);

    scene.answer_both(NAME, NameFailure::Timeout);
    scene.wait(3);
    let failing = scene.v4();
    assert_eq!(
        failing.failure,
        Some((NameFailure::Timeout, Duration::from_secs(3)))
    );
    // Another transient failure continues the same time, a definite one starts again.
    scene.answer(NAME, AddressFamily::V4, Err(NameFailure::NoSuchName));
    let denied = Some((NameFailure::NoSuchName, Duration::ZERO));
    assert_eq!(scene.v4().failure, denied);

    scene.answer(NAME, AddressFamily::V4, Ok(&[REAL]));
    let resolved = scene.v4();
    assert_eq!(resolved.failure, None);
    assert_eq!(resolved.resolved, Some(Duration::ZERO));
}

#[test]
fn records_replies_with_their_address() {
    let mut scene = Scene::resolved();
    assert_eq!(scene.status(), ReplyStatus::NothingSent);
    let sent = scene.send(&syn(proxy_v4(0, 0), 5000));
    scene.receive(&reply_to(&sent[0], SYN_ACK));
    scene.wait(4);
    let ago = Duration::from_secs(4);
    assert_eq!(scene.status(), ReplyStatus::Answered { ago });
    assert_eq!(
        scene.v4().heard_from.map(|ip| ip.to_string()).as_deref(),
        Some(REAL)
    );
    assert_eq!(scene.explain(NAME).flows.0, 1);
}

#[test]
fn records_silence_across_moves_to_other_addresses() {
    let mut scene = Scene::resolved();
    for _ in 0..4 {
        scene.send(&syn(proxy_v4(0, 0), 5000));
        scene.wait(2);
    }
    let silent = scene.status();
    let ReplyStatus::Unanswered {
        since,
        packets,
        replied,
    } = silent
    else {
        panic!("{silent:?}");
    };
    assert_eq!((since, packets, replied), (Duration::from_secs(8), 4, None));
}

#[test]
fn a_reset_of_a_handshake_is_a_refusal_until_the_next_answer() {
    let mut scene = Scene::resolved();
    let sent = scene.send(&syn(proxy_v4(0, 0), 5000));
    scene.receive(&refusing(reply_to(&sent[0], RST | ACK)));
    scene.wait(2);
    let refused = ReplyStatus::Refused {
        ago: Duration::from_secs(2),
        how: RefusalKind::Reset,
    };
    assert_eq!(scene.status(), refused);

    let sent = scene.send(&syn(proxy_v4(0, 0), 5001));
    scene.receive(&reply_to(&sent[0], SYN_ACK));
    let ago = Duration::ZERO;
    assert_eq!(scene.status(), ReplyStatus::Answered { ago });
}

#[test]
fn explains_a_client_at_its_flow_limit() {
    let mut scene = Scene::new(&[1]);
    let mut config = NatTableConfig::default();
    config.flows.flows_per_client = 1;
    scene.nat = NatTable::new(config, [7; 32], scene.now);
    scene.nat.attach(client(1).0, client(1).1);
    scene.assign(1, NAME, 0);
    scene.answer(NAME, AddressFamily::V4, Ok(&[REAL]));
    let sent = scene.send(&syn(proxy_v4(0, 0), 5000));
    scene.receive(&reply_to(&sent[0], SYN_ACK));
    scene.send(&syn(proxy_v4(0, 0), 5001));
    scene.wait(3);
    let facts = scene.explain(NAME);
    assert_eq!(facts.flows, (1, 1));
    let refused = Some((Duration::from_secs(3), DropReason::FlowTableFull));
    assert_eq!(facts.refused_flow, refused);
}
