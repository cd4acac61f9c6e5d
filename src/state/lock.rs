//! The lock beside the state file: who holds it writes the file, and its pid stands in it.
//!
//! A flock, so that it goes with the process however that ends. The file itself stays: removing it
//! would let two processes hold two locks of the same name.

use super::StateError;
use super::place::{self, beside};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

/// Held while it lives.
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
        let mut file = place::open(&options, &lock)?;
        // Whoever only asks for the holder has it for a moment, too.
        let mut tries = (patience.as_nanos() / RETRY.as_nanos()).max(2);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if tries > 0 => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(StateError::Locked {
                        path: path.to_owned(),
                        pid: pid_in(&mut file).unwrap_or(0),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(StateError::io(lock)(source)),
            }
            tries -= 1;
            // The kernel tells nobody but a sleeper without a time limit that a flock is free.
            std::thread::park_timeout(RETRY);
        }
        let pid = std::process::id();
        let written = file.set_len(0).and_then(|()| writeln!(file, "{pid}"));
        written.map_err(StateError::io(lock))?;
        Ok(Self { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Nobody is to find the pid of a process that may be gone.
        let _ = self.file.set_len(0);
    }
}

/// The process that holds the lock of the state file at `path`; `None` if none does.
///
/// # Errors
///
/// [`StateError::Unsafe`], [`StateError::Io`], and [`StateError::Locked`] without a pid if the
/// holder has not written it yet.
pub fn lock_holder(path: &Path) -> Result<Option<i32>, StateError> {
    let lock = beside(path, "lock");
    let Some(mut file) = place::open_existing(&lock)? else {
        return Ok(None);
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => match pid_in(&mut file) {
            Some(pid) => Ok(Some(pid)),
            None => Err(StateError::Locked {
                path: path.to_owned(),
                pid: 0,
            }),
        },
        Err(TryLockError::Error(source)) => Err(StateError::io(lock)(source)),
    }
}

/// A process id, never one of those that mean a group or everybody.
fn pid_in(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().filter(|pid| *pid > 0)
}

const RETRY: Duration = Duration::from_millis(10);
