//! What the DnsActor is told, and what it answers.

use actix::{Message, Recipient};
use std::net::IpAddr;

/// Look a name up, A and AAAA; the answer goes to `reply_to`.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct ResolveName {
    /// Without a trailing dot.
    pub name: String,
    /// Who wants to know.
    pub reply_to: Recipient<NameResolution>,
}

/// What became of a lookup.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct NameResolution {
    /// As asked.
    pub name: String,
    /// Addresses of both families, or why there are none.
    pub outcome: Result<Vec<IpAddr>, NameFailure>,
}

/// Why a name has no address. Kept apart because they call for different treatment (lesson 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameFailure {
    /// The name does not exist (NXDOMAIN).
    NoSuchName,
    /// The name exists without an address.
    NoData,
    /// The server failed or refused.
    ServerFailure,
    /// Nobody answered in time.
    Timeout,
    /// The question could not be sent.
    Network,
}
