//! A gateway with a crowd of clients, each with continuously measured traffic.
//!
//! Clients with an even number reach the resource by its address, those with an odd number by a
//! name, through their client's stub resolver; every second pair uses IPv6.

use super::meter::{Meters, Target};
use super::trace::{At, LOST_AFTER, Trace};
use anyhow::{Context, Result, bail};
use postern_lab::clock::unix_ms;
use postern_lab::playground::component::Component;
use postern_lab::playground::injector::{ActorFault, ActorKind, Injector};
use postern_lab::playground::lab::Lab;
use postern_lab::playground::milestones::{self, Record};
use postern_lab::playground::network::{WEB_V4, WEB_V6};
use postern_lab::playground::programs::Programs;
use postern_lab::playground::scene::APP;
use postern_lab::playground::setup::{ECHO_PORT, GATEWAY, Setup, StateFile, WEB_PORT};
use postern_lab::playground::wait::Interrupt;
use postern_lab::playground::{Plan, Playground, Role, lookup};
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// Permits the page and the transfers, the echo, pings, and iperf3.
const FILTERS: &[&str] = &["tcp/80", "udp/7", "icmp", "tcp/5201"];
/// Limit for the first traffic of all clients, and for every recovery.
pub(super) const RECOVERY_LIMIT: Duration = Duration::from_secs(30);
/// Name of the state file, in the directory in memory.
const STATE_FILE: &str = "gateway.state";
/// Limit for the lookup of one name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// Parameters of a crowd.
#[derive(Clone)]
pub struct Spec {
    pub programs: Programs,
    /// Ends all waits of the run.
    pub interrupt: Interrupt,
    pub clients: u8,
    /// Probes per second of each client.
    pub probes_per_second: u32,
    /// Whether the gateway has a state file.
    pub state: bool,
}

/// Durations of the steps of the set-up.
#[derive(Clone, Copy, Debug)]
pub struct SetUp {
    pub network: Duration,
    /// All programs but the clients.
    pub programs: Duration,
    /// All clients, up to the routes into their tunnels.
    pub clients: Duration,
    /// From the first probe until all clients' traffic flows.
    pub traffic: Duration,
}

/// A time on both clocks: that of the meters, and that of logs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) at: At,
    pub(super) unix_ms: f64,
}

/// The whole set-up. Dropping it removes everything.
pub struct Crowd {
    meters: Meters,
    lab: Lab,
    ids: Vec<String>,
    set_up: SetUp,
    probes_per_second: u32,
}

impl Crowd {
    /// Starts everything; the traffic of all clients flows when it returns. An error contains the
    /// ends of the logs.
    pub fn start(spec: &Spec) -> Result<Self> {
        let begun = Instant::now();
        let playground = Playground::planned(Plan {
            interrupt: spec.interrupt.clone(),
            crowd: spec.clients,
            memory: spec.state,
        })?;
        let network = begun.elapsed();
        let state = playground.memory().map(|memory| StateFile {
            file: memory.join(STATE_FILE),
            handover: false,
            max_age: None,
        });
        let setup = Setup {
            filters: FILTERS,
            crowd: spec.clients,
            state,
            faults: true,
            ..Setup::default()
        };
        let mut lab = Lab::new(playground, &spec.programs, setup)?;
        let raised = raise(&mut lab, network, spec.probes_per_second);
        let (meters, set_up) = raised.map_err(|error| error.context(lab.log_tails(15)))?;
        let mut crowd = Self {
            meters,
            ids: ids(&lab)?,
            lab,
            set_up,
            probes_per_second: spec.probes_per_second,
        };
        let all_clients: Vec<usize> = crowd.all_clients().collect();
        crowd.wait_flowing(&all_clients, At::ZERO, RECOVERY_LIMIT)?;
        crowd.set_up.traffic = crowd.now();
        Ok(crowd)
    }

    /// Durations of the set-up.
    pub fn set_up(&self) -> SetUp {
        self.set_up
    }

    pub fn lab(&mut self) -> &mut Lab {
        &mut self.lab
    }

    /// Ends of the logs of all programs but the crowd's clients.
    pub fn log_tails(&self, lines: usize) -> String {
        self.lab.log_tails(lines)
    }

    /// Indices of all clients.
    pub(super) fn all_clients(&self) -> Range<usize> {
        0..self.meters.clients()
    }

    /// Number of probes that all clients together should send in a window; a machine that is too
    /// busy for its meters sends fewer.
    pub(super) fn due(&self, window: &Range<At>) -> u64 {
        let span = window.end.saturating_sub(window.start).as_secs_f64();
        let each = span * f64::from(self.probes_per_second);
        each as u64 * self.meters.clients() as u64
    }

    /// Current time on the meters' clock.
    pub(super) fn now(&self) -> At {
        self.meters.now()
    }

    /// Current time on both clocks.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            at: self.now(),
            unix_ms: unix_ms(),
        }
    }

    /// Trace of a client so far.
    pub(super) fn trace(&self, client: usize) -> std::sync::MutexGuard<'_, Trace> {
        self.meters.trace(client)
    }

    /// Makes an actor fail; the returned time is just before the command.
    pub(super) fn inflict(
        &self,
        kind: ActorKind,
        fault: ActorFault,
        client: Option<usize>,
    ) -> Result<Mark> {
        let injector = Injector::new(self.lab.fault_socket());
        let client = client.map(|client| self.ids[client].as_str());
        let mark = self.mark();
        injector.inflict(kind, fault, client)?;
        Ok(mark)
    }

    /// Waits until a time of the meters' clock.
    pub(super) fn wait_until(&self, at: At) -> Result<()> {
        let left = at.saturating_sub(self.now());
        self.lab.playground().interrupt().pass(left)
    }

    /// Waits until every probe sent so far is answered or lost; returns the end of the window for
    /// which that holds.
    pub(super) fn settle(&self) -> Result<At> {
        let until = self.now();
        self.wait_until(until + LOST_AFTER + Duration::from_millis(100))?;
        Ok(until)
    }

    /// Waits until the traffic of these clients flows steadily, since a fault. A missing recovery
    /// is a result, not an error.
    pub(super) fn await_flowing(
        &mut self,
        clients: &[usize],
        fault: At,
        limit: Duration,
    ) -> Result<bool> {
        let deadline = self.now() + limit;
        let interrupt = self.lab.playground().interrupt().clone();
        loop {
            let now = self.now();
            let flows = |client: &usize| self.meters.trace(*client).is_flowing(fault, now);
            if clients.iter().all(flows) {
                return Ok(true);
            }
            if now >= deadline {
                return Ok(false);
            }
            let gateway = self.lab.gateway()?;
            if let Some(status) = gateway.ended()? {
                bail!("the gateway ended with {status}\n{}", gateway.log_tail(20));
            }
            interrupt.pass(Duration::from_millis(20))?;
        }
    }

    /// As [`Self::await_flowing`], but a missing recovery is an error.
    pub(super) fn wait_flowing(
        &mut self,
        clients: &[usize],
        fault: At,
        limit: Duration,
    ) -> Result<()> {
        if self.await_flowing(clients, fault, limit)? {
            return Ok(());
        }
        let now = self.now();
        let silent = clients
            .iter()
            .filter(|client| !self.meters.trace(**client).is_flowing(fault, now));
        let silent: Vec<&usize> = silent.collect();
        bail!(
            "after {} s traffic does not flow for the clients {silent:?}\n{}",
            limit.as_secs(),
            self.lab.log_tails(20)
        );
    }

    /// Log of the running gateway so far.
    pub(super) fn gateway_log(&mut self) -> Result<Vec<Record>> {
        Ok(milestones::records(&self.lab.gateway()?.log()))
    }

    /// The gateway's state file, if it has one.
    pub(super) fn state_file(&self) -> Option<PathBuf> {
        let memory = self.lab.playground().memory()?;
        Some(memory.join(STATE_FILE))
    }
}

/// Starts all programs in order of their dependencies.
fn raise(lab: &mut Lab, network: Duration, per_second: u32) -> Result<(Meters, SetUp)> {
    let begun = Instant::now();
    lab.start_all(&Component::WITH_NAMES)?;
    let programs = begun.elapsed();
    lab.start_crowd()?;
    let clients = begun.elapsed() - programs;
    let members = lab.playground().members();
    let targets = members.map(|role| target(lab.playground(), role));
    let meters = Meters::start(targets.collect::<Result<_>>()?, per_second)?;
    let set_up = SetUp {
        network,
        programs,
        clients,
        traffic: Duration::ZERO,
    };
    Ok((meters, set_up))
}

/// Destinations of a client's probes and transfers.
fn target(playground: &Playground, role: Role) -> Result<Target> {
    let Role::Member(number) = role else {
        bail!("{role} is no member of the crowd");
    };
    let v6 = number % 4 >= 2;
    let name = match number % 4 {
        1 => Some(APP.to_owned()),
        3 => Some(format!("{role}.wild.lab.example")),
        _ => None,
    };
    let address = match name {
        None if v6 => IpAddr::from(WEB_V6),
        None => WEB_V4.into(),
        Some(name) => {
            let proxies = lookup::proxies(playground, role, &name, LOOKUP_LIMIT)?;
            let proxy = proxies.into_iter().find(|proxy| proxy.is_ipv6() == v6);
            proxy.with_context(|| format!("the stub at {role} does not know {name}"))?
        }
    };
    Ok(Target {
        door: playground.handle(role)?,
        echo: (address, ECHO_PORT).into(),
        web: (address, WEB_PORT).into(),
    })
}

/// Ids of the members, as the portal announces them to gateways.
fn ids(lab: &Lab) -> Result<Vec<String>> {
    let mut ids = lab.control().ids()?;
    let members = lab.playground().members();
    let id = |role: Role| {
        let id = ids.remove(&role.to_string());
        id.with_context(|| format!("the portal does not know {role}"))
    };
    members.map(id).collect()
}

/// The gateway's name in the portal, for commands about it.
pub(super) const GATEWAY_NAME: &str = GATEWAY;
