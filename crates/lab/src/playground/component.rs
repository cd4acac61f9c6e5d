//! The programs of a set-up: where each runs, how it starts, and when it is ready.
//!
//! Readiness is observed behaviour (a port that answers, an address on an interface), not time.

use super::environment::Environment;
use super::milestones::{self, count};
use super::network::{
    CLIENT_INTERFACE, GATEWAY_TUNNEL_V4, GATEWAY_TUNNEL_V6, NAME_SERVER_V4, NAME_SERVER_V6,
    ROUTER_V4, TUNNEL_INTERFACE, WEB_V4, WEB_V6, WEBS_V4, WEBS_V6, carries, leads_to,
};
use super::process::Process;
use super::scene::{ORIGIN, PORTAL_PORT, relay_addresses};
use super::setup::{DENIED_PORT, ECHO_PORT, WEB_PORT};
use super::{Role, lookup};
use anyhow::Result;
use hickory_proto::rr::RecordType;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

/// A program of the set-up, in the order in which they stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    Client,
    /// The client of one member of the crowd.
    Member(u8),
    Gateway,
    Portal,
    /// The relay, on both families.
    Relay,
    /// The name server, on both families, with the scene's initial zone.
    Names,
    /// The web server on a permitted and a denied port of all its addresses, with a UDP echo.
    Web,
}

impl Component {
    /// A client of resources that have addresses, and all that it needs, in the order of starting.
    pub const ONE_CLIENT: [Self; 5] = [
        Self::Web,
        Self::Relay,
        Self::Portal,
        Self::Gateway,
        Self::Client,
    ];

    /// All that clients of names need, in the order of starting.
    pub const WITH_NAMES: [Self; 5] = [
        Self::Web,
        Self::Names,
        Self::Relay,
        Self::Portal,
        Self::Gateway,
    ];

    /// Namespace, name of logs and configuration, and description of the ready program.
    fn row(self) -> (Role, &'static str, &'static str) {
        match self {
            Self::Client => (Role::Client, "client", "a client that has joined"),
            Self::Member(number) => (Role::Member(number), "member", "a client that has joined"),
            Self::Gateway => (Role::Gateway, "gateway", "a gateway that has joined"),
            Self::Portal => (Role::Router, "portal", "a listening portal"),
            Self::Relay => (Role::Router, "relay", "a relay that answers STUN"),
            Self::Names => (Role::Resource, "names", "an answering name server"),
            Self::Web => (Role::Resource, "web", "a listening web server"),
        }
    }

    pub(super) fn role(self) -> Role {
        self.row().0
    }

    /// Common part of the names of its logs; its configuration is `<stem>.toml`.
    pub(super) fn stem(self) -> String {
        match self.row() {
            (member @ Role::Member(_), ..) => member.to_string(),
            (_, stem, _) => stem.to_owned(),
        }
    }

    /// Description for error messages: "waited 20 s in vain for a listening portal".
    pub(super) fn when_ready(self) -> &'static str {
        self.row().2
    }

    /// Command that runs the program in its namespace.
    pub(super) fn command(self, environment: &Environment) -> Command {
        let file = |flag, name: &str| (flag, environment.path(name).display().to_string());
        let config = || file("--config", &format!("{}.toml", self.stem()));
        let listen = |address: SocketAddr| ("--listen", address.to_string());
        let (subcommand, options) = match self {
            Self::Client | Self::Member(_) => {
                let timeline = environment.timeline(self.role()).display().to_string();
                ("client", vec![config(), ("--timeline", timeline)])
            }
            Self::Gateway => ("gateway", vec![config()]),
            Self::Portal => ("portal", vec![config(), file("--control", "portal.sock")]),
            Self::Relay => {
                let [v4, v6] = relay_addresses().map(listen);
                ("relay", vec![v4, v6, file("--secret-file", "relay.secret")])
            }
            Self::Names => {
                let [v4, v6] = name_addresses().map(listen);
                let (zone, control) =
                    (file("--zone", "zone.toml"), file("--control", "names.sock"));
                ("dns", vec![v4, v6, zone, control])
            }
            Self::Web => {
                let v4 = WEBS_V4.map(IpAddr::from).into_iter();
                let options = v4.chain(WEBS_V6.map(IpAddr::from)).flat_map(|address| {
                    let echo = SocketAddr::new(address, ECHO_PORT).to_string();
                    let pages = [WEB_PORT, DENIED_PORT];
                    let [permitted, denied] = pages.map(|port| listen((address, port).into()));
                    [permitted, denied, ("--echo", echo)]
                });
                ("web", options.collect())
            }
        };
        let program = match self == Self::Gateway {
            true => environment.programs.gateway(),
            false => environment.programs.lab(),
        };
        let mut command = environment.playground.command(self.role(), program);
        command.arg(subcommand);
        for (flag, value) in options {
            command.args([flag, &value]);
        }
        if self == Self::Gateway {
            set_gateway_environment(&mut command, environment);
        }
        command
    }

    /// Whether `process` is ready; clients have then joined more than `joined_before` times.
    pub(super) fn is_ready(
        self,
        environment: &Environment,
        process: &Process,
        joined_before: usize,
    ) -> Result<bool> {
        let role = self.role();
        let playground = &environment.playground;
        let webs = [IpAddr::from(WEB_V4), IpAddr::from(WEB_V6)];
        match self {
            Self::Client | Self::Member(_) => {
                let joined = count(&environment.milestones(role), "joined") > joined_before;
                let leads = |address| leads_to(playground, role, address, CLIENT_INTERFACE);
                Ok(joined && all(webs, leads)?)
            }
            Self::Gateway => {
                let joined = count(&milestones::of_log(&process.log()), "joined") > 0;
                let tunnel = [GATEWAY_TUNNEL_V4.into(), GATEWAY_TUNNEL_V6.into()];
                let up = |address| carries(playground, role, TUNNEL_INTERFACE, address);
                Ok(joined && all(tunnel, up)?)
            }
            Self::Portal => {
                let accepts = accepts(environment, role, (ROUTER_V4, PORTAL_PORT).into())?;
                Ok(accepts && environment.control().granted().is_ok())
            }
            Self::Relay => all(relay_addresses(), |address| {
                let sent = playground.exchange(role, address, &STUN_REQUEST, STEP_LIMIT)?;
                Ok(sent.is_ok_and(|(answer, _)| {
                    answer.len() >= STUN_REQUEST.len() && answer.starts_with(&STUN_SUCCESS)
                }))
            }),
            Self::Names => all(name_addresses(), |address| {
                let question = (ORIGIN, RecordType::SOA);
                let answer = lookup::ask(playground, Role::Gateway, address, question, STEP_LIMIT);
                Ok(answer.is_ok() && environment.names().forget().is_ok())
            }),
            Self::Web => all(webs, |address| {
                accepts(environment, role, (address, DENIED_PORT).into())
            }),
        }
    }
}

/// How long one attempt to reach a program may take before the next.
const STEP_LIMIT: Duration = Duration::from_millis(100);
/// A STUN Binding request and the type of a success (RFC 8489, section 5).
const STUN_REQUEST: [u8; 20] = *b"\x00\x01\x00\x00\x21\x12\xa4\x42postern-lab.";
const STUN_SUCCESS: [u8; 2] = [0x01, 0x01];

fn name_addresses() -> [SocketAddr; 2] {
    [(NAME_SERVER_V4, 53).into(), (NAME_SERVER_V6, 53).into()]
}

fn set_gateway_environment(command: &mut Command, environment: &Environment) {
    if environment.setup.faults {
        let socket = environment.path(FAULT_SOCKET);
        // A killed gateway had no time to remove it.
        let _none_there = std::fs::remove_file(&socket);
        command.env("POSTERN_FAULTS", socket);
    }
    command.envs(environment.setup.gateway_environment.iter().cloned());
}

/// Where the gateway accepts injected faults, in the playground's directory.
pub(super) const FAULT_SOCKET: &str = "faults.sock";

/// Whether a program listens on a TCP address.
fn accepts(environment: &Environment, role: Role, address: SocketAddr) -> Result<bool> {
    environment.playground.enter(role, || {
        Ok(TcpStream::connect_timeout(&address, 2 * STEP_LIMIT).is_ok())
    })
}

fn all<T>(
    items: impl IntoIterator<Item = T>,
    mut holds: impl FnMut(T) -> Result<bool>,
) -> Result<bool> {
    for item in items {
        if !holds(item)? {
            return Ok(false);
        }
    }
    Ok(true)
}
