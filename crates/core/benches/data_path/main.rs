//! The cost of a packet between the socket and the TUN, without the kernel and without actors:
//! `cargo bench -p postern-core --bench data_path`.
//!
//! A sample is one batch of [`SEGMENTS`] packets; the figure is that of the batch.

mod scene;

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use postern_core::packet::{DatagramBatch, IpPacket, PacketBatch};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use scene::{Load, SEGMENTS, Scene, TCP_PAYLOAD};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

#[divan::bench(args = Load::ALL)]
fn whole_path_inbound(bencher: Bencher<'_, '_>, load: Load) {
    let mut scene = Scene::new(load);
    let batches: Vec<DatagramBatch> = (0..BATCHES).map(|_| scene.sealed(SEGMENTS)).collect();
    let mut batches = batches.into_iter();
    bencher
        .counter(ItemsCount::new(SEGMENTS))
        .with_inputs(|| batches.next().expect("enough"))
        .bench_local_refs(|batch| assert_eq!(scene.inbound(batch), SEGMENTS));
}

#[divan::bench(args = Load::ALL)]
fn whole_path_outbound(bencher: Bencher<'_, '_>, load: Load) {
    let mut scene = Scene::new(load);
    let whole = Scene::new(load);
    bencher
        .counter(ItemsCount::new(SEGMENTS))
        .with_inputs(|| whole.super_packet(SEGMENTS))
        .bench_local_values(|batch| assert_eq!(scene.outbound(batch), SEGMENTS));
}

/// The packets of a batch as [`IpPacket`]s.
#[divan::bench]
fn parse(bencher: Bencher<'_, '_>) {
    let packets = cut_packets();
    bencher.counter(ItemsCount::new(SEGMENTS)).bench_local(|| {
        packets
            .iter()
            .filter(|it| IpPacket::parse(it).is_ok())
            .count()
    });
}

/// Cuts a super-packet into its segments.
#[divan::bench]
fn cut(bencher: Bencher<'_, '_>) {
    let scene = Scene::new(Load::TcpByAddress);
    bencher
        .counter(ItemsCount::new(SEGMENTS))
        .with_inputs(|| scene.super_packet(SEGMENTS))
        .bench_local_refs(|batch| {
            batch.for_each_mut(|mut packet| packet.cut(|segment| _ = black_box(segment)));
        });
}

/// Merges segments into one super-packet, including the copy of each.
#[divan::bench]
fn merge(bencher: Bencher<'_, '_>) {
    let packets = cut_packets();
    bencher.counter(ItemsCount::new(SEGMENTS)).bench_local(|| {
        let mut batch = PacketBatch::with_capacity(64_000);
        for packet in &packets {
            batch.push_merging(packet.len() + 16, |room| {
                room[..packet.len()].copy_from_slice(packet);
                Some(packet.len())
            });
        }
        assert_eq!(batch.len(), 1);
    });
}

/// The lower bound of sealing: the cipher alone, in place.
#[divan::bench]
fn cipher_alone(bencher: Bencher<'_, '_>) {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &[1; 32]).expect("32 bytes");
    let key = LessSafeKey::new(key);
    let mut packets = cut_packets();
    bencher.counter(ItemsCount::new(SEGMENTS)).bench_local(|| {
        for packet in &mut packets {
            let nonce = Nonce::assume_unique_for_key([0; 12]);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), packet);
            _ = black_box(tag);
        }
    });
}

fn cut_packets() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    Scene::new(Load::TcpByAddress)
        .super_packet(SEGMENTS)
        .for_each_mut(|mut packet| packet.cut(|segment| packets.push(segment.to_vec())));
    assert!(
        packets
            .iter()
            .all(|packet| packet.len() == TCP_PAYLOAD + 40)
    );
    packets
}

/// More than divan needs: 100 samples, and as many to measure the duration of one.
const BATCHES: usize = 6000;
