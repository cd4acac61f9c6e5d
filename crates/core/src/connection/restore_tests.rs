//! A restored connection against the client of its predecessor.

use super::tests::{
    CLIENT, Pair, UNIX_NOW, WEB, addr, config, local_addresses, resource, udp_to_web,
};
use super::*;
use crate::authorizations::{Announced, ProxiedName};
use crate::grant::ResourceKind;
use crate::ledger::ClientRecord;
use crate::peer::testing::{TestAgent, TestClient, ipv4_packet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const GATEWAY: &str = "192.0.2.10:52625";
const CANDIDATE: &str = "candidate:1 1 udp 2130706175 198.51.100.5 4000 typ host ufrag eokn";

fn id(number: u128) -> ResourceId {
    ResourceId(Uuid::from_u128(number))
}

fn dns(number: u128) -> Resource {
    Resource {
        kind: ResourceKind::Dns("*.example.com".into()),
        ..resource(number, vec![])
    }
}

fn proxy_ips(block: u8) -> Vec<IpAddr> {
    (1..=4).map(|last| [100, 96, block, last].into()).collect()
}

/// The client has announced a name.
fn add_name(record: &mut ClientRecord, domain: &str, block: u8) {
    let announced = AnnouncedName {
        domain: domain.into(),
        proxy_ips: proxy_ips(block),
    };
    let assigned = (record.authorizations).assign(id(2), &announced, Announcer::Client);
    assigned.expect("entitled");
}

fn add_grant(record: &mut ClientRecord, resource: Resource, expires_at: Option<UnixTime>) {
    let allowed = record.authorizations.allow(resource, expires_at, 8);
    allowed.expect("room");
}

fn assigned(domain: &str, block: u8) -> ConnectionEvent {
    let name: DomainName = domain.parse().expect("a name");
    let announced = Announced {
        domain: domain.into(),
        by: Announcer::Client,
    };
    ConnectionEvent::NameChanged(NameMeaning {
        name: name.clone(),
        proxied: Some(Arc::new(ProxiedName {
            name,
            proxy_ips: proxy_ips(block),
            resources: [(id(2), announced)].into(),
        })),
        announced_for: None,
    })
}

fn answer(payload: &[u8]) -> Vec<u8> {
    ipv4_packet(WEB, CLIENT, payload)
}

fn is_attached(event: &ConnectionEvent) -> bool {
    matches!(event, ConnectionEvent::PeerAttached { .. })
}

/// One restart of the gateway's half.
trait Restart {
    fn path(&self) -> Path;
    fn record(&self) -> ClientRecord;
    fn restore(&mut self, record: &ClientRecord);
    fn answer_initiation(&mut self);
    fn answer_with(&mut self, initiation: &[u8]);
    fn assert_flows(&mut self);
    fn pass(&mut self, time: Duration) -> Vec<(Duration, DatagramBatch)>;
}

impl Restart for Pair {
    fn path(&self) -> Path {
        self.agent.path_to(addr(GATEWAY))
    }

    /// The ledger's record of a client with one network.
    fn record(&self) -> ClientRecord {
        let request = self.request(resource(1, vec![]), None);
        let mut authorizations = Authorizations::default();
        let allowed = authorizations.allow(request.resource.clone(), None, 1);
        allowed.expect("room");
        ClientRecord {
            transport: Some(request.transport_keys()),
            authorizations,
            remote_candidates: vec![CANDIDATE.into()],
            path: Some(self.path()),
            ..ClientRecord::new(request.client.tunnel)
        }
    }

    fn restore(&mut self, record: &ClientRecord) {
        self.connection = Connection::restore(config(), record, UNIX_NOW, self.now);
    }

    /// The client answers the gateway's handshake, without ICE.
    fn answer_initiation(&mut self) {
        let initiation = self.sent().pop().expect("an initiation");
        self.answer_with(&initiation);
    }

    fn answer_with(&mut self, initiation: &[u8]) {
        let response = self.wireguard.respond(initiation).expect("a response");
        let keepalives = self.exchange(response);
        assert_eq!(keepalives.len(), 1);
        self.wireguard.handle_keepalive(&keepalives[0]);
    }

    fn assert_flows(&mut self) {
        for _ in 0..3 {
            self.send_packet(&udp_to_web());
            assert_eq!(self.inbound(), [udp_to_web()]);
            let packet = PacketBatch::of(&answer(b"answer"));
            self.connection.handle_packets(packet, self.now);
            let sent = self.sent();
            assert_eq!(sent.len(), 1);
            assert_eq!(self.wireguard.open(&sent[0]), answer(b"answer"));
        }
    }

    /// Advances the clock; returns the times of datagrams to WireGuard.
    fn pass(&mut self, time: Duration) -> Vec<(Duration, DatagramBatch)> {
        let (begin, end) = (self.now, self.now + time);
        let mut sent = Vec::new();
        loop {
            while let Some(batch) = self.connection.poll_transmit() {
                if batch.bytes()[..4] == [1, 0, 0, 0] || batch.bytes()[0] == 4 {
                    sent.push((self.now - begin, batch));
                }
            }
            let Some(at) = self.connection.poll_timeout().filter(|at| *at <= end) else {
                break;
            };
            self.now = at.max(self.now);
            self.connection.handle_timeout(self.now);
        }
        self.now = end;
        sent
    }
}

/// A client with a restored connection.
fn restored() -> Pair {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    pair.assert_flows();
    let record = pair.record();
    pair.restore(&record);
    pair
}

#[test]
fn handshakes_immediately_and_forwards_packets_before_ice() {
    let mut pair = restored();
    assert!(matches!(
        pair.events()[..],
        [ConnectionEvent::PeerAttached { .. }]
    ));
    pair.answer_initiation();
    assert_eq!(pair.events(), [ConnectionEvent::SessionEstablished]);
    pair.assert_flows();
    assert_eq!(pair.connection.take_drops().total(), 0);
    // No further handshake.
    assert!(pair.pass(Duration::from_secs(20)).is_empty());
}

#[test]
fn keeps_grants_beyond_a_lowered_limit() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    let mut record = pair.record();
    add_grant(&mut record, resource(2, vec![]), None);
    let mut lower = config();
    lower.max_resources = 1;
    pair.connection = Connection::restore(lower, &record, UNIX_NOW, pair.now);
    assert!(pair.events().iter().all(is_attached));
    pair.grant(resource(3, vec![]));
    let refused = |event: &ConnectionEvent| matches!(event, ConnectionEvent::Refused(_));
    assert!(pair.events().iter().any(refused));
}

/// docs/lessons.md 25: A restart is announced and remembered.
#[test]
fn restarts_ice_with_the_same_credentials() {
    let mut pair = restored();
    pair.answer_initiation();
    pair.connection
        .handle_local_addresses(local_addresses(), pair.now);
    let mut events = Vec::new();
    for _ in 0..20 {
        pair.connect();
        pair.now += Duration::from_secs(1);
        events.extend(pair.events());
    }
    let path = pair.path();
    assert!(events.contains(&ConnectionEvent::PathNominated(path)));
    assert!(!events.contains(&ConnectionEvent::PathInUse(path)), "known");
    pair.assert_flows();
}

#[test]
fn repeats_a_lost_initiation_after_250_milliseconds() {
    let mut pair = restored();
    assert_eq!(pair.sent().len(), 1, "lost");
    let calls = pair.pass(Duration::from_millis(749));
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].0, Duration::from_millis(250));
    pair.answer_with(calls[0].1.bytes());
    pair.assert_flows();
}

#[test]
fn accepts_a_response_that_is_slower_than_the_next_initiation() {
    let mut pair = restored();
    let initiation = pair.sent().pop().expect("an initiation");
    let response = pair.wireguard.respond(&initiation).expect("a response");
    let second = pair.pass(Duration::from_millis(300));
    let keepalive = pair.exchange(response).pop().expect("a keepalive");
    pair.wireguard.handle_keepalive(&keepalive);
    pair.assert_flows();
    pair.answer_with(second[0].1.bytes());
    pair.assert_flows();
}

#[test]
fn repeats_the_keepalive_for_a_client_that_missed_it() {
    let mut pair = restored();
    let initiation = pair.sent().pop().expect("an initiation");
    let response = pair.wireguard.respond(&initiation).expect("a response");
    let _lost = pair.exchange(response);
    assert!(pair.send_packet(&udp_to_web()).is_empty(), "on its way");
    pair.now += Duration::from_millis(100);
    let proofs = pair.send_packet(&udp_to_web());
    assert_eq!(proofs.len(), 1);
    assert!(pair.send_packet(&udp_to_web()).is_empty(), "not for each");
    pair.wireguard.handle_keepalive(&proofs[0]);
    pair.assert_flows();
    assert_eq!(pair.connection.take_drops().total(), 3);
}

#[test]
fn repeats_the_keepalive_until_the_client_answers() {
    let mut pair = restored();
    let initiation = pair.sent().pop().expect("an initiation");
    let response = pair.wireguard.respond(&initiation).expect("a response");
    let _lost = pair.exchange(response);
    let proofs = pair.pass(Duration::from_secs(5));
    let times: Vec<_> = proofs.iter().map(|(at, _)| at.as_millis()).collect();
    assert_eq!(times, [100, 300, 700, 1500]);
    pair.wireguard.handle_keepalive(proofs[3].1.bytes());
    pair.assert_flows();

    let mut pair = restored();
    pair.answer_initiation();
    assert_eq!(pair.pass(Duration::from_millis(100)).len(), 1);
    pair.assert_flows();
    assert!(pair.pass(Duration::from_secs(5)).is_empty(), "it was heard");
}

#[test]
fn simultaneous_handshakes_of_both_sides_end_in_a_session() {
    let mut pair = restored();
    let of_gateway = pair.sent().pop().expect("an initiation");
    let of_client = pair.wireguard.initiation();
    // Both are in transit before either arrives.
    let to_gateway = pair.wireguard.respond(&of_gateway).expect("a response");
    let to_client = pair.exchange(of_client).pop().expect("a response");
    let keepalive_of_client = pair.wireguard.handle_response(&to_client);
    let keepalive_of_gateway = pair.exchange(to_gateway).pop().expect("a keepalive");
    pair.exchange(keepalive_of_client);
    pair.wireguard.handle_keepalive(&keepalive_of_gateway);
    pair.assert_flows();
    assert!(
        pair.pass(Duration::from_secs(20)).is_empty(),
        "no initiation"
    );
}

#[test]
fn serves_a_client_that_starts_the_handshake() {
    let mut pair = restored();
    let _lost = pair.sent();
    let initiation = pair.wireguard.initiation();
    let response = pair.exchange(initiation).pop().expect("a response");
    let keepalive = pair.wireguard.handle_response(&response);
    pair.exchange(keepalive);
    pair.assert_flows();
}

/// docs/lessons.md 25: A restart is announced and remembered.
#[test]
fn handshakes_with_a_roamed_client_where_ice_hears_it() {
    let mut pair = restored();
    assert_eq!(pair.sent().len(), 1, "to the former path");
    pair.connection
        .handle_local_addresses(local_addresses(), pair.now);
    pair.pass(Duration::from_millis(100));
    pair.agent = TestAgent::new("203.0.113.50:50000");
    let elsewhere = pair.path();
    pair.agent
        .add_remote_candidate("candidate:1 1 udp 2130706431 192.0.2.10 52625 typ host ufrag 6m26");
    for check in pair.agent.progress(pair.now) {
        pair.connection.handle_datagrams(&check, pair.now);
    }
    let calls = pair.pass(Duration::ZERO);
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].1.path, elsewhere);
    pair.events();
    pair.answer_with(calls[0].1.bytes());
    let events = pair.events();
    assert!(events.contains(&ConnectionEvent::PathInUse(elsewhere)));
    pair.assert_flows();
}

#[test]
fn repeats_initiations_on_both_paths_and_bounds_replayed_checks() {
    let mut pair = restored();
    let recorded = pair.path();
    pair.connection
        .handle_local_addresses(local_addresses(), pair.now);
    pair.pass(Duration::from_millis(10));
    pair.agent = TestAgent::new("203.0.113.50:50000");
    let elsewhere = pair.path();
    pair.agent
        .add_remote_candidate("candidate:1 1 udp 2130706431 192.0.2.10 52625 typ host ufrag 6m26");
    for check in pair.agent.progress(pair.now) {
        for _ in 0..5 {
            pair.connection.handle_datagrams(&check, pair.now);
        }
    }
    assert_eq!(pair.pass(Duration::ZERO).len(), 1);
    let again = pair.pass(Duration::from_millis(300));
    let paths: Vec<_> = again.iter().map(|(_, batch)| batch.path).collect();
    assert_eq!(paths, [recorded, elsewhere]);
    let events = pair.events();
    let is_moved = |event: &_| matches!(event, ConnectionEvent::PathInUse(_));
    assert!(
        !events.iter().any(is_moved),
        "STUN proves nothing: {events:?}"
    );
}

#[test]
fn a_possibly_replayed_initiation_changes_no_path() {
    let mut pair = restored();
    let recorded = pair.path();
    pair.pass(Duration::ZERO);
    let replayed = pair.wireguard.initiation();
    let elsewhere = Path {
        remote: addr("203.0.113.66:6666"),
        ..recorded
    };
    let batch = DatagramBatch::of(elsewhere, replayed);
    pair.connection.handle_datagrams(&batch, pair.now);
    let replies: Vec<_> = std::iter::from_fn(|| pair.connection.poll_transmit()).collect();
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].path, elsewhere);
    let calls = pair.pass(Duration::from_millis(300));
    let paths: Vec<_> = calls.iter().map(|(_, batch)| batch.path).collect();
    assert_eq!(paths, [recorded]);
}

#[test]
fn stops_after_six_initiations_and_keeps_the_grants() {
    let mut pair = restored();
    pair.connection
        .handle_local_addresses(local_addresses(), pair.now);
    let calls = pair.pass(Duration::from_secs(60));
    let times: Vec<_> = calls.iter().map(|(at, _)| at.as_millis()).collect();
    assert_eq!(times, [0, 250, 750, 1750, 3750, 7750]);
    pair.pass(Duration::from_secs(2000));
    assert_eq!(pair.events().last(), Some(&ConnectionEvent::PeerDetached));
    // It comes back with new keys.
    pair.wireguard = TestClient::with_private([9; 32]);
    pair.agent = TestAgent::new("198.51.100.5:4009");
    pair.grant(resource(1, vec![]));
    pair.establish();
    pair.send_packet(&udp_to_web());
    assert_eq!(pair.inbound().len(), 1);
}

#[test]
fn keeps_a_client_without_nomination_while_it_is_heard() {
    let mut pair = restored();
    pair.answer_initiation();
    pair.connection
        .handle_local_addresses(local_addresses(), pair.now);
    pair.agent = TestAgent::new("198.51.100.5:4000");
    pair.agent
        .add_remote_candidate("candidate:1 1 udp 2130706431 192.0.2.10 52625 typ host ufrag 6m26");
    pair.agent.ignore_responses();
    for _ in 0..3 * 3600 {
        for check in pair.agent.progress(pair.now) {
            pair.connection.handle_datagrams(&check, pair.now);
        }
        pair.connection.handle_timeout(pair.now);
        while let Some(batch) = pair.connection.poll_transmit() {
            pair.agent.handle(&batch, pair.now);
        }
        pair.now += Duration::from_secs(1);
    }
    let events = pair.events();
    let is_news = |event: &&ConnectionEvent| {
        !is_attached(event) && !matches!(event, ConnectionEvent::CandidatesGathered(_))
    };
    let news: Vec<_> = events.iter().filter(is_news).collect();
    assert_eq!(news, [&ConnectionEvent::SessionEstablished]);
    pair.assert_flows();
}

#[test]
fn ignores_ice_failures_while_the_client_sends() {
    let mut pair = restored();
    pair.answer_initiation();
    pair.connection
        .handle_local_addresses(local_addresses(), pair.now);
    for _ in 0..1500 {
        pair.send_packet(&udp_to_web());
        pair.pass(Duration::from_secs(1));
    }
    assert_eq!(pair.inbound().len(), 1500);
    let is_lost = |event: &ConnectionEvent| *event == ConnectionEvent::PeerDetached;
    assert!(!pair.events().iter().any(is_lost));
    // A client that falls silent times out as usual.
    pair.pass(Duration::from_secs(2000));
    assert!(pair.events().iter().any(is_lost));
}

#[test]
fn a_resumed_session_outlives_ice_for_a_minute() {
    let mut pair = restored();
    // No candidate of the client is known, so that ICE fails after ten seconds.
    let mut record = pair.record();
    record.remote_candidates.clear();
    pair.restore(&record);
    pair.answer_initiation();
    pair.send_packet(&udp_to_web());
    pair.connection
        .handle_local_addresses(local_addresses(), pair.now);
    let is_lost = |event: &ConnectionEvent| *event == ConnectionEvent::PeerDetached;
    pair.pass(Duration::from_secs(59));
    assert!(!pair.events().iter().any(is_lost));
    pair.pass(Duration::from_secs(2));
    assert!(pair.events().iter().any(is_lost));
}

#[test]
fn holds_packets_for_the_session_and_sends_them_in_order() {
    let mut pair = restored();
    let packets: Vec<_> = (0..40).map(|number| answer(&[number; 100])).collect();
    for packet in &packets {
        pair.connection
            .handle_packets(PacketBatch::of(packet), pair.now);
    }
    let drops = pair.connection.take_drops();
    assert_eq!(drops.of(DropReason::NotConnected), 8);
    pair.now += Duration::from_millis(200);
    let initiation = pair.sent().pop().expect("an initiation");
    let response = pair.wireguard.respond(&initiation).expect("a response");
    let sent = pair.exchange(response);
    pair.wireguard.handle_keepalive(&sent[0]);
    let opened: Vec<_> = sent[1..].iter().map(|it| pair.wireguard.open(it)).collect();
    assert_eq!(opened, packets[..32]);
}

#[test]
fn drops_and_counts_packets_after_a_second_of_waiting() {
    let mut pair = restored();
    pair.connection
        .handle_packets(PacketBatch::of(&answer(b"old")), pair.now);
    pair.pass(Duration::from_secs(1));
    assert_eq!(pair.connection.take_drops().of(DropReason::NotConnected), 1);
    pair.connection
        .handle_packets(PacketBatch::of(&answer(b"young")), pair.now);
    pair.pass(Duration::from_secs(100));
    assert_eq!(pair.connection.take_drops().of(DropReason::NotConnected), 1);
    // No further handshakes.
    pair.connection
        .handle_packets(PacketBatch::of(&answer(b"late")), pair.now);
    assert_eq!(pair.connection.take_drops().of(DropReason::NotConnected), 1);
}

#[test]
fn without_a_path_waits_for_the_client_like_for_a_new_one() {
    let mut pair = Pair::new();
    let record = ClientRecord {
        path: None,
        ..pair.record()
    };
    pair.restore(&record);
    pair.connection
        .handle_local_addresses(local_addresses(), pair.now);
    assert!(pair.pass(Duration::ZERO).is_empty());
    pair.establish();
    pair.assert_flows();
}

#[test]
fn repeats_the_events_that_restarted_actors_need() {
    let mut pair = Pair::new();
    let mut record = pair.record();
    add_grant(&mut record, dns(2), None);
    add_name(&mut record, "b.example.com", 1);
    add_name(&mut record, "a.example.com", 0);
    pair.restore(&record);
    let events = pair.events();
    assert!(is_attached(&events[0]));
    let names = [assigned("a.example.com", 0), assigned("b.example.com", 1)];
    assert_eq!(events[1..], names);

    pair.answer_initiation();
    let to_proxy = ipv4_packet(CLIENT, [100, 96, 1, 3], b"x");
    pair.send_packet(&to_proxy);
    assert_eq!(pair.inbound(), [to_proxy]);
    pair.events();

    pair.connection.handle_nat_table_restarted();
    assert_eq!(pair.events(), names);
    pair.connection.handle_udp_restarted();
    let events = pair.events();
    assert!(is_attached(&events[0]) && events.len() == 1);
    // No state is kept for a removed resource.
    pair.connection.handle_revocation(id(2), pair.now);
    pair.events();
    pair.connection.handle_nat_table_restarted();
    assert_eq!(pair.events(), []);
}

#[test]
fn a_cookie_changes_no_path() {
    let mut pair = restored();
    pair.events();
    let initiation = pair.sent().pop().expect("an initiation");
    let elsewhere = Path {
        remote: addr("203.0.113.66:6666"),
        ..pair.path()
    };
    let cookie = pair.wireguard.cookie_for(&initiation);
    assert!(answers_to_third_party(&mut pair, cookie, elsewhere).is_empty());
    assert_eq!(pair.events(), []);
    let calls = pair.pass(Duration::from_millis(300));
    let paths: Vec<_> = calls.iter().map(|(_, batch)| batch.path).collect();
    assert_eq!(paths, [pair.path()]);
    assert_eq!(pair.connection.take_drops().total(), 0, "it was taken");
}

#[test]
fn answers_a_first_connection_without_nomination_on_its_path() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.connection.handle_timeout(pair.now);
    pair.sent();
    let path = pair.path();
    let initiation = DatagramBatch::of(path, pair.wireguard.initiation());
    pair.connection.handle_datagrams(&initiation, pair.now);
    let sent = std::iter::from_fn(|| pair.connection.poll_transmit());
    let sent: Vec<_> = sent.filter(|batch| batch.bytes()[0] == 2).collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].path, path);
    pair.events();
    let keepalive = pair.wireguard.handle_response(sent[0].bytes());
    pair.exchange(keepalive);
    assert_eq!(
        pair.events(),
        [
            ConnectionEvent::SessionEstablished,
            ConnectionEvent::PathInUse(path)
        ]
    );
    pair.assert_flows();
}

#[test]
fn repeats_announcements_in_their_current_form() {
    let mut pair = Pair::new();
    pair.grant(dns(2));
    pair.establish();
    let announce = |pair: &mut Pair, domain: &str, proxy_ips: Vec<IpAddr>| {
        let assigned = AssignedIps {
            resource: id(2),
            domain: domain.into(),
            proxy_ips,
        };
        pair.send_packet(&ControlPacket::assigned_ips(&assigned));
    };
    let v6: IpAddr = [0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, 1].into();
    announce(&mut pair, "a.example.com", vec![v6]);
    announce(&mut pair, "a.example.com", proxy_ips(0));
    announce(&mut pair, "b.example.com", proxy_ips(1));
    // docs/lessons.md 17: the former name of the addresses is gone.
    announce(&mut pair, "c.example.com", proxy_ips(1));
    pair.events();
    pair.connection.handle_nat_table_restarted();
    let repeated = pair.events().into_iter().map(|event| {
        let ConnectionEvent::NameChanged(meaning) = event else {
            panic!("{event:?}");
        };
        let proxied = meaning.proxied.expect("a name");
        (meaning.name.to_string(), proxied.proxy_ips.clone())
    });
    let of_a: Vec<_> = proxy_ips(0).into_iter().chain([v6]).collect();
    assert_eq!(
        repeated.collect::<Vec<_>>(),
        [
            ("a.example.com".into(), of_a),
            ("c.example.com".into(), proxy_ips(1))
        ]
    );
}

#[test]
fn releases_only_expired_resources() {
    let mut pair = Pair::new();
    let mut record = pair.record();
    add_grant(&mut record, dns(2), Some(UnixTime(UNIX_NOW.0 - 1)));
    add_name(&mut record, "a.example.com", 0);
    pair.restore(&record);
    let events = pair.events();
    assert_eq!(
        events[..2],
        [
            ConnectionEvent::Expired(id(2)),
            ConnectionEvent::NameChanged(NameMeaning {
                name: "a.example.com".parse().expect("a name"),
                proxied: None,
                announced_for: None,
            }),
        ]
    );
    assert!(is_attached(&events[2]) && events.len() == 3, "{events:?}");

    record.authorizations.revoke(id(1));
    pair.restore(&record);
    assert_eq!(pair.events().last(), Some(&ConnectionEvent::Closed));
    assert!(
        pair.pass(Duration::from_secs(10)).is_empty(),
        "no initiation"
    );
}

#[test]
fn keeps_a_future_expiry() {
    let mut pair = Pair::new();
    let mut record = pair.record();
    let in_30_s = Some(UnixTime(UNIX_NOW.0 + 30));
    record.authorizations.set_expiry(id(1), in_30_s);
    pair.restore(&record);
    pair.answer_initiation();
    pair.assert_flows();
    pair.events();
    pair.pass(Duration::from_secs(30));
    assert_eq!(pair.events()[0], ConnectionEvent::Expired(id(1)));
}

/// docs/lessons.md 25: A restart is announced and remembered.
#[test]
fn a_goodbye_after_a_restore_closes_either_way() {
    let mut pair = restored();
    pair.answer_initiation();
    pair.events();
    pair.send_packet(&ControlPacket::goodbye());
    assert_eq!(pair.events().last(), Some(&ConnectionEvent::Closed));

    let mut pair = restored();
    pair.answer_initiation();
    pair.connection.close(pair.now);
    let sent = pair.sent();
    assert_eq!(pair.wireguard.open(&sent[0]), ControlPacket::goodbye());
}

#[test]
fn a_portal_restart_repeats_candidates_only_without_a_nominated_path() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    let gathered = pair.events().pop();
    pair.connection.handle_portal_restarted(pair.now);
    assert_eq!(pair.events().pop(), gathered);
    let Some(ConnectionEvent::CandidatesGathered(lines)) = gathered else {
        panic!("{gathered:?}");
    };
    lines
        .iter()
        .for_each(|line| pair.agent.add_remote_candidate(line));
    pair.establish();
    pair.events();
    pair.connection.handle_portal_restarted(pair.now);
    assert_eq!(pair.events(), []);
}

/// The paths of the answers to a datagram of a third party from `elsewhere`.
fn answers_to_third_party(pair: &mut Pair, datagram: Vec<u8>, elsewhere: Path) -> Vec<Path> {
    let batch = DatagramBatch::of(elsewhere, datagram);
    pair.connection.handle_datagrams(&batch, pair.now);
    let answers = std::iter::from_fn(|| pair.connection.poll_transmit());
    answers.map(|batch| batch.path).collect()
}

#[test]
fn an_old_initiation_changes_no_path_of_a_session() {
    let mut pair = restored();
    let old = pair.wireguard.initiation();
    pair.answer_initiation();
    pair.assert_flows();
    pair.events();
    let elsewhere = Path {
        remote: addr("203.0.113.66:6666"),
        ..pair.path()
    };
    let answers = answers_to_third_party(&mut pair, old, elsewhere);
    assert_eq!(answers, [elsewhere], "answered where it came from");
    pair.connection
        .handle_packets(PacketBatch::of(&answer(b"to the client")), pair.now);
    let sent: Vec<_> = std::iter::from_fn(|| pair.connection.poll_transmit()).collect();
    assert!(!sent.is_empty());
    assert!(
        sent.iter().all(|batch| batch.path == pair.path()),
        "{sent:?}"
    );
    assert_eq!(pair.events(), []);
}

#[test]
fn reports_the_path_in_use_only_on_change() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    let nominated = pair.path();
    let reported = |pair: &mut Pair| {
        let events = pair.events().into_iter();
        let mut paths = Vec::new();
        for event in events {
            if let ConnectionEvent::PathInUse(path) = event {
                paths.push(path);
            }
        }
        paths
    };
    assert_eq!(reported(&mut pair), [nominated]);
    pair.assert_flows();
    let elsewhere = Path {
        remote: addr("203.0.113.50:50000"),
        ..nominated
    };
    let datagram = pair.wireguard.seal(&udp_to_web());
    pair.connection
        .handle_datagrams(&DatagramBatch::of(elsewhere, datagram), pair.now);
    assert_eq!(reported(&mut pair), []);
    pair.now += Duration::from_secs(6);
    let packet = PacketBatch::of(&answer(b"answer"));
    pair.connection.handle_packets(packet, pair.now);
    assert_eq!(reported(&mut pair), [elsewhere]);
    pair.send_packet(&udp_to_web());
    pair.pass(Duration::from_millis(999));
    assert_eq!(reported(&mut pair), [], "not yet");
    pair.pass(Duration::from_millis(1));
    assert_eq!(reported(&mut pair), [nominated]);
}

#[test]
fn reports_a_flapping_path_once_a_second() {
    let mut pair = restored();
    pair.answer_initiation();
    pair.assert_flows();
    pair.events();
    let end = |port| Path {
        remote: addr(&format!("203.0.113.50:{port}")),
        ..pair.path()
    };
    let ends = [end(1), end(2)];
    let mut reported = Vec::new();
    for round in 0..100 {
        let datagram = pair.wireguard.seal(&udp_to_web());
        let batch = DatagramBatch::of(ends[round % 2], datagram);
        pair.connection.handle_datagrams(&batch, pair.now);
        pair.pass(Duration::from_millis(30));
        let events = pair.events().into_iter();
        reported.extend(events.filter(|event| matches!(event, ConnectionEvent::PathInUse(_))));
    }
    assert_eq!(reported.len(), 4, "after 0, 1, 2 and 3 s: {reported:?}");
    pair.pass(Duration::from_secs(1));
    reported.extend(pair.events());
    assert_eq!(reported.last(), Some(&ConnectionEvent::PathInUse(ends[1])));
}
