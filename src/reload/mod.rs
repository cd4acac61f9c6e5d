//! The configuration while the gateway runs: read again when it changes, and on SIGHUP.
//!
//! [`Reloader`] compares and decides, on a thread of its own ([`watch`]), because a file may lie on
//! a network that takes its time. A new configuration passes the same checks as at the start
//! (docs/lessons.md 34). One that does not pass changes nothing, and the log says why: once for
//! each content that is found, and again on SIGHUP. A change is taken over where that is possible
//! without cutting anything, and named where it takes a restart.

mod check;
mod reloader;
#[cfg(test)]
mod tests;
mod watch;

pub use check::check;
#[cfg(test)]
pub use check::trust;
pub use reloader::Reloader;
pub use watch::{ReloadLinks, watch};
