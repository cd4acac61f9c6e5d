//! Refusals of a host, read from the packets that come back.

use crate::packet::tcp::is_handshake_reset;
use crate::packet::{IpPacket, Transport};
use serde::{Deserialize, Serialize};

/// A refusal of one connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How the host or a router refused.
    pub how: RefusalKind,
    /// The refused port, where the packet names it.
    pub port: Option<u16>,
}

/// How a host or a router refuses a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// A TCP reset in answer to a SYN: the port is closed.
    Reset,
    /// ICMP port unreachable: the port is closed.
    PortUnreachable,
    /// ICMP: the host cannot be reached.
    AddressUnreachable,
    /// ICMP: another reason, such as a firewall on the path.
    Other,
}

impl Refusal {
    /// The refusal in a packet that resets a TCP handshake.
    #[inline]
    #[must_use]
    pub fn by_reset(packet: &IpPacket<'_>) -> Option<Self> {
        is_handshake_reset(packet).then(|| Self {
            how: RefusalKind::Reset,
            port: source_port(packet),
        })
    }
}

/// The source port; `None` for protocols without ports.
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
