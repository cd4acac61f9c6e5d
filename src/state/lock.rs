//! The lock beside the state file: its holder alone writes the state file, and is named in it.
//!
//! A flock, which ends with the process however the process ends. The file itself stays: removing
//! it would let two processes hold two locks of the same name.

use super::StateError;
use super::location;
use crate::private_files::beside;
use rustix::process::Pid;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of the state file at `path`, trying again for `patience`.
    pub(super) fn take(path: &Path, patience: Duration) -> Result<Self, StateError> {
        let lock = beside(path, "lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = location::open(&options, &lock)?;
        // `lock_holder` of another process has it for a moment, too.
        let mut tries = (patience.as_nanos() / RETRY.as_nanos()).max(2);
        loop {
            match claim(&file) {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if tries > 0 => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(StateError::Locked {
                        path: path.to_owned(),
                        pid: LockHolder::read(&mut file).map(|holder| holder.pid),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(StateError::io(lock)(source)),
            }
            tries -= 1;
            // The kernel wakes a waiter for a flock only without a time limit.
            std::thread::park_timeout(RETRY);
        }
        let namespace = pid_namespace().map(|it| format!(" {it}"));
        let line = format!("{}{}\n", std::process::id(), namespace.unwrap_or_default());
        file.write_all(line.as_bytes())
            .map_err(StateError::io(lock))?;
        Ok(Self { file })
    }
}

/// Locks the file for this process alone. Empties it before that, while no process holds the lock:
/// a lock that is held never names a former holder.
fn claim(file: &File) -> Result<(), TryLockError> {
    file.try_lock_shared()?;
    file.set_len(0).map_err(TryLockError::Error)?;
    file.try_lock()
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Its process may end and leave the process id to another one.
        let _ = self.file.set_len(0);
    }
}

/// The process that holds a lock, as the lock file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// Never one of those that mean a group of processes or all of them.
    pub pid: Pid,
    /// Inode of the PID namespace in which `pid` is valid; `None` where the holder did not say.
    namespace: Option<u64>,
}

impl LockHolder {
    fn read(file: &mut File) -> Option<Self> {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).ok()?;
        file.take(64).read_to_string(&mut text).ok()?;
        // Without its end, the line is still being written.
        let mut words = text.strip_suffix('\n')?.split(' ');
        let pid = words.next()?.parse().ok().filter(|pid| *pid > 0)?;
        let namespace = words.next().and_then(|word| word.parse().ok());
        Some(Self {
            pid: Pid::from_raw(pid)?,
            namespace,
        })
    }

    /// Whether this process knows the holder by the same process id. A holder that does not name
    /// its namespace is believed.
    pub fn is_of_this_namespace(&self) -> bool {
        let Self { namespace, .. } = *self;
        namespace.is_none_or(|theirs| pid_namespace().is_none_or(|ours| ours == theirs))
    }
}

/// Inode of the PID namespace of this process (namespaces(7)).
fn pid_namespace() -> Option<u64> {
    let namespace = fs::metadata("/proc/self/ns/pid").ok()?;
    Some(namespace.ino())
}

/// The process that holds the lock of the state file at `path`; `None` if none does.
///
/// # Errors
/// [`StateError::Unsafe`], [`StateError::Io`], and [`StateError::Locked`] without a pid if the
/// holder has not written it yet.
pub fn lock_holder(path: &Path) -> Result<Option<LockHolder>, StateError> {
    let lock = beside(path, "lock");
    let Some(mut file) = location::open_existing(&lock)? else {
        return Ok(None);
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let path = path.to_owned();
            let holder = LockHolder::read(&mut file);
            holder
                .map(Some)
                .ok_or(StateError::Locked { path, pid: None })
        }
        Err(TryLockError::Error(source)) => Err(StateError::io(lock)(source)),
    }
}

const RETRY: Duration = Duration::from_millis(10);
