//! A program that runs in the playground: killed when its guard is dropped, readable through its
//! log.
//!
//! Kills only processes that the guard itself started, by their ids, never by name.

use super::wait::Interrupt;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// A running program. Dropping it kills the program and waits for its end.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    interrupt: Interrupt,
}

impl Process {
    /// Starts `command` with standard output and error in `log` (truncated), in its own process
    /// group, so that a Ctrl-C at the terminal reaches only the process that cleans up.
    pub(super) fn start(
        name: &str,
        mut command: Command,
        log: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            interrupt: interrupt.clone(),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ids and names of its threads.
    pub fn threads(&self) -> Result<Vec<(String, String)>> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid()))?;
        let threads = threads.map(|thread| {
            let thread = thread?.path();
            let name = std::fs::read_to_string(thread.join("comm"))?;
            let id = thread.file_name().unwrap_or_default();
            Ok((id.to_string_lossy().into_owned(), name.trim().to_owned()))
        });
        threads.collect()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process id fits an i32")?;
        kill(Pid::from_raw(pid), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Exit status, if the process has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the process to end, at most for `limit`.
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let interrupt = self.interrupt.clone();
        let what = format!("the end of {}", self.name);
        interrupt.until_ok(&what, limit, || self.ended())
    }

    /// Kills the process (SIGKILL) without a goodbye, and reaps it.
    pub fn kill(&mut self) {
        // Both fail only for a process that has ended, which is the aim.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// Everything that it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map_or_else(
            |error| format!("(no log: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The last `lines` lines of its log, for an error message.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end and returns its output; kills it after `limit`. Meant for programs
/// that write little (curl, ping): more than a pipe's buffer stalls them until the limit.
pub(super) fn run_to_end(
    mut command: Command,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<Output> {
    let what = format!("the end of {}", shown(&command));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", shown(&command)))?;
    if let Err(error) = interrupt.until_ok(&what, limit, || Ok(child.try_wait()?)) {
        child.kill()?;
        child.wait()?;
        return Err(error);
    }
    Ok(child.wait_with_output()?)
}

/// The command as a user would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_log_holds_both_streams_and_its_tail_is_short() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let script = shell("echo one; echo two >&2; echo three");
        let mut process =
            Process::start("talker", script, &log, &Interrupt::default()).expect("starts");
        assert!(process.wait_end(SOON).expect("ends").success());
        assert_eq!(process.log(), "one\ntwo\nthree\n");
        assert_eq!(process.log_tail(2), "two\nthree");
    }

    #[test]
    fn a_dropped_guard_leaves_no_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("log");
        let process = Process::start("sleeper", shell("sleep 60"), &log, &Interrupt::default());
        let process = process.expect("starts");
        let entry = format!("/proc/{}", process.pid());
        assert!(Path::new(&entry).exists());
        drop(process);
        assert!(!Path::new(&entry).exists());
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed_and_named() {
        let limit = Duration::from_millis(50);
        let error = run_to_end(shell("sleep 61"), limit, &Interrupt::default());
        let error = error.expect_err("takes too long").to_string();
        assert!(error.contains("sleep 61"), "{error}");
    }

    #[test]
    fn an_interrupt_ends_a_run() {
        let interrupt = Interrupt::default();
        interrupt.trigger();
        let run = run_to_end(shell("sleep 62"), SOON, &interrupt);
        assert_eq!(run.expect_err("interrupted").to_string(), "interrupted");
    }
}
