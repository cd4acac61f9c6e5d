//! The programs of a whole set-up in a playground: web server, name server, relay, portal, gateway
//! and client.
//!
//! Each is a process of its own, started with a generated configuration and ready when its
//! `start_…` returns: seen by what it does (a port that answers, an address on an interface), not
//! by time. Refuses to go on when a program ends before it was ready, and shows the end of its log.

use super::control::Control;
use super::milestones::{self, Milestone};
use super::names::NameServer;
use super::network::{
    CLIENT_INTERFACE, GATEWAY_TUNNEL_V4, GATEWAY_TUNNEL_V6, NAME_SERVER_V4, NAME_SERVER_V6,
    ROUTER_V4, TUNNEL_INTERFACE, WEB_V4, WEB_V6, WEBS_V4, WEBS_V6, carries, leads_to,
};
use super::process::Process;
use super::programs::Programs;
use super::scene::{self, Device, PORTAL_PORT, relay_addresses};
use super::{Playground, Role, faults, lookup};
use anyhow::{Context, Result, anyhow, bail, ensure};
use hickory_proto::rr::RecordType;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// How long a program may take to become ready. Generous: the machine may be busy compiling.
pub const READY_LIMIT: Duration = Duration::from_secs(20);
/// The port of the web server that the policy permits.
pub const WEB_PORT: u16 = 80;
/// The port of the web server that the policy does not permit.
pub const DENIED_PORT: u16 = 8080;
/// The client's name in the portal.
pub const CLIENT: &str = "alice-laptop";
/// The gateway's name in the portal.
pub const GATEWAY: &str = "gw";
/// The IPv4 resource's name in the portal.
pub const RESOURCE_V4: &str = "office-v4";
/// The IPv6 resource's name in the portal.
pub const RESOURCE_V6: &str = "office-v6";

/// The port where the web server's machine echoes datagrams, which the policy permits.
pub const ECHO_PORT: u16 = 7;
/// Where the name server answers.
const NAME_PORT: u16 = 53;

/// The generation of the portal protocol that a program is told to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// `prepare_connection`, `request_connection`. Clients only.
    V0,
    /// `create_flow`, `authorize_flow`.
    V1,
    /// `request_authorization`, `create_authorization`.
    V2,
    /// Version 2 if the portal has it, else 1. Gateways only.
    Auto,
}

impl Generation {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::V0 => "v0",
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Auto => "auto",
        }
    }
}

/// What differs from test to test.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Whether there is a relay.
    pub relay: bool,
    /// What the gateway speaks.
    pub gateway_generation: Generation,
    /// What the client speaks.
    pub client_generation: Generation,
    /// What the policy permits, as the portal's configuration writes it.
    pub filters: &'static [&'static str],
    /// How many members the crowd has: as many as the playground's, or fewer.
    pub crowd: u8,
    /// How many shards the gateway has; `None`: as many as it thinks right.
    pub shards: Option<u8>,
    /// What the gateway is called when it joins.
    pub gateway_id: &'static str,
    /// What the gateway is told of a state file; `None`: nothing.
    pub state: Option<StateFile>,
    /// Whether the gateway takes orders to fail, on [`Lab::fault_socket`].
    pub faults: bool,
    /// Variables that the gateway is started with.
    pub gateway_environment: Vec<(&'static str, String)>,
}

/// `[state]` of the gateway's configuration.
#[derive(Clone, Debug)]
pub struct StateFile {
    /// On a memory file system.
    pub file: PathBuf,
    /// Whether SIGTERM leaves it to the next process.
    pub handover: bool,
    /// Older ones are ignored; `None`: the gateway's default.
    pub max_age: Option<Duration>,
}

impl StateFile {
    pub(super) fn section(&self) -> String {
        let age = self.max_age.map(humantime::format_duration);
        let age = age.map(|age| format!("max_age = \"{age}\"\n"));
        format!(
            "[state]\nfile = {:?}\nhandover = {}\n{}",
            self.file,
            self.handover,
            age.unwrap_or_default()
        )
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            relay: true,
            gateway_generation: Generation::Auto,
            client_generation: Generation::V2,
            filters: &["tcp/80", "udp/7", "icmp"],
            crowd: 0,
            shards: Some(1),
            gateway_id: "lab-gateway",
            state: None,
            faults: false,
            gateway_environment: Vec::new(),
        }
    }
}

/// The programs, in the order in which they are stopped: dropping it kills them, then removes the
/// playground.
pub struct Lab {
    client: Option<Process>,
    crowd: Vec<Process>,
    gateway: Option<Process>,
    portal: Option<Process>,
    relay: Option<Process>,
    names: Option<Process>,
    web: Option<Process>,
    started: u32,
    setup: Setup,
    programs: Programs,
    playground: Playground,
}

impl Lab {
    /// Writes tokens, secrets and configurations. `programs` are what it starts.
    ///
    /// # Errors
    /// The playground's directory cannot be written.
    pub fn new(playground: Playground, programs: &Programs, setup: Setup) -> Result<Self> {
        let lab = Self {
            client: None,
            crowd: Vec::new(),
            gateway: None,
            portal: None,
            relay: None,
            names: None,
            web: None,
            started: 0,
            setup,
            programs: programs.clone(),
            playground,
        };
        for secret in ["gateway.token", "relay.secret"] {
            lab.write(secret, &random_hex()?)?;
        }
        let directory = lab.playground.directory();
        let setup = &lab.setup;
        for device in Device::all(setup) {
            lab.write(&device.token_file(), &random_hex()?)?;
            let config = scene::client(setup, &device, directory);
            lab.write(&format!("{}.toml", device.stem), &config)?;
        }
        lab.write("portal.toml", &scene::portal(setup, directory, None))?;
        lab.write("gateway.toml", &scene::gateway(setup, directory))?;
        lab.write("zone.toml", &scene::zone()?)?;
        faults::prepare(&lab.playground)?;
        Ok(lab)
    }

    /// A playground with everything in it, ready.
    ///
    /// # Errors
    /// Something cannot be built or started, or does not become ready.
    pub fn start(programs: &Programs, setup: Setup) -> Result<Self> {
        let mut lab = Self::new(Playground::new()?, programs, setup)?;
        lab.start_web()?;
        lab.start_names()?;
        if lab.setup.relay {
            lab.start_relay()?;
        }
        lab.start_portal()?;
        lab.start_gateway()?;
        lab.start_client()?;
        Ok(lab)
    }

    /// Where it runs.
    #[must_use]
    pub fn playground(&self) -> &Playground {
        &self.playground
    }

    /// The portal's control socket.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(&self.path("portal.sock"))
    }

    /// The name server's control socket.
    #[must_use]
    pub fn names(&self) -> NameServer {
        NameServer::new(&self.path("names.sock"))
    }

    /// The running gateway.
    ///
    /// # Errors
    /// None is running.
    pub fn gateway(&mut self) -> Result<&mut Process> {
        self.gateway.as_mut().context("no gateway is running")
    }

    /// The running client.
    ///
    /// # Errors
    /// None is running.
    pub fn client(&mut self) -> Result<&mut Process> {
        self.client.as_mut().context("no client is running")
    }

    /// Starts the web server, on a permitted and on a denied port of all its addresses, and an echo
    /// beside it.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_web(&mut self) -> Result<()> {
        let mut command = self
            .playground
            .command(Role::Resource, &self.programs.lab());
        command.arg("web");
        let v4 = WEBS_V4.map(IpAddr::from);
        for address in v4.into_iter().chain(WEBS_V6.map(IpAddr::from)) {
            for port in [WEB_PORT, DENIED_PORT] {
                command.args(["--listen", &SocketAddr::new(address, port).to_string()]);
            }
            let echo = SocketAddr::new(address, ECHO_PORT).to_string();
            command.args(["--echo", &echo]);
        }
        let mut process = self.playground.spawn("web", command)?;
        for address in [IpAddr::from(WEB_V4), IpAddr::from(WEB_V6)] {
            let address = SocketAddr::new(address, DENIED_PORT);
            self.ready(&mut process, "a listening web server", |lab| {
                lab.accepts(Role::Resource, address)
            })?;
        }
        self.web = Some(process);
        Ok(())
    }

    /// Starts the name server on both families, with the scene's zone as it was at first.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_names(&mut self) -> Result<()> {
        let mut command = self
            .playground
            .command(Role::Resource, &self.programs.lab());
        command.arg("dns");
        let addresses = [IpAddr::from(NAME_SERVER_V4), IpAddr::from(NAME_SERVER_V6)];
        let addresses = addresses.map(|address| SocketAddr::new(address, NAME_PORT));
        for address in addresses {
            command.args(["--listen", &address.to_string()]);
        }
        command.arg("--zone").arg(self.path("zone.toml"));
        command.arg("--control").arg(self.path("names.sock"));
        let name = self.next_name("names");
        let mut process = self.playground.spawn(&name, command)?;
        for address in addresses {
            self.ready(&mut process, "an answering name server", |lab| {
                let question = (scene::ORIGIN, RecordType::SOA);
                let limit = Duration::from_millis(100);
                let said = lookup::ask(&lab.playground, Role::Gateway, address, question, limit);
                Ok(said.is_ok() && lab.names().forget().is_ok())
            })?;
        }
        self.names = Some(process);
        Ok(())
    }

    /// Starts the relay on both families.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_relay(&mut self) -> Result<()> {
        let mut command = self.playground.command(Role::Router, &self.programs.lab());
        command.arg("relay");
        let addresses = relay_addresses();
        for address in addresses {
            command.args(["--listen", &address.to_string()]);
        }
        command.arg("--secret-file").arg(self.path("relay.secret"));
        let mut process = self.playground.spawn("relay", command)?;
        for address in addresses {
            self.ready(&mut process, "a relay that answers STUN", |lab| {
                lab.playground.enter(Role::Router, || answers_stun(address))
            })?;
        }
        self.relay = Some(process);
        Ok(())
    }

    /// Starts the portal.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_portal(&mut self) -> Result<()> {
        let mut command = self.playground.command(Role::Router, &self.programs.lab());
        command
            .arg("portal")
            .arg("--config")
            .arg(self.path("portal.toml"));
        command.arg("--control").arg(self.path("portal.sock"));
        let name = self.next_name("portal");
        let mut process = self.playground.spawn(&name, command)?;
        let address = SocketAddr::from((ROUTER_V4, PORTAL_PORT));
        self.ready(&mut process, "a listening portal", |lab| {
            Ok(lab.accepts(Role::Router, address)? && lab.control().granted().is_ok())
        })?;
        self.portal = Some(process);
        Ok(())
    }

    /// Starts the gateway: ready when it has joined and its interface carries its addresses.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_gateway(&mut self) -> Result<()> {
        self.launch_gateway()?;
        self.gateway_ready()
    }

    /// Starts the gateway and does not wait until it is ready.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn launch_gateway(&mut self) -> Result<()> {
        let mut command = self
            .playground
            .command(Role::Gateway, &self.programs.gateway());
        command
            .arg("gateway")
            .arg("--config")
            .arg(self.path("gateway.toml"));
        if self.setup.faults {
            // A gateway that was killed had no time to remove it.
            let _none_there = std::fs::remove_file(self.fault_socket());
            command.env("POSTERN_FAULTS", self.fault_socket());
        }
        command.envs(self.setup.gateway_environment.iter().cloned());
        let name = self.next_name("gateway");
        self.gateway = Some(self.playground.spawn(&name, command)?);
        Ok(())
    }

    /// Waits until the launched gateway has joined and its interface carries its addresses.
    ///
    /// # Errors
    /// It does not become ready, and is killed.
    pub fn gateway_ready(&mut self) -> Result<()> {
        let mut process = self.take_gateway()?;
        let log = process.log_path().to_owned();
        self.ready(&mut process, "a gateway that has joined", |lab| {
            let joined = count(&read_log(&log), "joined") > 0;
            let up = |address| carries(&lab.playground, Role::Gateway, TUNNEL_INTERFACE, address);
            Ok(joined && up(GATEWAY_TUNNEL_V4.into())? && up(GATEWAY_TUNNEL_V6.into())?)
        })?;
        self.gateway = Some(process);
        Ok(())
    }

    /// Has the gateway end without goodbyes, by `postern handover`; returns how it ended.
    ///
    /// # Errors
    /// The command fails, or the gateway does not end.
    pub fn hand_over(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut command = self
            .playground
            .command(Role::Gateway, &self.programs.gateway());
        command
            .arg("handover")
            .arg("--config")
            .arg(self.path("gateway.toml"));
        let name = self.next_name("handover");
        let mut command = self.playground.spawn(&name, command)?;
        // It waits for the gateway's end, which is not complete before the gateway's parent knows.
        let ended = self.gateway()?.wait_end(limit);
        let status = command.wait_end(limit)?;
        ensure!(status.success(), "postern handover: {}", command.log());
        ended
    }

    /// Where a gateway that was set up with faults takes orders to fail.
    #[must_use]
    pub fn fault_socket(&self) -> PathBuf {
        self.path("faults.sock")
    }

    /// Where the gateway is asked how it is.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.path(scene::ADMIN_SOCKET)
    }

    /// The gateway's configuration.
    #[must_use]
    pub fn gateway_config(&self) -> PathBuf {
        self.path("gateway.toml")
    }

    /// Changes what the gateway is told: the next one, and the running one as far as it can take it
    /// over.
    ///
    /// # Errors
    /// The configuration cannot be written.
    pub fn reconfigure_gateway(&mut self, change: impl FnOnce(&mut Setup)) -> Result<()> {
        change(&mut self.setup);
        let config = scene::gateway(&self.setup, self.playground.directory());
        self.write("gateway.toml", &config)
    }

    /// Starts the client: ready when it has joined and its routes lead into the tunnel.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_client(&mut self) -> Result<()> {
        let joined_before = count(&self.client_milestones(), "joined");
        let mut process = self.launch_client(Role::Client)?;
        self.client_ready(Role::Client, &mut process, joined_before)?;
        self.client = Some(process);
        Ok(())
    }

    /// Starts all clients of the crowd, then waits until all are ready.
    ///
    /// # Errors
    /// One does not become ready.
    pub fn start_crowd(&mut self) -> Result<()> {
        let members: Vec<Role> = self.playground.members().collect();
        let launched = members.iter().map(|role| self.launch_client(*role));
        let mut processes = launched.collect::<Result<Vec<Process>>>()?;
        for (role, process) in members.into_iter().zip(&mut processes) {
            self.client_ready(role, process, 0)?;
        }
        self.crowd = processes;
        Ok(())
    }

    /// Starts the client of a place.
    fn launch_client(&mut self, role: Role) -> Result<Process> {
        let device = Device::at(role).context("no client belongs there")?;
        let mut command = self.playground.command(role, &self.programs.lab());
        command
            .arg("client")
            .arg("--config")
            .arg(self.path(&format!("{}.toml", device.stem)));
        command.arg("--timeline").arg(self.timeline(role));
        let name = self.next_name(&device.stem);
        self.playground.spawn(&name, command)
    }

    /// Waits until a client has joined once more than it had `before`, and its routes are there.
    fn client_ready(&self, role: Role, process: &mut Process, before: usize) -> Result<()> {
        self.ready(process, "a client that has joined", |lab| {
            let joined = count(&lab.milestones_at(role), "joined") > before;
            let leads = |address| leads_to(&lab.playground, role, address, CLIENT_INTERFACE);
            Ok(joined && leads(WEB_V4.into())? && leads(WEB_V6.into())?)
        })
    }

    /// Kills the client without a goodbye.
    pub fn kill_client(&mut self) {
        self.client = None;
    }

    /// Kills the gateway (SIGKILL), which has no time for anything.
    pub fn kill_gateway(&mut self) {
        self.gateway = None;
    }

    /// Kills the name server: questions are answered with ICMP "port unreachable".
    pub fn kill_names(&mut self) {
        self.names = None;
    }

    /// Kills the portal.
    pub fn kill_portal(&mut self) {
        self.portal = None;
    }

    /// Takes the policy of a resource out of the portal's configuration, and waits until the portal
    /// has taken the grants back. Without it, the client would be granted the resource again as
    /// soon as it asked.
    ///
    /// # Errors
    /// The portal does not follow, or the wait was called off.
    pub fn withdraw_policy(&self, resource: &str) -> Result<()> {
        // Renamed into place: the portal must not read half a file.
        let config = scene::portal(&self.setup, self.playground.directory(), Some(resource));
        self.write("portal.toml.new", &config)?;
        std::fs::rename(self.path("portal.toml.new"), self.path("portal.toml"))?;
        let control = self.control();
        let interrupt = self.playground.interrupt();
        interrupt.until_ok("the portal to revoke", READY_LIMIT, || {
            let granted = control.granted()?;
            Ok((!granted.iter().any(|name| name == resource)).then_some(()))
        })
    }

    /// Takes the gateway out, to end it in another way than by killing.
    ///
    /// # Errors
    /// None is running.
    pub fn take_gateway(&mut self) -> Result<Process> {
        self.gateway.take().context("no gateway is running")
    }

    /// Everything that the client reached so far, in all its lives.
    #[must_use]
    pub fn client_milestones(&self) -> Vec<Milestone> {
        self.milestones_at(Role::Client)
    }

    /// As [`Self::client_milestones`], for the client of any place.
    #[must_use]
    pub fn milestones_at(&self, role: Role) -> Vec<Milestone> {
        let timeline = std::fs::read_to_string(self.timeline(role));
        milestones::of_timeline(&timeline.unwrap_or_default())
    }

    /// What the running gateway has logged so far.
    #[must_use]
    pub fn gateway_log(&self) -> String {
        self.gateway.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Everything that the running gateway reached so far.
    #[must_use]
    pub fn gateway_milestones(&self) -> Vec<Milestone> {
        milestones::of_log(&self.gateway_log())
    }

    /// Waits until a milestone has been reached more than `before` times.
    ///
    /// # Errors
    /// It was not within `limit`, or the wait was called off.
    pub fn wait_gateway_milestone(&self, name: &str, before: usize, limit: Duration) -> Result<()> {
        let what = format!("the gateway's milestone {name}");
        self.playground.interrupt().until(&what, limit, || {
            (count(&self.gateway_milestones(), name) > before).then_some(())
        })
    }

    /// As [`Self::wait_gateway_milestone`], for the client.
    ///
    /// # Errors
    /// Those of [`Self::wait_gateway_milestone`].
    pub fn wait_client_milestone(&self, name: &str, before: usize, limit: Duration) -> Result<()> {
        let what = format!("the client's milestone {name}");
        self.playground.interrupt().until(&what, limit, || {
            (count(&self.client_milestones(), name) > before).then_some(())
        })
    }

    /// The ends of the logs of all running programs, for a report of what went wrong.
    #[must_use]
    pub fn log_tails(&self, lines: usize) -> String {
        let mut tails = String::new();
        let all = [
            &self.portal,
            &self.relay,
            &self.gateway,
            &self.client,
            &self.names,
            &self.web,
        ];
        for process in all.into_iter().flatten() {
            // Writing to a String cannot fail.
            let _infallible = write!(
                tails,
                "--- the end of {}.log\n{}\n",
                process.name(),
                process.log_tail(lines)
            );
        }
        tails
    }

    fn timeline(&self, role: Role) -> PathBuf {
        self.path(&format!("{role}.timeline"))
    }

    /// A file in the playground's directory.
    fn path(&self, file: &str) -> PathBuf {
        self.playground.directory().join(file)
    }

    fn write(&self, file: &str, content: &str) -> Result<()> {
        let path = self.path(file);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A name for the next life of a program, so that the logs of its former lives stay.
    fn next_name(&mut self, program: &str) -> String {
        self.started += 1;
        format!("{program}-{}", self.started)
    }

    /// Whether somebody listens on a TCP address.
    fn accepts(&self, role: Role, address: SocketAddr) -> Result<bool> {
        self.playground.enter(role, || {
            Ok(TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok())
        })
    }

    /// Waits until `probe` says yes, or `process` ends.
    fn ready(
        &self,
        process: &mut Process,
        what: &str,
        mut probe: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let waited = self.playground.interrupt().until_ok(what, READY_LIMIT, || {
            if let Some(status) = process.ended()? {
                bail!("{} ended with {status}", process.name());
            }
            Ok(probe(self)?.then_some(()))
        });
        waited.map_err(|error| {
            let tail = process.log_tail(15);
            match error.is::<super::wait::Interrupted>() {
                true => error,
                false => anyhow!("{error:#}\n--- the end of {}.log\n{tail}", process.name()),
            }
        })
    }
}

/// How often a milestone was reached.
#[must_use]
pub fn count(milestones: &[Milestone], name: &str) -> usize {
    milestones
        .iter()
        .filter(|milestone| milestone.name == name)
        .count()
}

fn read_log(path: &Path) -> Vec<Milestone> {
    milestones::of_log(&std::fs::read_to_string(path).unwrap_or_default())
}

/// Whether a STUN server answers a Binding request (RFC 8489, section 5) at an address of this
/// place.
fn answers_stun(address: SocketAddr) -> Result<bool> {
    const REQUEST: [u8; 20] = *b"\x00\x01\x00\x00\x21\x12\xa4\x42postern-lab.";
    const SUCCESS: [u8; 2] = [0x01, 0x01];
    let any = match address {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut answer = [0; 512];
    let exchanged = socket
        .connect(address)
        .and_then(|()| socket.send(&REQUEST))
        .and_then(|_| socket.recv(&mut answer));
    Ok(exchanged.is_ok_and(|length| length >= REQUEST.len()) && answer.starts_with(&SUCCESS))
}

/// 32 random bytes in hex.
fn random_hex() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}
