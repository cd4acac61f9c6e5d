//! Tests of the watchdog in virtual time.

use super::watchdog::{WatchPace, Watchdog, WatchdogEvent};
use crate::testing::beginning;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PACE: WatchPace = WatchPace {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(2),
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn events(watchdog: &mut Watchdog<u32>) -> Vec<WatchdogEvent<u32>> {
    std::iter::from_fn(|| watchdog.poll_event()).collect()
}

/// Calls the watchdog at every deadline up to `until`; returns the events with their times.
fn run(watchdog: &mut Watchdog<u32>, until: Instant) -> Vec<(Instant, WatchdogEvent<u32>)> {
    let mut seen = Vec::new();
    while let Some(due) = watchdog.poll_timeout().filter(|due| *due <= until) {
        watchdog.handle_timeout(due);
        seen.extend(events(watchdog).into_iter().map(|event| (due, event)));
    }
    seen
}

#[test]
fn a_child_that_answers_is_pinged_once_per_interval() {
    let (start, mut watchdog) = (beginning(), Watchdog::new());
    watchdog.watch(1, PACE, start);
    for second in 1..10 {
        let at = start + ms(1000 * second);
        assert_eq!(watchdog.poll_timeout(), Some(at));
        watchdog.handle_timeout(at);
        assert_eq!(events(&mut watchdog), [WatchdogEvent::Ping(1)]);
        watchdog.handle_pong(1, at + ms(700));
        assert_eq!(events(&mut watchdog), []);
    }
}

#[test]
fn a_child_that_does_not_answer_is_hung_after_its_timeout() {
    let (start, mut watchdog) = (beginning(), Watchdog::new());
    watchdog.watch(1, PACE, start);
    let asked = (start + ms(1000), WatchdogEvent::Ping(1));
    let hung = (start + ms(3000), WatchdogEvent::Hung(1));
    assert_eq!(run(&mut watchdog, start + ms(60_000)), [asked, hung]);
    assert_eq!(watchdog.poll_timeout(), None, "it is no longer watched");
    watchdog.handle_pong(1, start + ms(60_000));
    watchdog.watch(1, PACE, start + ms(60_000));
    assert!(
        watchdog.poll_timeout().is_some(),
        "until it is watched again"
    );
}

#[test]
fn an_answer_just_before_the_timeout_counts() {
    let (start, mut watchdog) = (beginning(), Watchdog::new());
    watchdog.watch(1, PACE, start);
    run(&mut watchdog, start + ms(2999));
    watchdog.handle_pong(1, start + ms(2999));
    assert_eq!(run(&mut watchdog, start + ms(2999)), []);
    assert_eq!(watchdog.poll_timeout(), Some(start + ms(3000)));
    let asked = (start + ms(3000), WatchdogEvent::Ping(1));
    assert_eq!(run(&mut watchdog, start + ms(3000)), [asked]);
}

#[test]
fn a_suspended_machine_causes_no_replacement() {
    let (start, mut watchdog) = (beginning(), Watchdog::new());
    for child in 0..100 {
        watchdog.watch(child, PACE, start);
    }
    run(&mut watchdog, start + ms(1000));
    let woken = start + ms(3_600_000);
    watchdog.handle_timeout(woken);
    assert_eq!(events(&mut watchdog), []);
    // None of the answers was delivered before; now all of them are.
    for child in 0..100 {
        watchdog.handle_pong(child, woken + ms(100));
    }
    let seen = run(&mut watchdog, woken + ms(1000));
    assert!(
        seen.iter()
            .all(|(_, event)| matches!(event, WatchdogEvent::Ping(_)))
    );
}

#[test]
fn a_late_check_of_one_child_restarts_the_timeout_of_all() {
    let (start, mut watchdog) = (beginning(), Watchdog::new());
    watchdog.watch(1, PACE, start);
    run(&mut watchdog, start + ms(2000));
    // Child 1 owes an answer since second 1, and was checked in time; child 2 was not.
    watchdog.watch(2, PACE, start + ms(2000));
    let late = start + ms(2999);
    assert!(
        watchdog
            .poll_timeout()
            .is_some_and(|due| late - due > ms(500))
    );
    watchdog.handle_timeout(late);
    assert_eq!(events(&mut watchdog), [WatchdogEvent::Ping(2)]);
    let seen = run(&mut watchdog, start + ms(10_000));
    assert_eq!(seen[0], (late + ms(2000), WatchdogEvent::Hung(1)));
}

#[test]
fn a_supervisor_that_is_always_late_causes_no_replacement() {
    let (start, mut watchdog) = (beginning(), Watchdog::new());
    watchdog.watch(1, PACE, start);
    for round in 1..100 {
        watchdog.handle_timeout(start + ms(1600) * round);
        let hung = events(&mut watchdog).contains(&WatchdogEvent::Hung(1));
        assert!(!hung, "round {round}");
    }
}

#[test]
fn children_added_together_are_pinged_one_after_another() {
    let (start, mut watchdog) = (beginning(), Watchdog::new());
    for child in 0..10_000 {
        watchdog.watch(child, PACE, start);
    }
    let asked = run(&mut watchdog, start + PACE.interval);
    assert_eq!(asked.len(), 10_000);
    let mut in_each_10ms = BTreeMap::<u128, usize>::new();
    for (at, _) in asked {
        *in_each_10ms
            .entry((at - start).as_millis() / 10)
            .or_default() += 1;
    }
    assert!(
        in_each_10ms.values().all(|asked| *asked <= 105),
        "{in_each_10ms:?}"
    );
}

#[test]
fn many_children_are_pinged_in_groups_and_each_within_its_share_of_the_time() {
    let (start, mut watchdog) = (beginning(), Watchdog::new());
    for child in 0..10_000 {
        watchdog.watch(child, PACE, start);
    }
    let mut asked = BTreeMap::<Instant, usize>::new();
    let end = start + ms(200_000);
    while let Some(due) = watchdog.poll_timeout().filter(|due| *due <= end) {
        watchdog.handle_timeout(due);
        for event in events(&mut watchdog) {
            let WatchdogEvent::Ping(child) = event else {
                panic!("{event:?}");
            };
            *asked.entry(due).or_default() += 1;
            watchdog.handle_pong(child, due + ms(1));
        }
    }
    // The first round follows the order of addition; the others take 50 s each.
    let later: Vec<_> = asked.range(start + ms(40_000)..).collect();
    assert!(later.len() <= 1600, "{} groups in 160 s", later.len());
    assert!(later.iter().all(|(_, count)| **count <= 1100), "{later:?}");
    let questions: usize = later.iter().map(|(_, count)| **count).sum();
    assert!((30_000..=40_000).contains(&questions), "{questions}");
}

#[test]
fn a_forgotten_child_is_neither_pinged_nor_hung() {
    let (start, mut watchdog) = (beginning(), Watchdog::new());
    watchdog.watch(1, PACE, start);
    watchdog.handle_timeout(start + ms(1000));
    watchdog.forget(1);
    assert_eq!(
        (events(&mut watchdog), watchdog.poll_timeout()),
        (vec![], None)
    );
}

#[test]
fn a_timeout_of_zero_causes_no_endless_loop() {
    let (start, mut watchdog) = (beginning(), Watchdog::new());
    let pace = WatchPace {
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
    };
    watchdog.watch(1, pace, start);
    let asked = (start, WatchdogEvent::Ping(1));
    let hung = (start + ms(2), WatchdogEvent::Hung(1));
    assert_eq!(run(&mut watchdog, start + ms(10)), [asked, hung]);
}

/// One random input: run, delay the supervisor, forget or add a child.
#[derive(Clone, Copy, Debug)]
enum Step {
    Run(u64),
    Stall(u64),
    Forget(u32),
    Watch(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u64..3000).prop_map(Step::Run),
        2 => (0_u64..20_000).prop_map(Step::Stall),
        1 => (0_u32..8).prop_map(Step::Forget),
        1 => (0_u32..8).prop_map(Step::Watch),
    ]
}

/// Children of even numbers answer within 400 ms while the supervisor runs; those of odd numbers
/// never do.
struct Simulation {
    watchdog: Watchdog<u32>,
    now: Instant,
    /// Answers on their way, by arrival.
    answers: Vec<(Instant, u32)>,
    asked: BTreeMap<u32, Instant>,
    hung: Vec<u32>,
}

impl Simulation {
    fn advance(&mut self, until: Instant) -> Result<(), TestCaseError> {
        loop {
            let due = self.watchdog.poll_timeout();
            let answer = self.answers.iter().min().copied();
            let next = [due, answer.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return Ok(());
            };
            self.now = self.now.max(next);
            match answer.filter(|(at, _)| *at == next) {
                Some(answer) => {
                    self.answers.retain(|other| *other != answer);
                    self.watchdog.handle_pong(answer.1, self.now);
                    self.asked.remove(&answer.1);
                }
                None => self.watchdog.handle_timeout(self.now),
            }
            self.drain()?;
        }
    }

    fn stall(&mut self, until: Instant) -> Result<(), TestCaseError> {
        self.now = until;
        // The timer first, which is the harder order: the answers have arrived, but are unread.
        self.watchdog.handle_timeout(until);
        self.drain()?;
        self.advance(until)
    }

    fn drain(&mut self) -> Result<(), TestCaseError> {
        while let Some(event) = self.watchdog.poll_event() {
            match event {
                WatchdogEvent::Ping(child) => {
                    let former = self.asked.insert(child, self.now);
                    prop_assert_eq!(former, None, "one question at a time");
                    if child.is_multiple_of(2) {
                        self.answers.push((self.now + ms(400), child));
                    }
                }
                WatchdogEvent::Hung(child) => {
                    prop_assert!(!child.is_multiple_of(2), "child {} answers", child);
                    let asked = self.asked.remove(&child).expect("it was asked");
                    prop_assert!(self.now - asked >= PACE.timeout);
                    self.hung.push(child);
                    self.watchdog.watch(child, PACE, self.now);
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self, child: u32) {
        self.watchdog.forget(child);
        self.asked.remove(&child);
        self.answers.retain(|(_, other)| *other != child);
    }
}

proptest! {
    #[test]
    fn only_children_that_never_answer_are_hung(steps in prop::collection::vec(step(), 1..60)) {
        let start = beginning();
        let mut simulation = Simulation {
            watchdog: Watchdog::new(),
            now: start,
            answers: Vec::new(),
            asked: BTreeMap::new(),
            hung: Vec::new(),
        };
        for child in 0..8 {
            simulation.watchdog.watch(child, PACE, start);
        }
        for step in steps {
            match step {
                Step::Run(millis) => simulation.advance(simulation.now + ms(millis))?,
                Step::Stall(millis) => simulation.stall(simulation.now + ms(millis))?,
                Step::Forget(child) => simulation.forget(child),
                Step::Watch(child) => {
                    simulation.forget(child);
                    simulation.watchdog.watch(child, PACE, simulation.now);
                }
            }
        }
        // Undisturbed, it finds a stuck child within an interval and its timeout.
        simulation.watchdog.watch(9, PACE, simulation.now);
        simulation.advance(simulation.now + PACE.interval + PACE.timeout + ms(1))?;
        prop_assert!(simulation.hung.contains(&9));
    }
}

#[test]
fn many_children_are_pinged_less_often_but_none_is_omitted() {
    let (start, mut watchdog) = (beginning(), Watchdog::new());
    for child in 0..2000 {
        watchdog.watch(child, PACE, start);
    }
    let mut asked: BTreeMap<u32, u32> = BTreeMap::new();
    let mut last_minute = 0;
    let end = start + ms(120_000);
    while let Some(due) = watchdog.poll_timeout().filter(|due| *due <= end) {
        watchdog.handle_timeout(due);
        for event in events(&mut watchdog) {
            let WatchdogEvent::Ping(child) = event else {
                panic!("{event:?} of a child that always answers");
            };
            *asked.entry(child).or_default() += 1;
            last_minute += u32::from(due > start + ms(60_000));
            watchdog.handle_pong(child, due);
        }
    }
    assert!((0..2000).all(|child| asked.get(&child).is_some_and(|times| *times >= 10)));
    assert!((10_000..=13_000).contains(&last_minute), "{last_minute}");
}
