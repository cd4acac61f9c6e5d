//! `postern why`: an operator's question and the questions that the supervisor asks to answer it.
//!
//! Each actor answers from its state: answering sends no packet and changes nothing.

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
    /// The client's id, a prefix of it, or its tunnel address.
    pub client: String,
    pub target: Target,
}

/// To a ConnectionActor: how is the client reached, and may it reach this target?
#[derive(Debug, Clone, Message)]
#[rtype(result = "AccessFacts")]
pub struct ExplainAccess(pub Target);

#[derive(Debug, Clone, MessageResponse)]
pub struct AccessFacts(pub ConnectionFacts);

/// To the NatTableActor: which addresses has this name of a client, and do they answer?
#[derive(Debug, Clone, Message)]
#[rtype(result = "NameFacts")]
pub struct ExplainName {
    pub client: ClientId,
    /// The name, or one of its proxy IPs.
    pub target: Target,
}

#[derive(Debug, Clone, MessageResponse)]
pub struct NameFacts(pub NatFacts);
