//! A whole set-up in a playground: web server, name server, relay, portal, gateway and clients,
//! each a process with a generated configuration.
//!
//! An error of a program that ends before it is ready contains the end of its log.

use super::component::{Component, FAULT_SOCKET};
use super::control::Control;
use super::environment::Environment;
use super::milestones::{self, Milestone, count};
use super::names::NameServer;
use super::process::Process;
use super::programs::Programs;
use super::setup::Setup;
use super::wait::Interrupted;
use super::{Playground, Role};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// How long a program may take to become ready. Generous: the machine may be busy compiling.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// A running program, and how often its clients had joined before it started.
struct Running {
    process: Process,
    joined_before: usize,
}

/// The programs of a set-up. Dropping it kills them, then removes the playground.
pub struct Lab {
    running: BTreeMap<Component, Running>,
    started: u32,
    environment: Environment,
}

impl Lab {
    /// Writes tokens, secrets and configurations; starts nothing.
    pub fn new(playground: Playground, programs: &Programs, setup: Setup) -> Result<Self> {
        Ok(Self {
            running: BTreeMap::new(),
            started: 0,
            environment: Environment::new(playground, programs, setup)?,
        })
    }

    /// Starts all programs of a set-up without a crowd, in a playground of their own.
    pub fn complete(programs: &Programs, setup: Setup) -> Result<Self> {
        let mut lab = Self::new(Playground::new()?, programs, setup)?;
        lab.start_all(&[Component::Web, Component::Names])?;
        if lab.environment.setup.relay {
            lab.start(Component::Relay)?;
        }
        lab.start_all(&[Component::Portal, Component::Gateway, Component::Client])?;
        Ok(lab)
    }

    pub fn playground(&self) -> &Playground {
        &self.environment.playground
    }

    /// The portal's control socket.
    pub fn control(&self) -> Control {
        self.environment.control()
    }

    /// The name server's control socket.
    pub fn names(&self) -> NameServer {
        self.environment.names()
    }

    /// Returns the process of a program that runs.
    pub fn process(&mut self, component: Component) -> Result<&mut Process> {
        let running = self.running.get_mut(&component);
        let running = running.with_context(|| format!("no {} is running", component.stem()))?;
        Ok(&mut running.process)
    }

    /// Returns the process of the running gateway.
    pub fn gateway(&mut self) -> Result<&mut Process> {
        self.process(Component::Gateway)
    }

    /// Starts a program and waits until it is ready.
    pub fn start(&mut self, component: Component) -> Result<()> {
        self.launch(component)?;
        self.wait_ready(component)
    }

    /// Starts programs, each when the one before it is ready.
    pub fn start_all(&mut self, components: &[Component]) -> Result<()> {
        components.iter().try_for_each(|it| self.start(*it))
    }

    /// Starts the clients of the whole crowd together.
    pub fn start_crowd(&mut self) -> Result<()> {
        let members = (0..self.environment.playground.crowd).map(Component::Member);
        members.clone().try_for_each(|it| self.launch(it))?;
        members.clone().try_for_each(|it| self.wait_ready(it))
    }

    /// Starts a program without waiting until it is ready.
    pub fn launch(&mut self, component: Component) -> Result<()> {
        let joined_before = count(&self.milestones_at(component.role()), "joined");
        let command = component.command(&self.environment);
        let name = self.next_name(&component.stem());
        let process = self.playground().spawn(&name, command)?;
        let running = Running {
            process,
            joined_before,
        };
        self.running.insert(component, running);
        Ok(())
    }

    /// Waits until a launched program is ready, and kills it when it does not become so.
    pub fn wait_ready(&mut self, component: Component) -> Result<()> {
        let running = self.running.remove(&component);
        let mut running = running.with_context(|| format!("no {}", component.stem()))?;
        let what = component.when_ready();
        let interrupt = self.playground().interrupt();
        let waited = interrupt.until_ok(what, READY_LIMIT, || {
            if let Some(status) = running.process.ended()? {
                bail!("{} ended with {status}", running.process.name());
            }
            let (process, before) = (&running.process, running.joined_before);
            let ready = component.is_ready(&self.environment, process, before)?;
            Ok(ready.then_some(()))
        });
        waited.map_err(|error| match error.is::<Interrupted>() {
            true => error,
            false => anyhow!("{error:#}\n{}", tail(&running.process, 15)),
        })?;
        self.running.insert(component, running);
        Ok(())
    }

    /// Kills a program (SIGKILL), if it runs: it has no time for a goodbye.
    pub fn kill(&mut self, component: Component) {
        self.running.remove(&component);
    }

    /// Takes the gateway out, to end it in another way than by killing.
    pub fn take_gateway(&mut self) -> Result<Process> {
        let running = self.running.remove(&Component::Gateway);
        Ok(running.context("no gateway is running")?.process)
    }

    /// Ends the gateway without goodbyes by `postern handover`; returns its exit status.
    pub fn hand_over(&mut self, limit: Duration) -> Result<ExitStatus> {
        let program = self.environment.programs.gateway();
        let mut command = self.playground().command(Role::Gateway, program);
        command.args(["handover", "--config"]);
        command.arg(self.gateway_config());
        let name = self.next_name("handover");
        let mut command = self.playground().spawn(&name, command)?;
        // The command returns when the gateway has ended, which needs us to reap it.
        let ended = self.gateway()?.wait_end(limit);
        let status = command.wait_end(limit)?;
        ensure!(status.success(), "postern handover: {}", command.log());
        ended
    }

    /// Socket where a gateway set up with faults accepts them.
    pub fn fault_socket(&self) -> PathBuf {
        self.environment.path(FAULT_SOCKET)
    }

    /// Path of the gateway's configuration.
    pub fn gateway_config(&self) -> PathBuf {
        self.environment.path("gateway.toml")
    }

    /// Changes the gateway's configuration: for the next process, and for the running one as far
    /// as it can reload it.
    pub fn reconfigure_gateway(&mut self, change: impl FnOnce(&mut Setup)) -> Result<()> {
        self.environment.reconfigure_gateway(change)
    }

    /// Removes the policy of a resource from the portal's configuration, and waits until the portal
    /// has revoked the grants. With the policy in place, the client would be granted the resource
    /// again at its next request.
    pub fn withdraw_policy(&self, resource: &str) -> Result<()> {
        self.environment.withdraw_policy(resource)?;
        let control = self.control();
        let interrupt = self.playground().interrupt();
        interrupt.until_ok("the portal to revoke", READY_LIMIT, || {
            let granted = control.granted()?;
            Ok((!granted.iter().any(|name| name == resource)).then_some(()))
        })
    }

    /// Milestones of all processes that the client has had.
    pub fn client_milestones(&self) -> Vec<Milestone> {
        self.milestones_at(Role::Client)
    }

    /// As [`Self::client_milestones`], for the client in any namespace.
    pub fn milestones_at(&self, role: Role) -> Vec<Milestone> {
        self.environment.milestones(role)
    }

    /// Log of the running gateway.
    pub fn gateway_log(&self) -> String {
        let gateway = self.running.get(&Component::Gateway);
        gateway.map(|it| it.process.log()).unwrap_or_default()
    }

    /// Milestones of the running gateway.
    pub fn gateway_milestones(&self) -> Vec<Milestone> {
        milestones::of_log(&self.gateway_log())
    }

    /// Waits until the gateway has reached a milestone more than `before` times.
    pub fn wait_gateway_milestone(&self, name: &str, before: usize, limit: Duration) -> Result<()> {
        let what = format!("the gateway's milestone {name}");
        self.playground().interrupt().until(&what, limit, || {
            (count(&self.gateway_milestones(), name) > before).then_some(())
        })
    }

    /// As [`Self::wait_gateway_milestone`], for the client.
    pub fn wait_client_milestone(&self, name: &str, before: usize, limit: Duration) -> Result<()> {
        let what = format!("the client's milestone {name}");
        self.playground().interrupt().until(&what, limit, || {
            (count(&self.client_milestones(), name) > before).then_some(())
        })
    }

    /// Ends of the logs of all running programs but the crowd's, for an error report.
    pub fn log_tails(&self, lines: usize) -> String {
        let is_shown = |component: &Component| !matches!(component, Component::Member(_));
        let shown = self.running.iter().filter(|(it, _)| is_shown(it));
        shown
            .map(|(_, running)| tail(&running.process, lines) + "\n")
            .collect()
    }

    /// A name for the next process of a program, so that earlier logs stay.
    fn next_name(&mut self, program: &str) -> String {
        self.started += 1;
        format!("{program}-{}", self.started)
    }
}

fn tail(process: &Process, lines: usize) -> String {
    let (name, tail) = (process.name(), process.log_tail(lines));
    format!("--- the end of {name}.log\n{tail}")
}
