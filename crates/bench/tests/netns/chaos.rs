//! Short chaos runs: a few clients with continuous traffic while the gateway is broken.
//!
//! Generous time limits, for a busy machine; strict conditions.

use crate::programs;
use postern_bench::chaos::{Crowd, Section, Spec, Tally, kinds, restarts};
use postern_lab::playground::injector::ActorFault;
use postern_lab::playground::wait::Interrupt;
use std::time::Duration;

/// Limit within which all clients have to recover.
const SOON: Duration = Duration::from_secs(5);

/// A crowd that prints the gateway's log when its test fails.
struct Watched(Crowd);

impl Watched {
    fn start() -> Self {
        let crowd = Crowd::start(&Spec {
            programs: programs(),
            interrupt: Interrupt::default(),
            clients: 4,
            probes_per_second: 50,
            state: true,
        });
        Self(crowd.unwrap_or_else(|error| panic!("no crowd: {error:#}")))
    }
}

impl Drop for Watched {
    #[expect(
        clippy::print_stderr,
        reason = "the harness captures it and shows it on failure"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.log_tails(60));
        }
    }
}

/// All clients recover soon, no transfer breaks, other clients lose nothing, and the gateway
/// agrees.
#[track_caller]
fn expect_recovery(section: &Section) {
    let text = section.text();
    assert_eq!(section.unrecovered(), 0, "{text}");
    assert_eq!(section.wrong, [""; 0], "{text}");
    for tally in &section.tallies {
        let (_, longest) = tally.median_and_max();
        assert!(longest < SOON, "{text}");
        assert_eq!(tally.broken(), 0, "{text}");
        assert_eq!(tally.lost_by_others(), 0, "{text}");
    }
}

/// Actors that no packet passes cost no packet.
#[track_caller]
fn expect_lossless(section: &Section, kinds: &[&str]) {
    let is_one = |tally: &&Tally| kinds.contains(&tally.name.as_str());
    let lost = section.tallies.iter().filter(is_one);
    let lost: Vec<usize> = lost.map(Tally::lost_by_affected).collect();
    assert_eq!(lost, vec![0; kinds.len()], "{}", section.text());
}

fn kill_every_kind_by(faults: &[ActorFault]) {
    let mut watched = Watched::start();
    let section = kinds::run(&mut watched.0, faults.len(), faults);
    let section = section.unwrap_or_else(|error| panic!("{error:#}"));
    expect_recovery(&section);
    expect_lossless(&section, &["portal", "dns"]);
}

#[test]
fn deaths_in_handlers_and_at_starts_cost_clients_nothing_lasting() {
    kill_every_kind_by(&[ActorFault::PanicHandler, ActorFault::PanicStarted]);
}

#[test]
fn deaths_in_futures_and_timers_cost_clients_nothing_lasting() {
    kill_every_kind_by(&[ActorFault::PanicFuture, ActorFault::PanicTimer]);
}

/// docs/lessons.md 25: a new process takes over from a killed one, and from one that handed over.
#[test]
fn clients_survive_kill_9_and_a_planned_restart() {
    let mut watched = Watched::start();
    let killed = restarts::killed(&mut watched.0, 1);
    expect_recovery(&killed.unwrap_or_else(|error| panic!("{error:#}")));
    let handover = restarts::handover(&mut watched.0);
    expect_recovery(&handover.unwrap_or_else(|error| panic!("{error:#}")));
}
