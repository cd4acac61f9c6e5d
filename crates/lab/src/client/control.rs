//! The control protocol inside the tunnel: IPv6 packets that no application can have sent.
//!
//! Writes AssignedIps and Goodbye, reads DomainStatus and Goodbye, and ignores other kinds. Source:
//! docs/protocol.md 4 and 10.

use super::vocabulary::{Domain, DomainStatus, ResourceId};
use serde::Serialize;
use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// The sender has dropped the connection and all state of this client.
    Goodbye,
    /// The gateway's answer to an AssignedIps.
    DomainStatus(DomainStatus),
    /// An unused kind, or a kind with an unreadable body.
    Ignored(u8),
}

/// The member order is that of Firezone's clients.
#[derive(Serialize)]
struct AssignedIps<'a> {
    resource: ResourceId,
    domain: &'a str,
    proxy_ips: &'a [IpAddr],
}

/// Reads `packet` as a control packet; `None` for an ordinary one.
pub fn parse(packet: &[u8]) -> Option<Control> {
    let header: &[u8; HEADER_BYTES] = packet.first_chunk()?;
    let is_ipv6 = header[0] >> 4 == 6;
    let is_unspecified = header[8..].iter().all(|byte| *byte == 0);
    if !is_ipv6 || header[6] != NEXT_HEADER || !is_unspecified {
        return None;
    }
    let kind = *packet.get(HEADER_BYTES)?;
    let body = packet.get(HEADER_BYTES + EVENT_BYTES..).unwrap_or_default();
    Some(match kind {
        GOODBYE => Control::Goodbye,
        DOMAIN_STATUS => {
            let status = serde_json::from_slice(body);
            status.map_or(Control::Ignored(kind), Control::DomainStatus)
        }
        other => Control::Ignored(other),
    })
}

/// Writes an AssignedIps: these proxy IPs stand for this name.
pub fn assigned_ips(resource: ResourceId, domain: &Domain) -> Vec<u8> {
    let body = AssignedIps {
        resource,
        domain: &domain.name,
        proxy_ips: &domain.proxy_ips,
    };
    write(
        ASSIGNED_IPS,
        &serde_json::to_vec(&body).expect("plain data is serializable"),
    )
}

pub fn goodbye() -> Vec<u8> {
    write(GOODBYE, &[])
}

fn write(kind: u8, body: &[u8]) -> Vec<u8> {
    let payload_bytes = u16::try_from(EVENT_BYTES + body.len())
        .expect("a DNS name and eight addresses are far shorter than a packet");
    let mut packet = vec![0; HEADER_BYTES + EVENT_BYTES];
    packet[0] = 6 << 4;
    packet[4..6].copy_from_slice(&payload_bytes.to_be_bytes());
    packet[6] = NEXT_HEADER;
    packet[HEADER_BYTES] = kind;
    packet.extend(body);
    packet
}

/// The fixed IPv6 header (RFC 8200, 3).
const HEADER_BYTES: usize = 40;
/// The event header: one byte of type, seven that receivers ignore.
const EVENT_BYTES: usize = 8;
/// IANA lists it as "Reserved", so that no application uses it.
const NEXT_HEADER: u8 = 0xff;
/// The event types (docs/protocol.md 4).
const ASSIGNED_IPS: u8 = 0;
const DOMAIN_STATUS: u8 = 1;
const GOODBYE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The vector of docs/protocol.md 10: 6000 0000 0008 ff 00, 32 zero bytes, 02 and seven zero
    /// bytes.
    #[test]
    fn writes_a_goodbye_as_the_test_vector() {
        let mut expected = vec![0x60, 0, 0, 0, 0, 8, 0xff, 0];
        expected.extend([0; 32]);
        expected.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(goodbye().as_slice(), expected);
        assert_eq!(parse(&expected), Some(Control::Goodbye));
    }

    fn resource() -> ResourceId {
        ResourceId(uuid::Uuid::from_u128(
            0x33333333_3333_4333_8333_333333333333,
        ))
    }

    fn control_packet(kind: u8, body: &str) -> Vec<u8> {
        let payload = u16::try_from(8 + body.len()).expect("short").to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, payload[0], payload[1], 0xff, 0];
        packet.extend([0; 32]);
        packet.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend(body.as_bytes());
        packet
    }

    /// The vector of docs/protocol.md 10.
    #[test]
    fn writes_assigned_ips_as_the_test_vector() {
        let body = r#"{"resource":"33333333-3333-4333-8333-333333333333","domain":"#.to_owned()
            + r#""app.example.com","proxy_ips":["100.96.0.1","100.96.0.2","100.96.0.3","#
            + r#""100.96.0.4"]}"#;
        assert_eq!(body.len(), 144);
        let domain = Domain {
            name: "app.example.com".into(),
            proxy_ips: (1..=4).map(|n| IpAddr::from([100, 96, 0, n])).collect(),
        };
        let packet = assigned_ips(resource(), &domain);
        assert_eq!(packet.len(), 192);
        assert_eq!(packet[4..6], [0x00, 0x98]);
        assert_eq!(packet, control_packet(0, &body));
    }

    /// The vector of docs/protocol.md 10, and the same with its members in another order.
    #[test]
    fn reads_a_domain_status() {
        let body = r#"{"resource":"33333333-3333-4333-8333-333333333333","domain":"#.to_owned()
            + r#""app.example.com","status":"Active"}"#;
        assert_eq!(body.len(), 96);
        let mut status = DomainStatus {
            resource: resource(),
            domain: "app.example.com".into(),
            active: true,
        };
        let packet = control_packet(1, &body);
        assert_eq!(packet.len(), 144);
        assert_eq!(packet[4..6], [0x00, 0x68]);
        assert_eq!(parse(&packet), Some(Control::DomainStatus(status.clone())));
        let body = r#"{"status":"Active","domain":"app.example.com","later":1,"#.to_owned()
            + r#""resource":"33333333-3333-4333-8333-333333333333"}"#;
        let packet = control_packet(1, &body);
        assert_eq!(parse(&packet), Some(Control::DomainStatus(status.clone())));
        status.active = false;
        for word in ["Inactive", "Whatever", "active"] {
            let packet = control_packet(1, &body.replace("Active", word));
            assert_eq!(parse(&packet), Some(Control::DomainStatus(status.clone())));
        }
    }

    #[test]
    fn ignores_unreadable_control_packets() {
        let mut packet = goodbye();
        packet[40] = 7;
        assert_eq!(parse(&packet), Some(Control::Ignored(7)));
        for body in [
            "",
            "{}",
            r#"{"resource":"x","domain":"a","status":"Active"}"#,
        ] {
            let packet = control_packet(1, body);
            assert_eq!(parse(&packet), Some(Control::Ignored(1)), "{body}");
        }
    }

    #[test]
    fn does_not_take_a_packet_with_real_addresses_for_control() {
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

        /// Recognition does not depend on the bytes that receivers ignore.
        #[test]
        fn recognizes_every_goodbye(tail in any::<[u8; 7]>(), label in any::<[u8; 3]>()) {
            let mut packet = goodbye();
            packet[41..].copy_from_slice(&tail);
            packet[1..4].copy_from_slice(&label);
            prop_assert_eq!(parse(&packet), Some(Control::Goodbye));
        }
    }
}
