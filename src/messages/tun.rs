//! Messages to a TunActor, beyond `InboundPackets`.

use super::packets::OutboundPackets;
use actix::{Message, Recipient};
use postern_core::grant::TunnelAddresses;

/// From the SupervisorActor.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub enum TunSetup {
    /// Give the interface these addresses and its routes.
    Configure(TunnelAddresses),
    /// Send packets from resources there.
    UseOutbound(Recipient<OutboundPackets>),
}
