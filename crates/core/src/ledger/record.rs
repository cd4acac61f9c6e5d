//! The records of each client and each name. Plain values; secrets are zeroized on drop and never
//! printed.

use crate::authorizations::{Authorizations, Grant, GrantEnd};
use crate::grant::{TransportKeys, TunnelAddresses};
use crate::ids::{ClientId, UnixTime};
use crate::names::{AddressFamily, DomainName};
use crate::nat_table::flows::PinnedFlow;
use crate::packet::Path;
use std::net::IpAddr;

/// Everything that a client's connection is restored from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    /// The client's tunnel addresses.
    pub tunnel: TunnelAddresses,
    /// Keys and ICE credentials of both sides; `None` for a client with grants but no transport.
    pub transport: Option<TransportKeys>,
    /// The client's grants and names: as its connection has published them last, and with the
    /// portal's commands since then.
    pub authorizations: Authorizations,
    /// Its ICE candidates (`candidate:…`), oldest first, without duplicates.
    pub remote_candidates: Vec<String>,
    /// The last path of its datagrams.
    pub path: Option<Path>,
    /// Flows to names that a restored NAT could not recreate by its rule, as the NAT has published
    /// them last. A restored NAT checks each against the names.
    pub pins: Vec<PinnedFlow>,
}

impl ClientRecord {
    /// A client without grants.
    #[must_use]
    pub fn new(tunnel: TunnelAddresses) -> Self {
        Self {
            tunnel,
            transport: None,
            authorizations: Authorizations::default(),
            remote_candidates: Vec::new(),
            path: None,
            pins: Vec::new(),
        }
    }
}

/// A grant that the ledger removed, for the diagnosis journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedGrant {
    /// The client that held the grant.
    pub client: ClientId,
    /// The client's tunnel addresses.
    pub tunnel: TunnelAddresses,
    /// The grant when it ended.
    pub grant: Grant,
    /// The reason of the end.
    pub end: GrantEnd,
}

/// The addresses of a name in one family, from the last successful lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedName {
    /// The name in the form that is looked up.
    pub name: DomainName,
    /// The family of all the addresses.
    pub family: AddressFamily,
    /// In the order of the proxy IPs: the first address belongs to the first proxy IP.
    pub ips: Vec<IpAddr>,
    /// When the DNS named them.
    pub resolved_at: UnixTime,
}
