//! Why something works or does not: from what the parts of the gateway know, to one verdict with
//! its reason and its remedy.
//!
//! [`Facts`] in, [`Report`] out, by [`diagnose`]. The facts are the answers of those who know: the
//! ledger and the [`Journal`], a client's connection, the NAT. Whoever does not answer is a fact
//! too. It refuses to try anything out: a diagnosis sends no packet and asks no DNS server.

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
