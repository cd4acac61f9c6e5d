//! A client of the gateway's fault socket, which makes one of its actors fail.
//!
//! One line per command, one line per answer. Only a gateway that was built with the feature
//! `fault-injection` has such a socket.

use super::control::exchange;
use super::word;
use anyhow::{Context, Result, ensure};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Type of an actor of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum ActorKind {
    Portal,
    Dns,
    /// Mappings and flows of a shard.
    NatTable,
    /// The tunnel interface of a shard.
    Tun,
    /// The UDP sockets of a shard.
    Udp,
    /// The connection of one client.
    Connection,
}

impl ActorKind {
    /// All kinds, in the order in which chaos runs break them.
    pub const ALL: [Self; 6] = [
        Self::Connection,
        Self::Portal,
        Self::NatTable,
        Self::Dns,
        Self::Udp,
        Self::Tun,
    ];

    /// Name in the gateway's fault socket and log.
    pub fn word(self) -> String {
        word(self)
    }
}

/// What an actor does when a fault is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum ActorFault {
    /// Panics in a message handler.
    PanicHandler,
    /// Panics, and its next instance panics once while it starts.
    PanicStarted,
    /// Panics in a spawned future.
    PanicFuture,
    /// Panics in a timer callback.
    PanicTimer,
    /// Stops without a panic.
    Stop,
    /// Never polls its mailbox again.
    Hang,
    /// Blocks its thread for 30 s.
    Block,
    /// Keeps its mailbox full for 3 s.
    Fill,
    /// Panics at every packet of one client, until [`Self::Calm`].
    PanicPackets,
    /// Ends [`Self::PanicPackets`].
    Calm,
}

impl ActorFault {
    /// The panics that kill an actor at once, each in a different place.
    pub const PANICS: [Self; 4] = [
        Self::PanicHandler,
        Self::PanicStarted,
        Self::PanicFuture,
        Self::PanicTimer,
    ];

    /// Number of deaths that count against the actor's restart budget.
    pub fn deaths(self) -> usize {
        match self {
            Self::PanicStarted => 2,
            Self::PanicHandler
            | Self::PanicFuture
            | Self::PanicTimer
            | Self::Stop
            | Self::Hang
            | Self::Block => 1,
            Self::Fill | Self::PanicPackets | Self::Calm => 0,
        }
    }
}

impl fmt::Display for ActorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&word(*self))
    }
}

/// The gateway's fault socket. Connects for each command.
#[derive(Clone, Debug)]
pub struct Injector(PathBuf);

/// The answer to a command that blocks a thread may come only after the block.
const ANSWER_LIMIT: Duration = Duration::from_secs(40);

impl Injector {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Makes an actor fail; `client` is the client's id for a [`ActorKind::Connection`].
    pub fn inflict(&self, kind: ActorKind, fault: ActorFault, client: Option<&str>) -> Result<()> {
        let command = command(kind, fault, client);
        let answer = exchange(&self.0, &command, ANSWER_LIMIT).with_context(|| {
            format!(
                "no gateway takes faults at {}; `./dev chaos` builds one that does",
                self.0.display()
            )
        })?;
        let answer = answer.trim_end();
        ensure!(
            answer == "ok",
            "the gateway answered \"{command}\" with \"{answer}\""
        );
        Ok(())
    }
}

fn command(kind: ActorKind, fault: ActorFault, client: Option<&str>) -> String {
    let client = client.map(|id| format!(" {id}")).unwrap_or_default();
    format!("{} {fault}{client}", kind.word())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    /// Result of a command, and the line that the gateway received.
    fn sent(answer: &'static str) -> (Result<()>, String) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("faults");
        let listener = UnixListener::bind(&path).expect("listens");
        let gateway = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a command");
            let mut line = String::new();
            BufReader::new(&stream)
                .read_line(&mut line)
                .expect("a line");
            (&stream).write_all(answer.as_bytes()).expect("answers");
            line
        });
        let result =
            Injector::new(path).inflict(ActorKind::Connection, ActorFault::PanicTimer, Some("id"));
        (result, gateway.join().expect("a gateway"))
    }

    #[test]
    fn a_command_is_one_line_and_ok_is_enough() {
        let (result, line) = sent("ok\n");
        result.expect("done");
        assert_eq!(line, "connection panic-timer id\n");
        let command = command(ActorKind::NatTable, ActorFault::Fill, None);
        assert_eq!(command, "nat_table fill");
    }

    #[test]
    fn a_refusal_contains_the_gateways_words() {
        let (result, _) = sent("error: no such client\n");
        let error = result.expect_err("refused").to_string();
        assert!(error.contains("no such client"), "{error}");
    }

    #[test]
    fn a_gateway_without_the_feature_is_named() {
        let injector = Injector::new("no/such/socket".into());
        let error = injector.inflict(ActorKind::Tun, ActorFault::Stop, None);
        let error = error.expect_err("no socket").to_string();
        assert!(error.contains("./dev chaos"), "{error}");
    }
}
