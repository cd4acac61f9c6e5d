//! Messages to the PortalActor: everything that must reach the portal.

use actix::Message;
use postern_core::ids::ClientId;

/// The request with this ref is granted. Sent before any candidate of that connection, by way of
/// the SupervisorActor.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ConnectionAccepted {
    pub client: ClientId,
    /// Copied from the request.
    pub reply_ref: String,
}

/// New local candidates for a client, best first, as SDP strings. Sent by way of the
/// SupervisorActor, so that they stay behind the acknowledgement.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct CandidatesGathered {
    pub client: ClientId,
    pub candidates: Vec<String>,
}

/// Local candidates that a client should forget, as SDP strings.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct CandidatesInvalidated {
    pub client: ClientId,
    pub candidates: Vec<String>,
}

/// No relay is known: ask the portal for some.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct RequestRelays;

/// Close the websocket (code 1000) and stop; the answer comes when that is done.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct LeavePortal;
