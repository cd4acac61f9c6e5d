//! Why a connection to a target works or does not: from facts to one verdict with its reason and
//! its remedy.
//!
//! [`Facts`] in, [`Report`] out, by [`diagnose`]. The facts come from the ledger and the
//! [`Journal`], the client's connection and the NAT. A missing response is a fact too. It performs
//! no test: a diagnosis sends no packet and no DNS query.

mod causes;
mod facts;
mod identify;
mod journal;
mod report;
mod steps;
#[cfg(test)]
mod tests;
mod words;

pub use causes::{
    Cause, ClientCause, DnsFailure, NameCause, Permits, ResourceCause, RightsCause, Severity,
};
pub use facts::{ClientFacts, Facts, GatewayFacts, Response, Subject};
pub use identify::{ClientMatch, identify};
pub use journal::{Journal, JournalEntry};
pub use report::{Report, Step, StepName, StepState};
pub use steps::diagnose;
pub use words::Seconds;
