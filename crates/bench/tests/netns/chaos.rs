//! Short chaos runs: a few clients whose traffic never pauses, while the gateway is broken.
//!
//! Generous in time, for a machine that is busy with other things; strict in substance.

use crate::programs;
use postern_bench::chaos::{Crowd, Section, Spec, Tally, kinds, lives};
use postern_lab::playground::injector::Fault;
use postern_lab::playground::wait::Interrupt;
use std::time::Duration;

/// Within which everybody has to recover.
const SOON: Duration = Duration::from_secs(5);

/// A crowd that shows the gateway's log when its test fails.
struct Watched(Crowd);

impl Watched {
    fn gather() -> Self {
        let crowd = Crowd::gather(&Spec {
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

/// Everybody recovers soon, no transfer breaks, nobody else notices, and the gateway says so.
#[track_caller]
fn expect_nobody_notices(section: &Section) {
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

/// The parts that no packet passes cost no packet.
#[track_caller]
fn expect_lossless(section: &Section, kinds: &[&str]) {
    let is_one = |tally: &&Tally| kinds.contains(&tally.name.as_str());
    let lost = section.tallies.iter().filter(is_one);
    let lost: Vec<usize> = lost.map(Tally::lost_by_hit).collect();
    assert_eq!(lost, vec![0; kinds.len()], "{}", section.text());
}

fn every_kind_dies_by(faults: &[Fault]) {
    let mut watched = Watched::gather();
    let section = kinds::run(&mut watched.0, faults.len(), faults);
    let section = section.unwrap_or_else(|error| panic!("{error:#}"));
    expect_nobody_notices(&section);
    expect_lossless(&section, &["portal", "dns"]);
}

#[test]
fn every_kind_of_actor_dies_in_a_handler_and_at_its_start_and_nobody_notices() {
    every_kind_dies_by(&[Fault::PanicHandler, Fault::PanicStarted]);
}

#[test]
fn every_kind_of_actor_dies_in_a_future_and_by_a_timer_and_nobody_notices() {
    every_kind_dies_by(&[Fault::PanicFuture, Fault::PanicTimer]);
}

/// docs/lessons.md 25: a new process takes over from one that was killed, and from one that made
/// room.
///
/// docs/lessons.md 25.
#[test]
fn clients_live_through_kill_9_and_through_a_planned_restart() {
    let mut watched = Watched::gather();
    let killed = lives::killed(&mut watched.0, 1);
    expect_nobody_notices(&killed.unwrap_or_else(|error| panic!("{error:#}")));
    let handover = lives::handover(&mut watched.0);
    expect_nobody_notices(&handover.unwrap_or_else(|error| panic!("{error:#}")));
}
