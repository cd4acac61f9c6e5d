//! Every kind of actor stops answering without dying, in three ways.

use super::crowd::{Crowd, Mark, RECOVERY_LIMIT};
use super::gateway_log;
use super::report::{Outcome, Section, Tally};
use super::schedule::{Pacer, Planned};
use anyhow::Result;
use postern_lab::playground::injector::{Fault, Kind};
use postern_lab::playground::wait::Interrupt;
use std::time::Duration;

/// How long a gateway may take to notice that a part hangs, and to replace it.
const REPLACED_LIMIT: Duration = RECOVERY_LIMIT;
/// A fault that blocks a thread is over by itself after 30 s.
const BLOCKED_FOR: Duration = Duration::from_secs(30);

/// Hangs every kind of actor, blocks its thread, and fills its mailbox.
///
/// # Errors
/// The gateway ends or refuses a fault, or the run was called off.
pub(super) fn run(crowd: &mut Crowd) -> Result<Section> {
    let mut section = Section::new(
        "hang",
        "Actors that hang, block their thread, or are swamped",
    );
    let mut pacer = Pacer::default();
    for fault in [Fault::Hang, Fault::Fill, Fault::Block] {
        for kind in Kind::ALL {
            let client = (kind == Kind::Connection).then_some(0);
            let planned = Planned {
                kind,
                fault,
                client,
            };
            crowd.wait_until(pacer.earliest(planned))?;
            let mark = crowd.inflict(kind, fault, client)?;
            pacer.inflicted(planned, mark.at);
            one(crowd, planned, mark, &mut section)?;
        }
    }
    Ok(section)
}

/// One fault, up to its end.
fn one(crowd: &mut Crowd, planned: Planned, mark: Mark, section: &mut Section) -> Result<()> {
    let Planned {
        kind,
        fault,
        client,
    } = planned;
    let hit: Vec<usize> = match client {
        Some(client) => vec![client],
        None => crowd.everybody().collect(),
    };
    let name = format!("{} {fault}", kind.word());
    if fault != Fault::Fill {
        match replaced(crowd, kind, mark)? {
            Some(after) => {
                let note = format!("{name}: replaced after {:.1} s", after.as_secs_f64());
                section.notes.push(note);
            }
            None => section.wrong.push(format!("{name}: was never replaced")),
        }
    }
    let everybody: Vec<usize> = crowd.everybody().collect();
    let flows = crowd.await_flowing(&everybody, mark.at, RECOVERY_LIMIT)?;
    if !flows {
        section.wrong.push(format!("{name}: traffic does not flow"));
    }
    if fault == Fault::Block {
        crowd.wait_until(mark.at + BLOCKED_FOR)?;
    }
    let end = crowd.settle()?;
    let mut tally = Tally::new(name);
    let outcome = Outcome::of(crowd, &hit, &(mark.at..end), mark.at);
    tally.outcomes.push(outcome);
    section.add(tally, None);
    Ok(())
}

/// Waits until the gateway's log tells that the actor was built anew.
fn replaced(crowd: &mut Crowd, kind: Kind, mark: Mark) -> Result<Option<Duration>> {
    let interrupt: Interrupt = crowd.lab().playground().interrupt().clone();
    let deadline = mark.at + REPLACED_LIMIT;
    loop {
        let log = crowd.gateway_log()?;
        let after = gateway_log::replaced_after(&log, kind, mark.unix_ms);
        if after.is_some() || crowd.now() >= deadline {
            return Ok(after);
        }
        interrupt.pass(Duration::from_millis(100))?;
    }
}
