//! One client's transport: ICE finds the path, WireGuard encrypts the traffic on it.
//!
//! * [`Peer`]: composes both: datagrams in, IP packets out, and the reverse.
//! * [`Demux`]: finds the peer of a datagram from the shared socket.
//! * [`steering_program`]: selects the shard socket that receives a datagram.
//! * [`AddressGatherer`]: finds the addresses at which peers can reach the shared socket.
//! * [`ControlPacket`]: the messages that client and gateway exchange inside the tunnel.

mod control;
mod demux;
mod gatherer;
mod ice;
mod index;
mod outbox;
mod paths;
mod resumption;
mod statistics;
mod steering;
mod transport;
mod wireguard;

pub use control::{AssignedIps, ControlPacket, DomainStatus};
pub use demux::{Demux, DemuxConfig, Routed};
pub use gatherer::{AddressGatherer, GathererConfig, LocalAddresses};
pub use index::{PeerIndex, PeerIndexPool};
pub use statistics::{HandshakeCounts, PathKind};
pub use steering::{Instruction, steering_program};
pub use transport::{Peer, PeerConfig, PeerEvent, PeerFacts};
pub use wireguard::GatewayKeys;

#[cfg(test)]
pub(crate) mod testing;
