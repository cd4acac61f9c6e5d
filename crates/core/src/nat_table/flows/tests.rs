//! The rules of the flow table, one by one; `model` checks them together.

mod model;

use super::*;
use crate::nat_table::MappingId;
use crate::packet::IpPacket;
use crate::packet::samples::{Shape, packet_between};
use crate::testing::beginning;

const PLAIN: TcpFlags = TcpFlags {
    syn: false,
    fin: false,
    rst: false,
};
const SYN: TcpFlags = TcpFlags { syn: true, ..PLAIN };
const FIN: TcpFlags = TcpFlags { fin: true, ..PLAIN };
const RST: TcpFlags = TcpFlags { rst: true, ..PLAIN };

const ANNA: ClientSlot = ClientSlot(0);
const BERT: ClientSlot = ClientSlot(7);

/// A table with a manual clock.
struct Bench {
    table: FlowTable,
    now: Instant,
}

impl Bench {
    fn new(flows: u32, flows_per_client: u32) -> Self {
        let limits = FlowLimits {
            flows,
            flows_per_client,
        };
        let now = beginning();
        let table = FlowTable::new(limits, [7; 32], now);
        Self { table, now }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn open(&mut self, inside: Inside, real: &str) -> Result<Binding, DropReason> {
        self.table.open(inside, target(real), self.now)
    }

    fn opened(&mut self, inside: Inside, real: &str) -> Binding {
        self.open(inside, real).expect("room")
    }

    fn confirmed(&mut self, inside: Inside, real: &str) -> Binding {
        let binding = self.opened(inside, real);
        self.outbound(binding, PLAIN);
        binding
    }

    fn inbound(&mut self, binding: Binding, flags: TcpFlags) {
        self.table.note_inbound(binding.flow, flags, self.now);
    }

    fn outbound(&mut self, binding: Binding, flags: TcpFlags) -> bool {
        self.table.note_outbound(binding.flow, flags, self.now)
    }

    fn rebind(&mut self, binding: Binding, real: &str) -> Result<Binding, DropReason> {
        let real = real.parse().expect("an address");
        self.table.rebind(binding.flow, real, 2, self.now)
    }

    fn is_live(&mut self, inside: &Inside) -> bool {
        self.table.find_inside(inside, self.now).is_some()
    }

    fn outside(&mut self, outside: &Outside) -> Lookup {
        self.table.find_outside(outside, self.now)
    }

    /// The flow lasts `seconds` of silence, and at most one more.
    fn assert_lives_for(&mut self, inside: Inside, seconds: u64) {
        let outside = self.table.find_inside(&inside, self.now);
        let outside = outside.expect("a live flow").outside;
        self.wait(seconds);
        assert!(self.is_live(&inside), "{inside:?} lives for {seconds} s");
        self.wait(1);
        assert_eq!(self.outside(&outside), Lookup::Expired);
        assert!(!self.is_live(&inside), "{inside:?} is gone");
    }
}

fn target(real: &str) -> FlowTarget {
    FlowTarget {
        real: real.parse().expect("an address"),
        mapping: MappingId {
            index: 3,
            generation: 4,
        },
        epoch: 1,
    }
}

fn inside(client: ClientSlot, protocol: FlowProtocol, port: u16, proxy: &str) -> Inside {
    Inside {
        client,
        protocol,
        port,
        proxy: proxy.parse().expect("an address"),
    }
}

fn tcp(port: u16) -> Inside {
    inside(ANNA, FlowProtocol::Tcp, port, "100.96.0.1")
}

fn udp(port: u16) -> Inside {
    inside(ANNA, FlowProtocol::Udp, port, "100.96.0.1")
}

const WEB: &str = "10.20.0.100";
const WEB_2: &str = "10.20.0.101";

#[test]
fn finds_a_flow_from_both_sides() {
    let mut bench = Bench::new(10, 10);
    let binding = bench.opened(tcp(5000), WEB);
    assert_eq!(binding.outside.port, 5000);
    assert_eq!(binding.mapping, target(WEB).mapping);
    assert_eq!((binding.epoch, binding.confirmed), (1, false));
    let now = bench.now;
    assert_eq!(bench.table.find_inside(&tcp(5000), now), Some(binding));
    assert_eq!(bench.outside(&binding.outside), Lookup::Live(binding));
    assert!(bench.outbound(binding, PLAIN), "the first answer confirms");
    assert!(!bench.outbound(binding, PLAIN));
    let later = bench.opened(tcp(5000), WEB_2);
    assert!(later.confirmed && later.outside == binding.outside);
}

#[test]
fn separates_clients_and_protocols() {
    let mut bench = Bench::new(10, 10);
    let mine = bench.opened(tcp(5000), WEB);
    let proxy = "100.96.0.1";
    for (client, protocol) in [
        (ANNA, FlowProtocol::Udp),
        (ANNA, FlowProtocol::Echo),
        (BERT, FlowProtocol::Tcp),
    ] {
        let other = bench.opened(inside(client, protocol, 5000, proxy), WEB);
        assert_eq!(other.outside.port, mine.outside.port);
    }
    assert_eq!((bench.table.len_of(ANNA), bench.table.len_of(BERT)), (3, 1));
}

/// docs/lessons.md 10: No translation between IP families.
#[test]
fn refuses_to_mix_families() {
    let mut bench = Bench::new(10, 10);
    let refused = Err(DropReason::Untranslatable);
    assert_eq!(bench.open(tcp(5000), "fd00::1"), refused);
    let binding = bench.opened(tcp(5000), WEB);
    assert_eq!(bench.rebind(binding, "fd00::1"), refused);
}

#[test]
fn two_proxy_ips_of_one_real_ip_get_different_ports() {
    let mut bench = Bench::new(10, 10);
    let first = bench.opened(tcp(5000), WEB);
    let second = bench.opened(inside(ANNA, FlowProtocol::Tcp, 5000, "100.96.0.2"), WEB);
    assert_eq!(first.outside.port, 5000);
    assert!(second.outside.port >= 1024 && second.outside.port != 5000);
}

/// docs/lessons.md 14: Flow timers follow the protocol.
#[test]
fn an_established_tcp_flow_lasts_two_hours_and_four_minutes() {
    let mut bench = Bench::new(10, 10);
    let binding = bench.confirmed(tcp(5000), WEB);
    bench.wait(7000);
    bench.inbound(binding, PLAIN);
    bench.wait(7000);
    bench.outbound(binding, PLAIN);
    bench.assert_lives_for(tcp(5000), 7440);
}

/// docs/lessons.md 14: Flow timers follow the protocol.
#[test]
fn udp_and_echo_last_two_minutes() {
    let mut bench = Bench::new(10, 10);
    for protocol in [FlowProtocol::Udp, FlowProtocol::Echo] {
        let key = inside(ANNA, protocol, 5000, "100.96.0.1");
        let binding = bench.confirmed(key, WEB);
        bench.wait(119);
        bench.inbound(binding, PLAIN);
        bench.assert_lives_for(key, 120);
    }
}

/// docs/lessons.md 14: Flow timers follow the protocol.
#[test]
fn an_unanswered_flow_lasts_a_minute() {
    let mut bench = Bench::new(10, 10);
    for key in [tcp(5000), udp(5000)] {
        let binding = bench.opened(key, WEB);
        bench.wait(59);
        bench.inbound(binding, SYN);
        bench.assert_lives_for(key, 60);
    }
}

/// docs/lessons.md 14: Flow timers follow the protocol.
#[test]
fn a_closed_connection_lasts_five_seconds() {
    let mut bench = Bench::new(10, 10);
    let binding = bench.confirmed(tcp(5000), WEB);
    bench.wait(100);
    bench.outbound(binding, FIN);
    bench.wait(100);
    assert!(bench.is_live(&tcp(5000)), "half closed is open");
    bench.inbound(binding, FIN);
    bench.wait(5);
    bench.outbound(binding, PLAIN);
    bench.assert_lives_for(tcp(5000), 5);
}

/// docs/lessons.md 14: Flow timers follow the protocol.
#[test]
fn a_reset_ends_a_flow_immediately() {
    let mut bench = Bench::new(10, 10);
    let binding = bench.confirmed(tcp(5000), WEB);
    bench.inbound(binding, RST);
    assert_eq!(bench.outside(&binding.outside), Lookup::Expired);
    let binding = bench.opened(tcp(5001), WEB);
    assert!(bench.outbound(binding, RST), "a RST is an answer");
    assert_eq!(bench.outside(&binding.outside), Lookup::Expired);
    assert!(bench.table.is_empty());
}

#[test]
fn a_client_that_uses_a_closed_port_again_keeps_its_new_connection() {
    let mut bench = Bench::new(10, 10);
    let binding = bench.confirmed(tcp(5000), WEB);
    bench.outbound(binding, FIN);
    bench.inbound(binding, FIN);
    bench.wait(1);
    bench.inbound(binding, SYN);
    bench.outbound(binding, SYN);
    bench.assert_lives_for(tcp(5000), 7440);
}

/// docs/lessons.md 13: Packets of an expired flow are dropped.
#[test]
fn an_ended_flow_is_remembered_for_ten_minutes() {
    let mut bench = Bench::new(10, 10);
    let binding = bench.confirmed(tcp(5000), WEB);
    bench.table.expire(binding.flow, bench.now);
    bench.wait(599);
    assert_eq!(bench.outside(&binding.outside), Lookup::Expired);
    bench.wait(1);
    assert_eq!(bench.outside(&binding.outside), Lookup::Unknown);
    assert_eq!(bench.table.remembered(), 0);
}

/// docs/lessons.md 13: Packets of an expired flow are dropped.
#[test]
fn traffic_from_inside_reopens_a_flow_on_its_former_port() {
    let mut bench = Bench::new(10, 10);
    bench.opened(tcp(5000), WEB);
    let key = inside(ANNA, FlowProtocol::Tcp, 5000, "100.96.0.2");
    let before = bench.confirmed(key, WEB);
    assert_ne!(before.outside.port, 5000);
    bench.inbound(before, RST);
    let after = bench.opened(key, WEB);
    assert_eq!(after.outside, before.outside);
    assert!(!after.confirmed && after.flow != before.flow);
    assert_eq!(bench.outside(&after.outside), Lookup::Live(after));
    assert_eq!(bench.table.remembered(), 0);
    bench.inbound(before, RST);
    assert!(bench.is_live(&key), "the old flow's id leads nowhere");
}

/// docs/lessons.md 13: Packets of an expired flow are dropped.
#[test]
fn late_answers_do_not_reach_the_next_flow() {
    let mut bench = Bench::new(10, 10);
    let before = bench.confirmed(tcp(5000), WEB);
    bench.inbound(before, RST);
    let other = bench.opened(inside(ANNA, FlowProtocol::Tcp, 5000, "100.96.0.2"), WEB);
    assert_ne!(other.outside, before.outside);
    assert_eq!(bench.outside(&before.outside), Lookup::Expired);
}

/// docs/lessons.md 6: An unanswered SYN is not pinned to a dead address.
#[test]
fn an_unanswered_flow_moves_and_late_answers_are_dropped() {
    let mut bench = Bench::new(10, 10);
    let before = bench.opened(tcp(5000), WEB);
    let after = bench.rebind(before, WEB_2).expect("free");
    assert_eq!((after.outside.port, after.epoch), (5000, 2));
    assert_eq!(after.flow, before.flow);
    assert_eq!(bench.outside(&before.outside), Lookup::Expired);
    assert_eq!(bench.outside(&after.outside), Lookup::Live(after));
    let back = bench.rebind(after, WEB).expect("its own");
    assert_eq!(back.outside, before.outside);
    assert_eq!(bench.table.len(), 1);
}

/// docs/lessons.md 5: A refresh does not cut live flows.
#[test]
fn an_answered_flow_stays_where_it_is() {
    let mut bench = Bench::new(10, 10);
    let before = bench.confirmed(tcp(5000), WEB);
    let after = bench.rebind(before, WEB_2).expect("no change");
    assert_eq!((after.outside, after.epoch), (before.outside, 1));
    bench.inbound(before, RST);
    assert_eq!(bench.rebind(before, WEB_2), Err(DropReason::ExpiredFlow));
}

#[test]
fn a_full_table_evicts_remembered_flows_then_the_clients_own_then_refuses() {
    let mut bench = Bench::new(3, 10);
    let bert = inside(BERT, FlowProtocol::Tcp, 1, "100.96.0.1");
    bench.opened(bert, WEB);
    let ended = bench.opened(tcp(1), WEB);
    let quiet = bench.opened(tcp(2), WEB);
    bench.inbound(ended, RST);
    bench.opened(tcp(3), WEB);
    assert_eq!(bench.outside(&ended.outside), Lookup::Unknown);
    bench.opened(tcp(4), WEB);
    assert!(!bench.is_live(&tcp(2)) && bench.is_live(&tcp(3)));
    assert_eq!(bench.outside(&quiet.outside), Lookup::Unknown);
    for port in [3, 4] {
        bench.confirmed(tcp(port), WEB);
    }
    assert_eq!(bench.open(tcp(5), WEB), Err(DropReason::FlowTableFull));
    assert!(bench.is_live(&bert), "another client's does not give way");
}

#[test]
fn a_client_at_its_limit_loses_its_longest_silent_flow() {
    let mut bench = Bench::new(10, 2);
    let first = bench.opened(tcp(1), WEB);
    let second = bench.opened(tcp(2), WEB);
    bench.wait(1);
    bench.inbound(first, SYN);
    bench.opened(tcp(3), WEB);
    assert_eq!(bench.outside(&second.outside), Lookup::Expired);
    bench.confirmed(tcp(1), WEB);
    bench.confirmed(tcp(3), WEB);
    assert_eq!(bench.open(tcp(4), WEB), Err(DropReason::FlowTableFull));
    bench.opened(inside(BERT, FlowProtocol::Tcp, 4, "100.96.0.1"), WEB);
}

#[test]
fn lower_limits_end_no_flow_and_higher_ones_apply_immediately() {
    let mut bench = Bench::new(10, 10);
    for port in 1..=4 {
        bench.confirmed(tcp(port), WEB);
    }
    let limits = |flows, flows_per_client| FlowLimits {
        flows,
        flows_per_client,
    };
    bench.table.limit(limits(2, 2));
    assert_eq!(bench.open(tcp(5), WEB), Err(DropReason::FlowTableFull));
    bench.wait(60);
    assert!((1..=4).all(|port| bench.is_live(&tcp(port))));
    bench.table.limit(limits(5, u32::MAX));
    bench.opened(tcp(5), WEB);
    assert!((1..=5).all(|port| bench.is_live(&tcp(port))));
}

/// docs/lessons.md 15: Port search works at the edges and when the table is full.
#[test]
fn limits_a_client_to_half_of_the_ports() {
    let mut bench = Bench::new(100_000, u32::MAX);
    let proxies = (1..=32_768u32).map(|number| IpAddr::from((0x6460_0000 + number).to_be_bytes()));
    for proxy in proxies {
        let key = Inside {
            proxy,
            ..udp(65535)
        };
        let binding = bench.confirmed(key, WEB);
        assert!(binding.outside.port >= 1024);
    }
    assert_eq!(bench.open(udp(1), WEB), Err(DropReason::FlowTableFull));
    assert_eq!(bench.table.len(), 32_768);
}

#[test]
fn a_removed_client_leaves_nothing() {
    let mut bench = Bench::new(10, 10);
    let ended = bench.confirmed(tcp(1), WEB);
    bench.inbound(ended, RST);
    let live = bench.confirmed(tcp(2), WEB);
    bench.opened(tcp(3), WEB);
    bench.opened(inside(BERT, FlowProtocol::Tcp, 1, "100.96.0.1"), WEB);
    bench.table.remove_client(ANNA);
    bench.table.remove_client(ClientSlot(99));
    for outside in [ended.outside, live.outside] {
        assert_eq!(bench.outside(&outside), Lookup::Unknown);
    }
    assert_eq!((bench.table.len(), bench.table.remembered()), (1, 0));
}

/// docs/lessons.md 17: A reused proxy IP resets its mapping.
#[test]
fn remembers_flows_that_end_before_their_time() {
    let mut bench = Bench::new(10, 10);
    let flows = [1, 2].map(|port| bench.confirmed(tcp(port), WEB));
    for flow in flows {
        bench.table.expire(flow.flow, bench.now);
        assert_eq!(bench.outside(&flow.outside), Lookup::Expired);
    }
    assert_eq!(bench.table.len_of(ANNA), 0);
}

#[test]
fn an_empty_table_needs_no_timer_and_others_tick_in_whole_seconds() {
    let mut bench = Bench::new(10, 10);
    let start = bench.now;
    assert_eq!(bench.table.poll_timeout(), None);
    bench.now += Duration::from_millis(2_700);
    let binding = bench.opened(udp(1), WEB);
    let due = |seconds| Some(start + Duration::from_secs(seconds));
    assert_eq!(bench.table.poll_timeout(), due(63));
    bench.table.handle_timeout(start + Duration::from_secs(63));
    assert_eq!(bench.outside(&binding.outside), Lookup::Expired);
    assert_eq!(bench.table.poll_timeout(), due(663));
    bench.table.handle_timeout(start);
    bench.table.handle_timeout(start + Duration::from_secs(663));
    assert_eq!(bench.table.poll_timeout(), None);
}

#[test]
fn a_hundred_thousand_flows_fit_32_mib() {
    let mut bench = Bench::new(100_000, 2_000);
    for number in 0..100_000u32 {
        let key = Inside {
            client: ClientSlot(number % 50),
            ..udp(u16::try_from(number / 50).expect("2,000 ports"))
        };
        bench.opened(key, WEB);
    }
    assert_eq!(bench.table.len(), 100_000);
    let bytes = bench.table.heap_bytes();
    assert!(bytes < 32 << 20, "{bytes} bytes");
}

#[test]
fn only_a_client_opens_a_flow() {
    let parse = |shape| packet_between("10.0.0.1", "10.0.0.2", shape);
    let keys = |shape| {
        let bytes = parse(shape);
        let packet = IpPacket::parse(&bytes).expect("valid");
        let inside = Inside::of(ANNA, &packet).map(|key| (key.protocol, key.port));
        let outside = Outside::of(ANNA, &packet).map(|key| (key.protocol, key.port));
        (inside, outside)
    };
    let (udp, tcp, echo) = (FlowProtocol::Udp, FlowProtocol::Tcp, FlowProtocol::Echo);
    let refused = Err(DropReason::Untranslatable);
    assert_eq!(
        keys(Shape::Udp { from: 1, to: 2 }),
        (Ok((udp, 1)), Some((udp, 2)))
    );
    assert_eq!(
        keys(Shape::Tcp { from: 1, to: 2 }),
        (Ok((tcp, 1)), Some((tcp, 2)))
    );
    assert_eq!(keys(Shape::EchoRequest(5)), (Ok((echo, 5)), None));
    assert_eq!(keys(Shape::EchoReply(5)), (refused, Some((echo, 5))));
    for shape in [Shape::IcmpError, Shape::IcmpOther, Shape::Other(47)] {
        assert_eq!(keys(shape), (refused, None));
    }
}
