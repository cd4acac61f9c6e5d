//! How somebody says no: read from packets that come back.

use crate::packet::tcp::is_handshake_reset;
use crate::packet::{IpPacket, Transport};
use serde::{Deserialize, Serialize};

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In which way.
    pub how: RefusalKind,
    /// The port that was tried, where the refusal says so.
    pub port: Option<u16>,
}

/// How somebody refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// A TCP reset as the answer to a SYN: nobody listens.
    Reset,
    /// ICMP: nobody listens.
    PortUnreachable,
    /// ICMP: nobody can be reached there.
    AddressUnreachable,
    /// ICMP: something else, such as a firewall on the way.
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
