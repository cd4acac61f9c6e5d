//! Why something works or does not: from what the parts of the gateway know, to one verdict with its
//! reason and its remedy.

mod journal;
mod refusal;
mod replies;
mod target;
mod words;

pub use journal::{Ended, Journal};
pub(crate) use refusal::source_port;
pub use refusal::{Refusal, Refused};
pub use replies::{Correspondence, Replies, RepliesSeen};
pub use target::{Asked, NotATarget, Place, Target};
pub use words::Seconds;
