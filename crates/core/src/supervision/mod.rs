//! Decisions of a supervisor about its children: whether to restart a child after its death, and
//! which children no longer answer.

mod restarts;
mod watchdog;
#[cfg(test)]
mod watchdog_tests;

pub use restarts::{RestartPolicy, RestartVerdict, Restarts};
pub use watchdog::{WatchPace, Watchdog, WatchdogEvent};
