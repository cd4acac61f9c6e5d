//! Which part fails when: every kind as often as every other, taking turns, and none so often that
//! its restart budget is spent.
//!
//! Pure. Refuses to guess how long recoveries take: [`Pacer`] is told when faults really were
//! inflicted.

use super::trace::At;
use postern_lab::playground::injector::{Fault, Kind};
use std::collections::BTreeMap;
use std::time::Duration;

/// The least time between two faults.
const SPACING: Duration = Duration::from_secs(2);
/// The window of all restart budgets, with a margin for clocks that do not quite agree.
const BUDGET_WINDOW: Duration = Duration::from_millis(30_500);
/// Deaths of one kind in the window that end nothing: one fewer than the budget.
const DEATHS_OF_A_KIND: usize = 4;
/// Deaths of one client's connection in the window that do not cut it off.
const DEATHS_OF_A_CLIENT: usize = 2;

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) kind: Kind,
    pub(super) fault: Fault,
    /// Whose connection; `None` for all other kinds.
    pub(super) client: Option<usize>,
}

/// `rounds` faults of every kind, the kinds taking turns and each kind going through `faults` again
/// and again, beginning with different ones. Connections: of one client after the other.
pub(super) fn plan(rounds: usize, clients: usize, faults: &[Fault]) -> Vec<Planned> {
    let mut plan = Vec::new();
    for round in 0..rounds {
        for (turn, kind) in Kind::ALL.into_iter().enumerate() {
            let client = (kind == Kind::Connection).then(|| round % clients.max(1));
            plan.push(Planned {
                kind,
                fault: faults[(round + turn) % faults.len()],
                client,
            });
        }
    }
    plan
}

/// Whose budget a fault is booked on.
type Victim = (Kind, Option<usize>);

/// Keeps every victim within its budget.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    last: Option<At>,
    deaths: BTreeMap<Victim, Vec<At>>,
}

impl Pacer {
    /// The earliest moment for a fault.
    pub(super) fn earliest(&self, planned: Planned) -> At {
        let spaced = self.last.map_or(At::ZERO, |last| last + SPACING);
        let most = match planned.kind {
            Kind::Connection => DEATHS_OF_A_CLIENT,
            Kind::Portal | Kind::Dns | Kind::NatTable | Kind::Tun | Kind::Udp => DEATHS_OF_A_KIND,
        };
        let victim = (planned.kind, planned.client);
        let deaths = self.deaths.get(&victim).map(Vec::as_slice);
        let deaths = deaths.unwrap_or_default();
        // So many of the latest deaths may still be within the window.
        let tolerated = most.saturating_sub(planned.fault.deaths());
        let must_be_over = deaths.len().checked_sub(tolerated + 1);
        let affordable = must_be_over.map_or(At::ZERO, |index| deaths[index] + BUDGET_WINDOW);
        spaced.max(affordable)
    }

    /// A fault was inflicted.
    pub(super) fn inflicted(&mut self, planned: Planned, at: At) {
        self.last = Some(at);
        let deaths = self
            .deaths
            .entry((planned.kind, planned.client))
            .or_default();
        deaths.extend(std::iter::repeat_n(at, planned.fault.deaths()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_fails_equally_often_in_every_way() {
        let plan = plan(20, 20, &Fault::PANICS);
        assert_eq!(plan.len(), 120);
        for kind in Kind::ALL {
            for fault in Fault::PANICS {
                let same = |it: &&Planned| it.kind == kind && it.fault == fault;
                assert_eq!(plan.iter().filter(same).count(), 5, "{kind:?} {fault}");
            }
        }
        assert!(plan.windows(2).all(|pair| pair[0].kind != pair[1].kind));
        let clients: Vec<_> = plan.iter().filter_map(|it| it.client).collect();
        assert_eq!(clients, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_run_takes_no_longer_than_its_spacing() {
        let mut pacer = Pacer::default();
        let mut now = At::ZERO;
        for planned in plan(20, 20, &Fault::PANICS) {
            now = pacer.earliest(planned).max(now);
            pacer.inflicted(planned, now);
        }
        assert_eq!(now, SPACING * 119);
    }

    /// The most deaths of a victim within any window of 30 s.
    fn most_deaths(inflicted: &[(Planned, At)], victim: Victim) -> usize {
        let deaths: Vec<At> = inflicted
            .iter()
            .filter(|(it, _)| (it.kind, it.client) == victim)
            .flat_map(|(it, at)| std::iter::repeat_n(*at, it.fault.deaths()))
            .collect();
        let within = |from: &At| {
            let window = *from..=*from + Duration::from_secs(30);
            deaths.iter().filter(|at| window.contains(at)).count()
        };
        deaths.iter().map(within).max().unwrap_or_default()
    }

    proptest! {
        #[test]
        fn no_budget_is_spent_whatever_the_recoveries_take(
            clients in 1usize..6,
            rounds in 1usize..12,
            delays in proptest::collection::vec(0u64..20_000, 72),
        ) {
            let mut pacer = Pacer::default();
            let mut now = At::ZERO;
            let mut inflicted = Vec::new();
            for (planned, delay) in plan(rounds, clients, &Fault::PANICS).into_iter().zip(delays) {
                now = pacer.earliest(planned).max(now);
                pacer.inflicted(planned, now);
                inflicted.push((planned, now));
                now += Duration::from_millis(delay);
            }
            for (planned, _) in &inflicted {
                let most = most_deaths(&inflicted, (planned.kind, planned.client));
                let budget = if planned.client.is_some() { 3 } else { 5 };
                prop_assert!(most < budget, "{most} deaths of {planned:?}");
            }
        }
    }
}
