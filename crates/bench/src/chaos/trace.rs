//! Record of one client's traffic, and the figures derived from it.
//!
//! Pure: the meters write a trace, this module evaluates it. All times count from the start of the
//! meters. Definitions:
//!
//! * A probe is *lost* when no echo arrives within [`LOST_AFTER`]; it is *late* when its echo takes
//!   longer than [`LATE_AFTER`].
//! * *Time until traffic flows again*, after a fault at t: the arrival of the echo of the first
//!   probe that was sent at or after t and after the last probe that the fault cost or delayed,
//!   minus t. So it is at least one round trip, and its resolution is the interval of probes. A
//!   late probe counts with its own arrival. A second outage before the next fault prolongs the
//!   first.
//! * A lost probe belongs to the last fault before it; a probe that was sent up to [`IN_FLIGHT`]
//!   before the fault was in flight and belongs to it too. So do broken transfers, by the time when
//!   their next byte was due.

use std::ops::Range;
use std::time::Duration;

/// Time since the start of the meters.
pub(super) type At = Duration;

/// A probe without an echo for this long is lost.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(2);
/// An echo that takes longer was delayed. Far above a round trip on a busy machine, and below every
/// aim.
const LATE_AFTER: Duration = Duration::from_millis(100);
/// How long before a fault a probe that the fault affects may have been sent.
const IN_FLIGHT: Duration = Duration::from_millis(20);
/// During a run, traffic counts as flowing after it has flowed for this long.
const STEADY: Duration = Duration::from_millis(400);
/// During a run, a missing echo counts only after this time.
const PATIENCE: Duration = Duration::from_millis(200);

/// One probe of the UDP echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    sent: At,
    /// Arrival of the first echo.
    back: Option<At>,
}

impl Probe {
    fn round_trip(self) -> Option<Duration> {
        self.back.map(|back| back.saturating_sub(self.sent))
    }

    fn is_lost(self) -> bool {
        self.round_trip().is_none_or(|took| took > LOST_AFTER)
    }

    fn is_late(self) -> bool {
        self.round_trip().is_some_and(|took| took > LATE_AFTER)
    }
}

/// The break of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Break {
    /// Time when the next byte was due.
    pub(super) at: At,
    pub(super) why: String,
}

/// Everything that one client's meters observed.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    /// Probes in the order of sending.
    probes: Vec<Probe>,
    breaks: Vec<Break>,
    transferred: u64,
}

impl Trace {
    /// Records a sent probe; returns its number.
    pub(super) fn sent(&mut self, at: At) -> u64 {
        self.probes.push(Probe {
            sent: at,
            back: None,
        });
        self.probes.len() as u64 - 1
    }

    /// Records an echo. Later echoes of the same probe, and unknown numbers, change nothing.
    pub(super) fn echoed(&mut self, number: u64, at: At) {
        let probe = usize::try_from(number)
            .ok()
            .and_then(|index| self.probes.get_mut(index));
        if let Some(probe) = probe {
            probe.back.get_or_insert(at);
        }
    }

    /// Records correct bytes of a transfer.
    pub(super) fn transferred(&mut self, bytes: u64) {
        self.transferred += bytes;
    }

    /// Records a broken transfer.
    pub(super) fn broke(&mut self, broken: Break) {
        self.breaks.push(broken);
    }

    /// Bytes of all transfers so far.
    pub(super) fn bytes(&self) -> u64 {
        self.transferred
    }

    /// Probes sent in a window.
    fn within(&self, window: &Range<At>) -> &[Probe] {
        let place = |at: At| self.probes.partition_point(|probe| probe.sent < at);
        let (first, last) = (place(window.start), place(window.end));
        self.probes.get(first..last).unwrap_or_default()
    }

    /// Number of probes sent in a window.
    pub(super) fn probes(&self, window: &Range<At>) -> usize {
        self.within(window).len()
    }

    /// Number of lost probes that belong to a window. The window must have ended [`LOST_AFTER`]
    /// ago, or probes in flight count as lost.
    pub(super) fn lost(&self, window: &Range<At>) -> usize {
        self.losses(window).count()
    }

    /// Sending times of the lost probes of a window.
    pub(super) fn losses(&self, window: &Range<At>) -> impl Iterator<Item = At> {
        let lost = self.within(&early(window)).iter();
        lost.filter(|probe| probe.is_lost()).map(|probe| probe.sent)
    }

    /// Time until traffic flows again after a fault at the window's start; `None` when it does not
    /// within the window.
    pub(super) fn recovery(&self, window: &Range<At>) -> Option<Duration> {
        let mut flows_since = None;
        let mut interrupted = true;
        for probe in self.within(&early(window)) {
            if probe.is_lost() {
                interrupted = true;
                continue;
            }
            let after_fault = interrupted && probe.sent >= window.start;
            let held_up = probe.is_late() && probe.back >= Some(window.start);
            if after_fault || held_up {
                flows_since = flows_since.max(probe.back);
                interrupted = interrupted && !after_fault;
            }
        }
        let back = flows_since.filter(|_| !interrupted)?;
        Some(back.saturating_sub(window.start))
    }

    /// Longest round trip of the answered probes of a window.
    pub(super) fn longest_round_trip(&self, window: &Range<At>) -> Duration {
        let trips = self.within(window).iter().filter(|it| !it.is_lost());
        let longest = trips.filter_map(|probe| probe.round_trip()).max();
        longest.unwrap_or_default()
    }

    /// Whether traffic flows at `now` and has done so for a while, since `fault` or later.
    pub(super) fn is_flowing(&self, fault: At, now: At) -> bool {
        let until = now.saturating_sub(PATIENCE);
        let since = until.saturating_sub(STEADY);
        let probes = self.within(&(since..until));
        since >= fault && !probes.is_empty() && probes.iter().all(|probe| probe.back.is_some())
    }

    /// Transfers that broke in a window.
    pub(super) fn breaks(&self, window: &Range<At>) -> impl Iterator<Item = &Break> {
        let window = early(window);
        let within = move |broken: &&Break| window.contains(&broken.at);
        self.breaks.iter().filter(within)
    }
}

/// Shifts a window by the time that probes may be in flight.
fn early(window: &Range<At>) -> Range<At> {
    window.start.saturating_sub(IN_FLIGHT)..window.end.saturating_sub(IN_FLIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends a probe every 20 ms from 0 on; `took` gives the round trip for each sending time.
    fn trace(probes: u64, took: impl Fn(u64) -> Option<u64>) -> Trace {
        let mut trace = Trace::default();
        for sent in (0..probes).map(|index| index * 20) {
            let number = trace.sent(ms(sent));
            if let Some(took) = took(sent) {
                trace.echoed(number, ms(sent + took));
            }
        }
        trace
    }

    const WINDOW: Range<At> = Duration::from_millis(1000)..Duration::from_millis(3000);

    #[test]
    fn a_fault_that_costs_nothing_is_over_with_the_first_echo() {
        let trace = trace(200, |_| Some(3));
        assert_eq!(trace.lost(&WINDOW), 0);
        assert_eq!(trace.recovery(&WINDOW), Some(ms(3)));
        let between = ms(1001)..ms(3000);
        assert_eq!(trace.recovery(&between), Some(ms(22)));
    }

    #[test]
    fn traffic_flows_again_with_the_first_echo_after_the_last_loss() {
        // One probe passes after the fault before the fault takes effect.
        let trace = trace(200, |sent| (!(1010..1200).contains(&sent)).then_some(2));
        assert_eq!(trace.lost(&WINDOW), 9);
        assert_eq!(trace.recovery(&WINDOW), Some(ms(202)));
    }

    #[test]
    fn a_second_outage_prolongs_the_first() {
        let lost = |sent| (1000..1100).contains(&sent) || (1500..1600).contains(&sent);
        let trace = trace(200, |sent| (!lost(sent)).then_some(2));
        assert_eq!(trace.recovery(&WINDOW), Some(ms(602)));
    }

    #[test]
    fn delayed_packets_are_not_lost_but_delay_the_recovery() {
        let trace = trace(200, |sent| match sent {
            1000..1300 => Some(1300 - sent),
            _ => Some(2),
        });
        assert_eq!(trace.lost(&WINDOW), 0);
        assert_eq!(trace.recovery(&WINDOW), Some(ms(300)));
        assert_eq!(trace.longest_round_trip(&WINDOW), ms(300));
    }

    #[test]
    fn probes_in_flight_belong_to_the_fault() {
        let window = ms(1005)..ms(3000);
        let trace = trace(200, |sent| (sent != 1000).then_some(2));
        assert_eq!(trace.lost(&window), 1);
        assert_eq!(trace.lost(&(ms(0)..ms(1005))), 0);
        assert_eq!(trace.recovery(&window), Some(ms(17)));
    }

    #[test]
    fn a_client_without_echoes_never_recovers() {
        let dead = trace(200, |sent| (sent < 1000).then_some(2));
        assert_eq!(dead.recovery(&WINDOW), None);
        // Beyond two seconds an echo counts as missing.
        let late = trace(200, |sent| Some(if sent < 1000 { 2 } else { 2001 }));
        assert_eq!(late.recovery(&WINDOW), None);
        assert_eq!(late.lost(&WINDOW), 99);
    }

    #[test]
    fn an_echo_counts_once_and_an_unknown_one_never() {
        let mut trace = trace(2, |_| None);
        trace.echoed(1, ms(25));
        trace.echoed(1, ms(500));
        trace.echoed(7, ms(30));
        assert_eq!(trace.longest_round_trip(&(ms(0)..ms(100))), ms(5));
        assert_eq!(trace.lost(&(ms(0)..ms(100))), 1);
    }

    #[test]
    fn flowing_means_that_all_recent_probes_were_answered() {
        let trace = trace(200, |sent| (!(1000..1300).contains(&sent)).then_some(2));
        assert!(trace.is_flowing(ms(0), ms(1000)));
        assert!(!trace.is_flowing(ms(1000), ms(1500)));
        assert!(!trace.is_flowing(ms(1000), ms(1700)));
        assert!(trace.is_flowing(ms(1000), ms(1901)));
        // No probe was sent for a while.
        assert!(!trace.is_flowing(ms(0), ms(9000)));
    }

    #[test]
    fn a_broken_transfer_belongs_to_the_fault_before_its_next_byte_was_due() {
        let mut trace = Trace::default();
        let at = ms(1500);
        let why = "reset".to_owned();
        trace.broke(Break { at, why });
        assert_eq!(trace.breaks(&WINDOW).count(), 1);
        assert_eq!(trace.breaks(&(ms(3000)..ms(5000))).count(), 0);
    }

    proptest! {
        /// Windows that follow each other assign every loss to exactly one of them.
        #[test]
        fn every_loss_belongs_to_one_window(
            lost in proptest::collection::vec(any::<bool>(), 100),
            mut cuts in proptest::collection::vec(0u64..2100, 1..6),
        ) {
            let trace = trace(100, |sent| {
                let index = usize::try_from(sent / 20).expect("small");
                (!lost[index]).then_some(2)
            });
            cuts.extend([0, 5000]);
            cuts.sort_unstable();
            let windows = cuts.windows(2).map(|cut| ms(cut[0])..ms(cut[1]));
            let shared: usize = windows.map(|window| trace.lost(&window)).sum();
            prop_assert_eq!(shared, lost.iter().filter(|lost| **lost).count());
        }

        /// No probe that was sent after the recovery is lost.
        #[test]
        fn nothing_is_lost_after_the_recovery(
            lost in proptest::collection::vec(any::<bool>(), 100),
        ) {
            let trace = trace(100, |sent| {
                let index = usize::try_from(sent / 20).expect("small");
                (!lost[index]).then_some(2)
            });
            let window = ms(500)..ms(5000);
            match trace.recovery(&window) {
                None => prop_assert!(lost[99]),
                Some(took) => {
                    let after = ms(500) + took + IN_FLIGHT..ms(5000);
                    prop_assert_eq!(trace.lost(&after), 0);
                }
            }
        }
    }
}
