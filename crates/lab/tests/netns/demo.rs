//! The demo as a newcomer runs it, and what is left of it.

use crate::{LIMIT, programs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postern_lab::playground::Role;
use postern_lab::playground::wait::Interrupt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running demo.
struct Demo(Child);

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(programs().lab());
        command.arg("demo").args(arguments).stdin(Stdio::null());
        Self(
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("starts"),
        )
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("an id");
        kill(Pid::from_raw(pid), signal).expect("is sent");
    }

    /// Waits until all its namespaces are there.
    fn wait_up(&self) {
        let spaces = Role::ALL.map(|role| format!("/run/netns/pst-{}-{role}", self.pid()));
        let there = || {
            spaces
                .iter()
                .all(|space| PathBuf::from(space).exists())
                .then_some(())
        };
        Interrupt::default()
            .until("the demo's namespaces", LIMIT, there)
            .expect("come up");
    }
}

/// What a demo of this process id has left behind: namespaces and directories.
fn left_by(pid: u32) -> Vec<PathBuf> {
    let mine = format!("pst-{pid}-");
    let folders = [PathBuf::from("/run/netns"), std::env::temp_dir()];
    let entries = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok());
    entries
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&mine))
        .map(|entry| entry.path())
        .collect()
}

#[test]
fn the_demo_shows_what_it_promises_and_leaves_nothing() {
    let demo = Demo::start(&[]);
    let pid = demo.pid();
    let output = demo.0.wait_with_output().expect("ends");
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    for promise in [
        "page over IPv4",
        "page over IPv6",
        "ping over IPv4",
        "ping over IPv6",
        "ICMP type 3 code 13",
        "ICMP type 1 code 1",
        "asks the portal for access",
        "path nominated",
        "WireGuard handshake completed",
        "first byte of the page",
        "page by name, IPv4",
        "page by name, IPv6",
        "accepted all the same",
        "since the DNS server is back",
        "a new connection moves",
        "the download was not cut",
    ] {
        assert!(told.contains(promise), "no {promise} in:\n{told}");
    }
    assert_eq!(left_by(pid), Vec::<PathBuf>::new());
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let demo = Demo::start(&[]);
    let pid = demo.pid();
    demo.wait_up();
    demo.signal(Signal::SIGINT);
    let output = demo.0.wait_with_output().expect("ends");
    assert!(
        !output.status.success(),
        "an interrupted demo has not shown everything"
    );
    assert_eq!(left_by(pid), Vec::<PathBuf>::new());
}

#[test]
fn even_a_killed_demo_leaves_nothing() {
    let mut demo = Demo::start(&["--keep"]);
    let pid = demo.pid();
    demo.wait_up();
    demo.signal(Signal::SIGKILL);
    demo.0.wait().expect("ends");
    let gone = || left_by(pid).is_empty().then_some(());
    let limit = Duration::from_secs(10);
    Interrupt::default()
        .until("the janitor", limit, gone)
        .expect("everything is removed");
}
