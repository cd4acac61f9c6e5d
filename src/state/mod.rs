//! The state file: from it, a new process continues where the former one ended.
//!
//! It is on a memory file system only, because it holds the gateway's keys and those of its
//! clients. One process at a time may use it: the one that holds the lock beside it.

mod error;
mod file;
mod identity;
mod location;
mod lock;
#[cfg(test)]
mod tests;

pub use error::StateError;
pub use file::{StateFile, StateLock};
pub use identity::identity_key;
pub use lock::lock_holder;
