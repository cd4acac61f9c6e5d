//! Every kind of actor is killed, in every way, under the traffic of everybody.

use super::crowd::{Crowd, Mark, RECOVERY_LIMIT};
use super::gateway_log;
use super::report::{Aims, Outcome, Section, Tally};
use super::schedule::{Pacer, Planned, plan};
use super::trace::At;
use anyhow::{Result, bail};
use postern_lab::playground::injector::{Fault, Kind};
use std::time::Duration;

/// What a death may cost the clients that it hits.
const AIMS: Aims = Aims {
    median: Duration::from_millis(250),
    max: Duration::from_secs(1),
    lossless: false,
};
/// A run with so many faults that were not recovered from is over.
const UNRECOVERED_MAX: usize = 3;

/// Kills every kind of actor `rounds` times, going through `faults` again and again.
///
/// # Errors
/// The gateway ends or refuses a fault, or the run was called off.
pub fn run(crowd: &mut Crowd, rounds: usize, faults: &[Fault]) -> Result<Section> {
    let clients = crowd.everybody().len();
    let title = format!("Every kind of actor, killed {rounds} times under {clients} clients");
    let mut section = Section::new("kinds", title);
    let inflicted = inflict(crowd, &plan(rounds, clients, faults))?;
    let end = crowd.settle()?;
    let log = crowd.gateway_log()?;
    for kind in Kind::ALL {
        let mut tally = Tally::new(kind.word());
        tally.outcomes = outcomes(crowd, &inflicted, end, kind);
        let since = inflicted.first().map_or(0.0, |(_, mark)| mark.unix_ms);
        tally.rebuilt = gateway_log::rebuilt(&log, kind, since);
        let lossless = matches!(kind, Kind::Portal | Kind::Dns);
        section.add(tally, Some(Aims { lossless, ..AIMS }));
        let of_kind = inflicted.iter().filter(|(it, _)| it.kind == kind);
        let expected: usize = of_kind.map(|(it, _)| it.fault.deaths()).sum();
        let told = gateway_log::deaths(&log, kind);
        if told != expected {
            let word = kind.word();
            let wrong = format!("the log tells of {told} deaths of {word} instead of {expected}");
            section.wrong.push(wrong);
        }
    }
    for error in gateway_log::other_errors(&log) {
        section.wrong.push(format!("an error in the log: {error}"));
    }
    Ok(section)
}

/// Inflicts one fault after the other, each when everybody has recovered from the last.
fn inflict(crowd: &mut Crowd, plan: &[Planned]) -> Result<Vec<(Planned, Mark)>> {
    let mut pacer = Pacer::default();
    let mut inflicted = Vec::new();
    let mut unrecovered = 0;
    for planned in plan {
        crowd.wait_until(pacer.earliest(*planned))?;
        let mark = crowd.inflict(planned.kind, planned.fault, planned.client)?;
        pacer.inflicted(*planned, mark.at);
        inflicted.push((*planned, mark));
        let hit = hit(crowd, *planned);
        if !crowd.await_flowing(&hit, mark.at, RECOVERY_LIMIT)? {
            tracing::error!(kind = planned.kind.word(), fault = %planned.fault, "no recovery");
            unrecovered += 1;
        }
        if unrecovered >= UNRECOVERED_MAX {
            break;
        }
    }
    if inflicted.is_empty() {
        bail!("nothing was to be inflicted");
    }
    Ok(inflicted)
}

/// Whom a fault hits.
fn hit(crowd: &Crowd, planned: Planned) -> Vec<usize> {
    match planned.client {
        Some(client) => vec![client],
        None => crowd.everybody().collect(),
    }
}

/// What came of the faults of a kind: each lasts until the next of any kind.
fn outcomes(crowd: &Crowd, inflicted: &[(Planned, Mark)], end: At, kind: Kind) -> Vec<Outcome> {
    let ends = inflicted.iter().skip(1).map(|(_, next)| next.at);
    let windows = inflicted.iter().zip(ends.chain([end]));
    let of_kind = windows.filter(|((planned, _), _)| planned.kind == kind);
    of_kind
        .map(|((planned, mark), end)| {
            let hit = hit(crowd, *planned);
            Outcome::of(crowd, &hit, &(mark.at..end), mark.at)
        })
        .collect()
}
