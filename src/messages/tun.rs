//! Messages to the TunActor, beyond `InboundPackets`.

use actix::Message;
use postern_core::grant::TunnelAddresses;

/// Give the interface these addresses and its routes.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ConfigureInterface(pub TunnelAddresses);
