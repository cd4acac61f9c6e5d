//! The control protocol inside the tunnel: IPv6 packets that no application can have sent.
//!
//! Knows the frame and Goodbye. AssignedIps and DomainStatus belong to DNS resources, which this
//! client does not have. Source: protocol page, sections 4 and 10.

/// A control packet's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The sender has dropped the connection and everything it knew about us.
    Goodbye,
    /// A kind that we do not act on.
    Ignored(u8),
}

/// Reads `packet` as a control packet; `None` when it is an ordinary one.
#[must_use]
pub fn parse(packet: &[u8]) -> Option<Control> {
    let header: &[u8; HEADER_BYTES] = packet.first_chunk()?;
    let is_ipv6 = header[0] >> 4 == 6;
    let unspecified = header[8..].iter().all(|byte| *byte == 0);
    if !is_ipv6 || header[6] != NEXT_HEADER || !unspecified {
        return None;
    }
    let kind = *packet.get(HEADER_BYTES)?;
    Some(match kind {
        GOODBYE => Control::Goodbye,
        other => Control::Ignored(other),
    })
}

/// Writes a Goodbye.
#[must_use]
pub fn goodbye() -> [u8; HEADER_BYTES + EVENT_BYTES] {
    let mut packet = [0; HEADER_BYTES + EVENT_BYTES];
    packet[0] = 6 << 4;
    packet[5] = EVENT_BYTES as u8;
    packet[6] = NEXT_HEADER;
    packet[HEADER_BYTES] = GOODBYE;
    packet
}

/// The fixed IPv6 header (RFC 8200, section 3).
const HEADER_BYTES: usize = 40;
/// The event header: one byte of type, seven that receivers ignore.
const EVENT_BYTES: usize = 8;
/// "Reserved" by IANA, hence never an application's.
const NEXT_HEADER: u8 = 0xff;
/// Event type of Goodbye.
const GOODBYE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The protocol page's vector: 6000 0000 0008 ff 00, 32 zero bytes, 02 and seven zero bytes.
    #[test]
    fn goodbye_is_written_to_the_letter() {
        let mut expected = vec![0x60, 0, 0, 0, 0, 8, 0xff, 0];
        expected.extend([0; 32]);
        expected.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(goodbye().as_slice(), expected);
        assert_eq!(parse(&expected), Some(Control::Goodbye));
    }

    #[test]
    fn other_kinds_are_recognised_and_ignored() {
        let mut packet = goodbye();
        packet[40] = 1;
        assert_eq!(parse(&packet), Some(Control::Ignored(1)));
    }

    #[test]
    fn a_packet_with_real_addresses_is_not_control() {
        let mut from_somewhere = goodbye();
        from_somewhere[23] = 1;
        assert_eq!(parse(&from_somewhere), None);
        let mut to_somewhere = goodbye();
        to_somewhere[39] = 1;
        assert_eq!(parse(&to_somewhere), None);
        let mut tcp = goodbye();
        tcp[6] = 6;
        assert_eq!(parse(&tcp), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = parse(&bytes);
        }

        /// Recognition does not depend on what receivers ignore.
        #[test]
        fn ignored_bytes_do_not_matter(tail in any::<[u8; 7]>(), label in any::<[u8; 3]>()) {
            let mut packet = goodbye();
            packet[41..].copy_from_slice(&tail);
            packet[1..4].copy_from_slice(&label);
            prop_assert_eq!(parse(&packet), Some(Control::Goodbye));
        }
    }
}
