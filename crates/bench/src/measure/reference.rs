//! `postern-bench bench reference`: throughput with the reference client, and times of set-ups.
//!
//! Builds a playground and loads, by iperf3, alternately the tunnel and plain kernel forwarding on
//! the same path, so that a busy phase of the machine affects both; then fresh clients fetch a
//! page, and the portal requests authorizations. Every load is limited in time. Prints figures, not
//! verdicts. Leaves nothing behind, whether it succeeds, fails, or is interrupted.

use super::report::{self, Run};
use super::usage::Usage;
use super::{FILTERS, ceiling, concluded, debug_build, machine, print, time_to_first_byte};
use anyhow::{Context, Result};
use postern_lab::playground::component::Component;
use postern_lab::playground::iperf::{self, Load};
use postern_lab::playground::lab::Lab;
use postern_lab::playground::network::WEB_V4;
use postern_lab::playground::programs::Programs;
use postern_lab::playground::setup::{RESOURCE_V4, Setup};
use postern_lab::playground::wait::Interrupt;
use postern_lab::playground::{Playground, Role};
use std::time::Duration;
use tokio::time::Instant;

/// Repetitions and durations.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Number of rounds, in each of which every load runs once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Duration of each load in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub seconds: u32,
}

/// Number of clients for the time to the first byte.
const FRESH_CLIENTS: u32 = 20;
/// Number of authorizations that the portal requests.
const SET_UPS: u32 = 200;
/// Runs the benchmark, blocking; removes everything before it returns.
pub(super) fn bench(interrupt: &Interrupt, args: Args) -> Result<()> {
    print(&preface(args))?;
    let playground = Playground::with_interrupt(interrupt.clone())?;
    let programs = Programs::beside_this()?;
    let setup = Setup {
        filters: FILTERS,
        ..Setup::default()
    };
    let mut lab = Lab::new(playground, &programs, setup)?;
    let measured = measure(&mut lab, interrupt, args);
    concluded(&lab, measured)
}

/// Description of measurement and machine, and the limits of the figures.
fn preface(args: Args) -> String {
    let Args { rounds, seconds } = args;
    format!(
        "Machine: {}\n{}\
         The client end is the lab's reference client (webrtc-ice, defguard_boringtun). It\n\
         shares the cores with the gateway, iperf3 and the kernel's forwarding: on a machine of\n\
         two cores its own processor time limits the throughput. The figures are those of the\n\
         whole set-up and a lower bound for the gateway; a client core near 100 % was the limit\n\
         by itself.\n\
         Loads: iperf3 over IPv4, {seconds} s each, alternating; rounds: {rounds}.\n\n",
        machine::described(),
        debug_build()
    )
}

/// Measures throughput first, while the gateway has only one client; then the set-ups.
fn measure(lab: &mut Lab, interrupt: &Interrupt, args: Args) -> Result<()> {
    lab.start_all(&Component::ONE_CLIENT)?;
    // Sets up the tunnel, which must not be part of the first load.
    time_to_first_byte(lab)?;
    let loads = {
        let kernel = ceiling::forwarding(interrupt)?;
        throughput(lab, &kernel, args)?
    };
    print(&report::throughput(&loads))?;
    print(report::LEGEND)?;
    let congestion = loads.first().and_then(|(_, runs)| runs.first());
    let congestion = congestion.map_or("unknown", |run| &run.tunnel.congestion);
    print(&format!(
        "Congestion control of both ends: {congestion}.\n\n"
    ))?;
    let first_bytes = fresh_clients(lab)?;
    let acks = lab.control().authorize("v2", RESOURCE_V4, SET_UPS)?;
    print(&report::times(&[
        ("first packet to first byte, fresh client", first_bytes),
        ("portal's request to gateway's answer", acks),
    ]))
}

/// Runs all loads in all rounds, through the tunnel and by the kernel alone.
fn throughput(lab: &mut Lab, kernel: &Playground, args: Args) -> Result<Vec<(Load, Vec<Run>)>> {
    let mut loads = Load::ALL.map(|load| (load, Vec::new()));
    for round in 1..=args.rounds {
        for (load, runs) in &mut loads {
            let run = one_run(lab, kernel, *load, args.seconds)?;
            let gbit_per_s = run.tunnel.bits_per_second / 1e9;
            let name = load.name();
            tracing::info!(round, load = name, gbit_per_s, "measured");
            runs.push(run);
        }
    }
    Ok(loads.into())
}

fn one_run(lab: &mut Lab, kernel: &Playground, load: Load, seconds: u32) -> Result<Run> {
    let (gateway, client) = (lab.gateway()?.pid(), lab.process(Component::Client)?.pid());
    let before = (Usage::of(gateway)?, Usage::of(client)?);
    let begun = Instant::now();
    let tunnel = iperf::run(lab.playground(), Role::Client, WEB_V4.into(), load, seconds);
    let tunnel = tunnel.with_context(|| format!("{} through the tunnel", load.name()))?;
    let elapsed = begun.elapsed();
    let after = (Usage::of(gateway)?, Usage::of(client)?);
    let kernel = iperf::run(kernel, Role::Client, WEB_V4.into(), load, seconds);
    let kernel = kernel.with_context(|| format!("{} by the kernel alone", load.name()))?;
    Ok(Run {
        tunnel,
        kernel,
        elapsed,
        gateway_cpu: after.0.cpu.since(before.0.cpu),
        client_cpu: after.1.cpu.since(before.1.cpu),
        resident_bytes: after.0.resident_bytes,
    })
}

/// Starts one client after the other; each fetches a page as its first traffic.
fn fresh_clients(lab: &mut Lab) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..FRESH_CLIENTS {
        lab.kill(Component::Client);
        lab.start(Component::Client)?;
        times.push(time_to_first_byte(lab)?);
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_says_whose_processor_time_is_the_limit() {
        let text = preface(Args {
            rounds: 2,
            seconds: 7,
        });
        assert!(text.contains("reference client"), "{text}");
        assert!(text.contains("7 s each, alternating; rounds: 2"), "{text}");
    }
}
