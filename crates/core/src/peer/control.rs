//! The messages that client and gateway exchange inside the tunnel (docs/protocol.md 4).
//!
//! Each is an IPv6 packet from `::` to `::` with next header 0xFF: an 8-byte header with the
//! message type in its first byte, then the body. Messages of unknown type are recognised too, so
//! that they are not forwarded as traffic.

use crate::DropReason;
use crate::grant::AnnouncedName;
use crate::ids::ResourceId;
use crate::packet::ip::IPV6_HEADER_BYTES;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A received control packet, by message type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlPacket {
    /// The client announces the proxy IPs of a name.
    AssignedIps(AssignedIps),
    /// The gateway's answer to an announcement.
    DomainStatus(DomainStatus),
    /// The sender closes the connection.
    Goodbye,
    /// A type of a later protocol version, to be ignored.
    Unknown(u8),
}

/// Body of message type 0: the proxy IPs that a client has assigned to a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedIps {
    /// The DNS resource that covers the name.
    pub resource: ResourceId,
    /// The name, without a trailing dot.
    pub domain: String,
    /// 4 or 8 proxy IPs, of both families.
    pub proxy_ips: Vec<IpAddr>,
}

/// Body of message type 1: the gateway's answer to [`AssignedIps`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainStatus {
    /// The resource of the announcement.
    pub resource: ResourceId,
    /// The name of the announcement.
    pub domain: String,
    /// Whether the client may send to the name's proxy IPs.
    #[serde(with = "activity")]
    #[serde(rename = "status")]
    pub active: bool,
}

mod activity {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature that serde's `with` requires"
    )]
    pub(super) fn serialize<S: Serializer>(active: &bool, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(if *active { "Active" } else { "Inactive" })
    }

    /// Reads any unknown word as inactive.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
        String::deserialize(from).map(|word| word == "Active")
    }
}

impl ControlPacket {
    /// Recognises a control packet among decrypted packets; `None` for ordinary traffic.
    ///
    /// # Errors
    /// [`DropReason::ControlRejected`] for a control packet with wrong lengths or a wrong body.
    pub fn parse(packet: &[u8]) -> Option<Result<Self, DropReason>> {
        if !Self::is_control(packet) {
            return None;
        }
        Some(Self::parse_body(packet).ok_or(DropReason::ControlRejected))
    }

    /// Whether this is an IPv6 packet of next header 0xFF from `::` to `::`.
    #[must_use]
    pub fn is_control(packet: &[u8]) -> bool {
        packet.len() >= IPV6_HEADER_BYTES
            && packet[0] >> 4 == 6
            && packet[6] == NEXT_HEADER
            && packet[8..IPV6_HEADER_BYTES].iter().all(|byte| *byte == 0)
    }

    fn parse_body(packet: &[u8]) -> Option<Self> {
        let (header, payload) = packet.split_at(IPV6_HEADER_BYTES);
        let payload_bytes = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if payload_bytes != payload.len() {
            return None;
        }
        let body = payload.get(EVENT_HEADER_BYTES..)?;
        match payload[0] {
            ASSIGNED_IPS => serde_json::from_slice(body)
                .ok()
                .filter(|it: &AssignedIps| {
                    AnnouncedName::is_within_limits(&it.domain, &it.proxy_ips)
                })
                .map(Self::AssignedIps),
            DOMAIN_STATUS => serde_json::from_slice(body).ok().map(Self::DomainStatus),
            GOODBYE => Some(Self::Goodbye),
            unknown => Some(Self::Unknown(unknown)),
        }
    }

    /// The packet of a goodbye message, 48 bytes.
    #[must_use]
    pub fn goodbye() -> Vec<u8> {
        packet_of(GOODBYE, &[])
    }

    /// The packet with which a client announces proxy IPs.
    #[cfg(test)]
    pub(crate) fn assigned_ips(assigned: &AssignedIps) -> Vec<u8> {
        let body = serde_json::to_vec(assigned).expect("strings and UUIDs always serialize");
        packet_of(ASSIGNED_IPS, &body)
    }

    /// The packet with which the gateway answers an announcement of proxy IPs.
    #[must_use]
    pub fn domain_status(status: &DomainStatus) -> Vec<u8> {
        let body = serde_json::to_vec(status).expect("strings and UUIDs always serialize");
        packet_of(DOMAIN_STATUS, &body)
    }
}

fn packet_of(event: u8, body: &[u8]) -> Vec<u8> {
    let payload_bytes = u16::try_from(EVENT_HEADER_BYTES + body.len())
        .expect("a body holds one name of at most 255 bytes");
    let mut packet = vec![0; IPV6_HEADER_BYTES + EVENT_HEADER_BYTES];
    packet[0] = 6 << 4;
    packet[4..6].copy_from_slice(&payload_bytes.to_be_bytes());
    packet[6] = NEXT_HEADER;
    packet[IPV6_HEADER_BYTES] = event;
    packet.extend_from_slice(body);
    packet
}

const EVENT_HEADER_BYTES: usize = 8;
/// Reserved by IANA, so no real packet carries it.
const NEXT_HEADER: u8 = 0xFF;
const ASSIGNED_IPS: u8 = 0;
const DOMAIN_STATUS: u8 = 1;
const GOODBYE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const RESOURCE: &str = "33333333-3333-4333-8333-333333333333";

    fn resource() -> ResourceId {
        ResourceId(RESOURCE.parse().expect("literal"))
    }

    #[test]
    fn goodbye_is_the_48_bytes_of_the_test_vector() {
        let mut expected = vec![0x60, 0, 0, 0, 0, 8, 0xff, 0];
        expected.extend([0; 32]);
        expected.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ControlPacket::goodbye(), expected);
        assert_eq!(
            ControlPacket::parse(&expected),
            Some(Ok(ControlPacket::Goodbye))
        );
    }

    #[test]
    fn assigned_ips_of_the_test_vector() {
        let body = format!(
            r#"{{"resource":"{RESOURCE}","domain":"app.example.com","proxy_ips":["100.96.0.1","100.96.0.2","100.96.0.3","100.96.0.4"]}}"#
        );
        assert_eq!(body.len(), 144);
        let packet = packet_of(ASSIGNED_IPS, body.as_bytes());
        assert_eq!(&packet[..8], [0x60, 0, 0, 0, 0, 0x98, 0xff, 0]);
        let Some(Ok(ControlPacket::AssignedIps(assigned))) = ControlPacket::parse(&packet) else {
            panic!("not recognised");
        };
        assert_eq!(assigned.resource, resource());
        assert_eq!(assigned.domain, "app.example.com");
        assert_eq!(assigned.proxy_ips.len(), 4);
    }

    #[test]
    fn more_than_eight_proxy_ips_are_rejected() {
        let many = vec!["100.96.0.1"; 9];
        let body = serde_json::json!({"resource": RESOURCE, "domain": "a", "proxy_ips": many});
        let packet = packet_of(ASSIGNED_IPS, body.to_string().as_bytes());
        assert_eq!(
            ControlPacket::parse(&packet),
            Some(Err(DropReason::ControlRejected))
        );
    }

    #[test]
    fn domain_status_of_the_test_vector() {
        let status = DomainStatus {
            resource: resource(),
            domain: "app.example.com".into(),
            active: true,
        };
        let packet = ControlPacket::domain_status(&status);
        assert_eq!(packet.len(), 144);
        assert_eq!(&packet[..8], [0x60, 0, 0, 0, 0, 0x68, 0xff, 0]);
        assert_eq!(
            &packet[48..],
            format!(r#"{{"resource":"{RESOURCE}","domain":"app.example.com","status":"Active"}}"#)
                .as_bytes()
        );
    }

    #[test]
    fn a_wrong_payload_length_is_rejected() {
        let mut packet = ControlPacket::goodbye();
        packet[5] = 9;
        assert_eq!(
            ControlPacket::parse(&packet),
            Some(Err(DropReason::ControlRejected))
        );
    }

    #[test]
    fn ordinary_ipv6_is_not_control() {
        let mut packet = ControlPacket::goodbye();
        packet[39] = 1;
        assert_eq!(ControlPacket::parse(&packet), None);
    }

    #[test]
    fn unknown_types_are_recognised() {
        assert_eq!(
            ControlPacket::parse(&packet_of(77, b"later")),
            Some(Ok(ControlPacket::Unknown(77)))
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..600)) {
            let _ = ControlPacket::parse(&bytes);
        }

        #[test]
        fn arbitrary_bodies_never_panic(event: u8, body in vec(any::<u8>(), 0..600)) {
            prop_assert!(ControlPacket::parse(&packet_of(event, &body)).is_some());
        }
    }
}
