//! Requests of the portal that wait for their acknowledgement: if the connection dies, its
//! successor gets them.

use crate::grant::{AccessRequest, AuthorizationRequest};
use crate::ids::ClientId;
use crate::ledger::ClientRecord;
use std::collections::VecDeque;

/// A request of the portal to grant a client something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientRequest {
    /// A grant that brings the client's keys.
    Open(Box<AuthorizationRequest>),
    /// A further grant to a client with a transport.
    Allow(Box<AccessRequest>),
}

impl ClientRequest {
    /// The client that receives the grant.
    #[must_use]
    pub fn client(&self) -> ClientId {
        match self {
            Self::Open(request) => request.client.id,
            Self::Allow(request) => request.client,
        }
    }

    pub(super) fn reply_ref(&self) -> &str {
        match self {
            Self::Open(request) => &request.reply_ref,
            Self::Allow(request) => &request.reply_ref,
        }
    }

    /// Whether the connection will acknowledge it.
    fn is_acknowledged(&self) -> bool {
        match self {
            Self::Open(_) => true,
            Self::Allow(request) => request.announced.is_some(),
        }
    }

    /// Takes over what the ledger has for it now; `None` if the portal has revoked it meanwhile.
    fn renewed(mut self, record: &ClientRecord) -> Option<Self> {
        let (resource, expires_at) = match &mut self {
            Self::Open(request) => (&mut request.resource, &mut request.expires_at),
            Self::Allow(request) => (&mut request.resource, &mut request.expires_at),
        };
        let grant = record.grants.get(&resource.id)?;
        resource.filters.clone_from(&grant.resource.filters);
        resource.name.clone_from(&grant.resource.name);
        *expires_at = grant.expires_at;
        Some(self)
    }
}

/// The unacknowledged requests of one client, oldest first; at most [`PENDING`], then the oldest is
/// dropped.
#[derive(Debug, Default)]
pub(super) struct PendingRequests(VecDeque<ClientRequest>);

impl PendingRequests {
    pub(super) fn push(&mut self, request: &ClientRequest) {
        if request.is_acknowledged() {
            self.0.push_back(request.clone());
            let surplus = self.0.len().saturating_sub(PENDING);
            self.0.drain(..surplus);
        }
    }

    pub(super) fn settle(&mut self, reply_ref: &str) {
        self.0.retain(|it| it.reply_ref() != reply_ref);
    }

    /// Keeps what the record still grants; returns the requests for the successor.
    pub(super) fn renew(&mut self, record: &ClientRecord) -> Vec<ClientRequest> {
        let all = std::mem::take(&mut self.0).into_iter();
        self.0 = all.filter_map(|it| it.renewed(record)).collect();
        self.0.iter().cloned().collect()
    }
}

/// The portal repeats older requests.
const PENDING: usize = 32;
