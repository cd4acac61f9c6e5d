//! As much of an IP packet as routing needs: who, where to, which service.
//!
//! Refuses fragments (the tunnel carries none) and looks no further than the first IPv6 header:
//! behind extension headers the service counts as unknown. Sources: RFC 791, RFC 8200, RFC 792, RFC
//! 4443; docs/protocol.md 5.6 and 5.7.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a packet is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sends it.
    pub source: IpAddr,
    /// Who is to have it.
    pub destination: IpAddr,
    /// Which service of the destination.
    pub service: Service,
}

/// A protocol with its destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// TCP to this port.
    Tcp(u16),
    /// UDP to this port.
    Udp(u16),
    /// ICMP or ICMPv6 of any type.
    Icmp,
    /// Anything else.
    Other,
}

/// Why bytes are not a packet that the tunnel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not IPv4 or IPv6, or shorter than its header says.
    NotIp,
    /// Part of a larger packet.
    Fragment,
}

impl Flow {
    /// Reads the headers of `packet`.
    ///
    /// # Errors
    /// [`Malformed`]
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => parse_ipv4(packet),
            Some(6) => parse_ipv6(packet),
            Some(_) | None => Err(Malformed::NotIp),
        }
    }
}

/// Whether `packet` is an ICMP error of the kind "administratively prohibited": how a gateway says
/// that the resource's filters or the lack of a grant forbid a packet.
#[must_use]
pub fn is_prohibited(packet: &[u8]) -> bool {
    let Some(version) = packet.first().map(|byte| byte >> 4) else {
        return false;
    };
    let (protocol, header) = match version {
        4 => (packet.get(9), usize::from(packet[0] & 0x0f) * 4),
        6 => (packet.get(6), IPV6_HEADER_BYTES),
        _ => return false,
    };
    let kind = (packet.get(header), packet.get(header + 1));
    match (protocol, kind) {
        // Destination unreachable, communication administratively prohibited.
        (Some(&ICMP), (Some(3), Some(13))) => version == 4,
        (Some(&ICMPV6), (Some(1), Some(1))) => version == 6,
        _ => false,
    }
}

fn parse_ipv4(packet: &[u8]) -> Result<Flow, Malformed> {
    let header: &[u8; 20] = packet.first_chunk().ok_or(Malformed::NotIp)?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_bytes < header.len() || total < header_bytes || packet.len() < total {
        return Err(Malformed::NotIp);
    }
    // More-fragments flag or a fragment offset.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return Err(Malformed::Fragment);
    }
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    Ok(Flow {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        service: service(header[9], &packet[header_bytes..total])?,
    })
}

fn parse_ipv6(packet: &[u8]) -> Result<Flow, Malformed> {
    let header: &[u8; IPV6_HEADER_BYTES] = packet.first_chunk().ok_or(Malformed::NotIp)?;
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let payload = packet[IPV6_HEADER_BYTES..]
        .get(..payload)
        .ok_or(Malformed::NotIp)?;
    let address = |at: usize| {
        let octets: [u8; 16] = header[at..at + 16]
            .try_into()
            .expect("16 bytes of a 40-byte header");
        IpAddr::from(Ipv6Addr::from(octets))
    };
    if header[6] == IPV6_FRAGMENT {
        return Err(Malformed::Fragment);
    }
    Ok(Flow {
        source: address(8),
        destination: address(24),
        service: service(header[6], payload)?,
    })
}

fn service(protocol: u8, payload: &[u8]) -> Result<Service, Malformed> {
    let port = || match payload {
        [_, _, high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(Malformed::NotIp),
    };
    Ok(match protocol {
        TCP => Service::Tcp(port()?),
        UDP => Service::Udp(port()?),
        ICMP | ICMPV6 => Service::Icmp,
        _ => Service::Other,
    })
}

/// The fixed IPv6 header.
const IPV6_HEADER_BYTES: usize = 40;
/// IANA protocol numbers.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;

/// Packets for tests of this and other modules.
#[cfg(test)]
pub(super) mod samples {
    use super::*;

    /// A packet with the given protocol number and payload.
    pub(in super::super) fn ip(
        source: &str,
        destination: &str,
        protocol: u8,
        payload: &[u8],
    ) -> Vec<u8> {
        let ends: (IpAddr, IpAddr) = (
            source.parse().expect("an address"),
            destination.parse().expect("an address"),
        );
        let mut packet;
        match ends {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
                let total = u16::try_from(20 + payload.len()).expect("short");
                packet[2..4].copy_from_slice(&total.to_be_bytes());
                packet.extend(source.octets());
                packet.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
                let len = u16::try_from(payload.len()).expect("short");
                packet[4..6].copy_from_slice(&len.to_be_bytes());
                packet.extend(source.octets());
                packet.extend(destination.octets());
            }
            _ => panic!("mixed families"),
        }
        packet.extend(payload);
        packet
    }

    /// A UDP packet to `port`.
    pub(in super::super) fn udp(source: &str, destination: &str, port: u16) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        ip(
            source,
            destination,
            UDP,
            &[0x30, 0x39, high, low, 0, 8, 0, 0],
        )
    }

    /// A TCP packet to `port`.
    pub(in super::super) fn tcp(source: &str, destination: &str, port: u16) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        let mut payload = [0; 20];
        payload[2..4].copy_from_slice(&[high, low]);
        ip(source, destination, TCP, &payload)
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{ip, tcp, udp};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_both_families() {
        let flow = Flow::parse(&udp("100.64.1.2", "10.20.0.10", 53)).expect("a packet");
        assert_eq!(flow.source, IpAddr::from([100, 64, 1, 2]));
        assert_eq!(flow.destination, IpAddr::from([10, 20, 0, 10]));
        assert_eq!(flow.service, Service::Udp(53));
        let flow = Flow::parse(&tcp("fd00:2021:1111::102", "2001:db8::a", 80)).expect("a packet");
        assert_eq!(flow.destination.to_string(), "2001:db8::a");
        assert_eq!(flow.service, Service::Tcp(80));
    }

    #[test]
    fn refuses_fragments() {
        let mut packet = udp("100.64.1.2", "10.20.0.10", 53);
        packet[6] = 0x20;
        assert_eq!(Flow::parse(&packet), Err(Malformed::Fragment));
        packet[6] = 0x40;
        assert!(
            Flow::parse(&packet).is_ok(),
            "don't-fragment is no fragment"
        );
        packet[7] = 1;
        assert_eq!(Flow::parse(&packet), Err(Malformed::Fragment));
        let packet = ip("fd00::1", "fd00::2", IPV6_FRAGMENT, &[0; 16]);
        assert_eq!(Flow::parse(&packet), Err(Malformed::Fragment));
    }

    #[test]
    fn knows_a_gateways_refusal() {
        assert!(is_prohibited(&ip(
            "10.20.0.1",
            "100.64.1.2",
            ICMP,
            &[3, 13, 0, 0]
        )));
        assert!(is_prohibited(&ip(
            "2001:db8::1",
            "fd00::2",
            ICMPV6,
            &[1, 1, 0, 0]
        )));
        // Unreachable is something else (docs/lessons.md 8), and so is ICMPv4 inside IPv6.
        assert!(!is_prohibited(&ip(
            "10.20.0.1",
            "100.64.1.2",
            ICMP,
            &[3, 0, 0, 0]
        )));
        assert!(!is_prohibited(&ip(
            "2001:db8::1",
            "fd00::2",
            ICMP,
            &[3, 13, 0, 0]
        )));
        assert!(!is_prohibited(&udp("10.20.0.1", "100.64.1.2", 781)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..96)) {
            let _ = Flow::parse(&bytes);
            let _ = is_prohibited(&bytes);
        }

        #[test]
        fn mutilated_packets_never_panic(
            cut in 0usize..48,
            at in 0usize..28,
            value in any::<u8>(),
        ) {
            for mut packet in [udp("100.64.1.2", "10.20.0.10", 53), udp("fd00::1", "fd00::2", 53)] {
                packet[at] = value;
                packet.truncate(cut);
                let _ = Flow::parse(&packet);
                let _ = is_prohibited(&packet);
            }
        }
    }
}
