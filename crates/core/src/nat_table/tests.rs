//! The whole NAT: clients on one side, resources on the other, names between them.

use super::*;
use crate::authorizations::testing::Entitled;
use crate::names::{NameFailure, ResolvedAddresses};
use crate::packet::checksum::ChecksumUpdate;
use crate::packet::samples::{Shape, packet, packet_between};
use crate::packet::{IpPacket, Transport};
use crate::testing::beginning;
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

mod explain;
mod interleavings;
mod policy_agreement;
mod rebuilt;

pub(super) const REAL: &str = "10.20.0.100";
pub(super) const OTHER_REAL: &str = "10.20.0.101";
const REAL_V6: &str = "fd20::100";
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

pub(super) fn client(number: u8) -> (ClientId, TunnelAddresses) {
    let tunnel = TunnelAddresses {
        ipv4: [100, 64, 1, number].into(),
        ipv6: format!("fd00:2021:1111::{number:x}")
            .parse()
            .expect("literal"),
    };
    (ClientId(Uuid::from_u128(number.into())), tunnel)
}

pub(super) fn own_v4(number: u8) -> String {
    client(number).1.ipv4.to_string()
}

fn own_v6(number: u8) -> String {
    client(number).1.ipv6.to_string()
}

/// Name `n` of a client has block `n` of four addresses in each family.
pub(super) fn proxy_v4(block: u8, place: u8) -> IpAddr {
    [100, 96, 0, 1 + 4 * block + place].into()
}

fn proxy_v6(block: u8, place: u8) -> IpAddr {
    let last = u16::from(4 * block + place);
    [0xfd00, 0x2021, 0x1111, 0x8000, 0, 0, 0, last].into()
}

/// The proxy IPs of name `block`, of both families.
fn proxies(block: u8) -> Vec<IpAddr> {
    let v4 = (0..4).map(|place| proxy_v4(block, place));
    v4.chain((0..4).map(|place| proxy_v6(block, place)))
        .collect()
}

pub(super) fn answer(
    name: &str,
    family: AddressFamily,
    outcome: Result<&[&str], NameFailure>,
) -> NameAnswer {
    let ttl = Duration::from_secs(300);
    NameAnswer {
        name: name.parse().expect("a name"),
        family,
        outcome: outcome.map(|ips| ResolvedAddresses {
            ips: ips
                .iter()
                .map(|ip| ip.parse().expect("an address"))
                .collect(),
            ttl,
        }),
        from_cache: false,
    }
}

/// A TCP segment with these flags and correct checksums.
fn tcp(source: &str, destination: &str, from: u16, to: u16, flags: u8) -> Vec<u8> {
    let mut bytes = packet_between(source, destination, Shape::Tcp { from, to });
    let offset = IpPacket::parse(&bytes).expect("valid").transport_offset();
    let old = u16::from_be_bytes([bytes[offset + 12], bytes[offset + 13]]);
    bytes[offset + 13] = flags;
    let new = u16::from_be_bytes([bytes[offset + 12], bytes[offset + 13]]);
    let sum = u16::from_be_bytes([bytes[offset + 16], bytes[offset + 17]]);
    let sum = ChecksumUpdate::default().replace_u16(old, new).apply(sum);
    bytes[offset + 16..offset + 18].copy_from_slice(&sum.to_be_bytes());
    bytes
}

pub(super) struct Scene {
    pub(super) nat: NatTable,
    clients: BTreeMap<u8, Entitled>,
    pub(super) now: Instant,
}

impl Scene {
    pub(super) fn new(clients: &[u8]) -> Self {
        let now = beginning();
        let mut nat = NatTable::new(NatTableConfig::default(), [7; 32], now);
        for number in clients {
            let (id, tunnel) = client(*number);
            nat.attach(id, tunnel);
        }
        Self {
            nat,
            clients: BTreeMap::new(),
            now,
        }
    }

    /// Client 1 with one name that has one address of each family.
    fn resolved() -> Self {
        let mut scene = Self::new(&[1]);
        scene.assign(1, "app.example", 0);
        scene.answer("app.example", AddressFamily::V4, Ok(&[REAL]));
        scene.answer("app.example", AddressFamily::V6, Ok(&[REAL_V6]));
        scene.events();
        scene
    }

    pub(super) fn assign(&mut self, number: u8, name: &str, block: u8) {
        self.assign_for(number, 1, name, block);
    }

    fn assign_for(&mut self, number: u8, resource: u128, name: &str, block: u8) {
        let entitled = self.clients.entry(number).or_default();
        let meanings = entitled.announce(resource, name, &proxies(block));
        self.tell(number, &meanings);
    }

    pub(super) fn release(&mut self, number: u8, resource: u128) {
        let meanings = self.clients.entry(number).or_default().release(resource);
        self.tell(number, &meanings);
    }

    pub(super) fn tell(&mut self, number: u8, meanings: &[NameMeaning]) {
        for meaning in meanings {
            self.nat.handle_name(client(number).0, meaning, self.now);
        }
    }

    pub(super) fn answer(
        &mut self,
        name: &str,
        family: AddressFamily,
        outcome: Result<&[&str], NameFailure>,
    ) {
        self.nat
            .handle_answer(&answer(name, family, outcome), self.now);
    }

    fn answer_both(&mut self, name: &str, failure: NameFailure) {
        for family in AddressFamily::ALL {
            self.answer(name, family, Err(failure));
        }
    }

    /// The packets that reach the TUN.
    pub(super) fn send(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.nat.handle_inbound(PacketBatch::of(packet), self.now);
        self.forwarded()
    }

    pub(super) fn forwarded(&mut self) -> Vec<Vec<u8>> {
        let batches = std::iter::from_fn(|| self.nat.poll_inbound());
        batches
            .flat_map(|batch| batch.iter().map(<[u8]>::to_vec).collect::<Vec<_>>())
            .collect()
    }

    /// The packets that reach a client after `packet` from the TUN.
    fn receive(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.nat.handle_outbound(PacketBatch::of(packet), self.now);
        self.delivered()
    }

    pub(super) fn delivered(&mut self) -> Vec<Vec<u8>> {
        let batches = std::iter::from_fn(|| self.nat.poll_outbound());
        batches
            .flat_map(|(_, batch)| batch.iter().map(<[u8]>::to_vec).collect::<Vec<_>>())
            .collect()
    }

    pub(super) fn events(&mut self) -> Vec<NatTableEvent> {
        std::iter::from_fn(|| self.nat.poll_event()).collect()
    }

    fn statuses(&mut self) -> Vec<bool> {
        let events = self.events().into_iter();
        events
            .filter_map(|event| match event {
                NatTableEvent::Status { status, .. } => Some(status.active),
                NatTableEvent::Resolve { .. }
                | NatTableEvent::NameKnown { .. }
                | NatTableEvent::PinsChanged { .. } => None,
            })
            .collect()
    }

    /// Advances the clock from deadline to deadline.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.nat.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.nat.handle_timeout(self.now);
        }
        self.now = end;
        self.nat.handle_timeout(end);
    }

    pub(super) fn drops(&mut self, reason: DropReason) -> u64 {
        self.nat.take_drops().of(reason)
    }
}

fn syn(to: IpAddr, from: u16) -> Vec<u8> {
    let own = if to.is_ipv4() { own_v4(1) } else { own_v6(1) };
    tcp(&own, &to.to_string(), from, 80, SYN)
}

/// The answer to a packet that reached the TUN.
fn reply_to(sent: &[u8], flags: u8) -> Vec<u8> {
    let packet = IpPacket::parse(sent).expect("valid");
    let Transport::Tcp {
        source_port,
        destination_port,
    } = packet.transport()
    else {
        panic!("{packet:?}");
    };
    let (source, destination) = (
        packet.source().to_string(),
        packet.destination().to_string(),
    );
    tcp(&destination, &source, destination_port, source_port, flags)
}

fn destination_of(packets: &[Vec<u8>]) -> Vec<String> {
    let destination = |bytes: &Vec<u8>| IpPacket::parse(bytes).expect("valid").destination();
    packets
        .iter()
        .map(|bytes| destination(bytes).to_string())
        .collect()
}

fn is_unreachable(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => packet[20..22] == [3, 0],
        _ => packet[40..42] == [1, 3],
    }
}

#[test]
fn translates_both_families_in_both_directions() {
    let mut scene = Scene::resolved();
    for (proxy, real) in [(proxy_v4(0, 2), REAL), (proxy_v6(0, 1), REAL_V6)] {
        let sent = scene.send(&syn(proxy, 5000));
        assert_eq!(destination_of(&sent), [real]);
        let back = scene.receive(&reply_to(&sent[0], SYN_ACK));
        let expected = reply_to(&syn(proxy, 5000), SYN_ACK);
        assert_eq!(back, [expected], "as if the proxy IP had answered");
    }
}

/// docs/lessons.md 1: DNS never delays a reply.
#[test]
fn holds_packets_until_the_answer_and_forwards_them_in_order() {
    let mut scene = Scene::new(&[1]);
    scene.assign(1, "app.example", 0);
    assert_eq!(scene.statuses(), [true], "active at once");
    for from in [5000, 5001] {
        assert_eq!(scene.send(&syn(proxy_v4(0, 0), from)).len(), 0);
    }
    scene.answer("app.example", AddressFamily::V4, Ok(&[REAL]));
    let sent = scene.forwarded();
    assert_eq!(destination_of(&sent), [REAL, REAL]);
    let port = |bytes: &[u8]| u16::from_be_bytes([bytes[20], bytes[21]]);
    assert_eq!([port(&sent[0]), port(&sent[1])], [5000, 5001]);
}

/// docs/lessons.md 8: Unresolved is "unreachable", not "prohibited".
#[test]
fn answers_unreachable_not_prohibited_after_the_hold_time() {
    let mut scene = Scene::new(&[1]);
    scene.assign(1, "app.example", 0);
    scene.send(&syn(proxy_v4(0, 0), 5000));
    scene.pass(Duration::from_millis(1999));
    assert_eq!(scene.delivered().len(), 0);
    scene.pass(Duration::from_millis(2));
    let answers = scene.delivered();
    assert!(
        answers.len() == 1 && is_unreachable(&answers[0]),
        "{answers:?}"
    );
    assert_eq!(scene.drops(DropReason::Unmapped), 1);
}

/// docs/lessons.md 9: Every proxy IP is mapped, each family for itself.
#[test]
fn a_family_without_an_address_is_refused_immediately() {
    let mut scene = Scene::new(&[1]);
    scene.assign(1, "app.example", 0);
    scene.send(&syn(proxy_v6(0, 0), 5000));
    scene.answer("app.example", AddressFamily::V6, Err(NameFailure::NoData));
    let answers = scene.delivered();
    assert!(
        answers.len() == 1 && is_unreachable(&answers[0]),
        "the held one: {answers:?}"
    );
    scene.answer("app.example", AddressFamily::V4, Ok(&[REAL]));
    scene.send(&syn(proxy_v6(0, 0), 5001));
    assert_eq!(scene.delivered().len(), 1);
    assert_eq!(scene.send(&syn(proxy_v4(0, 0), 5002)).len(), 1);
}

#[test]
fn three_names_on_one_address_get_different_outside_ports() {
    let mut scene = Scene::new(&[1]);
    for (block, name) in ["a.example", "b.example", "c.example"].iter().enumerate() {
        scene.assign(1, name, u8::try_from(block).expect("small"));
        scene.answer(name, AddressFamily::V4, Ok(&[REAL]));
    }
    let sent: Vec<_> = (0..3)
        .flat_map(|block| scene.send(&syn(proxy_v4(block, 0), 5000)))
        .collect();
    let ports: BTreeSet<_> = sent.iter().map(|bytes| [bytes[20], bytes[21]]).collect();
    assert_eq!(
        (sent.len(), ports.len()),
        (3, 3),
        "one outside for each inside"
    );
    for block in [2, 0, 1] {
        let back = scene.receive(&reply_to(&sent[usize::from(block)], SYN_ACK));
        assert_eq!(back, [reply_to(&syn(proxy_v4(block, 0), 5000), SYN_ACK)]);
    }
}

/// docs/lessons.md 5: A refresh does not cut live flows.
#[test]
fn a_refresh_moves_new_and_unanswered_flows_but_no_live_one() {
    let mut scene = Scene::resolved();
    let live = scene.send(&syn(proxy_v4(0, 0), 5000));
    scene.receive(&reply_to(&live[0], SYN_ACK));
    scene.send(&syn(proxy_v4(0, 0), 5001));
    scene.answer("app.example", AddressFamily::V4, Ok(&[OTHER_REAL]));

    let data = tcp(&own_v4(1), &proxy_v4(0, 0).to_string(), 5000, 80, ACK);
    assert_eq!(destination_of(&scene.send(&data)), [REAL]);
    for from in [5001, 5002] {
        let sent = scene.send(&syn(proxy_v4(0, 0), from));
        assert_eq!(destination_of(&sent), [OTHER_REAL], "from {from}");
    }
    assert_eq!(scene.receive(&reply_to(&live[0], ACK)).len(), 1);
}

#[test]
fn a_syn_on_a_reused_port_goes_to_the_current_address() {
    let mut scene = Scene::resolved();
    let old = scene.send(&syn(proxy_v4(0, 0), 5000));
    scene.receive(&reply_to(&old[0], SYN_ACK));
    scene.answer("app.example", AddressFamily::V4, Ok(&[OTHER_REAL]));
    let again = scene.send(&syn(proxy_v4(0, 0), 5000));
    assert_eq!(destination_of(&again), [OTHER_REAL]);
}

#[test]
fn syns_on_a_reused_port_count_as_unanswered() {
    let mut scene = Scene::new(&[1]);
    scene.assign(1, "app.example", 0);
    scene.answer("app.example", AddressFamily::V4, Ok(&[REAL, OTHER_REAL]));
    scene.answer("app.example", AddressFamily::V6, Err(NameFailure::NoData));
    let old = scene.send(&syn(proxy_v4(0, 0), 5000));
    scene.receive(&reply_to(&old[0], SYN_ACK));
    scene.events();
    for _ in 0..2 {
        scene.send(&syn(proxy_v4(0, 0), 5000));
        scene.pass(Duration::from_secs(1));
    }
    let asks =
        |event: &NatTableEvent| matches!(event, NatTableEvent::Resolve { refresh: true, .. });
    assert!(scene.events().iter().any(asks));
}

#[test]
fn an_unanswered_flow_to_a_denied_address_is_refused() {
    let mut scene = Scene::resolved();
    for _ in 0..2 {
        scene.send(&syn(proxy_v4(0, 0), 5000));
        scene.pass(Duration::from_secs(1));
    }
    scene.events();
    scene.answer(
        "app.example",
        AddressFamily::V4,
        Err(NameFailure::NoSuchName),
    );
    assert_eq!(scene.send(&syn(proxy_v4(0, 0), 5000)).len(), 0);
    assert!(is_unreachable(&scene.delivered()[0]));
}

#[test]
fn a_held_packet_is_not_released_to_another_name() {
    let mut scene = Scene::new(&[1]);
    scene.assign(1, "guarded.example", 2);
    scene.answer("guarded.example", AddressFamily::V4, Ok(&[OTHER_REAL]));
    scene.assign(1, "open.example", 0);
    scene.send(&syn(proxy_v4(0, 0), 5000));
    scene.assign(1, "open.example", 1);
    scene.assign(1, "guarded.example", 0);
    scene.answer("open.example", AddressFamily::V4, Ok(&[REAL]));
    assert_eq!(scene.forwarded().len(), 0);
    assert_eq!(scene.drops(DropReason::Unmapped), 1);
}

#[test]
fn a_refused_name_takes_the_former_names_of_its_proxy_ips_with_it() {
    let mut scene = Scene::new(&[1]);
    scene.nat.use_config(NatTableConfig {
        domains: DomainsConfig {
            mappings_per_client: 2,
            ..DomainsConfig::default()
        },
        ..NatTableConfig::default()
    });
    scene.assign(1, "app.example", 1);
    scene.assign(1, "other.example", 2);
    scene.answer("app.example", AddressFamily::V4, Ok(&[REAL]));
    scene.assign(1, "more.example", 1);
    scene.assign(1, "again.example", 3);
    scene.events();
    scene.assign(1, "refused.example", 4);
    assert_eq!(scene.statuses(), [false]);
    assert_eq!(scene.send(&syn(proxy_v4(1, 0), 5000)).len(), 0);
    assert_eq!(scene.send(&syn(proxy_v4(4, 0), 5000)).len(), 0);
}

#[test]
fn answers_packets_beyond_the_hold_limit() {
    let mut scene = Scene::new(&[1]);
    scene.assign(1, "app.example", 0);
    for from in 5000..5033 {
        scene.send(&syn(proxy_v4(0, 0), from));
    }
    assert_eq!(scene.drops(DropReason::HoldFull), 1);
    assert!(is_unreachable(&scene.delivered()[0]));
}

/// docs/lessons.md 13: Packets of an expired flow are dropped.
#[test]
fn drops_answers_to_ended_flows_and_passes_untranslated_packets() {
    let mut scene = Scene::resolved();
    let sent = scene.send(&syn(proxy_v4(0, 0), 5000));
    let late = reply_to(&sent[0], SYN_ACK);
    scene.pass(Duration::from_secs(61));
    assert_eq!(scene.receive(&late).len(), 0);
    assert_eq!(scene.drops(DropReason::ExpiredFlow), 1);

    let cidr = tcp("10.99.0.1", &own_v4(1), 80, 6000, ACK);
    assert_eq!(scene.receive(&cidr), [cidr]);
}

/// docs/lessons.md 14: Flow timers follow the protocol.
#[test]
fn a_reset_is_delivered_and_ends_the_flow() {
    let mut scene = Scene::resolved();
    let sent = scene.send(&syn(proxy_v4(0, 0), 5000));
    let reset = reply_to(&sent[0], RST);
    assert_eq!(scene.receive(&reset).len(), 1);
    assert_eq!(scene.receive(&reset).len(), 0);
}

/// docs/lessons.md 17: A reused proxy IP resets its mapping.
#[test]
fn a_proxy_ip_for_another_name_keeps_no_state() {
    let mut scene = Scene::resolved();
    let old = scene.send(&syn(proxy_v4(0, 0), 5000));
    scene.receive(&reply_to(&old[0], SYN_ACK));
    scene.assign(1, "other.example", 0);
    assert_eq!(
        scene.receive(&reply_to(&old[0], ACK)).len(),
        0,
        "the old name's flow"
    );
    let data = tcp(&own_v4(1), &proxy_v4(0, 0).to_string(), 5000, 80, ACK);
    assert_eq!(scene.send(&data).len(), 0, "held for the new name");
    scene.answer("other.example", AddressFamily::V4, Ok(&[OTHER_REAL]));
    assert_eq!(destination_of(&scene.forwarded()), [OTHER_REAL]);
}

/// A router's ICMP error about `offending`: destination unreachable with `code`.
fn unreachable_about(offending: &[u8], code: u8) -> Vec<u8> {
    let source = IpPacket::parse(offending)
        .expect("valid")
        .source()
        .to_string();
    let mut bytes = packet(
        "10.20.0.1".parse().expect("literal"),
        source.parse().expect("an address"),
        Shape::IcmpError,
        &offending[..28],
    );
    bytes[21] = code;
    bytes[22..24].fill(0);
    let sum = crate::packet::checksum::checksum(&bytes[20..]);
    bytes[22..24].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// docs/lessons.md 2: A refresh does not loop.
#[test]
fn an_unreachable_address_is_replaced_immediately_and_the_error_forwarded() {
    let mut scene = Scene::new(&[1]);
    scene.assign(1, "app.example", 0);
    scene.answer("app.example", AddressFamily::V4, Ok(&[REAL, OTHER_REAL]));
    scene.events();
    let sent = scene.send(&syn(proxy_v4(0, 0), 5000));
    assert_eq!(destination_of(&sent), [REAL]);
    let answers = scene.receive(&unreachable_about(&sent[0], 1));
    let outer = IpPacket::parse(&answers[0]).expect("valid");
    assert_eq!(outer.source(), proxy_v4(0, 0));
    assert_eq!(
        answers[0][28 + 16..28 + 20],
        [100, 96, 0, 1],
        "the embedded destination"
    );
    let again = scene.send(&syn(proxy_v4(0, 0), 5000));
    assert_eq!(destination_of(&again), [OTHER_REAL]);
}

#[test]
fn a_refused_port_changes_no_address() {
    let mut scene = Scene::new(&[1]);
    scene.assign(1, "app.example", 0);
    scene.answer("app.example", AddressFamily::V4, Ok(&[REAL, OTHER_REAL]));
    let sent = scene.send(&syn(proxy_v4(0, 0), 5000));
    assert_eq!(scene.receive(&unreachable_about(&sent[0], 3)).len(), 1);
    let again = scene.send(&syn(proxy_v4(0, 0), 5000));
    assert_eq!(destination_of(&again), [REAL]);
}

/// docs/lessons.md 7: A failed lookup does not erase a good mapping.
#[test]
fn reports_definite_failures_and_tsuccessor_end() {
    let mut scene = Scene::new(&[1]);
    scene.assign(1, "app.example", 0);
    assert_eq!(scene.statuses(), [true]);
    scene.answer_both("app.example", NameFailure::ServerFailure);
    assert_eq!(
        scene.statuses(),
        [] as [bool; 0],
        "no definite answer of the DNS"
    );
    scene.answer_both("app.example", NameFailure::NoSuchName);
    assert_eq!(scene.statuses(), [false]);
    scene.answer("app.example", AddressFamily::V4, Ok(&[REAL]));
    assert_eq!(scene.statuses(), [true]);
}

/// docs/lessons.md 7: A failed lookup does not erase a good mapping.
#[test]
fn a_failed_refresh_keeps_the_address() {
    let mut scene = Scene::resolved();
    scene.answer_both("app.example", NameFailure::Timeout);
    assert_eq!(
        destination_of(&scene.send(&syn(proxy_v4(0, 0), 5000))),
        [REAL]
    );
}

#[test]
fn an_unassigned_proxy_ip_is_unreachable_and_delivers_nothing() {
    let mut scene = Scene::resolved();
    assert_eq!(scene.send(&syn(proxy_v4(9, 0), 5000)).len(), 0);
    assert!(is_unreachable(&scene.delivered()[0]));
    let forged = tcp(&proxy_v4(0, 0).to_string(), &own_v4(1), 80, 5000, SYN_ACK);
    assert_eq!(scene.receive(&forged).len(), 0);
    assert_eq!(scene.drops(DropReason::TunnelRange), 1);
}

#[test]
fn drops_untranslatable_packets() {
    let mut scene = Scene::resolved();
    let gre = packet_between(&own_v4(1), &proxy_v4(0, 0).to_string(), Shape::Other(47));
    assert_eq!(scene.send(&gre).len(), 0);
    assert_eq!(scene.drops(DropReason::Untranslatable), 1);
}

#[test]
fn clients_have_separate_names_and_lose_them_when_detached() {
    let mut scene = Scene::new(&[1, 2]);
    scene.assign(1, "app.example", 0);
    scene.answer("app.example", AddressFamily::V4, Ok(&[REAL]));
    let proxy = proxy_v4(0, 0).to_string();
    let of_two = tcp(&own_v4(2), &proxy, 5000, 80, SYN);
    assert_eq!(scene.send(&of_two).len(), 0);
    assert_eq!(scene.delivered().len(), 1, "answered as unreachable");
    let sent = scene.send(&syn(proxy_v4(0, 0), 5000));
    scene.nat.detach(client(1).0);
    assert_eq!(scene.receive(&reply_to(&sent[0], SYN_ACK)).len(), 0);
    let (id, tunnel) = client(1);
    scene.nat.attach(id, tunnel);
    assert_eq!(scene.send(&syn(proxy_v4(0, 0), 5000)).len(), 0);
}

/// docs/lessons.md 18: NAT set-up is keyed by resource and accepts any order.
#[test]
fn a_name_is_removed_with_its_last_resource() {
    let mut scene = Scene::resolved();
    scene.assign_for(1, 2, "app.example", 0);
    scene.release(1, 1);
    assert_eq!(scene.send(&syn(proxy_v4(0, 0), 5000)).len(), 1);
    scene.release(1, 2);
    assert_eq!(scene.send(&syn(proxy_v4(0, 0), 5001)).len(), 0);
}

#[test]
fn splits_a_batch_for_two_clients_and_keeps_the_order() {
    let mut scene = Scene::new(&[1, 2]);
    let mut batch = PacketBatch::default();
    let packets: Vec<_> = [1, 2, 1, 9]
        .iter()
        .zip(1u16..)
        .map(|(number, port)| tcp("10.99.0.1", &own_v4(*number), 80, port, ACK))
        .collect();
    packets.iter().for_each(|packet| batch.push(packet));
    scene.nat.handle_outbound(batch, scene.now);
    let sorted: Vec<_> = std::iter::from_fn(|| scene.nat.poll_outbound()).collect();
    assert_eq!(sorted.len(), 2);
    assert_eq!(sorted[0].0, client(1).0);
    let first: Vec<_> = sorted[0].1.iter().collect();
    assert_eq!(first, [&packets[0][..], &packets[2]]);
    assert_eq!(scene.drops(DropReason::UnknownClient), 1);
}

#[test]
fn a_taken_over_address_stays_when_the_former_owner_leaves() {
    let mut scene = Scene::new(&[1]);
    let (old, tunnel) = client(1);
    let (successor, _) = client(2);
    scene.nat.attach(successor, tunnel);
    scene.nat.detach(old);
    let packet = tcp("10.99.0.1", &own_v4(1), 80, 6000, ACK);
    scene
        .nat
        .handle_outbound(PacketBatch::of(&packet), scene.now);
    assert_eq!(scene.nat.poll_outbound().map(|(id, _)| id), Some(successor));
}
