//! The initiator's half of WireGuard's handshake: Noise IKpsk2 by snow, with the MACs and the
//! cookie around it.
//!
//! Source: WireGuard paper, sections 5.4.2 to 5.4.7. Refuses responses to anything but its own last
//! initiation, and never responds itself.

use super::session::{Key, Opener, Sealer};
use blake2::digest::consts::U16;
use blake2::digest::{Digest, FixedOutput, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{Tag, XChaCha20Poly1305};
use snow::HandshakeState;
use std::time::Duration;

/// First bytes of the messages.
pub const INITIATION: u8 = 1;
/// See [`INITIATION`].
pub const RESPONSE: u8 = 2;
/// See [`INITIATION`].
pub const COOKIE: u8 = 3;

/// Whom we shake hands with, and as whom.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Our private key.
    pub secret: Key,
    /// The other end's public key.
    pub peer: Key,
    /// Zeros where there is none.
    pub preshared: Key,
}

/// An initiation that waits for its response.
pub struct Handshake {
    state: HandshakeState,
    /// What we call the session.
    index: u32,
    mac1: [u8; 16],
}

/// Why there is no handshake.
#[derive(Debug, thiserror::Error)]
#[error("the handshake cannot begin: {0}")]
pub struct NoHandshake(#[from] snow::Error);

impl Handshake {
    /// Begins a session that we call `index`; returns the initiation too. `unix` is the time since
    /// 1970 and must grow from one initiation to the next, or the other end takes them for
    /// repetitions. `cookie` is what it asked for last, if it did.
    ///
    /// # Errors
    /// The kernel has no randomness, or a key is none.
    pub fn begin(
        identity: &Identity,
        index: u32,
        unix: Duration,
        cookie: Option<&[u8; 16]>,
    ) -> Result<(Self, Vec<u8>), NoHandshake> {
        let mut state = snow::Builder::new(PATTERN.parse()?)
            .prologue(PROLOGUE)?
            .local_private_key(&identity.secret)?
            .remote_public_key(&identity.peer)?
            .psk(2, &identity.preshared)?
            .build_initiator()?;
        let mut message = vec![0; INITIATION_BYTES];
        message[0] = INITIATION;
        message[4..8].copy_from_slice(&index.to_le_bytes());
        state.write_message(&tai64n(unix), &mut message[8..INITIATION_MAC1])?;
        let mac1 = mac(
            &labelled_hash(LABEL_MAC1, &identity.peer),
            &message[..INITIATION_MAC1],
        );
        message[INITIATION_MAC1..][..16].copy_from_slice(&mac1);
        if let Some(cookie) = cookie {
            let mac2 = mac(cookie, &message[..INITIATION_MAC1 + 16]);
            message[INITIATION_MAC1 + 16..].copy_from_slice(&mac2);
        }
        Ok((Self { state, index, mac1 }, message))
    }

    /// Completes it by its response; `None` when this is none.
    pub fn complete(&mut self, message: &[u8]) -> Option<(Sealer, Opener)> {
        if message.len() != RESPONSE_BYTES
            || message[0] != RESPONSE
            || message[8..12] != self.index.to_le_bytes()
        {
            return None;
        }
        self.state.read_message(&message[12..60], &mut []).ok()?;
        let sender = u32::from_le_bytes(*message[4..8].first_chunk()?);
        let (ours, theirs) = self.state.dangerously_get_raw_split();
        Some((Sealer::new(&ours, sender), Opener::new(&theirs, self.index)))
    }

    /// Reads the cookie out of a cookie reply to this initiation; `None` when it is none.
    #[must_use]
    pub fn cookie(&self, peer: &Key, message: &[u8]) -> Option<[u8; 16]> {
        if message.len() != COOKIE_BYTES
            || message[0] != COOKIE
            || message[4..8] != self.index.to_le_bytes()
        {
            return None;
        }
        let key = labelled_hash(LABEL_COOKIE, peer);
        let mut cookie: [u8; 16] = *message[32..48].first_chunk()?;
        XChaCha20Poly1305::new(&key.into())
            .decrypt_in_place_detached(
                message[8..32].into(),
                &self.mac1,
                &mut cookie,
                Tag::from_slice(&message[48..]),
            )
            .ok()?;
        Some(cookie)
    }
}

fn labelled_hash(label: &[u8], key: &Key) -> [u8; 32] {
    Blake2s256::new()
        .chain_update(label)
        .chain_update(key)
        .finalize()
        .into()
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 16] {
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("at most 32 bytes");
    mac.update(message);
    mac.finalize_fixed().into()
}

/// TAI64N (https://cr.yp.to/libtai/tai64.html), leap seconds left out as everybody does.
fn tai64n(unix: Duration) -> [u8; 12] {
    let mut bytes = [0; 12];
    let seconds = (1 << 62) + 10 + unix.as_secs();
    bytes[..8].copy_from_slice(&seconds.to_be_bytes());
    bytes[8..].copy_from_slice(&unix.subsec_nanos().to_be_bytes());
    bytes
}

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";
const INITIATION_BYTES: usize = 148;
const INITIATION_MAC1: usize = INITIATION_BYTES - 32;
const RESPONSE_BYTES: usize = 92;
const COOKIE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::session::{HEADER_BYTES, OVERHEAD_BYTES};
    use defguard_boringtun::noise::rate_limiter::RateLimiter;
    use defguard_boringtun::noise::{Tunn, TunnResult};
    use defguard_boringtun::x25519::{PublicKey, StaticSecret};
    use proptest::prelude::*;
    use std::sync::Arc;

    const OURS: Key = [1; 32];
    const THEIRS: Key = [2; 32];
    const UNIX: Duration = Duration::from_secs(1_790_000_000);

    fn identity(preshared: Key) -> Identity {
        Identity {
            secret: OURS,
            peer: PublicKey::from(&StaticSecret::from(THEIRS)).to_bytes(),
            preshared,
        }
    }

    /// The other end, by another implementation, which asks for cookies beyond so many handshakes.
    fn responder(preshared: Option<Key>, limit: u64) -> Tunn {
        let secret = StaticSecret::from(THEIRS);
        let public = PublicKey::from(&secret);
        let limiter = Arc::new(RateLimiter::new(&public, limit));
        let peer = PublicKey::from(&StaticSecret::from(OURS));
        Tunn::new(secret, peer, preshared, None, 7, Some(limiter))
    }

    fn answer(responder: &mut Tunn, message: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; 256];
        let from = Some([127, 0, 0, 1].into());
        let answered = responder.decapsulate(from, message, &mut buffer);
        let TunnResult::WriteToNetwork(answer) = answered else {
            panic!("no answer: {answered:?}");
        };
        answer.to_vec()
    }

    #[test]
    fn another_implementation_shakes_hands_and_packets_travel_both_ways() {
        for preshared in [[0; 32], [3; 32]] {
            let mut responder = responder(Some(preshared), 100);
            let begun = Handshake::begin(&identity(preshared), 0x0a0b_0c0d, UNIX, None);
            let (mut handshake, initiation) = begun.expect("begins");
            let response = answer(&mut responder, &initiation);
            let (mut sealer, opener) = handshake.complete(&response).expect("its response");
            let mut packet = vec![0; 60];
            (packet[0], packet[3]) = (0x45, 60);
            let mut message = vec![0; packet.len() + OVERHEAD_BYTES];
            message[HEADER_BYTES..][..packet.len()].copy_from_slice(&packet);
            sealer.seal(&mut message);
            let mut buffer = vec![0; 256];
            let opened = responder.decapsulate(None, &message, &mut buffer);
            let TunnResult::WriteToTunnelV4(opened, _) = opened else {
                panic!("not opened: {opened:?}");
            };
            assert_eq!(opened, packet);
            let mut buffer = vec![0; 256];
            let TunnResult::WriteToNetwork(sealed) = responder.encapsulate(&packet, &mut buffer)
            else {
                panic!("not sealed");
            };
            assert!(opener.is_meant(sealed));
            let opened = opener.open(sealed).expect("authentic");
            assert_eq!(opened[..packet.len()], packet);
        }
    }

    #[test]
    fn a_response_to_another_initiation_or_with_another_key_completes_nothing() {
        let mut responder = responder(Some([3; 32]), 100);
        let begin = |preshared, index, unix| {
            Handshake::begin(&identity(preshared), index, unix, None).expect("begins")
        };
        let (mut first, initiation) = begin([3; 32], 1, UNIX);
        let response = answer(&mut responder, &initiation);
        let later = UNIX + Duration::from_secs(1);
        let (mut second, _) = begin([3; 32], 2, later);
        assert!(second.complete(&response).is_none());
        assert!(first.complete(&response).is_some());
        let (mut wrong, initiation) = begin([4; 32], 3, later);
        let response = answer(&mut responder, &initiation);
        assert!(wrong.complete(&response).is_none());
    }

    #[test]
    fn a_cookie_is_read_and_its_bearer_let_in() {
        let mut responder = responder(Some([3; 32]), 1);
        let identity = identity([3; 32]);
        let mut cookie = None;
        for n in 0..10 {
            let unix = UNIX + Duration::from_secs(n);
            let begun = Handshake::begin(&identity, n as u32, unix, cookie.as_ref());
            let (mut handshake, initiation) = begun.expect("begins");
            let answer = answer(&mut responder, &initiation);
            if cookie.is_some() {
                assert!(handshake.complete(&answer).is_some());
                return;
            }
            cookie = handshake.cookie(&identity.peer, &answer);
        }
        panic!("ten handshakes passed a limit of one");
    }

    #[test]
    fn timestamps_are_those_of_tai64n() {
        let bytes = tai64n(Duration::new(1, 2));
        assert_eq!(bytes, [0x40, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 2]);
    }

    proptest! {
        #[test]
        fn arbitrary_answers_complete_nothing(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            kind in 1_u8..4,
        ) {
            let identity = identity([3; 32]);
            let begun = Handshake::begin(&identity, 5, UNIX, None);
            let (mut handshake, _) = begun.expect("begins");
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            prop_assert!(handshake.complete(&bytes).is_none());
            prop_assert!(handshake.cookie(&identity.peer, &bytes).is_none());
        }
    }
}
