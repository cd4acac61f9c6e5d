//! The cost of a translated packet in a table of 100,000 flows: `cargo bench -p postern-core
//! --bench nat_table`.
//!
//! 50 clients with 2,000 TCP flows each, visited in an order that caches do not predict. The packet
//! itself is one reused buffer, as warm as one that was just decrypted. The heap figures are those
//! of divan's allocator.

use divan::{AllocProfiler, Bencher, black_box};
use postern_core::DropReason;
use postern_core::nat_table::flows::{
    Binding, FlowLimits, FlowProtocol, FlowTable, FlowTarget, Inside, Lookup,
};
use postern_core::nat_table::rewrite::{self, Layout};
use postern_core::nat_table::{ClientSlot, MappingId};
use postern_core::packet::{IpPacket, TcpFlags};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const CLIENTS: u32 = 50;
const FLOWS: u32 = 100_000;
const BURST: usize = 16;
const LIMITS: FlowLimits = FlowLimits {
    flows: FLOWS,
    flows_per_client: 4_000,
};

fn main() {
    divan::main();
}

#[divan::bench(sample_size = 10_000)]
fn inbound_packet(bencher: Bencher<'_, '_>) {
    let (mut table, now) = full_table(true);
    let keys = shuffled_keys();
    let (mut packet, layout) = packet_of_1280_bytes();
    let mut next = (0..keys.len()).cycle();
    bencher.bench_local(|| {
        let key = next.next().and_then(|at| keys.get(at)).expect("cycles");
        let binding = table.find_inside(key, now).expect("open");
        table.note_inbound(binding.flow, TcpFlags::default(), now);
        rewrite::inbound(black_box(&mut packet), layout, &binding.outside)
    });
}

/// As [`inbound_packet`], but with several packets of one flow in a row, as in practice. The figure
/// is that of one packet.
#[divan::bench(sample_size = 10_000)]
fn inbound_burst(bencher: Bencher<'_, '_>) {
    let (mut table, now) = full_table(true);
    let keys = shuffled_keys();
    let (mut packet, layout) = packet_of_1280_bytes();
    let bursts = (0..keys.len()).cycle();
    let mut next = bursts.flat_map(|at| std::iter::repeat_n(at, BURST));
    bencher.bench_local(|| {
        let key = next.next().and_then(|at| keys.get(at)).expect("cycles");
        let binding = table.find_inside(key, now).expect("open");
        table.note_inbound(binding.flow, TcpFlags::default(), now);
        rewrite::inbound(black_box(&mut packet), layout, &binding.outside)
    });
}

#[divan::bench(sample_size = 10_000)]
fn outbound_packet(bencher: Bencher<'_, '_>) {
    let (mut table, now) = full_table(true);
    let keys = shuffled_keys();
    let outsides: Vec<_> = keys
        .iter()
        .map(|key| table.find_inside(key, now).expect("open").outside)
        .collect();
    let (mut packet, layout) = packet_of_1280_bytes();
    let mut next = (0..outsides.len()).cycle();
    bencher.bench_local(|| {
        let key = next.next().and_then(|at| outsides.get(at)).expect("cycles");
        let Lookup::Live(binding) = table.find_outside(key, now) else {
            return Err(DropReason::ExpiredFlow);
        };
        table.note_outbound(binding.flow, TcpFlags::default(), now);
        rewrite::outbound(black_box(&mut packet), layout, &binding.inside)
    });
}

#[divan::bench(sample_size = 10_000)]
fn rewrite_alone(bencher: Bencher<'_, '_>) {
    let (mut table, now) = full_table(true);
    let binding = table.find_inside(&key(0), now).expect("open");
    let (mut packet, layout) = packet_of_1280_bytes();
    bencher.bench_local(|| rewrite::inbound(black_box(&mut packet), layout, &binding.outside));
}

#[divan::bench(sample_size = 10_000)]
fn open_refused_by_a_table_full_of_confirmed_flows(bencher: Bencher<'_, '_>) {
    let (mut table, now) = full_table(true);
    let mut number = FLOWS;
    bencher.bench_local(|| {
        number += 1;
        table.open(key(number), target(), now)
    });
}

#[divan::bench(sample_size = 10_000)]
fn open_in_a_table_full_of_unconfirmed_flows(bencher: Bencher<'_, '_>) {
    let (mut table, now) = full_table(false);
    let mut number = FLOWS;
    bencher.bench_local(|| {
        number += 1;
        table
            .open(key(number), target(), now)
            .expect("one gives way")
    });
}

/// One client has half of the ports of the one real IP, the rest are remembered, and its own port
/// is taken.
#[divan::bench(sample_size = 10_000)]
fn open_without_the_own_port(bencher: Bencher<'_, '_>) {
    let limits = FlowLimits {
        flows: FLOWS,
        flows_per_client: FlowLimits::FLOWS_PER_CLIENT_MAX,
    };
    let now = beginning();
    let mut table = FlowTable::new(limits, [7; 32], now);
    let key = |number: u32| Inside {
        client: ClientSlot(0),
        protocol: FlowProtocol::Udp,
        port: 5000,
        proxy: (0x6460_0000 + number % 0x001f_0000).to_be_bytes().into(),
    };
    let mut number = FLOWS;
    for number in 0..number {
        table
            .open(key(number), target(), now)
            .expect("one gives way");
    }
    bencher.bench_local(|| {
        number += 1;
        table
            .open(key(number), target(), now)
            .expect("one gives way")
    });
}

/// The worst second: all flows end together.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn hundred_thousand_flows_end(bencher: Bencher<'_, '_>) {
    bencher
        .with_inputs(|| full_table(false))
        .bench_local_values(|(mut table, now)| {
            table.handle_timeout(now + Duration::from_secs(120));
            table.len()
        });
}

/// See `max alloc` for the peak and `alloc` less `dealloc` for what stays.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn hundred_thousand_flows_open(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| full_table(false));
}

fn full_table(confirmed: bool) -> (FlowTable, Instant) {
    let now = beginning();
    let mut table = FlowTable::new(LIMITS, [7; 32], now);
    for number in 0..FLOWS {
        let Binding { flow, .. } = table.open(key(number), target(), now).expect("room");
        if confirmed {
            table.note_outbound(flow, TcpFlags::default(), now);
        }
    }
    (table, now)
}

/// The inside key of a flow; distinct for the first hundred million numbers.
fn key(number: u32) -> Inside {
    let (nth, client) = (number / CLIENTS, number % CLIENTS);
    let [_, _, high, low] = (10_000 + nth % 50_000).to_be_bytes();
    let proxy = 0x6460_0001 + nth / 50_000;
    Inside {
        client: ClientSlot(client),
        protocol: FlowProtocol::Tcp,
        port: u16::from_be_bytes([high, low]),
        proxy: proxy.to_be_bytes().into(),
    }
}

fn target() -> FlowTarget {
    FlowTarget {
        real: [10, 20, 0, 100].into(),
        mapping: MappingId {
            index: 0,
            generation: 0,
        },
        epoch: 0,
    }
}

/// Every flow once, in an order without a pattern: 70,001 and 100,000 have no common divisor.
fn shuffled_keys() -> Vec<Inside> {
    let places = (0..u64::from(FLOWS)).map(|number| number * 70_001 % u64::from(FLOWS));
    let number = |place| u32::try_from(place).expect("below 100,000");
    places.map(|place| key(number(place))).collect()
}

fn packet_of_1280_bytes() -> (Vec<u8>, Layout) {
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ipv4([100, 64, 0, 1], [100, 96, 0, 1], 64)
        .tcp(10_000, 443, 1, 512)
        .write(&mut bytes, &[7; 1240])
        .expect("fits");
    let packet = IpPacket::parse(&bytes).expect("valid");
    let layout = Layout::of(&packet).expect("translatable");
    (bytes, layout)
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made from nothing"
)]
fn beginning() -> Instant {
    Instant::now()
}
