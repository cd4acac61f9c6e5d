//! Messages to the SupervisorActor before and after the configuration is read again. Between them
//! comes `config::UseSettings`, if something changed.

use actix::Message;
use postern_core::UnixTime;

/// From the thread that reads the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum ReloadNews {
    Began,
    Done(ReloadReport),
}

/// One attempt to read the configuration again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadReport {
    pub at: UnixTime,
    pub outcome: ReloadOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// Some keys have other values.
    Applied {
        /// Keys whose new values are in effect.
        changed: Vec<&'static str>,
        /// Keys that keep their values until the next start.
        needs_restart: Vec<&'static str>,
    },
    /// No key has another value.
    Unchanged,
    /// The configuration is wrong; the previous one stays.
    Refused {
        /// Each with its place in the file or the environment.
        problems: Vec<String>,
    },
}
