//! Why something works or does not: from what the parts of the gateway know, to one verdict with
//! its reason and its remedy.
//!
//! [`Facts`] in, [`Report`] out, by [`diagnose`]. The facts are the answers of those who know: the
//! ledger and the [`Journal`], a client's connection, the NAT. Whoever does not answer is a fact
//! too. It refuses to try anything out: a diagnosis sends no packet and asks no DNS server.

mod causes;
mod facts;
mod journal;
mod judge;
mod report;
#[cfg(test)]
mod tests;
mod who;
mod words;

pub use causes::{
    Cause, ClientCause, NameCause, Permits, ResourceCause, RightsCause, Severity, Unable,
};
pub use facts::{ClientFacts, Facts, GatewayFacts, Subject, Told};
pub use journal::{Ended, Journal};
pub use judge::diagnose;
pub use report::{Report, Step, StepName, StepState};
pub use who::{Identified, identify};
pub use words::Seconds;
