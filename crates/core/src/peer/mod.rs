//! One client's transport: ICE finds the path, WireGuard protects what travels on it.

/// The upper 24 bits of all WireGuard receiver indices of one peer; the lowest 8 bits of the 32-bit
/// index number its sessions.
///
/// The low byte of the 24 names the shard, so that it can be read from a datagram at a fixed offset
/// (see `demux`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(u32);
