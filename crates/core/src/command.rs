//! What the portal says about clients.
//!
//! The portal protocol emits these commands, the ledger records them
//! ([`Ledger::record_command`](crate::ledger::Ledger::record_command)), and the client's connection
//! executes them ([`Connection::handle_command`](crate::connection::Connection::handle_command)).
//! Source: docs/protocol.md 2.2.

use crate::grant::{
    AccessRequest, AuthorizationEntry, AuthorizationRequest, Resource, TunnelAddresses,
};
use crate::ids::{ClientId, ResourceId, UnixTime};

/// A command about one client, or about all that hold a resource.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientCommand {
    /// Admit a client to a resource; open or keep its transport (upsert). Awaits `accept`.
    Authorize(Box<AuthorizationRequest>),
    /// Admit a client to a further resource or name. `Authorize` brings its transport, before or
    /// after (generation 0). Awaits `accept` if it announces a name.
    Allow(Box<AccessRequest>),
    /// New candidates of a client.
    AddCandidates {
        /// Client that sent the candidates.
        client: ClientId,
        /// Lines of the form `candidate:…`, unparsed.
        candidates: Vec<String>,
    },
    /// Candidates of a client that became invalid.
    RemoveCandidates {
        /// Client that withdrew the candidates.
        client: ClientId,
        /// Lines of the form `candidate:…`, unparsed.
        candidates: Vec<String>,
    },
    /// Take a resource away from a client immediately.
    Revoke {
        /// Client that loses the access.
        client: ClientId,
        /// Resource that is no longer accessible.
        resource: ResourceId,
    },
    /// Change the expiry of one authorization.
    SetExpiry(AuthorizationEntry),
    /// A resource changed: apply its filters to each of its authorizations.
    UpdateResource(Resource),
    /// The grants that the portal still knows: revoke all others, take over the expiry times.
    Reconcile {
        /// The gateway's own tunnel addresses.
        gateway: TunnelAddresses,
        /// For the ledger those of all clients, for a connection those of its client.
        granted: Vec<AuthorizationEntry>,
    },
}

impl ClientCommand {
    /// The client that the command is about; `None` if it is about all.
    #[must_use]
    pub fn client(&self) -> Option<ClientId> {
        match self {
            Self::Authorize(request) => Some(request.client.id),
            Self::Allow(request) => Some(request.client),
            Self::AddCandidates { client, .. }
            | Self::RemoveCandidates { client, .. }
            | Self::Revoke { client, .. } => Some(*client),
            Self::SetExpiry(entry) => Some(entry.client),
            Self::UpdateResource(_) | Self::Reconcile { .. } => None,
        }
    }

    /// Whether it grants something: a connection with such a command under way must not end.
    #[must_use]
    pub fn is_grant(&self) -> bool {
        matches!(self, Self::Authorize(_) | Self::Allow(_))
    }

    /// The reference of the acknowledgement that the portal awaits.
    #[must_use]
    pub fn awaited_ref(&self) -> Option<&str> {
        match self {
            Self::Authorize(request) => Some(&request.reply_ref),
            Self::Allow(request) => {
                let is_awaited = request.announced.is_some();
                is_awaited.then_some(&request.reply_ref)
            }
            Self::AddCandidates { .. }
            | Self::RemoveCandidates { .. }
            | Self::Revoke { .. }
            | Self::SetExpiry(_)
            | Self::UpdateResource(_)
            | Self::Reconcile { .. } => None,
        }
    }

    /// The resource and the expiry of a grant.
    pub fn grant_mut(&mut self) -> Option<(&mut Resource, &mut Option<UnixTime>)> {
        match self {
            Self::Authorize(request) => Some((&mut request.resource, &mut request.expires_at)),
            Self::Allow(request) => Some((&mut request.resource, &mut request.expires_at)),
            Self::AddCandidates { .. }
            | Self::RemoveCandidates { .. }
            | Self::Revoke { .. }
            | Self::SetExpiry(_)
            | Self::UpdateResource(_)
            | Self::Reconcile { .. } => None,
        }
    }

    /// The command as this client's connection gets it: without the grants of others.
    #[must_use]
    pub fn for_client(&self, client: ClientId) -> Self {
        let Self::Reconcile { gateway, granted } = self else {
            return self.clone();
        };
        let own = granted.iter().filter(|entry| entry.client == client);
        Self::Reconcile {
            gateway: *gateway,
            granted: own.copied().collect(),
        }
    }
}
