//! The Internet checksum: in full (RFC 1071) and incremental (RFC 1624), and the one field of an IP
//! packet that the tunnel itself changes, ECN.
//!
//! Checksums are `u16` in host byte order, as `u16::from_be_bytes` reads them from the wire.

use super::{Ecn, ip};
use std::net::IpAddr;

/// The checksum of `bytes`, to be written where the summed field is zero. If `bytes` include a
/// correct checksum, the result is 0.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !fold(sum(bytes))
}

/// The checksum of a TCP, UDP or ICMPv6 `segment` together with the pseudo header of its addresses
/// (RFC 9293, 3.1; RFC 8200, 8.1). If the segment includes a correct checksum, the result is 0.
///
/// A UDP header carries 0xffff instead of a result of 0 (RFC 768). ICMP over IPv4 has no pseudo
/// header: use [`checksum`].
#[must_use]
pub fn transport_checksum(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    segment: &[u8],
) -> u16 {
    // The length is 16 bits wide in the IPv4 pseudo header and 32 in that of IPv6; summed by words
    // they are the same.
    let total = sum_of_address(source)
        + sum_of_address(destination)
        + u64::from(protocol)
        + segment.len() as u64
        + sum(segment);
    !fold(total)
}

/// The accumulated change of summed fields, applied to the checksum that covers them
/// (RFC 1624, equation 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksumUpdate {
    difference: u64,
}

impl ChecksumUpdate {
    /// Adds the change of a 16-bit field at an even offset from `old` to `new`.
    #[must_use]
    pub fn replace_u16(mut self, old: u16, new: u16) -> Self {
        self.difference += u64::from(!old) + u64::from(new);
        self
    }

    /// Adds the change of an address, of the header or the pseudo header, from `old` to `new`.
    #[must_use]
    pub fn replace_addr(mut self, old: IpAddr, new: IpAddr) -> Self {
        // The one's complement negative of a sum is the complement of the folded sum.
        self.difference += u64::from(!fold(sum_of_address(old))) + sum_of_address(new);
        self
    }

    /// The new checksum of an IPv4 header, TCP segment or ICMP message that had `checksum`.
    #[must_use]
    pub fn apply(self, checksum: u16) -> u16 {
        !fold(u64::from(!checksum) + self.difference)
    }

    /// The new checksum of UDP: 0 means "none" and stays 0, and no result becomes 0 (RFC 768).
    #[must_use]
    pub fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => u16::MAX,
            updated => updated,
        }
    }
}

/// Sets the ECN field of an IP packet and corrects the IPv4 header checksum (docs/lessons.md 30).
/// Ignores bytes that are not IP or end before the checksum.
pub fn set_ecn(packet: &mut [u8], ecn: Ecn) {
    match packet {
        [first, tos, ..] if *first >> 4 == 6 => {
            *tos = (*tos & !0b0011_0000) | ((ecn as u8) << 4);
        }
        [first, tos, _, _, _, _, _, _, _, _, high, low, ..] if *first >> 4 == 4 => {
            let old = u16::from_be_bytes([*first, *tos]);
            *tos = (*tos & !0b11) | ecn as u8;
            let new = u16::from_be_bytes([*first, *tos]);
            let update = ChecksumUpdate::default().replace_u16(old, new);
            [*high, *low] = update
                .apply(u16::from_be_bytes([*high, *low]))
                .to_be_bytes();
        }
        _ => {}
    }
}

/// Applies the ECN field of the outer packet to a decapsulated packet: an outer CE marks the inner
/// packet CE only if that is ECN-capable; otherwise it stays unchanged (docs/protocol.md 5.7).
///
/// RFC 6040, 4.2 drops the packet that is not ECN-capable instead. The deviation is deliberate:
/// clients behave the same way, and a loss here would be attributed to the wrong path.
pub fn mark_congestion(packet: &mut [u8], outer: Ecn) {
    if outer == Ecn::Ce && matches!(ip::ecn(packet), Some(Ecn::Ect0 | Ecn::Ect1)) {
        set_ecn(packet, Ecn::Ce);
    }
}

/// A partial one's complement sum of 16-bit words; each piece begins at an even offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartialSum(u64);

impl PartialSum {
    /// Adds bytes; an odd last byte is padded with a zero.
    #[must_use]
    pub fn plus(self, bytes: &[u8]) -> Self {
        Self(self.0 + sum(bytes))
    }

    /// Adds a length or a protocol number, as a pseudo header contains them.
    #[must_use]
    pub fn plus_len(self, value: usize) -> Self {
        Self(self.0 + value as u64)
    }

    /// The checksum: the complement of the folded sum.
    #[must_use]
    pub fn complement(self) -> u16 {
        !fold(self.0)
    }
}

/// Adds several words at a time in native byte order and swaps the bytes of the result
/// (RFC 1071, 2 (B)).
fn sum(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<32>();
    // With eight lanes the compiler adds four words with each instruction.
    let mut lanes = [0u64; 8];
    for block in blocks {
        for (lane, at) in lanes.iter_mut().zip([0, 4, 8, 12, 16, 20, 24, 28]) {
            let word = [block[at], block[at + 1], block[at + 2], block[at + 3]];
            *lane += u64::from(u32::from_ne_bytes(word));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let (words, odd) = rest.as_chunks::<2>();
    for word in words {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    if let Some(last) = odd.first() {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u64::from(u16::from_be_bytes(fold(total).to_ne_bytes()))
}

fn sum_of_address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    }
}

/// Adds the carries until none is left. Never 0 for a sum that is not 0.
fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum & u64::from(u16::MAX)) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::IpPacket;
    use etherparse::{PacketBuilder, SlicedPacket};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The numerical example of RFC 1071, 3.
    #[test]
    fn sums_the_example_of_rfc_1071() {
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
    }

    /// The numerical example of RFC 1624, 4.
    #[test]
    fn updates_the_example_of_rfc_1624() {
        let update = ChecksumUpdate::default().replace_u16(0x5555, 0x3285);
        assert_eq!(update.apply(0xdd2f), 0x0000);
    }

    #[test]
    fn a_udp_checksum_of_zero_stays_zero_and_no_result_is_zero() {
        let update = ChecksumUpdate::default().replace_u16(0x5555, 0x3285);
        assert_eq!(update.apply_udp(0), 0);
        assert_eq!(update.apply_udp(0xdd2f), 0xffff);
    }

    /// docs/lessons.md 30: the header checksum follows a changed ECN field.
    #[test]
    fn a_congestion_mark_updates_the_header_checksum() {
        let mut packet = Vec::new();
        PacketBuilder::ipv4([100, 64, 0, 5], [10, 20, 0, 100], 64)
            .udp(1234, 53)
            .write(&mut packet, b"query")
            .expect("fits");
        set_ecn(&mut packet, Ecn::Ect0);
        assert_eq!(checksum(&packet[..20]), 0);
        mark_congestion(&mut packet, Ecn::Ce);
        assert_eq!(checksum(&packet[..20]), 0);
        assert_eq!(ip::ecn(&packet), Some(Ecn::Ce));
    }

    #[test]
    fn only_an_outer_ce_on_an_ecn_capable_packet_marks_it() {
        let all = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];
        for version_and_class in [[0x60, 0x05], [0x45, 0x14]] {
            for (inner, outer) in all
                .iter()
                .flat_map(|inner| all.map(|outer| (*inner, outer)))
            {
                let mut packet = version_and_class.to_vec();
                packet.resize(40, 0);
                set_ecn(&mut packet, inner);
                let marked = outer == Ecn::Ce && matches!(inner, Ecn::Ect0 | Ecn::Ect1);
                mark_congestion(&mut packet, outer);
                let expected = if marked { Ecn::Ce } else { inner };
                assert_eq!(ip::ecn(&packet), Some(expected), "{inner:?} in {outer:?}");
            }
        }
    }

    #[test]
    fn setting_ecn_leaves_the_neighbouring_bits_unchanged() {
        let mut v6 = [0x6f, 0xff, 0xff, 0xff];
        set_ecn(&mut v6, Ecn::NotEct);
        assert_eq!(v6, [0x6f, 0xcf, 0xff, 0xff]);
        let mut v4 = [0u8; 20];
        v4[..2].copy_from_slice(&[0x45, 0xff]);
        set_ecn(&mut v4, Ecn::Ect1);
        assert_eq!(v4[1], 0xfd);
    }

    fn words_to_bytes(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn any_address_pair() -> impl Strategy<Value = (IpAddr, IpAddr)> {
        prop_oneof![
            any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (a.into(), b.into())),
            any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (a.into(), b.into())),
        ]
    }

    proptest! {
        /// docs/lessons.md 30: incremental checksums against full ones.
        #[test]
        fn an_incremental_update_equals_the_full_sum(
            mut words in vec(any::<u16>(), 1..40),
            changes in vec((any::<prop::sample::Index>(), any::<u16>()), 0..8),
        ) {
            // Real headers are never all zero: they carry a version or a protocol number.
            words.push(1);
            let before = checksum(&words_to_bytes(&words));
            let mut update = ChecksumUpdate::default();
            for (place, new) in changes {
                let place = place.index(words.len() - 1);
                update = update.replace_u16(words[place], new);
                words[place] = new;
            }
            prop_assert_eq!(update.apply(before), checksum(&words_to_bytes(&words)));
        }

        /// docs/lessons.md 30: incremental checksums against full ones.
        #[test]
        fn a_changed_address_and_port_equal_the_full_sum(
            (source, old) in any_address_pair(),
            seed in any::<[u8; 16]>(),
            mut segment in vec(any::<u8>(), 8..200),
            port in any::<u16>(),
        ) {
            let new: IpAddr = match old {
                IpAddr::V4(_) => [seed[0], seed[1], seed[2], seed[3]].into(),
                IpAddr::V6(_) => seed.into(),
            };
            let before = transport_checksum(source, old, ip::PROTOCOL_TCP, &segment);
            let old_port = u16::from_be_bytes([segment[0], segment[1]]);
            segment[..2].copy_from_slice(&port.to_be_bytes());
            let update = ChecksumUpdate::default()
                .replace_addr(old, new)
                .replace_u16(old_port, port);
            prop_assert_eq!(
                update.apply(before),
                transport_checksum(source, new, ip::PROTOCOL_TCP, &segment)
            );
        }

        #[test]
        fn full_sums_match_etherparse(
            source in any::<[u8; 16]>(),
            destination in any::<[u8; 16]>(),
            payload in vec(any::<u8>(), 0..300),
            v4 in any::<bool>(),
            tcp in any::<bool>(),
        ) {
            let builder = if v4 {
                let source = source.first_chunk::<4>();
                let destination = destination.first_chunk::<4>();
                PacketBuilder::ipv4(*source.expect("16"), *destination.expect("16"), 64)
            } else {
                PacketBuilder::ipv6(source, destination, 64)
            };
            let mut bytes = Vec::new();
            if tcp {
                builder.tcp(1, 2, 3, 4).write(&mut bytes, &payload).expect("fits");
            } else {
                builder.udp(1, 2).write(&mut bytes, &payload).expect("fits");
            }
            prop_assert!(SlicedPacket::from_ip(&bytes).is_ok());
            let packet = IpPacket::parse(&bytes).expect("valid");
            let rest = transport_checksum(
                packet.source(), packet.destination(), packet.protocol(), packet.segment());
            prop_assert_eq!(rest, 0);
            if v4 {
                prop_assert_eq!(checksum(&bytes[..20]), 0);
            }
        }

        #[test]
        fn ecn_of_arbitrary_bytes_never_panics(mut bytes in vec(any::<u8>(), 0..60)) {
            set_ecn(&mut bytes, Ecn::Ce);
            mark_congestion(&mut bytes, Ecn::Ce);
        }
    }
}
