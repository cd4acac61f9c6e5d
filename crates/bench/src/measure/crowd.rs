//! `postern-bench bench crowd`: the cost of many idle clients, and how fast many connect at once.
//!
//! The clients are one process ([`crate::floor::crowd`]) behind the router. Each part has its own
//! gateway.

use super::usage::Usage;
use super::{FILTERS, MEBI, concluded, debug_build, machine, print};
use crate::floor::crowd::{CrowdReport, Times};
use anyhow::{Result, bail};
use postern_lab::playground::component::Component;
use postern_lab::playground::lab::Lab;
use postern_lab::playground::network::GATEWAY_V4;
use postern_lab::playground::process::Process;
use postern_lab::playground::programs::Programs;
use postern_lab::playground::setup::{RESOURCE_V4, Setup};
use postern_lab::playground::wait::Interrupt;
use postern_lab::playground::{Playground, Role};
use std::time::Duration;

/// Numbers of clients and durations.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Clients that connect one after the other and then stay idle; 0 skips this part.
    #[arg(long, default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=10_000))]
    clients: u32,
    /// Seconds for which their gateway is observed. Beyond some 45 s the first clients renew their
    /// session, which is 110 s after their first handshake.
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u32).range(1..=3600))]
    idle_seconds: u32,
    /// Clients that connect at once; 0 skips this part.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=2000))]
    storm: u32,
    /// Milliseconds before a client repeats an initiation.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = humantime::parse_duration)]
    retry: Duration,
    /// Seconds between keepalives of an idle client; none by default, as in clients since 2025.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    keepalive: Option<Duration>,
}

/// Runs both parts, blocking; removes everything before it returns.
pub(super) fn bench(interrupt: &Interrupt, args: Args) -> Result<()> {
    print(&format!(
        "Machine: {}\n{}\n",
        machine::described(),
        debug_build()
    ))?;
    if args.storm > 0 {
        with_gateway(interrupt, |lab| storm(lab, args))?;
    }
    if args.clients > 0 {
        with_gateway(interrupt, |lab| idle(lab, args))?;
    }
    Ok(())
}

fn with_gateway(interrupt: &Interrupt, measure: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
    let playground = Playground::with_interrupt(interrupt.clone())?;
    let programs = Programs::beside_this()?;
    let setup = Setup {
        filters: FILTERS,
        relay: false,
        ..Setup::default()
    };
    let mut lab = Lab::new(playground, &programs, setup)?;
    lab.start_all(&[Component::Portal, Component::Gateway])?;
    let measured = measure(&mut lab);
    concluded(&lab, measured)
}

fn storm(lab: &mut Lab, args: Args) -> Result<()> {
    let (_crowd, report) = start_clients(lab, (args.storm, args.storm), args)?;
    print(&described("at once", &report))
}

fn idle(lab: &mut Lab, args: Args) -> Result<()> {
    let gateway = lab.gateway()?.pid();
    let before = Usage::of(gateway)?;
    let (_crowd, report) = start_clients(lab, (args.clients, AT_ONCE), args)?;
    print(&described("one after the other", &report))?;
    let interrupt = lab.playground().interrupt().clone();
    let up = Usage::of(gateway)?;
    interrupt.pass(SETTLE)?;
    let settled = Usage::of(gateway)?;
    let idle = Duration::from_secs(args.idle_seconds.into());
    interrupt.pass(idle)?;
    let after = Usage::of(gateway)?;
    let memory = Memory {
        before: before.resident_bytes,
        after: up.resident_bytes.max(after.resident_bytes),
        clients: report.up,
    };
    let busy = after.cpu.since(settled.cpu).total();
    print(&format!(
        "RSS: {:.1} MiB without clients, {:.1} MiB with them: {:.1} KiB each\n\
         idle for {} s: {:.2} % of a core\n\n",
        memory.before as f64 / MEBI,
        memory.after as f64 / MEBI,
        memory.per_client_kib(),
        args.idle_seconds,
        busy.as_secs_f64() / idle.as_secs_f64() * 100.0,
    ))
}

/// Memory of a gateway without and with clients.
struct Memory {
    before: u64,
    after: u64,
    clients: usize,
}

impl Memory {
    fn per_client_kib(&self) -> f64 {
        let grown = self.after.saturating_sub(self.before);
        grown as f64 / 1024.0 / self.clients.max(1) as f64
    }
}

/// Starts clients, a limited number at a time, and waits for their report.
fn start_clients(
    lab: &Lab,
    (clients, at_once): (u32, u32),
    args: Args,
) -> Result<(Process, CrowdReport)> {
    let playground = lab.playground();
    let programs = Programs::beside_this()?;
    let mut command = playground.command(Role::Client, programs.bench());
    command.arg("crowd").arg("--control");
    command.arg(playground.directory().join("portal.sock"));
    command.args(["--gateway", &format!("{GATEWAY_V4}:52625")]);
    command.args(["--resource", RESOURCE_V4]);
    command.args(["--clients", &clients.to_string()]);
    command.args(["--at-once", &at_once.to_string()]);
    command.args(["--patience", &PATIENCE.as_secs().to_string()]);
    let duration = |it: Duration| humantime::format_duration(it).to_string();
    command.args(["--retry", &duration(args.retry)]);
    if let Some(keepalive) = args.keepalive {
        command.args(["--keepalive", &duration(keepalive)]);
    }
    let mut crowd = playground.spawn("crowd", command)?;
    let limit = PATIENCE + Duration::from_secs(10);
    let report = playground.interrupt().until_ok("the crowd", limit, || {
        if let Some(status) = crowd.ended()? {
            bail!("the crowd ended with {status}: {}", crowd.log_tail(5));
        }
        Ok(parse_report(&crowd.log()))
    })?;
    Ok((crowd, report))
}

/// Parses the report in a log.
fn parse_report(log: &str) -> Option<CrowdReport> {
    log.lines().find_map(|line| serde_json::from_str(line).ok())
}

fn described(how: &str, report: &CrowdReport) -> String {
    let times = |what: &str, times: &Times| {
        let Times { median, p99, max } = times;
        format!("{what}: median {median:.0} ms, 99 % {p99:.0} ms, most {max:.0} ms\n")
    };
    let CrowdReport {
        clients,
        up,
        admitted,
        connected,
    } = report;
    format!(
        "{clients} clients {how}: {up} are up\n  {}  {}",
        times("until the gateway admitted them", admitted),
        times("until their session stood", connected),
    )
}

/// Clients that connect concurrently in the idle part.
const AT_ONCE: u32 = 64;
/// Time until the last client is idle: 20 s without a packet, and its next check, 25 s after the
/// one before (docs/protocol.md 3.3.1).
const SETTLE: Duration = Duration::from_secs(35);
/// Limit for all clients of a crowd.
const PATIENCE: Duration = Duration::from_secs(300);
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowds_line_is_found_among_others() {
        let times = r#"{"median":1.0,"p99":2.0,"max":3.0}"#;
        let line = format!(r#"{{"clients":5,"up":4,"admitted":{times},"connected":{times}}}"#);
        let log = format!("{{\"level\":\"WARN\"}}\nnot JSON\n{line}\n");
        let report = parse_report(&log).expect("found");
        assert_eq!((report.clients, report.up), (5, 4));
        let text = described("at once", &report);
        assert!(text.starts_with("5 clients at once: 4 are up\n"), "{text}");
        assert!(text.contains("median 1 ms, 99 % 2 ms, most 3 ms"), "{text}");
        assert_eq!(super::parse_report("nothing"), None);
    }

    #[test]
    fn memory_is_that_of_each_client_that_is_up() {
        let memory = |before, after, clients| Memory {
            before,
            after,
            clients,
        };
        assert_eq!(memory(1 << 20, 5 << 20, 128).per_client_kib(), 32.0);
        assert_eq!(memory(5, 4, 10).per_client_kib(), 0.0);
        assert_eq!(memory(0, 0, 0).per_client_kib(), 0.0);
    }
}
