//! The state file: what lets a new process go on where another ended.
//!
//! Lives on a memory file system only, because it holds the gateway's keys and those of its
//! clients. Belongs to one process at a time, which holds a lock beside it.

mod error;
mod file;
mod identity;
mod lock;
mod place;
#[cfg(test)]
mod tests;

pub use error::StateError;
pub use file::{StateFile, StateLock};
pub use identity::identity_key;
pub use lock::lock_holder;
