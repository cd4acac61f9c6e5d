//! Packets and datagrams: buffers, parsing and drop reasons.
//!
//! * [`PacketBatch`]: inner IP packets in one buffer; any of them may be a super-packet.
//! * [`offload`]: super-packets, and the headers with which the kernel delivers and accepts them.
//! * [`DatagramBatch`]: outer UDP payloads between one local and one remote address, equally long
//!   except the last: the shape that GSO and GRO require.
//! * [`IpPacket`]: the validated view of one inner packet, parsed once on arrival.
//! * [`DropReason`]: why a packet was dropped.

pub mod batch;
pub mod buffer;
pub mod checksum;
pub mod datagram;
mod drop_reason;
pub mod icmp;
pub mod ip;
mod merge;
pub mod offload;
#[cfg(test)]
pub(crate) mod samples;
pub mod tcp;

pub use batch::{PacketBatch, PacketMut};
pub use buffer::Buffer;
pub use datagram::{DatagramBatch, Ecn, Path};
pub use drop_reason::{DropCounts, DropReason};
pub use ip::{IpPacket, Transport};
pub use offload::Segmentation;
pub use tcp::TcpFlags;

/// The MTU of the tunnel, in bytes of inner IP packet (docs/protocol.md 5.7).
pub const TUNNEL_MTU_BYTES: usize = 1280;
