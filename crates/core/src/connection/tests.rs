//! A connection against an independent client: a controlling ICE agent and a WireGuard initiator,
//! over a lossless wire in virtual time.

use super::*;
use crate::grant::{ClientProfile, Filter, IceCredentials, ReplyKind, ResourceKind};
use crate::ids::ClientId;
use crate::packet::{Ecn, Transport};
use crate::peer::PeerIndexPool;
use crate::peer::testing::{TestAgent, TestClient, ipv4_packet};
use crate::testing::beginning;
use std::net::SocketAddr;
use std::time::Duration;
use uuid::Uuid;
use zeroize::Zeroizing;

pub(super) const CLIENT: [u8; 4] = [100, 64, 1, 2];
pub(super) const WEB: [u8; 4] = [10, 20, 0, 100];
pub(super) const UNIX_NOW: UnixTime = UnixTime(1_790_000_000);

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("literal")
}

pub(super) fn tunnel(v4: [u8; 4], v6: &str) -> TunnelAddresses {
    TunnelAddresses {
        ipv4: v4.into(),
        ipv6: v6.parse().expect("literal"),
    }
}

fn ice(ufrag: &str, password: &str) -> IceCredentials {
    IceCredentials {
        ufrag: ufrag.into(),
        password: Zeroizing::new(password.into()),
    }
}

pub(super) fn resource(number: u128, filters: Vec<Filter>) -> Resource {
    Resource {
        id: ResourceId(Uuid::from_u128(number)),
        name: "web".into(),
        kind: ResourceKind::Cidr("10.20.0.0/24".parse().expect("literal")),
        filters,
    }
}

pub(super) fn config() -> ConnectionConfig {
    ConnectionConfig {
        keys: TestClient::new().gateway_keys(),
        index: PeerIndexPool::new([0; 32]).allocate(0).expect("room"),
        client: tunnel(CLIENT, "fd00:2021:1111::102"),
        gateway: Some(tunnel([100, 64, 0, 1], "fd00:2021:1111::1")),
        max_resources: 8,
    }
}

pub(super) fn local_addresses() -> LocalAddresses {
    LocalAddresses {
        host: vec![addr("192.0.2.10:52625")],
        reflexive: Vec::new(),
    }
}

/// A client and the connection that serves it.
pub(super) struct Pair {
    pub(super) connection: Connection,
    pub(super) wireguard: TestClient,
    pub(super) agent: TestAgent,
    pub(super) now: Instant,
}

impl Pair {
    pub(super) fn new() -> Self {
        let wireguard = TestClient::new();
        let mut connection = Connection::new(config());
        let now = beginning();
        connection.handle_local_addresses(local_addresses(), now);
        Self {
            connection,
            wireguard,
            agent: TestAgent::new("198.51.100.5:4000"),
            now,
        }
    }

    pub(super) fn request(
        &self,
        resource: Resource,
        expires_at: Option<UnixTime>,
    ) -> AuthorizationRequest {
        AuthorizationRequest {
            reply_ref: "ref".into(),
            client: ClientProfile {
                id: ClientId(Uuid::from_u128(1)),
                public_key: self.wireguard.public_key(),
                preshared_key: self.wireguard.preshared_key(),
                tunnel: tunnel(CLIENT, "fd00:2021:1111::102"),
            },
            resource,
            gateway_ice: ice("6m26", "gj5f2zjrxg6cwvtrtqgfva"),
            client_ice: ice("eokn", "5enp7ct6775ebzonvunxjy"),
            expires_at,
            announced: None,
            reply: ReplyKind::Granted,
        }
    }

    pub(super) fn grant(&mut self, resource: Resource) {
        let request = self.request(resource, None);
        self.connection
            .handle_authorization(request, UNIX_NOW, self.now);
    }

    pub(super) fn events(&mut self) -> Vec<ConnectionEvent> {
        std::iter::from_fn(|| self.connection.poll_event()).collect()
    }

    /// Runs ICE until neither side sends.
    pub(super) fn connect(&mut self) {
        for event in self.events() {
            if let ConnectionEvent::CandidatesGathered(lines) = event {
                lines
                    .iter()
                    .for_each(|line| self.agent.add_remote_candidate(line));
            }
        }
        for _ in 0..50 {
            self.connection.handle_timeout(self.now);
            for datagram in self.agent.progress(self.now) {
                self.connection.handle_datagrams(&datagram, self.now);
            }
            while let Some(batch) = self.connection.poll_transmit() {
                self.agent.handle(&batch, self.now);
            }
        }
    }

    /// ICE, then the WireGuard handshake.
    pub(super) fn establish(&mut self) {
        self.connect();
        let initiation = self.wireguard.initiation();
        let response = self
            .exchange(initiation)
            .pop()
            .expect("a handshake response");
        let keepalive = self.wireguard.handle_response(&response);
        self.exchange(keepalive);
    }

    /// Sends one datagram; returns the answers without STUN.
    pub(super) fn exchange(&mut self, datagram: Vec<u8>) -> Vec<Vec<u8>> {
        self.exchange_marked(datagram, Ecn::NotEct)
    }

    fn exchange_marked(&mut self, datagram: Vec<u8>, ecn: Ecn) -> Vec<Vec<u8>> {
        let path = self.agent.path_to(addr("192.0.2.10:52625"));
        let batch = DatagramBatch::new(path, ecn, 0, datagram);
        self.connection.handle_datagrams(&batch, self.now);
        self.sent()
    }

    pub(super) fn sent(&mut self) -> Vec<Vec<u8>> {
        let batches = std::iter::from_fn(|| self.connection.poll_transmit());
        let datagrams: Vec<_> = batches
            .flat_map(|batch| batch.segments().map(<[u8]>::to_vec).collect::<Vec<_>>())
            .collect();
        datagrams
            .into_iter()
            .filter(|datagram| !(datagram[0] == 0 || datagram[1] == 1))
            .collect()
    }

    pub(super) fn send_packet(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let datagram = self.wireguard.seal(packet);
        self.exchange(datagram)
    }

    /// Sends packets in one batch; none may be longer than the first.
    pub(super) fn send_packets(&mut self, packets: &[&[u8]]) -> Vec<Vec<u8>> {
        let sealed: Vec<_> = packets
            .iter()
            .map(|packet| self.wireguard.seal(packet))
            .collect();
        let path = self.agent.path_to(addr("192.0.2.10:52625"));
        let batch = DatagramBatch::new(path, Ecn::NotEct, sealed[0].len(), sealed.concat());
        assert_eq!(batch.len(), packets.len());
        self.connection.handle_datagrams(&batch, self.now);
        self.sent()
    }

    pub(super) fn inbound(&mut self) -> Vec<Vec<u8>> {
        let batches = std::iter::from_fn(|| self.connection.poll_inbound());
        batches
            .flat_map(|batch| batch.iter().map(<[u8]>::to_vec).collect::<Vec<_>>())
            .collect()
    }
}

pub(super) fn udp_to_web() -> Vec<u8> {
    ipv4_packet(CLIENT, WEB, b"hello")
}

#[test]
fn the_acknowledgement_comes_before_any_candidate() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    let events = pair.events();
    assert_eq!(
        events[0],
        ConnectionEvent::Accepted {
            reply_ref: "ref".into()
        }
    );
    assert!(matches!(events[1], ConnectionEvent::PeerAttached { .. }));
    assert!(matches!(events[2], ConnectionEvent::CandidatesGathered(_)));
}

/// docs/lessons.md 1: DNS never delays a reply.
#[test]
fn acknowledges_without_any_address_or_relay() {
    let mut pair = Pair::new();
    pair.connection
        .handle_local_addresses(LocalAddresses::default(), pair.now);
    pair.events();
    pair.grant(resource(1, vec![]));
    assert_eq!(
        pair.events()[0],
        ConnectionEvent::Accepted {
            reply_ref: "ref".into()
        }
    );
}

#[test]
fn forwards_a_packet_and_its_answer() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    assert!(pair.send_packet(&udp_to_web()).is_empty());
    assert_eq!(pair.inbound(), [udp_to_web()]);

    let answer = ipv4_packet(WEB, CLIENT, b"hello yourself");
    pair.connection
        .handle_packets(PacketBatch::of(&answer), pair.now);
    let sent = pair.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(pair.wireguard.open(&sent[0]), answer);
    assert_eq!(pair.connection.take_drops().total(), 0);
}

/// docs/lessons.md 19: ICMP errors and filters work in both directions.
#[test]
fn a_filtered_packet_is_answered_with_prohibited() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![Filter::Tcp(80..=80)]));
    pair.establish();
    let replies = pair.send_packet(&udp_to_web());
    assert!(pair.inbound().is_empty());
    let reply = pair.wireguard.open(&replies[0]);
    let parsed = IpPacket::parse(&reply).expect("a valid packet");
    assert_eq!(parsed.transport(), Transport::IcmpError);
    assert_eq!(&reply[20..22], [3, 13]);
    assert_eq!(
        pair.connection.take_drops().of(DropReason::NotAuthorized),
        1
    );
}

#[test]
fn the_same_keys_keep_the_session_and_signal_candidates_again() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    pair.events();
    pair.grant(resource(2, vec![]));
    let events = pair.events();
    assert!(matches!(
        events[..],
        [
            ConnectionEvent::Accepted { .. },
            ConnectionEvent::CandidatesGathered(_)
        ]
    ));
    pair.send_packet(&udp_to_web());
    assert_eq!(pair.inbound().len(), 1);
}

#[test]
fn new_keys_replace_the_transport_and_keep_the_authorizations() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![Filter::Udp(5000..=5000)]));
    pair.establish();
    pair.events();
    pair.wireguard = TestClient::with_private([5; 32]);
    pair.agent = TestAgent::new("203.0.113.77:9999");
    pair.grant(Resource {
        kind: ResourceKind::Cidr("10.99.0.0/24".parse().expect("literal")),
        ..resource(2, vec![])
    });
    pair.establish();
    pair.send_packet(&udp_to_web());
    assert_eq!(pair.inbound().len(), 1, "the first resource was forgotten");
}

#[test]
fn a_revocation_stops_traffic_and_the_last_one_sends_a_goodbye() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    pair.events();
    pair.connection
        .handle_revocation(ResourceId(Uuid::from_u128(1)), pair.now);
    let sent = pair.sent();
    assert_eq!(pair.wireguard.open(&sent[0]), ControlPacket::goodbye());
    assert_eq!(
        pair.events(),
        [ConnectionEvent::PeerDetached, ConnectionEvent::Closed]
    );
    let late = pair.wireguard.seal(&udp_to_web());
    pair.exchange(late);
    assert!(pair.inbound().is_empty());
}

/// docs/lessons.md 23: Authorizations are reconciled on every `init`.
#[test]
fn revokes_all_grants_of_a_client_absent_from_the_list() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    pair.events();
    let gateway = tunnel([100, 64, 0, 1], "fd00:2021:1111::1");
    pair.connection
        .handle_reconciliation(gateway, &[], UNIX_NOW, pair.now);
    assert_eq!(pair.events().last(), Some(&ConnectionEvent::Closed));
}

#[test]
fn an_expired_authorization_stops_traffic() {
    let mut pair = Pair::new();
    let request = pair.request(resource(1, vec![]), Some(UnixTime(UNIX_NOW.0 + 60)));
    pair.connection
        .handle_authorization(request, UNIX_NOW, pair.now);
    pair.establish();
    pair.send_packet(&udp_to_web());
    assert_eq!(pair.inbound().len(), 1);
    pair.events();
    pair.now += Duration::from_secs(61);
    pair.connection.handle_timeout(pair.now);
    let events = pair.events();
    assert_eq!(
        events[0],
        ConnectionEvent::Expired(ResourceId(Uuid::from_u128(1)))
    );
    assert_eq!(events.last(), Some(&ConnectionEvent::Closed));
}

#[test]
fn a_goodbye_closes_and_a_later_grant_starts_again() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    pair.events();
    pair.send_packet(&ControlPacket::goodbye());
    assert_eq!(pair.events().last(), Some(&ConnectionEvent::Closed));

    pair.wireguard = TestClient::with_private([6; 32]);
    pair.agent = TestAgent::new("198.51.100.5:4001");
    pair.grant(resource(1, vec![]));
    pair.establish();
    pair.send_packet(&udp_to_web());
    assert_eq!(pair.inbound().len(), 1);
}

#[test]
fn control_packets_never_reach_the_resource() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    let mut unknown = ControlPacket::goodbye();
    unknown[40] = 99;
    pair.send_packet(&unknown);
    assert!(pair.inbound().is_empty());
}

#[test]
fn marks_congestion_in_the_inner_packet() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    let mut packet = udp_to_web();
    crate::packet::checksum::set_ecn(&mut packet, Ecn::Ect0);
    let sealed = pair.wireguard.seal(&packet);
    pair.exchange_marked(sealed, Ecn::Ce);
    let arrived = pair.inbound().pop().expect("forwarded");
    assert_eq!(IpPacket::parse(&arrived).expect("valid").ecn(), Ecn::Ce);
}

#[test]
fn drops_the_transport_after_ten_seconds_without_candidates_and_keeps_the_grant() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.events();
    pair.connection
        .handle_timeout(pair.now + Duration::from_secs(11));
    assert_eq!(pair.events(), [ConnectionEvent::PeerDetached]);
    pair.now += Duration::from_secs(12);
    pair.grant(resource(1, vec![]));
    pair.establish();
    pair.send_packet(&udp_to_web());
    assert_eq!(pair.inbound().len(), 1);
}

#[test]
fn answers_follow_the_client_when_the_nominated_path_is_silent() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    pair.establish();
    let nominated = pair.agent.path_to(addr("192.0.2.10:52625"));
    let elsewhere = Path {
        remote: addr("203.0.113.50:50000"),
        ..nominated
    };
    let answer = || PacketBatch::of(&ipv4_packet(WEB, CLIENT, b"answer"));
    let sent_to = |pair: &mut Pair| {
        pair.connection.handle_packets(answer(), pair.now);
        let batches = std::iter::from_fn(|| pair.connection.poll_transmit());
        let data = batches.filter(|batch| batch.bytes()[0] == 4);
        data.map(|batch| batch.path).last()
    };
    assert_eq!(sent_to(&mut pair), Some(nominated));

    let datagram = pair.wireguard.seal(&udp_to_web());
    let batch = DatagramBatch::of(elsewhere, datagram);
    pair.connection.handle_datagrams(&batch, pair.now);
    assert_eq!(
        sent_to(&mut pair),
        Some(nominated),
        "one stray packet moves nothing"
    );

    pair.now += Duration::from_secs(6);
    assert_eq!(sent_to(&mut pair), Some(elsewhere));
}

#[test]
fn drops_and_counts_packets_for_a_client_without_a_session() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    let answer = ipv4_packet(WEB, CLIENT, b"early");
    pair.connection
        .handle_packets(PacketBatch::of(&answer), pair.now);
    assert_eq!(pair.connection.take_drops().of(DropReason::NotConnected), 1);
}

#[test]
fn refuses_resources_beyond_the_limit_without_acknowledgement() {
    let mut pair = Pair::new();
    for number in 1..=8 {
        pair.grant(resource(number, vec![]));
    }
    pair.events();
    pair.grant(resource(9, vec![]));
    assert!(matches!(pair.events()[..], [ConnectionEvent::Refused(_)]));
}

#[test]
fn reports_handshakes_session_and_path() {
    let mut pair = Pair::new();
    pair.grant(resource(1, vec![]));
    let known = (pair.connection.has_session(), pair.connection.path_kind());
    assert_eq!(known, (false, None));
    pair.establish();
    let counts = HandshakeCounts {
        answered: 1,
        ..HandshakeCounts::default()
    };
    assert_eq!(pair.connection.take_handshakes(), counts);
    assert!(pair.connection.has_session());
    // No candidate of the client was signalled.
    let kind = pair.connection.path_kind();
    assert_eq!(kind, Some(PathKind::PeerReflexive));

    let third_party = TestClient::with_private([8; 32]).initiation();
    assert!(pair.exchange(third_party).is_empty());
    let counts = HandshakeCounts {
        rejected: 1,
        ..HandshakeCounts::default()
    };
    assert_eq!(pair.connection.take_handshakes(), counts);
    pair.connection.close(pair.now);
    let known = (pair.connection.has_session(), pair.connection.path_kind());
    assert_eq!(known, (false, None));
}

#[test]
fn a_path_has_the_kind_of_the_client_candidate() {
    for (text, kind) in [
        ("host", PathKind::Host),
        ("srflx raddr 0.0.0.0 rport 0", PathKind::ServerReflexive),
        ("relay raddr 0.0.0.0 rport 0", PathKind::Relayed),
    ] {
        let mut pair = Pair::new();
        pair.grant(resource(1, vec![]));
        let candidate = format!("candidate:1 1 udp 2130706431 198.51.100.5 4000 typ {text}");
        let odd = pair
            .connection
            .add_remote_candidates(&[candidate], pair.now);
        assert_eq!(odd, 0);
        pair.connect();
        assert_eq!(pair.connection.path_kind(), Some(kind));
    }
}

/// The cost of an idle client is the number of its wake-ups.
#[test]
fn an_idle_connection_wakes_rarely() {
    let mut pair = Pair::new();
    pair.grant(resource(1, Vec::new()));
    pair.establish();
    let wakeups_within = |pair: &mut Pair, span: Duration| {
        let end = pair.now + span;
        let mut wakeups = 0;
        while let Some(at) = pair.connection.poll_timeout().filter(|at| *at <= end) {
            pair.now = at.max(pair.now);
            for datagram in pair.agent.progress(pair.now) {
                pair.connection.handle_datagrams(&datagram, pair.now);
            }
            pair.connection.handle_timeout(pair.now);
            while let Some(batch) = pair.connection.poll_transmit() {
                pair.agent.handle(&batch, pair.now);
            }
            for datagram in pair.agent.progress(pair.now) {
                pair.connection.handle_datagrams(&datagram, pair.now);
            }
            while pair.connection.poll_event().is_some() {}
            wakeups += 1;
        }
        pair.now = end;
        wakeups
    };
    let first = wakeups_within(&mut pair, Duration::from_secs(25));
    assert!(first >= 20, "{first} while packets may still come");
    let idle = wakeups_within(&mut pair, Duration::from_secs(60));
    assert!(pair.connection.has_session());
    assert!(
        (1..=12).contains(&idle),
        "{idle} in a minute without packets"
    );
}
