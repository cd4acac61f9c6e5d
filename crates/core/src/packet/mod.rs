//! Packets and datagrams: how they are held, parsed and refused.
//!
//! * [`PacketBatch`]: inner IP packets, up to [`PacketBatch::MAX_PACKETS`] of them in one
//!   allocation.
//! * [`DatagramBatch`]: outer UDP payloads between one local and one remote address, equally long
//!   but for the last, which is the shape that GSO and GRO want.
//! * [`IpPacket`]: what has been proven about one inner packet, once, at the door.
//! * [`DropReason`]: why a packet went no further.

pub mod batch;
pub mod checksum;
pub mod datagram;
mod drop_reason;
pub mod icmp;
pub mod ip;
#[cfg(test)]
pub(crate) mod samples;

pub use batch::PacketBatch;
pub use datagram::{DatagramBatch, Ecn, Path};
pub use drop_reason::{DropCounts, DropReason};
pub use ip::{IpPacket, Transport};

/// The MTU of the tunnel, in bytes of inner IP packet (protocol page, section 5.7).
pub const TUNNEL_MTU_BYTES: usize = 1280;
