//! `postern-bench bench`: throughput and cost of the tunnel, beside other programs that do the same
//! on the same machine at the same time.
//!
//! Everything runs in its own playgrounds with time limits. Prints figures, not verdicts. Leaves
//! nothing behind, whether it succeeds, fails, or is interrupted.

mod ceiling;
mod crowd;
mod field;
mod machine;
mod metrics;
mod names;
mod reference;
mod report;
mod shards;
mod soak;
mod usage;

use anyhow::{Result, bail};
use postern_lab::playground::Role;
use postern_lab::playground::lab::Lab;
use postern_lab::playground::network::WEB_V4;
use postern_lab::playground::setup::WEB_PORT;
use postern_lab::playground::traffic;
use postern_lab::playground::wait::{Interrupted, run_interruptibly};
use std::io::Write;
use std::time::Duration;

/// Measures the gateway.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(flatten)]
    field: field::Args,
    /// Another benchmark than the comparison of gateways.
    #[command(subcommand)]
    benchmark: Option<Benchmark>,
}

/// A benchmark with its own arguments.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub enum Benchmark {
    /// Reference: throughput with the lab's reference client, and times of set-ups.
    Reference(reference::Args),
    /// Names: how fast they are served, and how fast they heal when DNS or addresses fail.
    Names(names::Args),
    /// Metrics: the throughput that a reader of the metrics costs.
    Metrics(metrics::Args),
    /// Crowd: the cost of many idle clients, and how fast many connect at once.
    Crowd(crowd::Args),
    /// Shards: two clients at a gateway with one shard and at one with two.
    Shards(shards::Args),
    /// Soak: full load both ways for minutes, and whether the memory grows.
    Soak(soak::Args),
}

/// Runs the benchmark. An error is reported after the logs of the measurement that failed.
pub async fn run(args: Args) -> Result<()> {
    run_interruptibly(move |interrupt| match args.benchmark {
        None => field::bench(interrupt, &args.field),
        Some(Benchmark::Reference(reference)) => reference::bench(interrupt, reference),
        Some(Benchmark::Names(names)) => names::bench(interrupt, names),
        Some(Benchmark::Metrics(metrics)) => metrics::bench(interrupt, metrics),
        Some(Benchmark::Crowd(crowd)) => crowd::bench(interrupt, crowd),
        Some(Benchmark::Shards(shards)) => shards::bench(interrupt, shards),
        Some(Benchmark::Soak(soak)) => soak::bench(interrupt, soak),
    })
    .await
}

/// Permits the loads, the page, and pings for debugging.
const FILTERS: &[&str] = &["tcp/5201", "udp/5201", "udp/5202", "tcp/80", "icmp"];
/// Limit of one fetch, including the set-up of the tunnel.
const FETCH_LIMIT: Duration = Duration::from_secs(15);

/// Reports why a measurement ended early.
fn concluded(lab: &Lab, measured: Result<()>) -> Result<()> {
    let Err(error) = measured else {
        return Ok(());
    };
    if error.is::<Interrupted>() {
        bail!("interrupted; everything was removed");
    }
    print(&lab.log_tails(20))?;
    Err(error.context("the benchmark failed"))
}

/// A warning if this is a debug build.
fn debug_build() -> &'static str {
    match cfg!(debug_assertions) {
        true => "A DEBUG BUILD: its figures say nothing about a release.\n",
        false => "",
    }
}

/// Time from curl's first packet to the first byte of a page.
fn time_to_first_byte(lab: &Lab) -> Result<Duration> {
    let url = traffic::url(WEB_V4.into(), WEB_PORT, "/");
    let fetched = traffic::fetch(lab.playground(), Role::Client, &url, FETCH_LIMIT)?;
    Ok(fetched.into_page(&url)?.wait())
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

const MEBI: f64 = 1_048_576.0;
