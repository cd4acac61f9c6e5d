//! What it costs to seal and to open [`PACKETS`] packets of [`BYTES`] bytes, as one GSO write takes
//! them and one GRO read brings them: `cargo bench --manifest-path crates/engines/Cargo.toml`.
//!
//! Each engine seals into one buffer, datagram behind datagram, and opens out of one; an engine
//! that keeps packets of its own has them copied there and back, because that is what the gateway
//! would have to do. `ring` and `aws_lc_rs` are the cipher alone, in place: the least that any
//! engine can cost.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};

const PACKETS: usize = 49;
const BYTES: usize = 1280;
const SEALED_BYTES: usize = BYTES + 32;
/// More than divan asks for.
const BATCHES: usize = 400;

fn main() {
    divan::main();
}

/// An IPv4 packet, as far as engines look.
fn packet() -> Vec<u8> {
    let mut packet = vec![0x5a; BYTES];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(BYTES as u16).to_be_bytes());
    packet
}

/// An engine with a session, and its peer.
trait Pair {
    fn new() -> Self;
    /// Seals into `slot` what its peer can open.
    fn seal(&mut self, packet: &[u8], slot: &mut [u8]);
    /// The peer opens into `slot`; returns the length.
    fn open(&mut self, datagram: &[u8], slot: &mut [u8]) -> usize;
}

#[divan::bench(types = [Boringtun, DefguardBoringtun, Gotatun])]
fn seal<P: Pair>(bencher: Bencher<'_, '_>) {
    let (mut pair, packet) = (P::new(), packet());
    let mut batch = vec![0; PACKETS * SEALED_BYTES];
    bencher
        .counter(BytesCount::new(PACKETS * BYTES))
        .bench_local(|| {
            for slot in batch.chunks_mut(SEALED_BYTES) {
                pair.seal(&packet, slot);
            }
        });
}

#[divan::bench(types = [Boringtun, DefguardBoringtun, Gotatun], sample_size = 1)]
fn open<P: Pair>(bencher: Bencher<'_, '_>) {
    let (mut pair, packet) = (P::new(), packet());
    let sealed = |pair: &mut P| {
        let mut batch = vec![0; PACKETS * SEALED_BYTES];
        for slot in batch.chunks_mut(SEALED_BYTES) {
            pair.seal(&packet, slot);
        }
        batch
    };
    let mut batches: Vec<_> = (0..BATCHES).map(|_| sealed(&mut pair)).collect();
    // The oldest is opened first, or it would count as a replay.
    batches.reverse();
    let mut opened = vec![0; SEALED_BYTES];
    bencher
        .counter(BytesCount::new(PACKETS * BYTES))
        .with_inputs(|| batches.pop().expect("enough"))
        .bench_local_refs(|batch| {
            for datagram in batch.chunks(SEALED_BYTES) {
                assert_eq!(pair.open(datagram, &mut opened), BYTES);
            }
        });
}

/// The two descendants of one engine have the same calls.
macro_rules! boringtun {
    ($name:ident, $engine:ident) => {
        struct $name {
            ours: $engine::noise::Tunn,
            theirs: $engine::noise::Tunn,
        }

        impl Pair for $name {
            fn new() -> Self {
                use $engine::noise::{Tunn, TunnResult};
                use $engine::x25519::{PublicKey, StaticSecret};
                let (a, b) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
                let (a_public, b_public) = (PublicKey::from(&a), PublicKey::from(&b));
                let mut ours = Tunn::new(a, b_public, Some([3; 32]), None, 1, None);
                let mut theirs = Tunn::new(b, a_public, Some([3; 32]), None, 2, None);
                let (mut to, mut from) = ([0; 256], [0; 256]);
                let TunnResult::WriteToNetwork(initiation) =
                    ours.format_handshake_initiation(&mut to, false)
                else {
                    panic!("no initiation");
                };
                let TunnResult::WriteToNetwork(response) =
                    theirs.decapsulate(None, initiation, &mut from)
                else {
                    panic!("no response");
                };
                let TunnResult::WriteToNetwork(keepalive) =
                    ours.decapsulate(None, response, &mut to)
                else {
                    panic!("no session");
                };
                theirs.decapsulate(None, keepalive, &mut from);
                Self { ours, theirs }
            }

            fn seal(&mut self, packet: &[u8], slot: &mut [u8]) {
                black_box(self.ours.encapsulate(packet, slot));
            }

            fn open(&mut self, datagram: &[u8], slot: &mut [u8]) -> usize {
                use $engine::noise::TunnResult;
                match self.theirs.decapsulate(None, datagram, slot) {
                    TunnResult::WriteToTunnelV4(packet, _) => packet.len(),
                    other => panic!("not opened: {other:?}"),
                }
            }
        }
    };
}

boringtun!(Boringtun, boringtun);
boringtun!(DefguardBoringtun, defguard_boringtun);

struct Gotatun {
    ours: gotatun::noise::Tunn,
    theirs: gotatun::noise::Tunn,
}

impl Pair for Gotatun {
    fn new() -> Self {
        use gotatun::noise::index_table::IndexTable;
        use gotatun::noise::rate_limiter::RateLimiter;
        use gotatun::noise::{Tunn, TunnResult};
        use gotatun::packet::WgKind;
        use gotatun::x25519::{PublicKey, StaticSecret};
        use std::sync::Arc;
        let (a, b) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
        let (a_public, b_public) = (PublicKey::from(&a), PublicKey::from(&b));
        let tunnel = |private, public: PublicKey, own: &PublicKey| {
            let limiter = Arc::new(RateLimiter::new(own, 1000));
            let indices = IndexTable::from_os_rng();
            Tunn::new(private, public, Some([3; 32]), None, indices, limiter)
        };
        let mut ours = tunnel(a, b_public, &a_public);
        let mut theirs = tunnel(b, a_public, &b_public);
        let initiation = ours.format_handshake_initiation(false).expect("initiation");
        let response = theirs.handle_incoming_packet(WgKind::HandshakeInit(initiation));
        let TunnResult::WriteToNetwork(response) = response else {
            panic!("no response");
        };
        let TunnResult::WriteToNetwork(keepalive) = ours.handle_incoming_packet(response) else {
            panic!("no session");
        };
        theirs.handle_incoming_packet(keepalive);
        Self { ours, theirs }
    }

    fn seal(&mut self, packet: &[u8], slot: &mut [u8]) {
        let packet = gotatun::packet::Packet::copy_from(packet);
        let Ok(sealed) = self.ours.encapsulate_with_session(packet) else {
            panic!("no session");
        };
        slot.copy_from_slice(sealed.into_bytes().as_ref());
    }

    fn open(&mut self, datagram: &[u8], slot: &mut [u8]) -> usize {
        use gotatun::noise::TunnResult;
        let packet = gotatun::packet::Packet::copy_from(datagram);
        let packet = packet.try_into_wg().expect("a message");
        match self.theirs.handle_incoming_packet(packet) {
            TunnResult::WriteToTunnel(packet) => {
                slot[..packet.len()].copy_from_slice(&packet);
                packet.len()
            }
            other => panic!("not opened: {other:?}"),
        }
    }
}

/// The same calls in both libraries.
macro_rules! cipher {
    ($name:ident) => {
        #[divan::bench]
        fn $name(bencher: Bencher<'_, '_>) {
            use $name::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
            let key = UnboundKey::new(&CHACHA20_POLY1305, &[1; 32]).expect("32 bytes");
            let key = LessSafeKey::new(key);
            let mut batch = vec![0x5a; PACKETS * BYTES];
            bencher
                .counter(BytesCount::new(PACKETS * BYTES))
                .bench_local(|| {
                    for packet in batch.chunks_mut(BYTES) {
                        let nonce = Nonce::assume_unique_for_key([0; 12]);
                        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), packet);
                        _ = black_box(tag.expect("sealed"));
                    }
                });
        }
    };
}

cipher!(ring);
cipher!(aws_lc_rs);
