//! `postern handover`: ends the running gateway without goodbyes, so that the next one takes over.
//!
//! Finds the gateway by the lock of its state file, sends it SIGUSR1, and waits until its process
//! has ended. Signals no process that may not be the one that holds the lock: the process is held
//! by a pidfd (pidfd_open(2)), which never refers to a later process of the same id.

use crate::config::StateConfig;
use crate::state::{StateError, lock_holder};
use anyhow::{anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Ends the gateway that holds this state file. Returns what happened, in one line.
///
/// # Errors
/// Why that cannot be, with the remedy. After a timeout the gateway may still end.
pub fn run(state: &StateConfig, timeout: Duration) -> anyhow::Result<String> {
    let file = state.file.display();
    if !state.enabled {
        bail!(
            "state.enabled is false: the next gateway could not take any clients over; \
             set it to true and restart the gateway, or stop it with SIGTERM"
        );
    }
    let Some((pid, gateway)) = find(&state.file)? else {
        bail!(
            "no gateway is running with the state file {file}; \
             name the configuration that it was started with by --config"
        );
    };
    match pidfd_send_signal(&gateway, Signal::USR1) {
        // ESRCH: it has just ended by itself.
        Ok(()) | Err(Errno::SRCH) => {}
        Err(Errno::PERM) => bail!("process {pid} may not be signalled; {AS_WHOM}"),
        Err(error) => bail!("process {pid} cannot be signalled: {error}"),
    }
    if !ends_within(&gateway, timeout)? {
        let timeout = humantime::format_duration(timeout);
        bail!(
            "the gateway (process {pid}) was told to end but has not within {timeout}; \
             see its log, wait longer with --timeout, or end it with `kill -9 {pid}`: \
             the next gateway takes its clients over all the same"
        );
    }
    Ok(format!(
        "the gateway (process {pid}) has ended; the next one takes its clients over from {file}"
    ))
}

/// The process that holds the lock, if any, and its id.
fn find(state_file: &Path) -> anyhow::Result<Option<(Pid, OwnedFd)>> {
    let Some(holder) = lock_holder(state_file).map_err(explain)? else {
        return Ok(None);
    };
    let pid = holder.pid;
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => Some(process),
        Err(Errno::SRCH) => None,
        Err(error) => bail!("process {pid} cannot be signalled: {error}"),
    };
    // The lock ends with its holder. While it is held and names this id, no other process has it.
    if lock_holder(state_file).map_err(explain)? != Some(holder) {
        return Ok(None);
    }
    // A process id is valid in one PID namespace only.
    match process.filter(|_| holder.is_of_this_namespace()) {
        Some(process) => Ok(Some((pid, process))),
        None => bail!(
            "the gateway that holds the lock of {file} is not process {pid} here, but in a \
             container; run `postern handover` in there",
            file = state_file.display()
        ),
    }
}

fn explain(error: StateError) -> anyhow::Error {
    let is_denied = match &error {
        StateError::Unsafe { .. } => true,
        StateError::Io { source, .. } => source.kind() == ErrorKind::PermissionDenied,
        StateError::Locked { .. } => {
            return anyhow!("a gateway is starting with this file; try again ({error})");
        }
        StateError::NotInMemory { .. }
        | StateError::Stale { .. }
        | StateError::FromTheFuture { .. }
        | StateError::Unusable { .. } => false,
    };
    match is_denied {
        true => anyhow!("{error}; {AS_WHOM}"),
        false => error.into(),
    }
}

/// Waits for the end of the process: a pidfd becomes readable when it has ended, whether or not its
/// parent has waited for it.
fn ends_within(process: &OwnedFd, timeout: Duration) -> nix::Result<bool> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut ended, timeout)? > 0)
}

const AS_WHOM: &str = "run `postern handover` as the user that the gateway runs as";
