//! The part of an IP packet that routing needs: addresses and service.
//!
//! Refuses fragments (the tunnel carries none) and reads no further than the first IPv6 header:
//! behind extension headers the service is unknown. Sources: RFC 791, RFC 8200, RFC 792, RFC 4443;
//! docs/protocol.md 5.6 and 5.7.

use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice};
use std::net::IpAddr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub service: Service,
}

/// A protocol with its destination port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Tcp(u16),
    Udp(u16),
    /// ICMP or ICMPv6 of any type.
    Icmp,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Not IPv4 or IPv6, or shorter than its header says.
    NotIp,
    Fragment,
    /// Outbound: not from the client's tunnel address. Inbound: not from a resource of the gateway.
    ForeignSource,
    /// Not to the client's tunnel address.
    ForeignDestination,
    /// No resource contains the destination.
    NoResource,
}

impl Flow {
    pub fn parse(packet: &[u8]) -> Result<Self, DropReason> {
        let ip = Ip::parse(packet)?;
        let port = || match ip.payload {
            [_, _, high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
            _ => Err(DropReason::NotIp),
        };
        let service = match ip.protocol {
            IpNumber::TCP => Service::Tcp(port()?),
            IpNumber::UDP => Service::Udp(port()?),
            IpNumber::ICMP | IpNumber::IPV6_ICMP => Service::Icmp,
            _ => Service::Other,
        };
        Ok(Self {
            source: ip.source,
            destination: ip.destination,
            service,
        })
    }
}

/// Whether `packet` is an ICMP error "administratively prohibited", by which a gateway refuses a
/// packet that the resource's filters forbid or that no grant covers.
pub fn is_prohibited(packet: &[u8]) -> bool {
    Ip::parse(packet).is_ok_and(|ip| match ip.protocol {
        // Destination unreachable, communication administratively prohibited.
        IpNumber::ICMP => ip.source.is_ipv4() && ip.payload.starts_with(&[3, 13]),
        IpNumber::IPV6_ICMP => ip.source.is_ipv6() && ip.payload.starts_with(&[1, 1]),
        _ => false,
    })
}

struct Ip<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: IpNumber,
    payload: &'a [u8],
}

impl<'a> Ip<'a> {
    fn parse(packet: &'a [u8]) -> Result<Self, DropReason> {
        if packet.first().is_some_and(|byte| byte >> 4 == 4) {
            let header = Ipv4HeaderSlice::from_slice(packet).map_err(|_| DropReason::NotIp)?;
            let payload = header.slice().len()..header.total_len().into();
            let payload = packet.get(payload).ok_or(DropReason::NotIp)?;
            if header.is_fragmenting_payload() {
                return Err(DropReason::Fragment);
            }
            return Ok(Self {
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                protocol: header.protocol(),
                payload,
            });
        }
        let header = Ipv6HeaderSlice::from_slice(packet).map_err(|_| DropReason::NotIp)?;
        let payload = packet[header.slice().len()..].get(..header.payload_length().into());
        let payload = payload.ok_or(DropReason::NotIp)?;
        if header.next_header() == IpNumber::IPV6_FRAGMENTATION_HEADER {
            return Err(DropReason::Fragment);
        }
        Ok(Self {
            source: header.source_addr().into(),
            destination: header.destination_addr().into(),
            protocol: header.next_header(),
            payload,
        })
    }
}

/// Sample packets for the tests of several modules.
#[cfg(test)]
pub(super) mod samples {
    use super::*;

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

    pub(in super::super) fn udp(source: &str, destination: &str, port: u16) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        ip(
            source,
            destination,
            17,
            &[0x30, 0x39, high, low, 0, 8, 0, 0],
        )
    }

    pub(in super::super) fn tcp(source: &str, destination: &str, port: u16) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        let mut payload = [0; 20];
        payload[2..4].copy_from_slice(&[high, low]);
        ip(source, destination, 6, &payload)
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
        assert_eq!(Flow::parse(&packet), Err(DropReason::Fragment));
        packet[6] = 0x40;
        assert!(
            Flow::parse(&packet).is_ok(),
            "don't-fragment is no fragment"
        );
        packet[7] = 1;
        assert_eq!(Flow::parse(&packet), Err(DropReason::Fragment));
        let packet = ip("fd00::1", "fd00::2", 44, &[0; 16]);
        assert_eq!(Flow::parse(&packet), Err(DropReason::Fragment));
    }

    #[test]
    fn recognizes_only_prohibited_as_a_refusal() {
        const ICMP: u8 = 1;
        const ICMPV6: u8 = 58;
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
        // "Unreachable" is no refusal (docs/lessons.md 8), and neither is ICMPv4 inside IPv6.
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
