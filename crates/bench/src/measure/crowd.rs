//! `postern-bench bench crowd`: what many idle clients cost a gateway, and how fast many connect at once.
//!
//! The clients are one process ([`crate::floor::crowd`]) behind the router. Each part has a gateway
//! of its own.

use super::usage::Usage;
use super::{FILTERS, concluded, debug_build, machine, print};
use crate::floor::crowd::{Gathered, Times};
use anyhow::{Result, bail};
use postern_lab::playground::lab::{Lab, RESOURCE_V4, Setup};
use postern_lab::playground::network::GATEWAY_V4;
use postern_lab::playground::process::Process;
use postern_lab::playground::programs::Programs;
use postern_lab::playground::wait::Interrupt;
use postern_lab::playground::{Playground, Role};
use std::time::Duration;

/// How many, and for how long.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Clients that connect one after the other and are idle then; 0 leaves this part out.
    #[arg(long, default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=10_000))]
    clients: u32,
    /// For how long their gateway is watched. Beyond some 45 s the first shake hands anew, which is
    /// 110 s after they did first.
    #[arg(long, default_value_t = 45, value_parser = clap::value_parser!(u32).range(1..=3600))]
    idle_seconds: u32,
    /// Clients that connect at once; 0 leaves this part out.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=2000))]
    storm: u32,
    /// How long a client waits before it repeats an initiation.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = humantime::parse_duration)]
    retry: Duration,
    /// Between the keepalives of an idle client; none by default, as clients have it since 2025.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    keepalive: Option<Duration>,
}

/// Everything, blocking; everything that it made is gone when it returns.
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
    lab.start_portal()?;
    lab.start_gateway()?;
    let measured = measure(&mut lab);
    concluded(&lab, measured)
}

fn storm(lab: &mut Lab, args: Args) -> Result<()> {
    let (_crowd, gathered) = gather(lab, (args.storm, args.storm), args)?;
    print(&told("at once", &gathered))
}

fn idle(lab: &mut Lab, args: Args) -> Result<()> {
    let gateway = lab.gateway()?.pid();
    let before = Usage::of(gateway)?;
    let (_crowd, gathered) = gather(lab, (args.clients, AT_ONCE), args)?;
    print(&told("one after the other", &gathered))?;
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
        clients: gathered.up,
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

/// A gateway's, without clients and with them.
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

/// Starts so many clients, so many of them at the same time, and waits until they have told how
/// they got on.
fn gather(lab: &Lab, (clients, at_once): (u32, u32), args: Args) -> Result<(Process, Gathered)> {
    let playground = lab.playground();
    let programs = Programs::beside_this()?;
    let mut command = playground.command(Role::Client, &programs.bench());
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
    let gathered = playground.interrupt().until_ok("the crowd", limit, || {
        if let Some(status) = crowd.ended()? {
            bail!("the crowd ended with {status}: {}", crowd.log_tail(5));
        }
        Ok(gathered(&crowd.log()))
    })?;
    Ok((crowd, gathered))
}

/// The line of a log that tells of all.
fn gathered(log: &str) -> Option<Gathered> {
    log.lines().find_map(|line| serde_json::from_str(line).ok())
}

fn told(how: &str, gathered: &Gathered) -> String {
    let times = |what: &str, times: &Times| {
        let Times { median, p99, max } = times;
        format!("{what}: median {median:.0} ms, 99 % {p99:.0} ms, most {max:.0} ms\n")
    };
    let Gathered {
        clients,
        up,
        admitted,
        connected,
    } = gathered;
    format!(
        "{clients} clients {how}: {up} are up\n  {}  {}",
        times("until the gateway admitted them", admitted),
        times("until their session stood", connected),
    )
}

/// How many are connecting at any time when they come one after the other.
const AT_ONCE: u32 = 64;
/// Until the last of them is idle: 20 s without a packet, and its next check, which comes 25 s
/// after the one before (docs/protocol.md 3.3.1.
const SETTLE: Duration = Duration::from_secs(35);
/// How long all of a crowd may take.
const PATIENCE: Duration = Duration::from_secs(300);
const MEBI: f64 = 1_048_576.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crowds_line_is_found_among_others() {
        let times = r#"{"median":1.0,"p99":2.0,"max":3.0}"#;
        let line = format!(r#"{{"clients":5,"up":4,"admitted":{times},"connected":{times}}}"#);
        let log = format!("{{\"level\":\"WARN\"}}\nnot JSON\n{line}\n");
        let gathered = gathered(&log).expect("found");
        assert_eq!((gathered.clients, gathered.up), (5, 4));
        let text = told("at once", &gathered);
        assert!(text.starts_with("5 clients at once: 4 are up\n"), "{text}");
        assert!(text.contains("median 1 ms, 99 % 2 ms, most 3 ms"), "{text}");
        assert_eq!(super::gathered("nothing"), None);
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
