//! The process ends in every way, and a new one takes its place under the traffic of everybody.

use super::crowd::{Crowd, GATEWAY_NAME, Mark, RECOVERY_LIMIT};
use super::gateway_log;
use super::report::{Aims, Outcome, Section, Tally};
use anyhow::{Context, Result, bail, ensure};
use postern_lab::figures::percentile;
use postern_lab::playground::injector::{Fault, Kind};
use std::time::Duration;

/// What a new process that takes over may cost.
const AIMS: Aims = Aims {
    median: Duration::from_secs(1),
    max: Duration::from_secs(2),
    lossless: false,
};
/// How long clients may take that nobody takes over: their own timeouts, then a set-up.
const COLD_LIMIT: Duration = Duration::from_secs(90);
/// How long a process may take to end that was asked to.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long the portal may take to be joined, after a backoff.
const JOIN_LIMIT: Duration = Duration::from_secs(90);
/// How long a real portal refuses a gateway whose last connection it takes for living.
const REFUSED_FOR: Duration = Duration::from_secs(37);
/// What a process ends with when a part died too often.
const EXIT_BUDGET_SPENT: i32 = 70;

/// The end of one process and the start of the next.
#[derive(Clone, Copy, Debug)]
struct Change {
    ended: Mark,
    started: Mark,
}

/// Kills the gateway again and again, and starts a new one at once.
///
/// # Errors
/// A new gateway does not live, or the run was called off.
pub fn killed(crowd: &mut Crowd, repeat: usize) -> Result<Section> {
    let mut section = Section::new("killed", "kill -9, and a new process at once");
    let mut tally = Tally::new("killed");
    let mut changes = Vec::new();
    for _ in 0..repeat {
        let ended = kill(crowd);
        let change = start(crowd, ended)?;
        let outcome = observe(crowd, change, RECOVERY_LIMIT)?;
        changes.push((change, outcome.clone()));
        tally.outcomes.push(outcome);
        check_takeover(crowd, &mut section)?;
        crowd.lab().gateway_ready()?;
    }
    section.notes.push(gap(&changes));
    section.add(tally, Some(AIMS));
    Ok(section)
}

/// Lets one kind of actor die until the gateway gives up.
///
/// # Errors
/// Those of [`killed`], and when it does not give up.
pub fn budget(crowd: &mut Crowd) -> Result<Section> {
    let mut section = Section::new(
        "budget",
        "A restart budget is spent, and a new process at once",
    );
    let (ended, exit) = spend_budget(crowd)?;
    if exit != Some(EXIT_BUDGET_SPENT) {
        section
            .notes
            .push(format!("the exit code is {exit:?}, not 70"));
        section.misses.push("budget: exit code".to_owned());
    }
    taken_over(crowd, ended, section)
}

/// A planned restart without goodbyes.
///
/// # Errors
/// Those of [`killed`], and when the gateway does not end.
pub fn handover(crowd: &mut Crowd) -> Result<Section> {
    let mut section = Section::new("handover", "A planned restart");
    let ended = crowd.mark();
    let status = crowd.lab().hand_over(END_LIMIT)?;
    if !status.success() {
        section.wrong.push(format!("it ended with {status}"));
    }
    taken_over(crowd, ended, section)
}

/// Starts the next process, which is to take over, and reports.
fn taken_over(crowd: &mut Crowd, ended: Mark, mut section: Section) -> Result<Section> {
    let change = start(crowd, ended)?;
    let outcome = observe(crowd, change, RECOVERY_LIMIT)?;
    check_takeover(crowd, &mut section)?;
    section.notes.push(gap(&[(change, outcome.clone())]));
    let mut tally = Tally::new(section.name);
    tally.outcomes.push(outcome);
    section.add(tally, Some(AIMS));
    Ok(section)
}

/// What is wrong with a state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// There is none: what every flaw is measured by.
    Missing,
    /// A byte in its middle is another.
    Damaged,
    /// It is older than the new process accepts.
    Stale,
    /// It is of a gateway that is called otherwise.
    Foreign,
}

impl Flaw {
    fn name(self) -> &'static str {
        match self {
            Self::Missing => "state-missing",
            Self::Damaged => "state-damaged",
            Self::Stale => "state-stale",
            Self::Foreign => "state-foreign",
        }
    }
}

/// Kills the gateway, spoils its state file, and starts a new one.
///
/// # Errors
/// Those of [`killed`], and when there is no state file to spoil.
pub fn flawed(crowd: &mut Crowd, flaw: Flaw) -> Result<Section> {
    let title = format!("kill -9, and the state file is {flaw:?}");
    let mut section = Section::new(flaw.name(), title.to_lowercase());
    let ended = kill(crowd);
    spoil(crowd, flaw)?;
    let change = start(crowd, ended)?;
    let outcome = observe(crowd, change, COLD_LIMIT)?;
    let log = crowd.gateway_log()?;
    let warnings = gateway_log::state_warnings(&log);
    let expected = usize::from(flaw != Flaw::Missing);
    for warning in &warnings {
        section.notes.push(format!("it warns: {warning}"));
    }
    if warnings.len() != expected {
        let wrong = format!("{} warnings instead of {expected}", warnings.len());
        section.wrong.push(wrong);
    }
    if gateway_log::taken_over(&log).is_some() {
        section.wrong.push("the file was used".to_owned());
    }
    let mut tally = Tally::new(flaw.name());
    tally.outcomes.push(outcome);
    section.add(tally, None);
    Ok(section)
}

/// Between two lives.
fn spoil(crowd: &mut Crowd, flaw: Flaw) -> Result<()> {
    const MAX_AGE: Duration = Duration::from_secs(1);
    let Some(file) = crowd.state_file() else {
        ensure!(flaw == Flaw::Missing, "this gateway keeps no state file");
        return Ok(());
    };
    let mut content = std::fs::read(&file)
        .with_context(|| format!("the gateway left no state file at {}", file.display()))?;
    match flaw {
        Flaw::Missing => std::fs::remove_file(&file)?,
        Flaw::Damaged => {
            let middle = content.len() / 2;
            let byte = content.get_mut(middle).context("the file is empty")?;
            *byte ^= 0x55;
            std::fs::write(&file, content)?;
        }
        Flaw::Stale => {
            crowd.lab().reconfigure_gateway(|setup| {
                if let Some(state) = &mut setup.state {
                    state.max_age = Some(MAX_AGE);
                }
            })?;
            crowd.wait_until(crowd.now() + 2 * MAX_AGE)?;
        }
        Flaw::Foreign => {
            crowd
                .lab()
                .reconfigure_gateway(|setup| setup.gateway_id = "another-gateway")?;
        }
    }
    Ok(())
}

/// Kills the gateway while the portal takes its last connection for living, as it does for 37 s.
///
/// # Errors
/// Those of [`killed`].
pub fn refused(crowd: &mut Crowd) -> Result<Section> {
    let mut section = Section::new(
        "portal-409",
        "kill -9, and the portal refuses the join for 37 s",
    );
    crowd.lab().control().refuse_gateway(GATEWAY_NAME, true)?;
    let ended = kill(crowd);
    let change = start(crowd, ended)?;
    let outcome = observe(crowd, change, RECOVERY_LIMIT)?;
    check_takeover(crowd, &mut section)?;
    let flows_again = change.started.at
        + outcome
            .recoveries
            .iter()
            .flatten()
            .max()
            .copied()
            .unwrap_or_default();
    let joined = |crowd: &mut Crowd| {
        crowd
            .lab()
            .wait_gateway_milestone("joined", 0, Duration::ZERO)
    };
    crowd.wait_until(change.started.at + REFUSED_FOR)?;
    ensure!(
        joined(crowd).is_err(),
        "the portal did not refuse the gateway"
    );
    crowd.lab().control().refuse_gateway(GATEWAY_NAME, false)?;
    crowd
        .lab()
        .wait_gateway_milestone("joined", 0, JOIN_LIMIT)?;
    let since = (crowd.now() - change.started.at).as_secs_f64();
    section
        .notes
        .push(format!("the gateway joined {since:.1} s after its start"));
    crowd.wait_until(crowd.now() + Duration::from_secs(3))?;
    let end = crowd.settle()?;
    let mut taken = Tally::new("takeover");
    taken.outcomes.push(outcome);
    section.add(taken, Some(AIMS));
    let mut after = Tally::new("afterwards");
    let everybody: Vec<usize> = crowd.everybody().collect();
    let quiet = Outcome::of(crowd, &everybody, &(flows_again..end), flows_again);
    after.outcomes.push(quiet);
    let lossless = Aims {
        lossless: true,
        ..AIMS
    };
    section.add(after, Some(lossless));
    Ok(section)
}

/// Kills the gateway; returns the moment before.
fn kill(crowd: &mut Crowd) -> Mark {
    let mark = crowd.mark();
    crowd.lab().kill_gateway();
    mark
}

/// Starts the next process. Its start is the moment before it is asked for: the shells that lead it
/// to its place are counted as its own.
fn start(crowd: &mut Crowd, ended: Mark) -> Result<Change> {
    let started = crowd.mark();
    crowd.lab().launch_gateway()?;
    Ok(Change { ended, started })
}

/// Waits until everybody's traffic flows again.
fn observe(crowd: &mut Crowd, change: Change, limit: Duration) -> Result<Outcome> {
    let everybody: Vec<usize> = crowd.everybody().collect();
    let _recovered = crowd.await_flowing(&everybody, change.started.at, limit)?;
    let end = crowd.settle()?;
    let window = change.ended.at..end;
    Ok(Outcome::of(crowd, &everybody, &window, change.started.at))
}

/// Whether the running process says that it took everybody over.
fn check_takeover(crowd: &mut Crowd, section: &mut Section) -> Result<()> {
    let clients = crowd.everybody().len() as u64;
    let log = crowd.gateway_log()?;
    match gateway_log::taken_over(&log) {
        Some(number) if number == clients => {}
        Some(number) => {
            let wrong = format!("{number} clients of {clients} were taken over");
            section.wrong.push(wrong);
        }
        None => section.wrong.push("nobody was taken over".to_owned()),
    }
    for warning in gateway_log::state_warnings(&log) {
        section.notes.push(format!("it warns: {warning}"));
    }
    for error in gateway_log::other_errors(&log) {
        section.wrong.push(format!("an error in the log: {error}"));
    }
    Ok(())
}

/// From the end of the old process until traffic flows, in words.
fn gap(changes: &[(Change, Outcome)]) -> String {
    let each = changes.iter().flat_map(|(change, outcome)| {
        let pause = change.started.at - change.ended.at;
        let recoveries = outcome.recoveries.iter().flatten();
        recoveries.map(move |recovery| pause + *recovery)
    });
    let mut gaps: Vec<Duration> = each.collect();
    gaps.sort_unstable();
    format!(
        "from the end of the old process until traffic flows: median {:.0} ms, max {:.0} ms",
        percentile(&gaps, 50).as_secs_f64() * 1000.0,
        percentile(&gaps, 100).as_secs_f64() * 1000.0
    )
}

/// Panics in one kind of actor until the process ends; the moment of the last, and the exit code.
fn spend_budget(crowd: &mut Crowd) -> Result<(Mark, Option<i32>)> {
    /// More than any budget.
    const DEATHS_MAX: usize = 10;
    const KIND: Kind = Kind::NatTable;
    for death in 1..=DEATHS_MAX {
        let mark = crowd.mark();
        crowd.inflict(KIND, Fault::PanicHandler, None)?;
        let interrupt = crowd.lab().playground().interrupt().clone();
        let code = interrupt.until_ok("a rebuild or the end", END_LIMIT, || {
            if let Some(status) = crowd.lab().gateway()?.ended()? {
                return Ok(Some(Err(status.code())));
            }
            let rebuilt = gateway_log::rebuilt(&crowd.gateway_log()?, KIND, 0.0).len();
            Ok((rebuilt >= death).then_some(Ok(())))
        })?;
        if let Err(code) = code {
            return Ok((mark, code));
        }
    }
    bail!("the gateway lives on after {DEATHS_MAX} deaths of one kind")
}
