//! Messages to the DnsActor, and its answers.

use actix::{Message, Recipient};
use postern_core::grant::TunnelAddresses;
use postern_core::ids::ClientId;
use postern_core::names::{DomainName, NameAnswer};

/// Look up A and AAAA of a name. Each family is answered on its own, once.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct ResolveName {
    pub name: DomainName,
    /// The client whose quota pays for the lookup.
    pub client: ClientId,
    /// Ask the name servers even if the cache has an answer.
    pub refresh: bool,
    /// Receives the answers; `None` only warms the cache.
    pub reply_to: Option<Recipient<NameAnswered>>,
}

/// The result of a lookup, for one family.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct NameAnswered(pub NameAnswer);

/// Answer the SRV and TXT queries of clients on these addresses (docs/protocol.md 5.8).
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct ServeNames(pub TunnelAddresses);
