//! One client's transport: ICE finds the path, WireGuard protects what travels on it.
//!
//! * [`Peer`]: both, composed: datagrams in, IP packets out, and the reverse.
//! * [`Demux`]: which peer a datagram from the shared socket belongs to.
//! * [`steering_program`]: which shard's socket the kernel gives a datagram to.
//! * [`AddressGatherer`]: at which addresses peers may reach the shared socket.
//! * [`ControlPacket`]: the messages that client and gateway exchange inside the tunnel.

mod control;
mod demux;
mod gatherer;
mod ice;
mod index;
mod outbox;
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
