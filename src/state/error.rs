//! Why there is no state to go on from, each in one line that an operator can act on.

use postern_core::ledger::ImageError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// See the module's documentation. Prints no secret.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory is on a disk, or might be.
    #[error(
        "state file {path}: {directory} is not on a memory file system (tmpfs), \
         and the keys in the file must never reach a disk",
        path = path.display(), directory = directory.display()
    )]
    NotInMemory {
        /// The state file.
        path: PathBuf,
        /// What was looked at.
        directory: PathBuf,
    },
    /// Somebody else could have written the file, or could read it.
    #[error("state file {path}: refused, because {why}", path = path.display())]
    Unsafe {
        /// The file in question.
        path: PathBuf,
        /// Completes "because".
        why: &'static str,
    },
    /// Another process works with the file.
    #[error("state file {path}: in use by process {pid}", path = path.display())]
    Locked {
        /// The state file.
        path: PathBuf,
        /// The process; 0 if it has not said so yet.
        pid: i32,
    },
    /// Too old to go on from, or from the future.
    #[error(
        "state file {path}: ignored, because it is {age} old, and at most {max_age} is allowed",
        path = path.display(),
        age = humantime::format_duration(*age), max_age = humantime::format_duration(*max_age)
    )]
    Stale {
        /// The state file.
        path: PathBuf,
        /// Since it was written.
        age: Duration,
        /// What is allowed.
        max_age: Duration,
    },
    /// Written at a time that has not come yet.
    #[error(
        "state file {path}: ignored, because it was written {ahead} in the future",
        path = path.display(), ahead = humantime::format_duration(*ahead)
    )]
    FromTheFuture {
        /// The state file.
        path: PathBuf,
        /// Until then.
        ahead: Duration,
    },
    /// Its content cannot be used.
    #[error("state file {path}: ignored, because {source}", path = path.display())]
    Unusable {
        /// The state file.
        path: PathBuf,
        /// Why.
        source: ImageError,
    },
    /// The operating system refused.
    #[error("state file {path}: {source}", path = path.display())]
    Io {
        /// The file in question.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl StateError {
    /// For `map_err`.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
