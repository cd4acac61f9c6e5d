//! The control protocol inside the tunnel: IPv6 packets that no application can have sent.
//!
//! Says which proxy IPs stand for a name (AssignedIps), hears whether the gateway serves it
//! (DomainStatus), and says and hears Goodbye. Other kinds are ignored. Source: docs/protocol.md
//! 4 and 10.

use super::names::Domain;
use super::wire::ResourceId;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A control packet's meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// The sender has dropped the connection and everything it knew about us.
    Goodbye,
    /// What the gateway makes of a name that we announced.
    DomainStatus(DomainStatus),
    /// A kind that we do not act on, or a body that we cannot read.
    Ignored(u8),
}

/// What a gateway makes of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainStatus {
    /// As announced.
    pub resource: ResourceId,
    /// As announced.
    pub domain: String,
    /// Whether packets to the name's proxy IPs may be sent.
    pub active: bool,
}

#[derive(Deserialize)]
struct StatusBody {
    resource: ResourceId,
    domain: String,
    status: String,
}

#[derive(Serialize)]
struct AssignedBody<'a> {
    resource: ResourceId,
    domain: &'a str,
    proxy_ips: &'a [IpAddr],
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
        DOMAIN_STATUS => match domain_status(packet) {
            Some(status) => Control::DomainStatus(status),
            None => Control::Ignored(kind),
        },
        other => Control::Ignored(other),
    })
}

fn domain_status(packet: &[u8]) -> Option<DomainStatus> {
    let body = packet.get(HEADER_BYTES + EVENT_BYTES..)?;
    let body: StatusBody = serde_json::from_slice(body).ok()?;
    Some(DomainStatus {
        resource: body.resource,
        domain: body.domain,
        // Any other word means that it is not.
        active: body.status == "Active",
    })
}

/// Writes an AssignedIps.
///
/// # Panics
/// Never: a name of the DNS and eight addresses fit into a packet many times over.
#[must_use]
pub fn assigned_ips(resource: ResourceId, domain: &Domain) -> Vec<u8> {
    let body = AssignedBody {
        resource,
        domain: &domain.name,
        proxy_ips: &domain.proxy_ips,
    };
    let body = serde_json::to_vec(&body).expect("plain data is serializable");
    let payload_bytes = u16::try_from(EVENT_BYTES + body.len()).expect("a name is short");
    let mut packet = vec![0; HEADER_BYTES + EVENT_BYTES];
    packet[0] = 6 << 4;
    packet[4..6].copy_from_slice(&payload_bytes.to_be_bytes());
    packet[6] = NEXT_HEADER;
    packet[HEADER_BYTES] = ASSIGNED_IPS;
    packet.extend(body);
    packet
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
/// Event types.
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
    fn goodbye_is_written_to_the_letter() {
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
    fn assigned_ips_are_written_to_the_letter() {
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
    fn a_status_is_read() {
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
    fn what_we_cannot_read_is_recognised_and_ignored() {
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
