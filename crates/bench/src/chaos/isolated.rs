//! One client's every packet kills its actor; what another client gets through meanwhile.

use super::crowd::{Crowd, RECOVERY_LIMIT};
use super::report::Section;
use anyhow::{Context, Result};
use postern_lab::figures::median;
use postern_lab::playground::Role;
use postern_lab::playground::injector::{Fault, Kind};
use postern_lab::playground::iperf::{self, Direction, Load};
use postern_lab::playground::network::WEB_V4;
use std::time::Duration;

/// The client that is measured, which reaches the resource by its address.
const MEASURED: u8 = 0;
/// The client that is hit.
const HIT: usize = 1;
/// Seconds of each load.
const SECONDS: u32 = 4;
/// What the others may lose.
const RATIO_MIN: f64 = 0.95;
/// How long the client may take that was cut off, once its packets kill nobody any more.
const RETURN_LIMIT: Duration = Duration::from_secs(90);

/// Measures `rounds` times, without and with the fault in turn.
///
/// # Errors
/// A load fails, the gateway ends or refuses the fault, or the run was called off.
pub(super) fn run(crowd: &mut Crowd, rounds: usize) -> Result<Section> {
    let mut section = Section::new("isolated", "Every packet of one client kills its actor");
    let (mut before, mut during) = (Vec::new(), Vec::new());
    let mut returns = Vec::new();
    for _ in 0..rounds {
        before.push(throughput(crowd)?);
        crowd.inflict(Kind::Connection, Fault::PanicPackets, Some(HIT))?;
        during.push(throughput(crowd)?);
        crowd.inflict(Kind::Connection, Fault::Calm, Some(HIT))?;
        let calmed = crowd.now();
        match crowd.await_flowing(&[HIT], calmed, RETURN_LIMIT)? {
            true => returns.push((crowd.now() - calmed).as_secs_f64()),
            false => {
                let wrong = "the client does not come back once it is calm";
                section.wrong.push(wrong.to_owned());
                break;
            }
        }
    }
    let others: Vec<usize> = crowd.everybody().filter(|client| *client != HIT).collect();
    crowd.wait_flowing(&others, crowd.now(), RECOVERY_LIMIT)?;
    let (before, during) = (median(&mut before), median(&mut during));
    let ratio = during / before;
    section.notes.push(format!(
        "throughput of another client: {before:.3} Gbit/s undisturbed, {during:.3} Gbit/s \
         meanwhile, {:.1} % (medians of {rounds}, downloads of {SECONDS} s in turn)",
        ratio * 100.0
    ));
    section.notes.push(format!(
        "the client is back {:.1} s after its packets kill nobody any more (median)",
        median(&mut returns)
    ));
    if ratio < RATIO_MIN {
        let miss = format!("{:.1} % of the throughput, aim 95 %", ratio * 100.0);
        section.misses.push(miss);
    }
    Ok(section)
}

/// What a client downloads, in Gbit/s.
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
