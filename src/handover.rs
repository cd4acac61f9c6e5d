//! `postern handover`: ends the running gateway without goodbyes, for the next one to go on.
//!
//! Finds the gateway by the lock of its state file, tells it by SIGUSR1, and waits until its
//! process has ended. Refuses to guess: a process that may not be the one that holds the lock is
//! not signalled.

use crate::config::StateConfig;
use crate::state::{StateError, lock_holder};
use anyhow::bail;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Has the gateway with this state file end; returns what happened, in one line.
///
/// # Errors
///
/// Why that cannot be, with the remedy. After a timeout the gateway may still end.
pub fn run(state: &StateConfig, timeout: Duration) -> anyhow::Result<String> {
    let file = state.file.display();
    if !state.enabled {
        bail!(
            "state.enabled is false: the next gateway could not take any clients over; \
             set it to true and restart the gateway, or stop it with SIGTERM"
        );
    }
    let Some(gateway) = find(&state.file)? else {
        bail!(
            "no gateway is running with the state file {file}; \
             name the configuration that it was started with by --config"
        );
    };
    let pid = gateway.pid;
    match kill(Pid::from_raw(pid), Signal::SIGUSR1) {
        // It ended by itself just now.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(Errno::EPERM) => bail!("process {pid} may not be signalled; {AS_WHOM}"),
        Err(error) => bail!("process {pid} cannot be signalled: {error}"),
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let waited = runtime.block_on(async { tokio::time::timeout(timeout, gateway.end()).await });
    waited.map_err(|_| {
        let timeout = humantime::format_duration(timeout);
        anyhow::anyhow!(
            "the gateway (process {pid}) was told to end but has not within {timeout}; \
             see its log, wait longer with --timeout, or end it with `kill -9 {pid}`: \
             the next gateway takes its clients over all the same"
        )
    })?;
    Ok(format!(
        "the gateway (process {pid}) has ended; the next one takes its clients over from {file}"
    ))
}

/// The process that holds the lock, if any.
fn find(state_file: &Path) -> anyhow::Result<Option<Process>> {
    let Some(pid) = holder(state_file)? else {
        return Ok(None);
    };
    let process = Process::find(pid);
    // A process of that id that began after the holder's end would hold no lock.
    if holder(state_file)? != Some(pid) {
        return Ok(None);
    }
    if is_foreign(state_file, pid) {
        bail!(
            "the gateway that holds the lock of {file} is not process {pid} here, but in a \
             container; run `postern handover` in there",
            file = state_file.display()
        );
    }
    Ok(process)
}

fn holder(state_file: &Path) -> anyhow::Result<Option<i32>> {
    lock_holder(state_file).map_err(|error| match &error {
        StateError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{error}; {AS_WHOM}")
        }
        StateError::Unsafe { .. } => anyhow::anyhow!("{error}; {AS_WHOM}"),
        StateError::Locked { .. } => {
            anyhow::anyhow!("a gateway is starting with this file; try again ({error})")
        }
        StateError::Io { .. }
        | StateError::NotInMemory { .. }
        | StateError::Stale { .. }
        | StateError::FromTheFuture { .. }
        | StateError::Unusable { .. } => error.into(),
    })
}

/// Whether the kernel says that the lock belongs to another process than the one that the lock file
/// names: each PID namespace counts for itself. Where the kernel does not say, the file is
/// believed.
fn is_foreign(state_file: &Path, pid: i32) -> bool {
    let mut lock = state_file.as_os_str().to_owned();
    lock.push(".lock");
    let (Ok(locks), Ok(lock)) = (fs::read_to_string("/proc/locks"), fs::metadata(lock)) else {
        return false;
    };
    let holders = flock_holders(&locks, lock.dev(), lock.ino());
    !holders.is_empty() && !holders.contains(&pid)
}

/// Who holds exclusive flocks on an inode, by `/proc/locks` (proc_locks(5)):
/// `1: FLOCK ADVISORY WRITE 123 00:1a:456 0 EOF`, the device in hexadecimal digits.
fn flock_holders(locks: &str, device: u64, inode: u64) -> Vec<i32> {
    let (major, minor) = (nix::libc::major(device), nix::libc::minor(device));
    let place = format!("{major:02x}:{minor:02x}:{inode}");
    let holder = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, "WRITE", pid, at, ..] if at == place => pid.parse().ok(),
            _ => None,
        }
    };
    locks.lines().filter_map(holder).collect()
}

/// A process, told from a later one of the same id by when it started.
struct Process {
    pid: i32,
    started: String,
}

impl Process {
    fn find(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let started = start_of_living(&stat)?.to_owned();
        Some(Self { pid, started })
    }

    /// Polled: the kernel wakes only parents, and others by a file descriptor for the process that
    /// this program has no other use for.
    async fn end(&self) {
        let mut polls = tokio::time::interval(POLL_EVERY);
        loop {
            polls.tick().await;
            match Self::find(self.pid) {
                Some(found) if found.started == self.started => {}
                Some(_) | None => return,
            }
        }
    }
}

/// When a process started, in ticks since the machine did: field 22 of proc_pid_stat(5). `None` for
/// one that has ended and that nobody has waited for.
fn start_of_living(stat: &str) -> Option<&str> {
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let is_dead = matches!(state, "Z" | "X" | "x");
    fields.nth(22 - 4).filter(|_| !is_dead)
}

const AS_WHOM: &str = "run `postern handover` as the user that the gateway runs as";

/// A gateway ends within milliseconds; nobody minds waiting this much longer.
const POLL_EVERY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_have_no_start() {
        let stat = |state| {
            format!("7 (a) b) {state} 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 2000 300\n")
        };
        assert_eq!(start_of_living(&stat("S")), Some("987"));
        assert_eq!(start_of_living(&stat("Z")), None);
        assert_eq!(start_of_living("7 (a"), None);
    }

    #[test]
    fn only_exclusive_flocks_on_the_very_file_count() {
        let locks = "1: FLOCK  ADVISORY  WRITE 123 00:1a:456 0 EOF\n\
                     2: FLOCK  ADVISORY  READ 124 00:1a:456 0 EOF\n\
                     3: POSIX  ADVISORY  WRITE 125 00:1a:456 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 126 00:1b:456 0 EOF\n\
                     5: -> FLOCK  ADVISORY  WRITE 127 00:1a:456 0 EOF\n";
        assert_eq!(flock_holders(locks, 0x1a, 456), [123]);
        assert_eq!(flock_holders(locks, 0x1a, 4), [0; 0]);
    }

    #[test]
    fn we_are_alive() {
        let id = i32::try_from(std::process::id()).expect("process ids are small");
        assert!(Process::find(id).is_some());
    }
}
