//! What a UdpActor is told, beyond `OutboundDatagrams`.

use crate::messages::connection::LocalAddressesChanged;
use crate::messages::packets::InboundDatagrams;
use actix::{Message, Recipient};
use postern_core::grant::Relay;
use postern_core::ids::PublicKey;
use postern_core::peer::PeerIndex;

/// Deliver this peer's datagrams to `connection`. Replaces an earlier attachment of the same index.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct AttachPeer {
    /// Upper 24 bits of all its WireGuard receiver indices.
    pub index: PeerIndex,
    /// Finds its handshake initiations.
    pub public_key: PublicKey,
    /// The USERNAME of its STUN requests.
    pub stun_username: String,
    /// Where its datagrams go.
    pub connection: Recipient<InboundDatagrams>,
    /// Who is told our own addresses, at once and on each change; `None` where another UdpActor
    /// tells.
    pub addresses: Option<Recipient<LocalAddressesChanged>>,
}

/// Forget this peer.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct DetachPeer {
    /// As attached.
    pub index: PeerIndex,
}

/// The STUN servers and relays to learn server-reflexive addresses from. Replaces the earlier list.
/// Told to shard 0 alone, whose sockets get the answers.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct UseRelays(pub Vec<Relay>);

/// Answered when everything that was sent before has been handed to the kernel.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct FlushDatagrams;
