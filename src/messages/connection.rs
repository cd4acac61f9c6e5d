//! What a ConnectionActor is told. The SupervisorActor receives the same commands from the
//! PortalActor, keeps its ledger, and passes them on to the connection they are for.

use actix::Message;
use postern_core::connection::ConnectionStats;
use postern_core::grant::{
    AccessRequest, AuthorizationEntry, AuthorizationRequest, Resource, TunnelAddresses,
};
use postern_core::ids::{ClientId, ResourceId};
use postern_core::peer::{DomainStatus, LocalAddresses};

/// Admit a client to a resource; open or keep its transport (upsert).
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct OpenConnection(pub Box<AuthorizationRequest>);

/// Admit a client to a further resource or name; its transport comes by `OpenConnection`, before or
/// after (generation 0).
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct AllowAccess(pub Box<AccessRequest>);

/// The client's ICE candidates, as SDP strings; unparsable ones are skipped one by one.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct AddCandidates {
    /// Whose.
    pub client: ClientId,
    /// `candidate:…` strings.
    pub candidates: Vec<String>,
}

/// The client's ICE candidates that are no longer valid.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct RemoveCandidates {
    /// Whose.
    pub client: ClientId,
    /// `candidate:…` strings.
    pub candidates: Vec<String>,
}

/// Take a resource away from a client, at once.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct RevokeAccess {
    /// From whom.
    pub client: ClientId,
    /// What.
    pub resource: ResourceId,
}

/// A resource changed: apply its filters wherever it is authorized.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct UpdateResource(pub Resource);

/// Move the expiry of one authorization.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct SetExpiry(pub AuthorizationEntry);

/// What the portal still grants: revoke everything else, take over the expiry times.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ReconcileAuthorizations {
    /// The gateway's own tunnel addresses.
    pub gateway: TunnelAddresses,
    /// All clients' grants; absence means revoked.
    pub authorizations: Vec<AuthorizationEntry>,
}

/// The addresses at which peers may reach this shard's sockets.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct LocalAddressesChanged(pub LocalAddresses);

/// Tell the client whether it may send to a name.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct DomainStatusChanged(pub DomainStatus);

/// Say goodbye to the client and forget everything; answered when the goodbye is on its way.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct CloseConnection;

/// End the actor. Only after `ConnectionClosed`.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct StopConnection;

/// How the connection is at this moment.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "ConnectionStats")]
pub struct DescribeConnection;

/// Grant the client no more than so many resources; those that it has stay.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct LimitResources(pub usize);
