//! What the DnsActor is told, and what it answers.

use crate::actors::dns::NameServers;
use actix::{Message, Recipient};
use postern_core::grant::TunnelAddresses;
use postern_core::ids::ClientId;
use postern_core::lookups::LookupsConfig;
use postern_core::names::{DomainName, NameAnswer};

/// Look a name up, A and AAAA at once. Each family is answered on its own, once.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct ResolveName {
    /// What.
    pub name: DomainName,
    /// For whom: the quota is per client.
    pub client: ClientId,
    /// Whether what the cache holds is not good enough.
    pub refresh: bool,
    /// Who wants to know; `None` only warms the cache.
    pub reply_to: Option<Recipient<NameAnswered>>,
}

/// What became of a lookup, for one family.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct NameAnswered(pub NameAnswer);

/// Answer the SRV and TXT queries of clients on these addresses (docs/protocol.md 5.8.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ServeNames(pub TunnelAddresses);

/// Ask these from now on. Lookups under way are put to them as well, and are answered by whoever
/// answers first.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct UseNameServers(pub NameServers);

/// Go by these limits from now on. What is under way is not cut.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct LimitLookups(pub LookupsConfig);
