//! `postern-bench chaos`: breaks the gateway in every way, under the traffic of a crowd.
//!
//! Twenty clients behind one router each have a UDP echo and a TCP transfer that are measured
//! continuously; every kind of actor is killed repeatedly, the process too; the result is what the
//! clients notice. `trace` defines the figures. Does not judge: a missed aim is printed beside the
//! figures, and only a client that never recovers is a failure. Leaves nothing behind, whether it
//! succeeds, fails, or is interrupted.
//!
//! Reading order: `trace` says what is measured, `meter` measures it, `crowd` is the set-up,
//! `kinds`, `restarts`, `hang` and `isolated` are the scenarios, `report` shows the results.

mod crowd;
mod gateway_log;
mod hang;
mod isolated;
pub mod kinds;
mod meter;
mod report;
pub mod restarts;
mod schedule;
mod trace;

pub use crowd::{Crowd, SetUp, Spec};
pub use report::{Aims, Outcome, Section, Tally};

use anyhow::{Result, bail};
use clap::ValueEnum;
use postern_lab::clock::unix_ms;
use postern_lab::playground::injector::ActorFault;
use postern_lab::playground::programs::Programs;
use postern_lab::playground::wait::{Interrupt, Interrupted, run_interruptibly};
use restarts::StateFault;
use serde_json::json;
use std::io::Write;
use std::time::Duration;

/// Breaks the gateway in every way, under the traffic of a crowd of clients.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Number of clients in the crowd.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(2..=100))]
    pub clients: u8,
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a comment here would replace that of the whole"
    )]
    pub repetitions: Repetitions,
    /// Number of probes that each client sends per second.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub probes: u32,
    /// Only these scenarios, separated by commas or in repeated options; all when absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Scenario>,
    /// Run the gateway without a state file.
    #[arg(long)]
    pub stateless: bool,
}

/// Numbers of repetitions.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Repetitions {
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
    /// Nothing fails: shows what the meters themselves lose.
    Idle,
    /// Kill every kind of actor, in every way.
    Kinds,
    /// Let actors hang, block their thread, or flood them.
    Hang,
    /// Let every packet of one client kill its actor.
    Isolated,
    /// Kill the process (kill -9), and start a new one at once.
    Killed,
    /// Spend a restart budget, so that the process exits.
    Budget,
    /// Restart by a planned handover.
    Handover,
    /// Kill the process, and remove the state file.
    StateMissing,
    /// Kill the process, and damage the state file.
    StateDamaged,
    /// Kill the process, and let the state file become too old.
    StateStale,
    /// Kill the process; the state file is another gateway's.
    StateForeign,
    /// Kill the process; the portal refuses the join for 37 s.
    #[value(name = "portal-409")]
    Portal409,
}

/// Runs the scenarios. Fails when a scenario failed (its logs are shown before) or a client did not
/// recover.
pub async fn run(args: Args) -> Result<()> {
    run_interruptibly(move |interrupt| run_scenarios(interrupt, &args)).await
}

/// Runs all scenarios, blocking; removes everything before it returns.
fn run_scenarios(interrupt: &Interrupt, args: &Args) -> Result<()> {
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
        match run_one(&spec, *scenario, args.repetitions) {
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

/// Runs one scenario with its own crowd.
fn run_one(spec: &Spec, scenario: Scenario, repetitions: Repetitions) -> Result<Section> {
    let mut crowd = Crowd::start(spec)?;
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
    run_with(&mut crowd, scenario, repetitions)
}

/// Runs a scenario with a running crowd.
fn run_with(crowd: &mut Crowd, scenario: Scenario, repetitions: Repetitions) -> Result<Section> {
    let (rounds, repeat) = (repetitions.rounds as usize, repetitions.repeat as usize);
    match scenario {
        Scenario::Idle => idle(crowd),
        Scenario::Kinds => kinds::run(crowd, rounds, &ActorFault::PANICS),
        Scenario::Hang => hang::run(crowd),
        Scenario::Isolated => isolated::run(crowd, repeat),
        Scenario::Killed => restarts::killed(crowd, repeat),
        Scenario::Budget => restarts::budget(crowd),
        Scenario::Handover => restarts::handover(crowd),
        Scenario::StateMissing => restarts::with_state_fault(crowd, StateFault::Missing),
        Scenario::StateDamaged => restarts::with_state_fault(crowd, StateFault::Damaged),
        Scenario::StateStale => restarts::with_state_fault(crowd, StateFault::Stale),
        Scenario::StateForeign => restarts::with_state_fault(crowd, StateFault::Foreign),
        Scenario::Portal409 => restarts::refused(crowd),
    }
}

/// Duration of the scenario without faults.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// Loss of the meters and round-trip times without faults.
fn idle(crowd: &mut Crowd) -> Result<Section> {
    let mut section = Section::new("idle", "Nothing fails for 30 s");
    let begun = crowd.now();
    crowd.wait_until(begun + IDLE_FOR)?;
    let end = crowd.settle()?;
    let window = begun..end;
    let all_clients: Vec<usize> = crowd.all_clients().collect();
    let (mut probes, mut longest, mut bytes) = (0, Duration::ZERO, 0);
    for client in crowd.all_clients() {
        let trace = crowd.trace(client);
        probes += trace.probes(&window);
        longest = longest.max(trace.longest_round_trip(&window));
        bytes += trace.bytes();
        for at in trace.losses(&window) {
            // The logs of client and gateway, by wall-clock time, show the reason.
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
    let outcome = Outcome::of(crowd, &all_clients, &window, window.start);
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
