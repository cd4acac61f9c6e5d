//! Messages to a ConnectionActor. The SupervisorActor receives the same commands from the
//! PortalActor, records them in its ledger and passes them on to the client's connection.

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

/// Admit a client to a further resource or name. `OpenConnection` brings its transport, before or
/// after (generation 0).
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct AllowAccess(pub Box<AccessRequest>);

/// The client's ICE candidates, as SDP strings (`candidate:…`); unparsable ones are skipped.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct AddCandidates {
    pub client: ClientId,
    pub candidates: Vec<String>,
}

/// The client's ICE candidates that are no longer valid, as SDP strings.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct RemoveCandidates {
    pub client: ClientId,
    pub candidates: Vec<String>,
}

/// Take a resource away from a client immediately.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct RevokeAccess {
    pub client: ClientId,
    pub resource: ResourceId,
}

/// A resource changed: apply its filters to each of its authorizations.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct UpdateResource(pub Resource);

/// Change the expiry of one authorization.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct SetExpiry(pub AuthorizationEntry);

/// The grants that the portal still knows: revoke all others, take over the expiry times.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ReconcileAuthorizations {
    pub gateway: TunnelAddresses,
    /// Grants of all clients; an absent one is revoked.
    pub authorizations: Vec<AuthorizationEntry>,
}

/// The ledger has recorded the portal's commands up to this number, all of which came before this
/// message: publish the authorizations, which include them.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct CommandsRecorded(pub u64);

/// The addresses at which peers may reach this shard's sockets.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct LocalAddressesChanged(pub LocalAddresses);

/// Tell the client whether it may send to a name.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct DomainStatusChanged(pub DomainStatus);

/// Say goodbye to the client and forget everything. The answer comes when the goodbye is queued.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct CloseConnection;

/// End the actor. Sent only after `ConnectionClosed`.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct StopConnection;

/// Asks for the connection's present state.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "ConnectionStats")]
pub struct DescribeConnection;

/// Grant the client at most this many resources; those it has stay.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct LimitResources(pub usize);
