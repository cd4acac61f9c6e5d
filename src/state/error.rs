//! Why no state can be restored or saved, each reason in one line that an operator can act on.

use postern_core::ledger::ImageError;
use rustix::process::Pid;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An error about the state file. Prints no secret.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory is on a disk, or might be.
    #[error(
        "state file {path}: {directory} is not on a memory file system (tmpfs), \
         and the keys in the file must never reach a disk",
        path = path.display(), directory = directory.display()
    )]
    NotInMemory {
        path: PathBuf,
        /// The directory that was checked.
        directory: PathBuf,
    },
    /// Another user could have written the file, or can read it.
    #[error("state file {path}: refused, because {why}", path = path.display())]
    Unsafe {
        path: PathBuf,
        /// Completes the sentence after "because".
        why: &'static str,
    },
    /// Another process holds the lock of the file.
    #[error(
        "state file {path}: in use by {holder}",
        path = path.display(), holder = holder(*pid)
    )]
    Locked {
        path: PathBuf,
        /// The process; `None` if it has not written its id yet.
        pid: Option<Pid>,
    },
    /// Written longer ago than is allowed.
    #[error(
        "state file {path}: ignored, because it is {age} old, and at most {max_age} is allowed",
        path = path.display(),
        age = humantime::format_duration(*age), max_age = humantime::format_duration(*max_age)
    )]
    Stale {
        path: PathBuf,
        age: Duration,
        max_age: Duration,
    },
    /// Written at a time that has not come yet.
    #[error(
        "state file {path}: ignored, because it was written {ahead} in the future",
        path = path.display(), ahead = humantime::format_duration(*ahead)
    )]
    FromTheFuture { path: PathBuf, ahead: Duration },
    /// The content does not decode.
    #[error("state file {path}: ignored, because {source}", path = path.display())]
    Unusable { path: PathBuf, source: ImageError },
    /// The operating system refused an operation on the file.
    #[error("state file {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl StateError {
    /// Makes an [`Self::Io`] of an error about the file at `path`; for `map_err`.
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(super) fn refused(path: &Path, why: &'static str) -> Self {
        let path = path.to_owned();
        Self::Unsafe { path, why }
    }
}

fn holder(pid: Option<Pid>) -> String {
    pid.map_or("another process".into(), |pid| format!("process {pid}"))
}
