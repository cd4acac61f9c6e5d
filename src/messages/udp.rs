//! Messages to a UdpActor, beyond its datagrams.

use super::packets::{InboundDatagrams, OutboundDatagrams};
use super::updates::ConnectionUpdate;
use actix::{Message, Recipient};
use postern_core::grant::Relay;
use postern_core::ids::PublicKey;
use postern_core::peer::PeerIndex;
use std::net::IpAddr;
use std::sync::Arc;

/// Lists the addresses of the host that may be offered to clients, best first; `None` if listing
/// them fails.
pub type ListAddresses = Arc<dyn Fn() -> Option<Vec<IpAddr>> + Send + Sync>;

recipients! {
    /// A UdpActor, as a connection reaches it.
    pub struct UdpInputs {
        datagrams: OutboundDatagrams,
        commands: UdpCommand,
    }
}

/// From a connection, or from the SupervisorActor in the name of one that has ended.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub enum UdpCommand {
    Attach(AttachPeer),
    Detach(PeerIndex),
}

/// Deliver this peer's datagrams to `connection`. Replaces an earlier attachment of the same index.
#[derive(Clone)]
pub struct AttachPeer {
    /// Upper 24 bits of all the peer's WireGuard receiver indices.
    pub index: PeerIndex,
    /// Key that the peer's handshake initiations are found by.
    pub public_key: PublicKey,
    /// USERNAME of the peer's STUN requests.
    pub stun_username: String,
    pub connection: Recipient<InboundDatagrams>,
    /// Receives our own addresses, immediately and on each change; `None` if another UdpActor
    /// sends them.
    pub addresses: Option<Recipient<ConnectionUpdate>>,
}

/// From the SupervisorActor.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub enum UdpSetup {
    /// The STUN servers and relays to learn server-reflexive addresses from. Replaces the earlier
    /// list. Sent only to shard 0: its sockets get the answers.
    UseRelays(Vec<Relay>),
    /// The answer comes when the kernel has taken everything that was sent before.
    Flush,
}
