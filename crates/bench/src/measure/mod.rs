//! `postern-bench bench`: how much goes through the tunnel and what it costs, beside other programs that
//! do the same on the same machine at the same time.
//!
//! Everything runs in playgrounds of its own and is bounded in time. Refuses to judge: it prints
//! figures, not verdicts. Leaves nothing behind, whether it ends well, fails, or is interrupted.

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

use anyhow::{Result, bail, ensure};
use postern_lab::playground::Role;
use postern_lab::playground::lab::{Lab, WEB_PORT};
use postern_lab::playground::network::WEB_V4;
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
    /// What to measure instead of the gateway beside the others.
    #[command(subcommand)]
    part: Option<Part>,
}

/// A benchmark of its own.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub enum Part {
    /// Reference: throughput with the lab's reference client, and times of set-ups.
    Reference(reference::Args),
    /// Names: how fast they are served, and how fast they heal when DNS or addresses fail.
    Names(names::Args),
    /// Metrics: what it costs the throughput that somebody reads them.
    Metrics(metrics::Args),
    /// Crowd: what many idle clients cost, and how fast many connect at once.
    Crowd(crowd::Args),
    /// Shards: two clients at a gateway with one shard and at one with two.
    Shards(shards::Args),
    /// Soak: full load both ways for minutes, and whether the memory grows.
    Soak(soak::Args),
}

/// Runs the benchmark.
///
/// # Errors
/// Not root, a tool is missing, a load failed (the logs are shown before), or it was interrupted.
pub async fn run(args: Args) -> Result<()> {
    run_interruptibly(move |interrupt| match args.part {
        None => field::bench(interrupt, &args.field),
        Some(Part::Reference(reference)) => reference::bench(interrupt, reference),
        Some(Part::Names(names)) => names::bench(interrupt, names),
        Some(Part::Metrics(metrics)) => metrics::bench(interrupt, metrics),
        Some(Part::Crowd(crowd)) => crowd::bench(interrupt, crowd),
        Some(Part::Shards(shards)) => shards::bench(interrupt, shards),
        Some(Part::Soak(soak)) => soak::bench(interrupt, soak),
    })
    .await
}

/// What the policy permits: the loads, the page, and pings for whoever looks into it.
const FILTERS: &[&str] = &["tcp/5201", "udp/5201", "udp/5202", "tcp/80", "icmp"];
/// How long one fetch may take: the set-up of the tunnel included.
const FETCH_LIMIT: Duration = Duration::from_secs(15);

/// What is told when a measurement ended early.
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

/// A warning, if there is reason for one.
fn debug_build() -> &'static str {
    match cfg!(debug_assertions) {
        true => "A DEBUG BUILD: its figures say nothing about a release.\n",
        false => "",
    }
}

/// From curl's first packet to the first byte of a page.
fn time_to_first_byte(lab: &Lab) -> Result<Duration> {
    let url = traffic::url(WEB_V4.into(), WEB_PORT, "/");
    let fetched = traffic::fetch(lab.playground(), Role::Client, &url, FETCH_LIMIT)?;
    ensure!(
        fetched.is_page(),
        "no page from {url}: curl ended with {}, status {} {}",
        fetched.exit,
        fetched.status,
        fetched.refusal
    );
    Ok(fetched.first_byte.saturating_sub(fetched.first_packet))
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
