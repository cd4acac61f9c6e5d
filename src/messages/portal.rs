//! Messages to the PortalActor: everything that must reach the portal.

use actix::Message;
use postern_core::ids::ClientId;

/// From the SupervisorActor.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum PortalCommand {
    /// The request with this ref is granted. Sent before any candidate of that connection.
    Acknowledge { reply_ref: String },
    /// New local candidates for a client, best first, as SDP strings.
    SignalCandidates {
        client: ClientId,
        candidates: Vec<String>,
    },
    /// No relay is known: ask the portal for some.
    RequestRelays,
    /// Close the websocket (code 1000) and stop; the answer comes when that is done.
    Leave,
}
