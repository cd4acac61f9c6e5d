//! One direction of a WireGuard session: sealing and opening transport data messages in place.
//!
//! Framing and nonces are those of the WireGuard paper, section 5.4.6; the AEAD is ring's. Refuses
//! nothing that is authentic: there is no replay window and no limit on the counter, because this
//! is what the floor leaves out.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// First byte of a transport data message.
pub const DATA: u8 = 4;
/// Type, receiver index and counter.
pub const HEADER_BYTES: usize = 16;
/// Poly1305.
pub const TAG_BYTES: usize = 16;
/// How much longer a datagram is than its packet.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// A key of 32 bytes.
pub type Key = [u8; 32];

/// What we send with.
pub struct Sealer {
    key: LessSafeKey,
    receiver: [u8; 4],
    counter: u64,
}

/// What we receive with.
pub struct Opener {
    key: LessSafeKey,
    receiver: [u8; 4],
}

impl Sealer {
    /// For the end that calls this session `receiver`.
    #[must_use]
    pub fn new(key: &Key, receiver: u32) -> Self {
        Self {
            key: aead(key),
            receiver: receiver.to_le_bytes(),
            counter: 0,
        }
    }

    /// Completes a message in place: between room for the header and room for the tag stands the
    /// packet.
    pub fn seal(&mut self, message: &mut [u8]) {
        let Some((header, rest)) = message.split_first_chunk_mut::<HEADER_BYTES>() else {
            return;
        };
        let Some((packet, tag)) = rest.split_last_chunk_mut::<TAG_BYTES>() else {
            return;
        };
        let counter = self.counter;
        self.counter += 1;
        *header = [0; HEADER_BYTES];
        header[0] = DATA;
        header[4..8].copy_from_slice(&self.receiver);
        header[8..].copy_from_slice(&counter.to_le_bytes());
        let sealed = self
            .key
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), packet);
        tag.copy_from_slice(sealed.expect("a packet is far below 2^38 bytes").as_ref());
    }
}

impl Opener {
    /// For messages to the session that we call `receiver`.
    #[must_use]
    pub fn new(key: &Key, receiver: u32) -> Self {
        Self {
            key: aead(key),
            receiver: receiver.to_le_bytes(),
        }
    }

    /// Whether a datagram is a data message for this session.
    #[must_use]
    pub fn is_meant(&self, datagram: &[u8]) -> bool {
        datagram.len() >= OVERHEAD_BYTES && datagram[0] == DATA && datagram[4..8] == self.receiver
    }

    /// Decrypts a message that is meant for this session in place; `None` when it is not authentic.
    /// An empty packet is a keepalive.
    pub fn open<'a>(&self, datagram: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let (header, sealed) = datagram.split_first_chunk_mut::<HEADER_BYTES>()?;
        let counter = u64::from_le_bytes(*header.last_chunk::<8>()?);
        let opened = self.key.open_in_place(nonce(counter), Aad::empty(), sealed);
        opened.ok()
    }
}

fn aead(key: &Key) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes"))
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(sealer: &mut Sealer, packet: &[u8]) -> Vec<u8> {
        let mut message = vec![0xee; packet.len() + OVERHEAD_BYTES];
        message[HEADER_BYTES..][..packet.len()].copy_from_slice(packet);
        sealer.seal(&mut message);
        message
    }

    #[test]
    fn the_header_is_that_of_the_paper() {
        let mut sealer = Sealer::new(&[7; 32], 0x0403_0201);
        sealed(&mut sealer, b"first");
        let second = sealed(&mut sealer, b"second");
        let expected = [4, 0, 0, 0, 1, 2, 3, 4, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(second[..HEADER_BYTES], expected);
        assert_eq!(second.len(), b"second".len() + OVERHEAD_BYTES);
    }

    #[test]
    fn a_message_for_another_session_is_not_meant() {
        let mut sealer = Sealer::new(&[7; 32], 9);
        let message = sealed(&mut sealer, b"packet");
        assert!(Opener::new(&[7; 32], 9).is_meant(&message));
        assert!(!Opener::new(&[7; 32], 8).is_meant(&message));
        assert!(!Opener::new(&[7; 32], 9).is_meant(&message[..31]));
        assert!(!Opener::new(&[7; 32], 9).is_meant(&[]));
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_and_a_changed_bit_is_not(
            packet in proptest::collection::vec(any::<u8>(), 0..1400),
            bit in any::<prop::sample::Index>(),
        ) {
            let mut sealer = Sealer::new(&[7; 32], 9);
            let opener = Opener::new(&[7; 32], 9);
            let message = sealed(&mut sealer, &packet);
            let mut whole = message.clone();
            let opened = opener.open(&mut whole).map(|it| it.to_vec());
            prop_assert_eq!(opened, Some(packet));
            let mut damaged = message;
            let bits = (damaged.len() - HEADER_BYTES) * 8;
            let bit = bit.index(bits);
            damaged[HEADER_BYTES + bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(opener.open(&mut damaged), None);
        }

        #[test]
        fn arbitrary_datagrams_are_refused(
            mut datagram in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let opener = Opener::new(&[7; 32], 9);
            let _meant_or_not = opener.is_meant(&datagram);
            prop_assert_eq!(opener.open(&mut datagram), None);
        }
    }
}
