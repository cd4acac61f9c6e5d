//! Messages to a UdpActor, beyond `OutboundDatagrams`.

use crate::messages::connection::LocalAddressesChanged;
use crate::messages::packets::InboundDatagrams;
use actix::{Message, Recipient};
use postern_core::grant::Relay;
use postern_core::ids::PublicKey;
use postern_core::peer::PeerIndex;
use std::net::IpAddr;
use std::sync::Arc;

/// Lists the addresses of the host that may be offered to clients, best first; `None` if listing
/// them fails.
pub type ListAddresses = Arc<dyn Fn() -> Option<Vec<IpAddr>> + Send + Sync>;

/// Deliver this peer's datagrams to `connection`. Replaces an earlier attachment of the same index.
#[derive(Clone, Message)]
#[rtype(result = "()")]
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
    pub addresses: Option<Recipient<LocalAddressesChanged>>,
}

#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct DetachPeer {
    pub index: PeerIndex,
}

/// The STUN servers and relays to learn server-reflexive addresses from. Replaces the earlier list.
/// Sent only to shard 0: its sockets get the answers.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct UseRelays(pub Vec<Relay>);

/// The answer comes when the kernel has taken everything that was sent before.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct FlushDatagrams;
