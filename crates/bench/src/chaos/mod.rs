//! `postern-bench chaos`: the gateway is broken in every way, under the traffic of a crowd.
//!
//! Twenty clients behind one router, each with a UDP echo and a TCP transfer that are measured all
//! the time; every kind of actor is killed again and again, the process too; at the end stands what
//! the clients noticed. How the figures are defined stands in `trace`. Refuses to judge: a missed
//! aim is printed beside the figures, and only what does not recover at all is a failure. Leaves
//! nothing behind, whether it ends well, fails, or is interrupted.
//!
//! Reading order: `trace` is what is measured, `meter` measures it, `crowd` is the set-up, `kinds`,
//! `lives`, `hang` and `isolated` are the scenarios, `report` shows what came of them.

mod crowd;
mod gateway_log;
mod hang;
mod isolated;
pub mod kinds;
pub mod lives;
mod meter;
mod report;
mod schedule;
mod trace;

pub use crowd::{Crowd, SetUp, Spec};
pub use report::{Aims, Outcome, Section, Tally};

use anyhow::{Result, bail};
use clap::ValueEnum;
use lives::Flaw;
use postern_lab::playground::injector::Fault;
use postern_lab::playground::programs::Programs;
use postern_lab::playground::wait::{Interrupt, Interrupted, run_interruptibly};
use postern_lab::clock::unix_ms;
use serde_json::json;
use std::io::Write;
use std::time::Duration;

/// Breaks the gateway in every way, under the traffic of a crowd of clients.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How many clients.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(2..=100))]
    pub clients: u8,
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace that of the whole"
    )]
    pub effort: Effort,
    /// How many probes each client sends in a second.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub probes: u32,
    /// Only these; may be repeated. All of them when absent.
    #[arg(long, value_enum)]
    pub only: Vec<Scenario>,
    /// Give the gateway no state file.
    #[arg(long)]
    pub stateless: bool,
}

/// How often things are done.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Effort {
    /// How often every kind of actor is killed.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// How often the process is killed, and how often throughput is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeat: u32,
}

/// One part of the run, each with a crowd of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Nothing fails: what the meters themselves lose.
    Idle,
    /// Every kind of actor is killed, in every way.
    Kinds,
    /// Actors hang, block their thread, or are swamped.
    Hang,
    /// One client's every packet kills its actor.
    Isolated,
    /// kill -9, and a new process at once.
    Killed,
    /// A restart budget is spent.
    Budget,
    /// A planned restart.
    Handover,
    /// kill -9, and the state file is gone.
    StateMissing,
    /// kill -9, and the state file is damaged.
    StateDamaged,
    /// kill -9, and the state file is too old.
    StateStale,
    /// kill -9, and the state file is another gateway's.
    StateForeign,
    /// kill -9, and the portal refuses the join for 37 s.
    #[value(name = "portal-409")]
    Portal409,
}

/// Runs it.
///
/// # Errors
/// Not root, a tool is missing, a scenario failed (its logs are shown before), something did not
/// recover, or it was interrupted.
pub async fn run(args: Args) -> Result<()> {
    run_interruptibly(move |interrupt| wreak(interrupt, &args)).await
}

/// All scenarios, blocking; everything that they made is gone when it returns.
fn wreak(interrupt: &Interrupt, args: &Args) -> Result<()> {
    let spec = Spec {
        programs: Programs::beside_this()?,
        interrupt: interrupt.clone(),
        clients: args.clients,
        probes_per_second: args.probes,
        state: !args.stateless,
    };
    let scenarios = match args.only.is_empty() {
        true => Scenario::value_variants(),
        false => &args.only,
    };
    print(report::LEGEND)?;
    let mut sections = Vec::new();
    let mut failed = Vec::new();
    for scenario in scenarios {
        match one(&spec, *scenario, args.effort) {
            Ok(section) => {
                print(&format!("\n{}", section.text()))?;
                sections.push(section);
            }
            Err(error) if error.is::<Interrupted>() => {
                bail!("interrupted; everything was removed");
            }
            Err(error) => {
                print(&format!("\n{scenario:?} failed: {error:#}\n"))?;
                failed.push(format!("{scenario:?}"));
            }
        }
    }
    let lines: Vec<_> = sections.iter().map(Section::json).collect();
    let clients = args.clients;
    print(&format!(
        "\n{}\n",
        json!({"clients": clients, "scenarios": lines})
    ))?;
    let unrecovered: usize = sections.iter().map(Section::unrecovered).sum();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if unrecovered > 0 {
        bail!("{unrecovered} times a client did not recover");
    }
    Ok(())
}

/// One scenario with a crowd of its own.
///
/// # Errors
/// The crowd does not come up, or what the scenario says.
fn one(spec: &Spec, scenario: Scenario, effort: Effort) -> Result<Section> {
    let mut crowd = Crowd::gather(spec)?;
    let SetUp {
        network,
        programs,
        clients,
        traffic,
    } = crowd.set_up();
    tracing::info!(
        ?scenario,
        ?network,
        ?programs,
        ?clients,
        ?traffic,
        "the crowd is there"
    );
    perform(&mut crowd, scenario, effort)
}

/// A scenario, with a crowd that is there.
///
/// # Errors
/// What the scenario says.
fn perform(crowd: &mut Crowd, scenario: Scenario, effort: Effort) -> Result<Section> {
    let (rounds, repeat) = (effort.rounds as usize, effort.repeat as usize);
    match scenario {
        Scenario::Idle => idle(crowd),
        Scenario::Kinds => kinds::run(crowd, rounds, &Fault::PANICS),
        Scenario::Hang => hang::run(crowd),
        Scenario::Isolated => isolated::run(crowd, repeat),
        Scenario::Killed => lives::killed(crowd, repeat),
        Scenario::Budget => lives::budget(crowd),
        Scenario::Handover => lives::handover(crowd),
        Scenario::StateMissing => lives::flawed(crowd, Flaw::Missing),
        Scenario::StateDamaged => lives::flawed(crowd, Flaw::Damaged),
        Scenario::StateStale => lives::flawed(crowd, Flaw::Stale),
        Scenario::StateForeign => lives::flawed(crowd, Flaw::Foreign),
        Scenario::Portal409 => lives::refused(crowd),
    }
}

/// How long nothing fails.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// What the meters lose and how long echoes take when nothing fails.
fn idle(crowd: &mut Crowd) -> Result<Section> {
    let mut section = Section::new("idle", "Nothing fails for 30 s");
    let begun = crowd.now();
    crowd.wait_until(begun + IDLE_FOR)?;
    let end = crowd.settle()?;
    let window = begun..end;
    let everybody: Vec<usize> = crowd.everybody().collect();
    let (mut probes, mut longest, mut bytes) = (0, Duration::ZERO, 0);
    for client in crowd.everybody() {
        let trace = crowd.trace(client);
        probes += trace.probes(&window);
        longest = longest.max(trace.longest_round_trip(&window));
        bytes += trace.bytes();
        for at in trace.losses(&window) {
            // What happened then, the logs of client and gateway tell by the time of day.
            let ago = crowd.now().saturating_sub(at).as_secs_f64();
            let unix_ms = unix_ms() - ago * 1000.0;
            let note = format!("client {client} lost a probe sent at {unix_ms:.0} ms since 1970");
            section.notes.push(note);
        }
    }
    section.notes.push(format!(
        "{probes} probes ({} were due), the longest round trip {:.1} ms; {bytes} bytes transferred",
        crowd.due(&window),
        longest.as_secs_f64() * 1000.0
    ));
    let mut tally = Tally::new("idle");
    let outcome = Outcome::of(crowd, &everybody, &window, window.start);
    tally.outcomes.push(outcome);
    let aims = Aims {
        median: Duration::from_millis(250),
        max: Duration::from_secs(1),
        lossless: true,
    };
    section.add(tally, Some(aims));
    Ok(section)
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
