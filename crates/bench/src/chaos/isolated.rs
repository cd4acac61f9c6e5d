//! Every packet of one client kills its actor, while another client's throughput is measured.

use super::crowd::{Crowd, RECOVERY_LIMIT};
use super::report::Section;
use anyhow::{Context, Result};
use postern_lab::figures::median;
use postern_lab::playground::Role;
use postern_lab::playground::injector::{ActorFault, ActorKind};
use postern_lab::playground::iperf::{self, Direction, Load};
use postern_lab::playground::network::WEB_V4;
use std::time::Duration;

/// Index of the measured client, which reaches the resource by its address.
const MEASURED: u8 = 0;
/// Index of the client with the fault.
const AFFECTED: usize = 1;
/// Duration of each load in seconds.
const SECONDS: u32 = 4;
/// Limit for the loss of the other clients.
const RATIO_MIN: f64 = 0.95;
/// Limit for the recovery of the affected client, after its packets no longer kill its actor.
const RETURN_LIMIT: Duration = Duration::from_secs(90);

/// Measures `rounds` times, alternately without and with the fault.
pub(super) fn run(crowd: &mut Crowd, rounds: usize) -> Result<Section> {
    let mut section = Section::new("isolated", "Every packet of one client kills its actor");
    let (mut before, mut during) = (Vec::new(), Vec::new());
    let mut returns = Vec::new();
    for _ in 0..rounds {
        before.push(throughput(crowd)?);
        crowd.inflict(
            ActorKind::Connection,
            ActorFault::PanicPackets,
            Some(AFFECTED),
        )?;
        during.push(throughput(crowd)?);
        crowd.inflict(ActorKind::Connection, ActorFault::Calm, Some(AFFECTED))?;
        let calmed = crowd.now();
        match crowd.await_flowing(&[AFFECTED], calmed, RETURN_LIMIT)? {
            true => returns.push((crowd.now() - calmed).as_secs_f64()),
            false => {
                let wrong = "the client does not come back once it is calm";
                section.wrong.push(wrong.to_owned());
                break;
            }
        }
    }
    let others: Vec<usize> = crowd
        .all_clients()
        .filter(|client| *client != AFFECTED)
        .collect();
    crowd.wait_flowing(&others, crowd.now(), RECOVERY_LIMIT)?;
    let (before, during) = (median(&mut before), median(&mut during));
    let ratio = during / before;
    section.notes.push(format!(
        "throughput of another client: {before:.3} Gbit/s undisturbed, {during:.3} Gbit/s \
         meanwhile, {:.1} % (medians of {rounds}, downloads of {SECONDS} s in turn)",
        ratio * 100.0
    ));
    section.notes.push(format!(
        "the client is back {:.1} s after its packets no longer kill its actor (median)",
        median(&mut returns)
    ));
    if ratio < RATIO_MIN {
        let miss = format!("{:.1} % of the throughput, aim 95 %", ratio * 100.0);
        section.misses.push(miss);
    }
    Ok(section)
}

/// Throughput of a client's download in Gbit/s.
fn throughput(crowd: &mut Crowd) -> Result<f64> {
    let load = Load {
        direction: Direction::Download,
        streams: 1,
    };
    let playground = crowd.lab().playground();
    let role = Role::Member(MEASURED);
    let transfer = iperf::run(playground, role, WEB_V4.into(), load, SECONDS);
    let transfer = transfer.context("iperf3 through the tunnel")?;
    Ok(transfer.bits_per_second / 1e9)
}
