//! What one client's traffic went through, and what can be told from it.
//!
//! Pure: the meters write a trace, this module reads it. All times are counted from the start of
//! the meters. How the figures are defined:
//!
//! * A probe is *lost* when no echo of it came within [`LOST_AFTER`]; it is *late* when its echo
//!   took longer than [`LATE_AFTER`].
//! * *Time until traffic flows again*, after a fault at t: the arrival of the echo of the first
//!   probe that was sent at or after t and after the last probe that the fault cost or delayed,
//!   minus t. So it is never less than one round trip, and its resolution is the distance of two
//!   probes. A late probe counts with its own arrival. What happens later, up to the next fault,
//!   counts too: a second outage prolongs the first.
//! * A lost probe belongs to the last fault before it; one that was sent up to [`IN_FLIGHT`] before
//!   the fault was on its way and belongs to it too. So do broken transfers, by the moment when
//!   their next byte was due.

use std::ops::Range;
use std::time::Duration;

/// A moment, counted from the start of the meters.
pub(super) type At = Duration;

/// A probe without an echo for so long is lost.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(2);
/// An echo that takes longer was held up. Far above a round trip on a busy machine, and below every
/// aim.
const LATE_AFTER: Duration = Duration::from_millis(100);
/// How long before a fault a probe may have been sent that meets it on its way.
const IN_FLIGHT: Duration = Duration::from_millis(20);
/// How long traffic has to flow before it is taken for flowing while a run goes on.
const STEADY: Duration = Duration::from_millis(400);
/// How long a probe is given before its missing echo means anything while a run goes on.
const PATIENCE: Duration = Duration::from_millis(200);

/// One probe of the UDP echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    sent: At,
    /// When its first echo came.
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

/// A transfer that did not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Break {
    /// When its next byte was due.
    pub(super) at: At,
    /// In words.
    pub(super) why: String,
}

/// Everything that one client's meters saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    /// In the order of sending.
    probes: Vec<Probe>,
    breaks: Vec<Break>,
    transferred: u64,
}

impl Trace {
    /// A probe goes out; its number goes with it.
    pub(super) fn sent(&mut self, at: At) -> u64 {
        self.probes.push(Probe {
            sent: at,
            back: None,
        });
        self.probes.len() as u64 - 1
    }

    /// An echo has come. Later echoes of the same probe, and numbers of no probe, change nothing.
    pub(super) fn came_back(&mut self, number: u64, at: At) {
        let probe = usize::try_from(number)
            .ok()
            .and_then(|index| self.probes.get_mut(index));
        if let Some(probe) = probe {
            probe.back.get_or_insert(at);
        }
    }

    /// Bytes of a transfer have come, all of them right.
    pub(super) fn transferred(&mut self, bytes: u64) {
        self.transferred += bytes;
    }

    /// A transfer broke.
    pub(super) fn broke(&mut self, broken: Break) {
        self.breaks.push(broken);
    }

    /// All bytes of all transfers so far.
    pub(super) fn bytes(&self) -> u64 {
        self.transferred
    }

    /// The probes sent in a window.
    fn within(&self, window: &Range<At>) -> &[Probe] {
        let place = |at: At| self.probes.partition_point(|probe| probe.sent < at);
        let (first, last) = (place(window.start), place(window.end));
        self.probes.get(first..last).unwrap_or_default()
    }

    /// How many probes were sent.
    pub(super) fn probes(&self, window: &Range<At>) -> usize {
        self.within(window).len()
    }

    /// How many probes that belong to a window are lost. The window has to have ended
    /// [`LOST_AFTER`] ago, or probes that are on their way count.
    pub(super) fn lost(&self, window: &Range<At>) -> usize {
        self.losses(window).count()
    }

    /// When the lost probes of a window were sent.
    pub(super) fn losses(&self, window: &Range<At>) -> impl Iterator<Item = At> {
        let lost = self.within(&early(window)).iter();
        lost.filter(|probe| probe.is_lost()).map(|probe| probe.sent)
    }

    /// Time until traffic flows again after a fault at the window's start; `None` when it did not
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

    /// The longest round trip of the probes of a window that came back.
    pub(super) fn longest_round_trip(&self, window: &Range<At>) -> Duration {
        let trips = self.within(window).iter().filter(|it| !it.is_lost());
        let longest = trips.filter_map(|probe| probe.round_trip()).max();
        longest.unwrap_or_default()
    }

    /// Whether traffic flows `now` and has done so for a while, since `fault` or later.
    pub(super) fn is_flowing(&self, fault: At, now: At) -> bool {
        let until = now.saturating_sub(PATIENCE);
        let since = until.saturating_sub(STEADY);
        let probes = self.within(&(since..until));
        since >= fault && !probes.is_empty() && probes.iter().all(|probe| probe.back.is_some())
    }

    /// The transfers that broke in a window.
    pub(super) fn breaks(&self, window: &Range<At>) -> impl Iterator<Item = &Break> {
        let window = early(window);
        let within = move |broken: &&Break| window.contains(&broken.at);
        self.breaks.iter().filter(within)
    }
}

/// A window that begins and ends earlier by what was on its way.
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

    /// A probe every 20 ms from 0 on, answered after what `took` says of its time of sending.
    fn trace(probes: u64, took: impl Fn(u64) -> Option<u64>) -> Trace {
        let mut trace = Trace::default();
        for sent in (0..probes).map(|index| index * 20) {
            let number = trace.sent(ms(sent));
            if let Some(took) = took(sent) {
                trace.came_back(number, ms(sent + took));
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
        // One passes after the fault before the fault takes effect.
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
    fn packets_that_were_held_up_are_not_lost_but_delay_the_recovery() {
        let trace = trace(200, |sent| match sent {
            1000..1300 => Some(1300 - sent),
            _ => Some(2),
        });
        assert_eq!(trace.lost(&WINDOW), 0);
        assert_eq!(trace.recovery(&WINDOW), Some(ms(300)));
        assert_eq!(trace.longest_round_trip(&WINDOW), ms(300));
    }

    #[test]
    fn what_was_on_its_way_when_the_fault_came_belongs_to_it() {
        let window = ms(1005)..ms(3000);
        let trace = trace(200, |sent| (sent != 1000).then_some(2));
        assert_eq!(trace.lost(&window), 1);
        assert_eq!(trace.lost(&(ms(0)..ms(1005))), 0);
        assert_eq!(trace.recovery(&window), Some(ms(17)));
    }

    #[test]
    fn what_never_comes_back_never_recovers() {
        let dead = trace(200, |sent| (sent < 1000).then_some(2));
        assert_eq!(dead.recovery(&WINDOW), None);
        // Beyond two seconds an echo is as good as none.
        let late = trace(200, |sent| Some(if sent < 1000 { 2 } else { 2001 }));
        assert_eq!(late.recovery(&WINDOW), None);
        assert_eq!(late.lost(&WINDOW), 99);
    }

    #[test]
    fn an_echo_counts_once_and_a_foreign_one_not_at_all() {
        let mut trace = trace(2, |_| None);
        trace.came_back(1, ms(25));
        trace.came_back(1, ms(500));
        trace.came_back(7, ms(30));
        assert_eq!(trace.longest_round_trip(&(ms(0)..ms(100))), ms(5));
        assert_eq!(trace.lost(&(ms(0)..ms(100))), 1);
    }

    #[test]
    fn flowing_means_that_all_recent_probes_came_back() {
        let trace = trace(200, |sent| (!(1000..1300).contains(&sent)).then_some(2));
        assert!(trace.is_flowing(ms(0), ms(1000)));
        assert!(!trace.is_flowing(ms(1000), ms(1500)));
        assert!(!trace.is_flowing(ms(1000), ms(1700)));
        assert!(trace.is_flowing(ms(1000), ms(1901)));
        // Nothing has been sent for a while.
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
        /// Windows that follow each other share out every loss, none twice.
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
