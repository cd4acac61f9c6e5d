//! The two names of a flow, one for each side of the translation, as types that cannot be swapped.

use crate::nat_table::ClientSlot;
use crate::packet::{DropReason, IpPacket, Transport};
use ahash::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

/// What can be translated; which version of IP and ICMP follows from the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FlowProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6 echo, asked by the client.
    Echo,
}

/// A flow as the client sees it.
///
/// The destination port is no part of it, nor of [`Outside`]: all that a client sends from one port
/// to one proxy IP is one flow (protocol page, section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inside {
    /// Whose.
    pub client: ClientSlot,
    /// Which.
    pub protocol: FlowProtocol,
    /// The client's source port, or the identifier of its echo requests.
    pub port: u16,
    /// Where the client believes to send.
    pub proxy: IpAddr,
}

/// A flow as the resource sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outside {
    /// Whose.
    pub client: ClientSlot,
    /// Which.
    pub protocol: FlowProtocol,
    /// The translated source port, or echo identifier; never 0 for TCP and UDP.
    pub port: u16,
    /// Where the packets really go.
    pub real: IpAddr,
}

impl Inside {
    /// The flow of a packet from `client`.
    ///
    /// # Errors
    ///
    /// [`DropReason::Untranslatable`] for all but TCP, UDP and echo requests: nobody outside can
    /// have sent the request that a client's echo reply to a proxy IP would answer.
    pub fn of(client: ClientSlot, packet: &IpPacket<'_>) -> Result<Self, DropReason> {
        let (protocol, port) = match packet.transport() {
            Transport::Tcp { source_port, .. } => (FlowProtocol::Tcp, source_port),
            Transport::Udp { source_port, .. } => (FlowProtocol::Udp, source_port),
            Transport::IcmpEcho {
                identifier,
                request: true,
            } => (FlowProtocol::Echo, identifier),
            Transport::IcmpEcho { request: false, .. }
            | Transport::IcmpError
            | Transport::IcmpOther
            | Transport::Other(_) => return Err(DropReason::Untranslatable),
        };
        let proxy = packet.destination();
        Ok(Self {
            client,
            protocol,
            port,
            proxy,
        })
    }
}

impl Outside {
    /// The flow that a packet for `client` would belong to; `None` for what is translated for
    /// nobody: all but TCP, UDP and echo replies.
    #[must_use]
    pub fn of(client: ClientSlot, packet: &IpPacket<'_>) -> Option<Self> {
        let (protocol, port) = match packet.transport() {
            Transport::Tcp {
                destination_port, ..
            } => (FlowProtocol::Tcp, destination_port),
            Transport::Udp {
                destination_port, ..
            } => (FlowProtocol::Udp, destination_port),
            Transport::IcmpEcho {
                identifier,
                request: false,
            } => (FlowProtocol::Echo, identifier),
            Transport::IcmpEcho { request: true, .. }
            | Transport::IcmpError
            | Transport::IcmpOther
            | Transport::Other(_) => return None,
        };
        let real = packet.source();
        Some(Self {
            client,
            protocol,
            port,
            real,
        })
    }
}

/// Hashes keys in a way that depends on the seed, because clients choose their ports and proxy IPs:
/// they must not be able to choose where these collide.
pub(super) struct KeyHasher {
    inside: RandomState,
    outside: RandomState,
}

impl KeyHasher {
    pub(super) fn new(mut random_u64: impl FnMut() -> u64) -> Self {
        let mut state = || {
            let mut key = || random_u64();
            RandomState::with_seeds(key(), key(), key(), key())
        };
        Self {
            inside: state(),
            outside: state(),
        }
    }

    pub(super) fn inside(&self, key: &Inside) -> u64 {
        hash(&self.inside, key.client, key.protocol, key.port, key.proxy)
    }

    pub(super) fn outside(&self, key: &Outside) -> u64 {
        hash(&self.outside, key.client, key.protocol, key.port, key.real)
    }
}

/// Two writes instead of the dozen that a derived `Hash` makes. Addresses of both families share
/// one form; that a v4 address and its mapped v6 form collide costs a comparison.
#[inline]
fn hash(
    state: &RandomState,
    client: ClientSlot,
    protocol: FlowProtocol,
    port: u16,
    address: IpAddr,
) -> u64 {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let rest = u64::from(client.0) << 32 | u64::from(protocol as u8) << 16 | u64::from(port);
    let mut hasher = state.build_hasher();
    hasher.write_u128(address.to_bits());
    hasher.write_u64(rest);
    hasher.finish()
}
