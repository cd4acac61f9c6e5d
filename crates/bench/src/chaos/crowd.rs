//! A gateway with a crowd of clients, each with traffic that is measured all the time.
//!
//! Clients with an even number reach the resource by its address, those with an odd number by a
//! name, through their client's stub; every second pair over IPv6.

use super::meter::{Meters, Target};
use super::trace::{At, LOST_AFTER, Trace};
use anyhow::{Context, Result, bail};
use postern_lab::playground::injector::{Fault, Injector, Kind};
use postern_lab::playground::lab::{ECHO_PORT, GATEWAY, Lab, Setup, StateFile, WEB_PORT};
use postern_lab::playground::milestones::{self, Record};
use postern_lab::playground::network::{WEB_V4, WEB_V6};
use postern_lab::playground::programs::Programs;
use postern_lab::playground::scene::APP;
use postern_lab::playground::wait::Interrupt;
use postern_lab::playground::{Plan, Playground, Role, lookup};
use postern_lab::clock::unix_ms;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// What the policy permits: the page and the transfers, the echo, pings, and iperf3.
const FILTERS: &[&str] = &["tcp/80", "udp/7", "icmp", "tcp/5201"];
/// How long the first traffic of all clients may take, and every later one.
pub(super) const RECOVERY_LIMIT: Duration = Duration::from_secs(30);
/// In the directory in memory.
const STATE_FILE: &str = "gateway.state";
/// How long a name may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// How a crowd is made.
#[derive(Clone)]
pub struct Spec {
    /// The program.
    pub programs: Programs,
    /// Calls off everything.
    pub interrupt: Interrupt,
    /// How many clients.
    pub clients: u8,
    /// How many probes each sends in a second.
    pub probes_per_second: u32,
    /// Whether the gateway keeps a state file.
    pub state: bool,
}

/// How long it took to come up.
#[derive(Clone, Copy, Debug)]
pub struct SetUp {
    /// The network.
    pub network: Duration,
    /// The programs that are there once.
    pub programs: Duration,
    /// All clients, up to the routes into their tunnels.
    pub clients: Duration,
    /// From the first probe until all of them flow.
    pub traffic: Duration,
}

/// A moment on both clocks: that of the meters, and that of logs.
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
    /// Builds it; the traffic of all clients flows when it returns.
    ///
    /// # Errors
    /// Something cannot be built or started, or does not become ready; the error holds the ends of
    /// the logs.
    pub fn gather(spec: &Spec) -> Result<Self> {
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
        let everybody: Vec<usize> = crowd.everybody().collect();
        crowd.wait_flowing(&everybody, At::ZERO, RECOVERY_LIMIT)?;
        crowd.set_up.traffic = crowd.now();
        Ok(crowd)
    }

    /// How long it took to come up.
    #[must_use]
    pub fn set_up(&self) -> SetUp {
        self.set_up
    }

    /// The programs.
    pub fn lab(&mut self) -> &mut Lab {
        &mut self.lab
    }

    /// The ends of the logs of all programs that are there once.
    #[must_use]
    pub fn log_tails(&self, lines: usize) -> String {
        self.lab.log_tails(lines)
    }

    /// The indices of all clients.
    pub(super) fn everybody(&self) -> Range<usize> {
        0..self.meters.clients()
    }

    /// How many probes all clients together should send in a window; a machine that is too busy for
    /// its meters sends fewer.
    pub(super) fn due(&self, window: &Range<At>) -> u64 {
        let span = window.end.saturating_sub(window.start).as_secs_f64();
        let each = span * f64::from(self.probes_per_second);
        each as u64 * self.meters.clients() as u64
    }

    /// The moment, on the meters' clock.
    pub(super) fn now(&self) -> At {
        self.meters.now()
    }

    /// The moment, on both clocks.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            at: self.now(),
            unix_ms: unix_ms(),
        }
    }

    /// Everything that a client's meters have seen so far.
    pub(super) fn trace(&self, client: usize) -> std::sync::MutexGuard<'_, Trace> {
        self.meters.trace(client)
    }

    /// Lets a part of the gateway fail; the moment before the order goes out is the fault's.
    pub(super) fn inflict(&self, kind: Kind, fault: Fault, client: Option<usize>) -> Result<Mark> {
        let injector = Injector::new(self.lab.fault_socket());
        let client = client.map(|client| self.ids[client].as_str());
        let mark = self.mark();
        injector.inflict(kind, fault, client)?;
        Ok(mark)
    }

    /// Waits until a moment of the meters' clock.
    pub(super) fn wait_until(&self, at: At) -> Result<()> {
        let left = at.saturating_sub(self.now());
        self.lab.playground().interrupt().pass(left)
    }

    /// Waits until the fate of every probe that was sent so far is known; returns the end of the
    /// window of which that holds.
    pub(super) fn settle(&self) -> Result<At> {
        let until = self.now();
        self.wait_until(until + LOST_AFTER + Duration::from_millis(100))?;
        Ok(until)
    }

    /// Waits until the traffic of these clients flows, steadily and since a fault. Whether it does
    /// is a result.
    ///
    /// # Errors
    /// The gateway ends meanwhile, or the wait was called off.
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

    /// As [`Self::await_flowing`]; when it does not, that is an error.
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

    /// What the running gateway has logged so far.
    pub(super) fn gateway_log(&mut self) -> Result<Vec<Record>> {
        Ok(milestones::records(&self.lab.gateway()?.log()))
    }

    /// The file that the gateway saves its state in, if it does.
    pub(super) fn state_file(&self) -> Option<PathBuf> {
        let memory = self.lab.playground().memory()?;
        Some(memory.join(STATE_FILE))
    }
}

/// Starts everything in the right order.
fn raise(lab: &mut Lab, network: Duration, per_second: u32) -> Result<(Meters, SetUp)> {
    let begun = Instant::now();
    lab.start_web()?;
    lab.start_names()?;
    lab.start_relay()?;
    lab.start_portal()?;
    lab.start_gateway()?;
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

/// Where the clients' probes and transfers go.
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
        door: playground.door(role)?,
        echo: (address, ECHO_PORT).into(),
        web: (address, WEB_PORT).into(),
    })
}

/// The ids of the members, as the portal tells them to gateways.
fn ids(lab: &Lab) -> Result<Vec<String>> {
    let mut ids = lab.control().ids()?;
    let members = lab.playground().members();
    let id = |role: Role| {
        let id = ids.remove(&role.to_string());
        id.with_context(|| format!("the portal does not know {role}"))
    };
    members.map(id).collect()
}

/// The gateway's name in the portal, for orders to it.
pub(super) const GATEWAY_NAME: &str = GATEWAY;
