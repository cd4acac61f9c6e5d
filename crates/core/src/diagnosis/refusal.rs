//! How somebody says no: read from packets that come back.

use crate::nat_table::flows::TcpFlags;
use crate::nat_table::rewrite::IcmpErrorKind;
use crate::packet::{IpPacket, Transport};
use serde::{Deserialize, Serialize};

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In which way.
    pub how: Refusal,
    /// The port that was tried, where the refusal says so.
    pub port: Option<u16>,
}

/// How somebody refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A TCP reset as the answer to a SYN: nobody listens.
    Reset,
    /// ICMP: nobody listens.
    PortUnreachable,
    /// ICMP: nobody can be reached there.
    AddressUnreachable,
    /// ICMP: something else, such as a firewall on the way.
    Other,
}

impl Refused {
    /// Whether a packet is the refusal of a handshake: a reset that answers a SYN has the sequence
    /// number zero (RFC 9293, section 3.10.7.1). Others end a connection that there was.
    #[inline]
    #[must_use]
    pub fn by_reset(packet: &IpPacket<'_>) -> Option<Self> {
        let is_reset = TcpFlags::of(packet).rst;
        let sequence = packet.segment().get(TCP_SEQUENCE).filter(|_| is_reset)?;
        (sequence == [0; 4]).then(|| Self {
            how: Refusal::Reset,
            port: source_port(packet),
        })
    }

    /// What an ICMP error says about the address that was tried.
    #[must_use]
    pub fn by_icmp(kind: IcmpErrorKind) -> Self {
        let how = match kind {
            IcmpErrorKind::AddressUnreachable => Refusal::AddressUnreachable,
            IcmpErrorKind::PortUnreachable => Refusal::PortUnreachable,
            IcmpErrorKind::Other => Refusal::Other,
        };
        Self { how, port: None }
    }
}

/// The port that a packet comes from.
pub(crate) fn source_port(packet: &IpPacket<'_>) -> Option<u16> {
    match packet.transport() {
        Transport::Tcp { source_port, .. } | Transport::Udp { source_port, .. } => {
            Some(source_port)
        }
        Transport::IcmpEcho { .. }
        | Transport::IcmpError
        | Transport::IcmpOther
        | Transport::Other(_) => None,
    }
}

/// The sequence number in a TCP header (RFC 9293, section 3.1).
const TCP_SEQUENCE: std::ops::Range<usize> = 4..8;
