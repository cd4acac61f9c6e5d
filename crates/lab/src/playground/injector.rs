//! The gateway's fault socket, from the outside: which part is to fail, and how.
//!
//! One line asks, one line answers. Only a gateway that was built with the feature
//! `fault-injection` has such a socket.

use anyhow::{Context, Result, ensure};
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// A kind of actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The way to the portal.
    Portal,
    /// Lookups.
    Dns,
    /// Names and flows of a shard.
    NatTable,
    /// The tunnel interface of a shard.
    Tun,
    /// The sockets of a shard.
    Udp,
    /// One client.
    Connection,
}

impl Kind {
    /// All of them, in the order in which they take turns.
    pub const ALL: [Self; 6] = [
        Self::Connection,
        Self::Portal,
        Self::NatTable,
        Self::Dns,
        Self::Udp,
        Self::Tun,
    ];

    /// As the gateway calls it, on the fault socket and in its log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Portal => "portal",
            Self::Dns => "dns",
            Self::NatTable => "nat_table",
            Self::Tun => "tun",
            Self::Udp => "udp",
            Self::Connection => "connection",
        }
    }
}

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Panics in a handler.
    PanicHandler,
    /// Panics, and its next incarnation panics once while it starts.
    PanicStarted,
    /// Panics in a future that it spawned.
    PanicFuture,
    /// Panics in a timer.
    PanicTimer,
    /// Stops without a panic.
    Stop,
    /// Never polls its mailbox again.
    Hang,
    /// Blocks its thread for 30 s.
    Block,
    /// Keeps its mailbox full for 3 s.
    Fill,
    /// Panics at every packet of one client, until it is calmed.
    PanicPackets,
    /// Ends [`Self::PanicPackets`].
    Calm,
}

impl Fault {
    /// The panics that kill an actor at once, each in a different place.
    pub const PANICS: [Self; 4] = [
        Self::PanicHandler,
        Self::PanicStarted,
        Self::PanicFuture,
        Self::PanicTimer,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::PanicHandler => "panic-handler",
            Self::PanicStarted => "panic-started",
            Self::PanicFuture => "panic-future",
            Self::PanicTimer => "panic-timer",
            Self::Stop => "stop",
            Self::Hang => "hang",
            Self::Block => "block",
            Self::Fill => "fill",
            Self::PanicPackets => "panic-packets",
            Self::Calm => "calm",
        }
    }

    /// How many deaths it costs its victim's budget.
    #[must_use]
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

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The fault socket. Connects anew for each order.
#[derive(Clone, Debug)]
pub struct Injector {
    path: PathBuf,
}

/// An order to block a thread may be answered only after it.
const ANSWER_LIMIT: Duration = Duration::from_secs(40);

impl Injector {
    /// The one with its socket at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Lets a part fail; `client` is the id of the client whose connection it is.
    ///
    /// # Errors
    /// Nobody listens, no answer comes, or the gateway refuses.
    pub fn inflict(&self, kind: Kind, fault: Fault, client: Option<&str>) -> Result<()> {
        let stream = UnixStream::connect(&self.path).with_context(|| {
            format!(
                "no gateway takes faults at {}; `./dev chaos` builds one that does",
                self.path.display()
            )
        })?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let order = order(kind, fault, client);
        (&stream).write_all(format!("{order}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(&stream)
            .read_line(&mut answer)
            .with_context(|| format!("no answer to \"{order}\""))?;
        let answer = answer.trim_end();
        ensure!(
            answer == "ok",
            "the gateway answered \"{order}\" with \"{answer}\""
        );
        Ok(())
    }
}

fn order(kind: Kind, fault: Fault, client: Option<&str>) -> String {
    let mut order = format!("{} {fault}", kind.word());
    if let Some(client) = client {
        order.push(' ');
        order.push_str(client);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// What an order comes to, and what the gateway read of it.
    fn asked(answer: &'static str) -> (Result<()>, String) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("faults");
        let listener = UnixListener::bind(&path).expect("listens");
        let gateway = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("an order");
            let mut order = String::new();
            BufReader::new(&stream)
                .read_line(&mut order)
                .expect("a line");
            (&stream).write_all(answer.as_bytes()).expect("answers");
            order
        });
        let result = Injector::new(path).inflict(Kind::Connection, Fault::PanicTimer, Some("id"));
        (result, gateway.join().expect("a gateway"))
    }

    #[test]
    fn an_order_is_one_line_and_ok_is_enough() {
        let (result, order) = asked("ok\n");
        result.expect("done");
        assert_eq!(order, "connection panic-timer id\n");
        assert_eq!(order_of(Kind::NatTable), "nat_table fill");
    }

    fn order_of(kind: Kind) -> String {
        order(kind, Fault::Fill, None)
    }

    #[test]
    fn a_refusal_is_told_in_the_gateways_words() {
        let (result, _) = asked("error: no such client\n");
        let error = result.expect_err("refused").to_string();
        assert!(error.contains("no such client"), "{error}");
    }

    #[test]
    fn a_gateway_without_the_feature_is_named() {
        let injector = Injector::new("no/such/socket".into());
        let error = injector.inflict(Kind::Tun, Fault::Stop, None);
        let error = error.expect_err("nobody").to_string();
        assert!(error.contains("./dev chaos"), "{error}");
    }
}
