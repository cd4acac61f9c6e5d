//! The two keys of a flow, one for each side of the translation, as types that cannot be swapped.

use crate::nat_table::ClientSlot;
use crate::packet::{DropReason, IpPacket, Transport};
use std::net::IpAddr;

/// The protocols with translation; the version of IP and ICMP follows from the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FlowProtocol {
    /// TCP, by its ports (RFC 9293).
    Tcp,
    /// UDP, by its ports (RFC 768).
    Udp,
    /// ICMP or ICMPv6 echo, requested by the client.
    Echo,
}

/// A flow as the client sees it.
///
/// The destination port is not part of it, nor of [`Outside`]: everything from one port of a client
/// to one proxy IP is one flow (docs/protocol.md 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inside {
    /// The client of the flow.
    pub client: ClientSlot,
    /// TCP, UDP or ICMP echo.
    pub protocol: FlowProtocol,
    /// The client's source port, or the identifier of its echo requests.
    pub port: u16,
    /// The destination that the client uses.
    pub proxy: IpAddr,
}

/// A flow as the resource sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outside {
    /// The client of the flow.
    pub client: ClientSlot,
    /// TCP, UDP or ICMP echo.
    pub protocol: FlowProtocol,
    /// The translated source port, or echo identifier; never 0 for TCP and UDP.
    pub port: u16,
    /// The real address of the resource.
    pub real: IpAddr,
}

impl Inside {
    /// The flow of a packet from `client`.
    ///
    /// # Errors
    ///
    /// [`DropReason::Untranslatable`] for all but TCP, UDP and echo requests: an echo reply of a
    /// client to a proxy IP answers no request from outside.
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
    /// The flow of a packet for `client`; `None` for protocols without translation: all but TCP,
    /// UDP and echo replies.
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

/// A hash that depends on the seed: clients choose their ports and proxy IPs, and must not be able
/// to choose collisions.
pub(super) struct KeyHasher {
    inside: Secrets,
    outside: Secrets,
}

/// One for each of the multiplied words.
type Secrets = [u64; 4];

impl KeyHasher {
    pub(super) fn new(mut random_u64: impl FnMut() -> u64) -> Self {
        let mut secrets = || std::array::from_fn(|_| random_u64());
        Self {
            inside: secrets(),
            outside: secrets(),
        }
    }

    #[inline]
    pub(super) fn inside(&self, key: &Inside) -> u64 {
        hash(&self.inside, key.client, key.protocol, key.port, key.proxy)
    }

    #[inline]
    pub(super) fn outside(&self, key: &Outside) -> u64 {
        hash(&self.outside, key.client, key.protocol, key.port, key.real)
    }
}

/// Two multiplications, because every packet pays for this: a general hasher takes several times as
/// many instructions. A v4 address and its v6 form `::a.b.c.d` collide, which costs a comparison.
#[inline]
fn hash(
    secrets: &Secrets,
    client: ClientSlot,
    protocol: FlowProtocol,
    port: u16,
    address: IpAddr,
) -> u64 {
    let address = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let (high, low) = ((address >> 64) as u64, address as u64);
    let rest = u64::from(client.0) << 32 | u64::from(protocol as u8) << 16 | u64::from(port);
    let address = fold(high ^ secrets[0], low ^ secrets[1]);
    fold(address ^ secrets[2], rest ^ secrets[3])
}

/// Combines both halves of the product.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn hasher(seed: u64) -> KeyHasher {
        let mut state = seed;
        KeyHasher::new(|| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            fold(state, 0xd6e8_feb8_6659_fd93)
        })
    }

    /// 64 clients, 32 ports and 32 addresses that follow each other.
    fn neighbours(base: IpAddr) -> impl Iterator<Item = Inside> {
        (0..65_536u32).map(move |number| Inside {
            client: ClientSlot(number >> 10),
            protocol: FlowProtocol::Tcp,
            port: 5000 + u16::try_from(number & 31).expect("below 32"),
            proxy: match base {
                IpAddr::V4(base) => {
                    IpAddr::from((base.to_bits() + (number >> 5 & 31)).to_be_bytes())
                }
                IpAddr::V6(base) => {
                    IpAddr::from((base.to_bits() + u128::from(number >> 5 & 31)).to_be_bytes())
                }
            },
        })
    }

    /// As many numbers drawn from 65,536 omit a share of 1/e of them.
    #[test]
    fn spreads_neighbours_evenly_in_every_part_of_the_hash() {
        let hasher = hasher(1);
        for base in ["100.96.0.0", "fd00:2021:1111:8000::"] {
            let base = base.parse().expect("an address");
            for shift in [0, 16, 32, 48] {
                let part = |key| hasher.inside(&key) >> shift & 0xffff;
                let parts: BTreeSet<u64> = neighbours(base).map(part).collect();
                let count = parts.len();
                assert!(
                    (40_400..42_500).contains(&count),
                    "{count} for {base}, {shift}"
                );
            }
        }
    }

    #[test]
    fn collisions_depend_on_the_seed_and_on_the_side() {
        let base = "100.96.0.0".parse().expect("an address");
        let low_bits = |hasher: &KeyHasher, key: &Inside| hasher.inside(key) & 0xffff;
        let (one, other) = (hasher(1), hasher(2));
        let keys: Vec<Inside> = neighbours(base).collect();
        let zero = low_bits(&one, &keys[0]);
        let colliding = keys.iter().filter(|key| low_bits(&one, key) == zero);
        let same: Vec<_> = colliding.map(|key| low_bits(&other, key)).collect();
        let distinct: BTreeSet<_> = same.iter().collect();
        assert_eq!(distinct.len(), same.len());
        let (protocol, port, proxy) = (keys[0].protocol, keys[0].port, keys[0].proxy);
        let outside = Outside {
            client: keys[0].client,
            protocol,
            port,
            real: proxy,
        };
        assert_ne!(one.inside(&keys[0]), one.outside(&outside));
    }
}
