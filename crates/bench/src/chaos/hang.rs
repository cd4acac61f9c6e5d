//! Every kind of actor stops answering without dying, in three ways.

use super::crowd::{Crowd, Mark, RECOVERY_LIMIT};
use super::gateway_log;
use super::report::{Outcome, Section, Tally};
use super::schedule::{Pacer, Planned};
use anyhow::Result;
use postern_lab::playground::injector::{ActorFault, ActorKind};
use postern_lab::playground::wait::Interrupt;
use std::time::Duration;

/// Limit for the gateway to detect a hanging actor and to replace it.
const REPLACED_LIMIT: Duration = RECOVERY_LIMIT;
/// A fault that blocks a thread ends by itself after 30 s.
const BLOCKED_FOR: Duration = Duration::from_secs(30);

/// Hangs every kind of actor, blocks its thread, and fills its mailbox.
pub(super) fn run(crowd: &mut Crowd) -> Result<Section> {
    let mut section = Section::new(
        "hang",
        "Actors that hang, block their thread, or are swamped",
    );
    let mut pacer = Pacer::default();
    for fault in [ActorFault::Hang, ActorFault::Fill, ActorFault::Block] {
        for kind in ActorKind::ALL {
            let client = (kind == ActorKind::Connection).then_some(0);
            let planned = Planned {
                kind,
                fault,
                client,
            };
            crowd.wait_until(pacer.earliest(planned))?;
            let mark = crowd.inflict(kind, fault, client)?;
            pacer.inflicted(planned, mark.at);
            inflict_one(crowd, planned, mark, &mut section)?;
        }
    }
    Ok(section)
}

/// Inflicts one fault and observes it to its end.
fn inflict_one(
    crowd: &mut Crowd,
    planned: Planned,
    mark: Mark,
    section: &mut Section,
) -> Result<()> {
    let Planned {
        kind,
        fault,
        client,
    } = planned;
    let affected: Vec<usize> = match client {
        Some(client) => vec![client],
        None => crowd.all_clients().collect(),
    };
    let name = format!("{} {fault}", kind.word());
    if fault != ActorFault::Fill {
        match replaced(crowd, kind, mark)? {
            Some(after) => {
                let note = format!("{name}: replaced after {:.1} s", after.as_secs_f64());
                section.notes.push(note);
            }
            None => section.wrong.push(format!("{name}: was never replaced")),
        }
    }
    let all_clients: Vec<usize> = crowd.all_clients().collect();
    let flows = crowd.await_flowing(&all_clients, mark.at, RECOVERY_LIMIT)?;
    if !flows {
        section.wrong.push(format!("{name}: traffic does not flow"));
    }
    if fault == ActorFault::Block {
        crowd.wait_until(mark.at + BLOCKED_FOR)?;
    }
    let end = crowd.settle()?;
    let mut tally = Tally::new(name);
    let outcome = Outcome::of(crowd, &affected, &(mark.at..end), mark.at);
    tally.outcomes.push(outcome);
    section.add(tally, None);
    Ok(())
}

/// Waits until the gateway's log reports the rebuild of the actor.
fn replaced(crowd: &mut Crowd, kind: ActorKind, mark: Mark) -> Result<Option<Duration>> {
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
