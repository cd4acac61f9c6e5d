//! Private network namespaces in which a whole Postern set-up runs, and from which nothing leaves.
//!
//! ```text
//!  client ──── router ════════ "internet" ════════ gateway ──── resource
//!              NAT and firewall for the client;                 a web server
//!              portal and relay on its own addresses            and a name server
//!  member-0 … member-N: a crowd behind the same router, if it is asked for
//! ```
//!
//! Every interface is made inside a namespace of this run: nothing appears on the machine's own
//! network, and no route leads to it. [`Playground`] is the network, [`lab::Lab`] the programs in
//! it. Whatever ends the process that made a playground (a return, a panic, a signal, even
//! SIGKILL), its janitor removes processes, namespaces and files. Refuses to run without root.

pub mod control;
pub mod download;
pub mod faults;
pub mod icmp;
pub mod injector;
pub mod iperf;
mod janitor;
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
pub mod traffic;
pub mod wait;

use anyhow::{Context, Result, bail, ensure};
use janitor::Janitor;
use namespaces::RunName;
use nix::sched::{CloneFlags, setns};
use process::Process;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use wait::Interrupt;

/// The programs that building and using a playground takes.
pub const TOOLS: [&str; 5] = ["ip", "nft", "curl", "ping", "mount"];

/// The places of the playground.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Where the client runs, behind the router.
    Client,
    /// The client's NAT router; portal and relay run here too.
    Router,
    /// Where the gateway runs, between the internet and the resources.
    Gateway,
    /// The private network with the web server and the name server.
    Resource,
    /// Where one client of the crowd runs, behind the router and apart from all others.
    Member(u8),
}

impl Role {
    /// The places of every playground, from the client to the resource.
    pub const ALL: [Self; 4] = [Self::Client, Self::Router, Self::Gateway, Self::Resource];
}

/// The last part of its namespace's name.
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

/// What differs from playground to playground.
#[derive(Clone, Default)]
pub struct Plan {
    /// Calls off everything that is waited for in it.
    pub interrupt: Interrupt,
    /// How many members the crowd has; at most [`network::CROWD_MAX`].
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
    janitor: Janitor,
}

impl Playground {
    /// Builds the network without a crowd.
    ///
    /// # Errors
    /// Those of [`Self::planned`].
    pub fn new() -> Result<Self> {
        Self::planned(Plan::default())
    }

    /// As [`Self::new`]; `interrupt` calls off everything that is waited for in it.
    ///
    /// # Errors
    /// Those of [`Self::planned`].
    pub fn with_interrupt(interrupt: Interrupt) -> Result<Self> {
        Self::planned(Plan {
            interrupt,
            ..Plan::default()
        })
    }

    /// Builds the network.
    ///
    /// # Errors
    /// Not root, a tool is missing, or the kernel refuses a namespace, a link or a rule.
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
        let janitor = Janitor::start(spaces, &directory, memory.as_deref())?;
        let playground = Self {
            run,
            crowd: plan.crowd,
            directory,
            memory,
            interrupt: plan.interrupt,
            janitor,
        };
        network::build(&playground).context("cannot build the playground's network")?;
        nameservice::prepare(&playground).context("cannot prepare what programs see of names")?;
        Ok(playground)
    }

    /// The name of a place's namespace, as `ip netns list` shows it.
    #[must_use]
    pub fn namespace(&self, role: Role) -> String {
        self.run.namespace(role)
    }

    /// A directory that only root can enter, for configurations, tokens and logs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The four places of every playground, then its crowd.
    pub fn roles(&self) -> impl Iterator<Item = Role> + use<> {
        roles(self.crowd)
    }

    /// The places of the crowd.
    pub fn members(&self) -> impl Iterator<Item = Role> + use<> {
        (0..self.crowd).map(Role::Member)
    }

    /// A directory on a memory file system that only root can enter, for what must not reach a
    /// disk; `None` when the plan had none.
    #[must_use]
    pub fn memory(&self) -> Option<&Path> {
        self.memory.as_deref()
    }

    /// What calls off the waiting.
    #[must_use]
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The process id of the helper that cleans up.
    #[must_use]
    pub fn janitor_pid(&self) -> u32 {
        self.janitor.pid()
    }

    /// A command that will run `program` at a place, where it sees the place's name service.
    #[must_use]
    pub fn command(&self, role: Role, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = nameservice::command(self, role);
        // Only the generated configuration decides.
        command.arg(program).env_remove("RUST_LOG");
        command
    }

    /// Starts a command made by [`Self::command`]; its output goes to `<name>.log` in the
    /// directory.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        let log = self.directory.join(format!("{name}.log"));
        Process::start(name, command, &log, &self.interrupt)
    }

    /// Runs a command made by [`Self::command`] to its end, at most for `limit`.
    ///
    /// # Errors
    /// It cannot be started, it takes too long, or the wait was called off.
    pub fn run(&self, command: Command, limit: Duration) -> Result<Output> {
        process::run_to_end(command, limit, &self.interrupt)
    }

    /// Runs `work` on a thread of its own at a place: sockets that it opens stay there.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` fails.
    pub fn enter<T: Send>(&self, role: Role, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.door(role)?.enter(work)
    }

    /// A way into a place for whoever outlives a borrow of the playground.
    ///
    /// # Errors
    /// There is no such place.
    pub fn door(&self, role: Role) -> Result<Door> {
        let handle = Path::new(namespaces::DIRECTORY).join(self.namespace(role));
        let handle = File::open(&handle).with_context(|| format!("no {}", handle.display()))?;
        Ok(Door(handle))
    }
}

/// A way into one place. The namespace lives at least as long.
#[derive(Debug)]
pub struct Door(File);

impl Door {
    /// As [`Playground::enter`].
    ///
    /// # Errors
    /// Those of [`Playground::enter`].
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let at_place = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
                work()
            });
            match at_place.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// The places of every playground, then a crowd.
fn roles(crowd: u8) -> impl Iterator<Item = Role> + use<> {
    Role::ALL.into_iter().chain((0..crowd).map(Role::Member))
}

/// Root, and the tools.
fn preflight() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces need root: run this as root (sudo)");
    }
    let missing: Vec<&str> = TOOLS
        .into_iter()
        .filter(|tool| !is_installed(tool))
        .collect();
    if !missing.is_empty() {
        bail!(
            "missing programs: {} (on Debian: apt-get install iproute2 nftables curl iputils-ping \
             mount)",
            missing.join(", ")
        );
    }
    Ok(())
}

/// Whether a program is on the search path.
pub fn is_installed(tool: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|place| place.join(tool).is_file()))
}

/// A new directory, mode 0700, whose name says whose it is.
fn private_directory(run: &RunName) -> Result<PathBuf> {
    let template = std::env::temp_dir().join(format!("{run}-XXXXXX"));
    nix::unistd::mkdtemp(&template)
        .with_context(|| format!("cannot make a directory like {}", template.display()))
}

/// Where the kernel keeps files in memory alone, on every Linux with a C library's shared memory.
const MEMORY: &str = "/dev/shm";

/// A new directory on a memory file system, mode 0700, whose name says whose it is.
fn memory_directory(run: &RunName) -> Result<PathBuf> {
    let path = Path::new(MEMORY).join(format!("{run}-memory"));
    // Refuses what is there already: nobody else's directory is entered, or removed afterwards.
    DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}
