//! Why something works or does not: the question of an operator, and those that it leads to.
//!
//! Whoever is asked answers from what it knows: nothing is tried out, and nothing changes.

use actix::{Message, MessageResponse};
use postern_core::connection::ConnectionFacts;
use postern_core::diagnosis::Report;
use postern_core::ids::ClientId;
use postern_core::nat_table::NatFacts;
use postern_core::target::Target;

/// To the SupervisorActor: can this client reach this target, and if not, why not?
#[derive(Debug, Clone, Message)]
#[rtype(result = "Report")]
pub struct Diagnosis {
    /// Its id, the beginning of it, or its tunnel address.
    pub client: String,
    /// What it wants to reach.
    pub target: Target,
}

/// To a ConnectionActor: how the client is reached, and whether it may reach this target.
#[derive(Debug, Clone, Message)]
#[rtype(result = "AccessFacts")]
pub struct ExplainAccess(pub Target);

/// What a connection knows.
#[derive(Debug, Clone, MessageResponse)]
pub struct AccessFacts(pub ConnectionFacts);

/// To the NatTableActor: what stands behind this name of a client, and whether it answers.
#[derive(Debug, Clone, Message)]
#[rtype(result = "NameFacts")]
pub struct ExplainName {
    /// Whose.
    pub client: ClientId,
    /// The name, or one of the addresses by which the client knows it.
    pub target: Target,
}

/// What a NAT knows.
#[derive(Debug, Clone, MessageResponse)]
pub struct NameFacts(pub NatFacts);
