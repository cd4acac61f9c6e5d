//! What the PortalActor is told: everything that must reach the portal.

use actix::Message;
use postern_core::ids::ClientId;

/// The request with this ref is granted. Sent before any candidate of that connection, and passed
/// on by the SupervisorActor.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ConnectionAccepted {
    /// Whose.
    pub client: ClientId,
    /// As in the request.
    pub reply_ref: String,
}

/// New local candidates for a client, best first, as SDP strings. Passed on by the SupervisorActor,
/// so that they stay behind the acknowledgement.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct CandidatesGathered {
    /// For whom.
    pub client: ClientId,
    /// `candidate:…` strings.
    pub candidates: Vec<String>,
}

/// Local candidates that a client should forget.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct CandidatesInvalidated {
    /// For whom.
    pub client: ClientId,
    /// `candidate:…` strings.
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
