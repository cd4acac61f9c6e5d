//! Captures the ICMP errors that reach a namespace, to see the type and code of a refusal.
//!
//! The errno of a refused connection is not enough: Linux maps IPv4 "prohibited" and "host
//! unreachable" to the same EHOSTUNREACH. So the tap reads the message from a raw socket.
//! Sources: RFC 792 and RFC 1812, section 5.2.7.1 (type 3); RFC 4443, section 3.1 (type 1).

use super::{Playground, Role};
use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// A destination-unreachable message about a packet that was sent from the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// ICMP type: 3 for IPv4, 1 for IPv6.
    pub kind: u8,
    pub code: u8,
    /// Destination of the refused packet.
    pub destination: IpAddr,
    /// IP protocol number of the refused packet.
    pub protocol: u8,
    /// Destination port of the refused packet; meaningless for ICMP.
    pub port: u16,
}

impl Unreachable {
    /// "Administratively prohibited": IPv4 type 3 code 13, IPv6 type 1 code 1.
    pub fn is_prohibited(&self) -> bool {
        match self.destination {
            IpAddr::V4(_) => (self.kind, self.code) == (3, 13),
            IpAddr::V6(_) => (self.kind, self.code) == (1, 1),
        }
    }
}

/// A raw socket that receives the ICMP errors of one family in a namespace.
pub struct IcmpTap {
    socket: Socket,
    parse: fn(&[u8]) -> Option<Unreachable>,
}

impl IcmpTap {
    /// Opens a tap in a namespace, for errors of the family of `address`.
    pub fn open(playground: &Playground, role: Role, address: IpAddr) -> Result<Self> {
        let (parse, domain, protocol): (fn(&[u8]) -> _, _, _) = match address {
            IpAddr::V4(_) => (parse_v4, Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (parse_v6, Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = playground.enter(role, || {
            Socket::new(domain, Type::RAW, Some(protocol)).context("cannot open a raw socket")
        })?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, parse })
    }

    /// Waits for an error about a packet to `destination` and `port`.
    pub fn wait_for(
        &self,
        playground: &Playground,
        destination: IpAddr,
        port: u16,
        limit: Duration,
    ) -> Result<Unreachable> {
        let what = format!("an ICMP error about {destination} port {port}");
        playground.interrupt().until_ok(&what, limit, || {
            while let Some(error) = self.read()? {
                if error.is_some_and(|it| it.destination == destination && it.port == port) {
                    return Ok(error);
                }
            }
            Ok(None)
        })
    }

    /// Reads the next message: `None` when there is none, `Some(None)` when it is of another kind.
    fn read(&self) -> Result<Option<Option<Unreachable>>> {
        let mut buffer = [0; 2048];
        match (&self.socket).read(&mut buffer) {
            Ok(length) => Ok(Some((self.parse)(&buffer[..length]))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("cannot read the raw socket"),
        }
    }
}

/// A raw IPv4 socket delivers the IP header too.
fn parse_v4(packet: &[u8]) -> Option<Unreachable> {
    let message = packet.get(v4_header_length(packet)?..)?;
    let [3, code, ..] = *message else { return None };
    let refused = message.get(8..)?;
    let destination: [u8; 4] = refused.get(16..20)?.try_into().ok()?;
    let transport = refused.get(v4_header_length(refused)?..)?;
    Some(Unreachable {
        kind: 3,
        code,
        destination: Ipv4Addr::from(destination).into(),
        protocol: *refused.get(9)?,
        port: destination_port(transport)?,
    })
}

/// A raw IPv6 socket delivers the message only.
fn parse_v6(message: &[u8]) -> Option<Unreachable> {
    let [1, code, ..] = *message else { return None };
    let refused = message.get(8..)?;
    let destination: [u8; 16] = refused.get(24..40)?.try_into().ok()?;
    Some(Unreachable {
        kind: 1,
        code,
        destination: Ipv6Addr::from(destination).into(),
        protocol: *refused.get(6)?,
        port: destination_port(refused.get(40..)?)?,
    })
}

fn v4_header_length(packet: &[u8]) -> Option<usize> {
    Some(usize::from(packet.first()? & 0x0f) * 4)
}

fn destination_port(transport: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(transport.get(2..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 header of 20 bytes for `protocol` to 10.20.0.100.
    fn header_v4(protocol: u8) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        header.extend([192, 168, 50, 2, 10, 20, 0, 100]);
        header
    }

    #[test]
    fn reads_a_prohibition_of_a_tcp_port() {
        let mut packet = header_v4(1);
        packet.extend([3, 13, 0, 0, 0, 0, 0, 0]);
        packet.extend(header_v4(6));
        packet.extend([0xc0, 0, 0x1f, 0x90, 0, 0, 0, 0]);
        let error = parse_v4(&packet).expect("an error");
        assert!(error.is_prohibited());
        assert_eq!((error.protocol, error.port), (6, 8080));
        assert_eq!(error.destination, IpAddr::from([10, 20, 0, 100]));
    }

    #[test]
    fn reads_a_prohibition_over_ipv6() {
        let mut message = vec![1, 1, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 8, 6, 64];
        message.extend(Ipv6Addr::LOCALHOST.octets());
        message.extend(super::super::network::WEB_V6.octets());
        message.extend([0xc0, 0, 0x1f, 0x90, 0, 0, 0, 0]);
        let error = parse_v6(&message).expect("an error");
        assert!(error.is_prohibited());
        assert_eq!((error.protocol, error.port), (6, 8080));
        assert_eq!(
            error.destination,
            IpAddr::from(super::super::network::WEB_V6)
        );
    }

    #[test]
    fn a_host_unreachable_is_no_prohibition() {
        let error = Unreachable {
            kind: 3,
            code: 1,
            destination: IpAddr::from([10, 20, 0, 100]),
            protocol: 6,
            port: 80,
        };
        assert!(!error.is_prohibited());
    }

    #[test]
    fn cut_off_messages_are_nothing() {
        let mut packet = header_v4(1);
        packet.extend([3, 13, 0, 0, 0, 0, 0, 0]);
        packet.extend(header_v4(6));
        packet.extend([0xc0, 0, 0x1f, 0x90]);
        for length in 0..packet.len() {
            assert_eq!(parse_v4(&packet[..length]), None, "{length}");
            assert_eq!(parse_v6(&packet[..length]), None, "{length}");
        }
    }
}
