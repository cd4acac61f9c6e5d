//! What a supervisor decides about its children: whether a death is followed by a restart, and
//! which of them no longer answer.

mod restarts;
mod watchdog;
#[cfg(test)]
mod watchdog_tests;

pub use restarts::{RestartPolicy, RestartVerdict, Restarts};
pub use watchdog::{WatchPace, Watchdog, WatchdogEvent};
