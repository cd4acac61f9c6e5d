//! Private network namespaces in which a whole Postern set-up runs, and from which nothing leaves.
//!
//! ```text
//!  client ──── router ════════ "internet" ════════ gateway ──── resource
//!              NAT and firewall for the client;                 a web server
//!              portal and relay on its own addresses            and a name server
//!  member-0 … member-N: an optional crowd behind the same router
//! ```
//!
//! Every interface is created inside a namespace of this run: nothing appears on the machine's own
//! network, and no route leads to it. [`Playground`] is the network, [`lab::Lab`] the programs in
//! it. Whatever ends the process that made a playground (a return, a panic, a signal, even
//! SIGKILL), a helper shell removes processes, namespaces and files. Requires root.

mod cleanup;
pub mod component;
pub mod control;
pub mod download;
mod environment;
pub mod faults;
pub mod icmp;
pub mod injector;
pub mod iperf;
pub mod lab;
pub mod lookup;
pub mod milestones;
pub mod names;
pub mod nameservice;
mod namespaces;
pub mod network;
pub mod process;
pub mod programs;
pub mod scene;
pub mod setup;
pub mod traffic;
pub mod wait;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use cleanup::Cleanup;
use namespaces::RunName;
use nix::sched::{CloneFlags, setns};
use process::Process;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tokio::time::Instant;
use wait::Interrupt;

/// Programs that a playground needs on the search path.
const TOOLS: [&str; 5] = ["ip", "nft", "curl", "ping", "mount"];

/// A namespace of the playground. Its text is the last part of the namespace's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The client, behind the router.
    Client,
    /// The client's NAT router; portal and relay run here too.
    Router,
    /// The gateway, between the internet and the resources.
    Gateway,
    /// The private network with the web server and the name server.
    Resource,
    /// One client of the crowd, behind the router and separate from all others.
    Member(u8),
}

impl Role {
    /// The namespaces of every playground, from the client to the resource.
    pub const ALL: [Self; 4] = [Self::Client, Self::Router, Self::Gateway, Self::Resource];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Router => f.write_str("router"),
            Self::Gateway => f.write_str("gateway"),
            Self::Resource => f.write_str("resource"),
            Self::Member(number) => write!(f, "member-{number}"),
        }
    }
}

/// Settings in which playgrounds differ.
#[derive(Clone, Default)]
pub struct Plan {
    /// Ends all waits in the playground.
    pub interrupt: Interrupt,
    /// Number of members of the crowd, at most [`network::CROWD_MAX`].
    pub crowd: u8,
    /// Whether it has a directory on a memory file system.
    pub memory: bool,
}

/// A network of namespaces and a private directory. Dropping it removes both.
pub struct Playground {
    run: RunName,
    crowd: u8,
    directory: PathBuf,
    memory: Option<PathBuf>,
    interrupt: Interrupt,
    // Last: its drop removes the namespaces, after everything else of the playground is gone.
    _cleanup: Cleanup,
}

impl Playground {
    /// Builds the network without a crowd.
    pub fn new() -> Result<Self> {
        Self::planned(Plan::default())
    }

    /// As [`Self::new`]; `interrupt` ends all waits in the playground.
    pub fn with_interrupt(interrupt: Interrupt) -> Result<Self> {
        Self::planned(Plan {
            interrupt,
            ..Plan::default()
        })
    }

    /// Builds the network. Fails without root or when a tool is missing.
    pub fn planned(plan: Plan) -> Result<Self> {
        preflight()?;
        ensure!(
            plan.crowd <= network::CROWD_MAX,
            "a crowd has {} members at most",
            network::CROWD_MAX
        );
        namespaces::sweep();
        let run = RunName::next();
        let directory = private_directory(&run)?;
        let memory = plan.memory.then(|| memory_directory(&run)).transpose()?;
        let spaces = roles(plan.crowd).map(|role| run.namespace(role));
        let cleanup = Cleanup::start(spaces, &directory, memory.as_deref())?;
        let playground = Self {
            run,
            crowd: plan.crowd,
            directory,
            memory,
            interrupt: plan.interrupt,
            _cleanup: cleanup,
        };
        network::build(&playground).context("cannot build the playground's network")?;
        nameservice::prepare(&playground).context("cannot prepare what programs see of names")?;
        Ok(playground)
    }

    /// Name of a namespace, as `ip netns list` shows it.
    pub fn namespace(&self, role: Role) -> String {
        self.run.namespace(role)
    }

    /// A directory that only root can enter, for configurations, tokens and logs.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The namespaces of the crowd.
    pub fn members(&self) -> impl Iterator<Item = Role> + use<> {
        (0..self.crowd).map(Role::Member)
    }

    /// A directory on a memory file system that only root can enter, for data that must not reach
    /// a disk; `None` when the plan had none.
    pub fn memory(&self) -> Option<&Path> {
        self.memory.as_deref()
    }

    /// Ends all waits in the playground.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// A command that runs `program` in a namespace, with the name service of that namespace.
    pub fn command(&self, role: Role, program: impl AsRef<OsStr>) -> Command {
        let mut command = nameservice::command(self, role);
        // Only the generated configuration decides.
        command.arg(program).env_remove("RUST_LOG");
        command
    }

    /// Starts a command made by [`Self::command`]; its output goes to `<name>.log` in the
    /// directory.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        let log = self.directory.join(format!("{name}.log"));
        Process::start(name, command, &log, &self.interrupt)
    }

    /// Runs a command made by [`Self::command`] to its end, at most for `limit`.
    pub fn run(&self, command: Command, limit: Duration) -> Result<Output> {
        process::run_to_end(command, limit, &self.interrupt)
    }

    /// Runs `work` on its own thread in a namespace: sockets that it opens stay there.
    pub fn enter<T: Send>(&self, role: Role, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.handle(role)?.enter(work)
    }

    /// Sends a datagram from a namespace; returns the first reply and how long it took.
    pub fn exchange(
        &self,
        role: Role,
        to: SocketAddr,
        request: &[u8],
        limit: Duration,
    ) -> Result<io::Result<(Vec<u8>, Duration)>> {
        self.enter(role, || {
            let any: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_read_timeout(Some(limit))?;
            let mut reply = vec![0; usize::from(u16::MAX)];
            let begun = Instant::now();
            let received = socket
                .connect(to)
                .and_then(|()| socket.send(request))
                .and_then(|_| socket.recv(&mut reply));
            Ok(received.map(|length| {
                let took = begun.elapsed();
                reply.truncate(length);
                (reply, took)
            }))
        })
    }

    /// A handle on a namespace that outlives a borrow of the playground.
    pub fn handle(&self, role: Role) -> Result<NamespaceHandle> {
        let file = Path::new(namespaces::DIRECTORY).join(self.namespace(role));
        let file = File::open(&file).with_context(|| format!("no {}", file.display()))?;
        Ok(NamespaceHandle(file))
    }
}

/// Keeps one namespace open: the namespace exists at least as long.
#[derive(Debug)]
pub struct NamespaceHandle(File);

impl NamespaceHandle {
    /// As [`Playground::enter`].
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
                work()
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// The namespaces of every playground, then a crowd.
fn roles(crowd: u8) -> impl Iterator<Item = Role> + use<> {
    Role::ALL.into_iter().chain((0..crowd).map(Role::Member))
}

/// Checks for root and for the tools.
fn preflight() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces need root: run this as root (sudo)");
    }
    let missing: Vec<&str> = TOOLS.into_iter().filter(|it| !is_installed(it)).collect();
    ensure!(
        missing.is_empty(),
        "missing programs: {} (on Debian: apt-get install iproute2 nftables curl iputils-ping \
         mount)",
        missing.join(", ")
    );
    Ok(())
}

/// Word for a variant in configurations, commands and logs.
fn word(value: impl ValueEnum) -> String {
    let word = value.to_possible_value();
    word.map_or_else(String::new, |it| it.get_name().to_owned())
}

/// Whether a program is on the search path.
pub fn is_installed(tool: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|place| place.join(tool).is_file()))
}

/// Creates a directory, mode 0700, that is named after the run.
fn private_directory(run: &RunName) -> Result<PathBuf> {
    let template = std::env::temp_dir().join(format!("{run}-XXXXXX"));
    nix::unistd::mkdtemp(&template)
        .with_context(|| format!("cannot make a directory like {}", template.display()))
}

/// A memory file system of every Linux with a C library's shared memory.
const MEMORY: &str = "/dev/shm";

/// As [`private_directory`], on a memory file system.
fn memory_directory(run: &RunName) -> Result<PathBuf> {
    let path = Path::new(MEMORY).join(format!("{run}-memory"));
    // Fails when the directory exists: a foreign one is neither used nor removed afterwards.
    DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}
