//! The records of each client and each name. Plain values; secrets are zeroized on drop and never
//! printed.

use crate::grant::{AnnouncedName, Resource, TransportKeys, TunnelAddresses};
use crate::ids::{ClientId, ResourceId, UnixTime};
use crate::names::{AddressFamily, DomainName};
use crate::nat_table::flows::{FlowProtocol, PinnedFlow};
use crate::packet::Path;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Everything that a client's connection is restored from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    /// The client's tunnel addresses.
    pub tunnel: TunnelAddresses,
    /// Keys and ICE credentials of both sides; `None` for a client with grants but no transport.
    pub transport: Option<TransportKeys>,
    /// The resources that the client may reach.
    pub grants: BTreeMap<ResourceId, Grant>,
    /// The names of the client and their proxy IPs, in the order of their first announcement.
    pub names: Vec<RecordedName>,
    /// Its ICE candidates (`candidate:…`), oldest first, without duplicates.
    pub remote_candidates: Vec<String>,
    /// The last path of its datagrams.
    pub path: Option<Path>,
    /// Flows to names that a restored NAT could not recreate by its rule.
    pub pins: BTreeMap<FlowKey, PinnedFlow>,
}

/// Protocol, source port and proxy IP of a flow; unique for each client.
pub type FlowKey = (FlowProtocol, u16, IpAddr);

impl ClientRecord {
    /// A client without grants.
    #[must_use]
    pub fn new(tunnel: TunnelAddresses) -> Self {
        Self {
            tunnel,
            transport: None,
            grants: BTreeMap::new(),
            names: Vec::new(),
            remote_candidates: Vec::new(),
            path: None,
            pins: BTreeMap::new(),
        }
    }
}

/// A resource that a client may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// As last sent by the portal, including filters.
    pub resource: Resource,
    /// `None` if the grant never expires.
    pub expires_at: Option<UnixTime>,
}

impl Grant {
    /// Whether the grant has expired.
    #[must_use]
    pub fn is_over(&self, unix_now: UnixTime) -> bool {
        self.expires_at.is_some_and(|at| at <= unix_now)
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

/// The reason why a grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantEnd {
    /// Its expiry was reached.
    Expired,
    /// The portal revoked it.
    Revoked,
    /// The portal's list of grants no longer contains it.
    Unlisted,
    /// Its client left, or was cut off.
    ClientGone,
}

/// A name that a client uses through one of its resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedName {
    /// The resource that covers the name.
    pub resource: ResourceId,
    /// The last announcement of the name.
    pub announced: AnnouncedName,
    /// Whether the client waits for a DomainStatus inside the tunnel.
    pub in_tunnel: bool,
}

impl RecordedName {
    /// Whether both records have the same name. Compares as [`DomainName`] does, without an
    /// allocation.
    pub(super) fn is_same_name(&self, other: &Self) -> bool {
        self.bare_domain().eq_ignore_ascii_case(other.bare_domain())
    }

    pub(super) fn is_for(&self, name: &DomainName) -> bool {
        self.bare_domain().eq_ignore_ascii_case(name.as_str())
    }

    fn bare_domain(&self) -> &str {
        let domain = self.announced.domain.as_str();
        domain.strip_suffix('.').unwrap_or(domain)
    }
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
