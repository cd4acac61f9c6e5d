//! What is kept for each client and for each name. Plain values; secrets are zeroized on drop and
//! never printed.

use crate::grant::{AnnouncedName, Resource, TransportKeys, TunnelAddresses};
use crate::ids::{ClientId, ResourceId, UnixTime};
use crate::names::{AddressFamily, DomainName};
use crate::nat_table::flows::{FlowProtocol, PinnedFlow};
use crate::packet::Path;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Everything that a client's connection is built anew from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRecord {
    /// The client's tunnel addresses.
    pub tunnel: TunnelAddresses,
    /// Keys and ICE credentials of both sides; `None` while the client has grants but no transport.
    pub transport: Option<TransportKeys>,
    /// What it may reach.
    pub grants: BTreeMap<ResourceId, Grant>,
    /// The names it uses and their proxy IPs, in the order in which they were announced first.
    pub names: Vec<RecordedName>,
    /// Its ICE candidates (`candidate:…`), oldest first, each once.
    pub remote_candidates: Vec<String>,
    /// Where its datagrams were last sent to and from.
    pub path: Option<Path>,
    /// Flows to names that a rebuilt NAT could not make anew by its rule.
    pub pins: BTreeMap<FlowKey, PinnedFlow>,
}

/// Protocol, source port and proxy IP of a flow: a client has one at a time.
pub type FlowKey = (FlowProtocol, u16, IpAddr);

impl ClientRecord {
    /// A client that may reach nothing yet.
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
    /// As last told by the portal, filters included.
    pub resource: Resource,
    /// `None` never expires.
    pub expires_at: Option<UnixTime>,
}

impl Grant {
    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, unix_now: UnixTime) -> bool {
        self.expires_at.is_some_and(|at| at <= unix_now)
    }
}

/// A grant that the ledger let go of, for whoever has to tell why something works no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedGrant {
    /// Whose.
    pub client: ClientId,
    /// The client's tunnel addresses.
    pub tunnel: TunnelAddresses,
    /// As it was.
    pub grant: Grant,
    /// Why.
    pub end: GrantEnd,
}

/// Why a grant ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantEnd {
    /// Its time was over.
    Expired,
    /// The portal took it away.
    Revoked,
    /// The portal no longer lists it.
    Unlisted,
    /// Its client is gone, or was cut off.
    ClientGone,
}

/// A name that a client uses through one of its resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedName {
    /// Through which resource.
    pub resource: ResourceId,
    /// As announced last.
    pub announced: AnnouncedName,
    /// Whether the client waits for a DomainStatus inside the tunnel.
    pub in_tunnel: bool,
}

impl RecordedName {
    /// Whether both records are about one name. Compares as [`DomainName`] does, without an
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

/// The addresses that a name had when it was last looked up with success, for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedName {
    /// As it is looked up.
    pub name: DomainName,
    /// Of these addresses.
    pub family: AddressFamily,
    /// In the order in which proxy IPs lead to them: the first proxy IP to the first.
    pub ips: Vec<IpAddr>,
    /// When the DNS said so.
    pub resolved_at: UnixTime,
}
