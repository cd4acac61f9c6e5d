//! Private network namespaces in which a whole Postern set-up runs, and from which nothing leaves.
//!
//! ```text
//!  client ──── router ════════ "internet" ════════ gateway ──── resource
//!              NAT and firewall for the client;                 a web server
//!              portal and relay on its own addresses            and a name server
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
mod janitor;
pub mod lab;
pub mod lookup;
pub mod milestones;
pub mod names;
pub mod nameservice;
mod namespaces;
pub mod network;
pub mod process;
pub mod scene;
pub mod traffic;
pub mod wait;

use anyhow::{Context, Result, bail};
use janitor::Janitor;
use namespaces::RunName;
use nix::sched::{CloneFlags, setns};
use process::Process;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use wait::Interrupt;

/// The programs that building and using a playground takes.
pub const TOOLS: [&str; 5] = ["ip", "nft", "curl", "ping", "mount"];

/// The four places of the playground.
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
}

impl Role {
    /// All places, from the client to the resource.
    pub const ALL: [Self; 4] = [Self::Client, Self::Router, Self::Gateway, Self::Resource];

    /// The last part of its namespace's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Router => "router",
            Self::Gateway => "gateway",
            Self::Resource => "resource",
        }
    }
}

/// A network of four namespaces and a private directory. Dropping it removes both.
pub struct Playground {
    run: RunName,
    directory: PathBuf,
    interrupt: Interrupt,
    // Last: its drop removes the namespaces, after everything else of the playground is gone.
    janitor: Janitor,
}

impl Playground {
    /// Builds the network.
    ///
    /// # Errors
    /// Not root, a tool is missing, or the kernel refuses a namespace, a link or a rule.
    pub fn new() -> Result<Self> {
        Self::with_interrupt(Interrupt::default())
    }

    /// As [`Self::new`]; `interrupt` calls off everything that is waited for in it.
    ///
    /// # Errors
    /// Those of [`Self::new`].
    pub fn with_interrupt(interrupt: Interrupt) -> Result<Self> {
        preflight()?;
        namespaces::sweep();
        let run = RunName::next();
        let directory = private_directory(&run)?;
        let janitor = Janitor::start(&run, &directory)?;
        let playground = Self {
            run,
            directory,
            interrupt,
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
        let handle = Path::new(namespaces::DIRECTORY).join(self.namespace(role));
        let handle = File::open(&handle).with_context(|| format!("no {}", handle.display()))?;
        std::thread::scope(|scope| {
            let at_place = scope.spawn(|| {
                setns(&handle, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
                work()
            });
            match at_place.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
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
fn is_installed(tool: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|place| place.join(tool).is_file()))
}

/// A new directory, mode 0700, whose name says whose it is.
fn private_directory(run: &RunName) -> Result<PathBuf> {
    let template = std::env::temp_dir().join(format!("{run}-XXXXXX"));
    nix::unistd::mkdtemp(&template)
        .with_context(|| format!("cannot make a directory like {}", template.display()))
}
