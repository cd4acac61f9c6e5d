//! Tests of the watchdog in virtual time.

use super::watchdog::{WatchPace, Watchdog, WatchdogEvent};
use crate::testing::beginning;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PACE: WatchPace = WatchPace {
    interval: Duration::from_secs(1),
    patience: Duration::from_secs(2),
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn events(dog: &mut Watchdog<u32>) -> Vec<WatchdogEvent<u32>> {
    std::iter::from_fn(|| dog.poll_event()).collect()
}

/// Calls at every deadline up to `until` and tells what happened when.
fn run(dog: &mut Watchdog<u32>, until: Instant) -> Vec<(Instant, WatchdogEvent<u32>)> {
    let mut seen = Vec::new();
    while let Some(due) = dog.poll_timeout().filter(|due| *due <= until) {
        dog.handle_timeout(due);
        seen.extend(events(dog).into_iter().map(|event| (due, event)));
    }
    seen
}

#[test]
fn a_child_that_answers_is_asked_once_in_each_interval() {
    let (start, mut dog) = (beginning(), Watchdog::new());
    dog.watch(1, PACE, start);
    for second in 1..10 {
        let at = start + ms(1000 * second);
        assert_eq!(dog.poll_timeout(), Some(at));
        dog.handle_timeout(at);
        assert_eq!(events(&mut dog), [WatchdogEvent::Ping(1)]);
        dog.handle_pong(1, at + ms(700));
        assert_eq!(events(&mut dog), []);
    }
}

#[test]
fn a_child_that_does_not_answer_is_hung_once_its_patience_is_over() {
    let (start, mut dog) = (beginning(), Watchdog::new());
    dog.watch(1, PACE, start);
    let asked = (start + ms(1000), WatchdogEvent::Ping(1));
    let hung = (start + ms(3000), WatchdogEvent::Hung(1));
    assert_eq!(run(&mut dog, start + ms(60_000)), [asked, hung]);
    assert_eq!(dog.poll_timeout(), None, "it is watched no longer");
    dog.handle_pong(1, start + ms(60_000));
    dog.watch(1, PACE, start + ms(60_000));
    assert!(dog.poll_timeout().is_some(), "until it is watched again");
}

#[test]
fn an_answer_in_the_last_moment_counts() {
    let (start, mut dog) = (beginning(), Watchdog::new());
    dog.watch(1, PACE, start);
    run(&mut dog, start + ms(2999));
    dog.handle_pong(1, start + ms(2999));
    assert_eq!(run(&mut dog, start + ms(2999)), []);
    assert_eq!(dog.poll_timeout(), Some(start + ms(3000)));
    let asked = (start + ms(3000), WatchdogEvent::Ping(1));
    assert_eq!(run(&mut dog, start + ms(3000)), [asked]);
}

#[test]
fn a_suspended_machine_replaces_nobody() {
    let (start, mut dog) = (beginning(), Watchdog::new());
    for child in 0..100 {
        dog.watch(child, PACE, start);
    }
    run(&mut dog, start + ms(1000));
    let woken = start + ms(3_600_000);
    dog.handle_timeout(woken);
    assert_eq!(events(&mut dog), []);
    // None of the answers was delivered before; now all are.
    for child in 0..100 {
        dog.handle_pong(child, woken + ms(100));
    }
    let seen = run(&mut dog, woken + ms(1000));
    assert!(
        seen.iter()
            .all(|(_, event)| matches!(event, WatchdogEvent::Ping(_)))
    );
}

#[test]
fn a_late_look_at_one_child_gives_all_their_patience_anew() {
    let (start, mut dog) = (beginning(), Watchdog::new());
    dog.watch(1, PACE, start);
    run(&mut dog, start + ms(2000));
    // Child 1 owes an answer since second 1, and was looked at in time; child 2 was not.
    dog.watch(2, PACE, start + ms(2000));
    let late = start + ms(2999);
    assert!(dog.poll_timeout().is_some_and(|due| late - due > ms(500)));
    dog.handle_timeout(late);
    assert_eq!(events(&mut dog), [WatchdogEvent::Ping(2)]);
    let seen = run(&mut dog, start + ms(10_000));
    assert_eq!(seen[0], (late + ms(2000), WatchdogEvent::Hung(1)));
}

#[test]
fn a_supervisor_that_is_always_late_replaces_nobody() {
    let (start, mut dog) = (beginning(), Watchdog::new());
    dog.watch(1, PACE, start);
    for round in 1..100 {
        dog.handle_timeout(start + ms(1600) * round);
        let hung = events(&mut dog).contains(&WatchdogEvent::Hung(1));
        assert!(!hung, "round {round}");
    }
}

#[test]
fn children_that_come_together_are_asked_one_after_another() {
    let (start, mut dog) = (beginning(), Watchdog::new());
    for child in 0..10_000 {
        dog.watch(child, PACE, start);
    }
    let asked = run(&mut dog, start + PACE.interval);
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
fn a_crowd_is_asked_in_groups_and_each_of_it_in_its_share_of_the_time() {
    let (start, mut dog) = (beginning(), Watchdog::new());
    for child in 0..10_000 {
        dog.watch(child, PACE, start);
    }
    let mut asked = BTreeMap::<Instant, usize>::new();
    let end = start + ms(200_000);
    while let Some(due) = dog.poll_timeout().filter(|due| *due <= end) {
        dog.handle_timeout(due);
        for event in events(&mut dog) {
            let WatchdogEvent::Ping(child) = event else {
                panic!("{event:?}");
            };
            *asked.entry(due).or_default() += 1;
            dog.handle_pong(child, due + ms(1));
        }
    }
    // The first round comes as they came; the others take 50 s each.
    let later: Vec<_> = asked.range(start + ms(40_000)..).collect();
    assert!(later.len() <= 1600, "{} groups in 160 s", later.len());
    assert!(later.iter().all(|(_, count)| **count <= 1100), "{later:?}");
    let questions: usize = later.iter().map(|(_, count)| **count).sum();
    assert!((30_000..=40_000).contains(&questions), "{questions}");
}

#[test]
fn who_is_forgotten_is_neither_asked_nor_missed() {
    let (start, mut dog) = (beginning(), Watchdog::new());
    dog.watch(1, PACE, start);
    dog.handle_timeout(start + ms(1000));
    dog.forget(1);
    assert_eq!((events(&mut dog), dog.poll_timeout()), (vec![], None));
}

#[test]
fn no_patience_at_all_is_no_endless_loop() {
    let (start, mut dog) = (beginning(), Watchdog::new());
    let pace = WatchPace {
        interval: Duration::ZERO,
        patience: Duration::ZERO,
    };
    dog.watch(1, pace, start);
    let asked = (start, WatchdogEvent::Ping(1));
    let hung = (start + ms(2), WatchdogEvent::Hung(1));
    assert_eq!(run(&mut dog, start + ms(10)), [asked, hung]);
}

/// What a random world does next: it waits, it stalls, it answers, it forgets.
#[derive(Clone, Copy, Debug)]
enum Act {
    Run(u64),
    Stall(u64),
    Forget(u32),
    Watch(u32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0_u64..3000).prop_map(Act::Run),
        2 => (0_u64..20_000).prop_map(Act::Stall),
        1 => (0_u32..8).prop_map(Act::Forget),
        1 => (0_u32..8).prop_map(Act::Watch),
    ]
}

/// Children of even numbers answer within 400 ms whenever the supervisor runs; those of odd numbers
/// never do.
struct World {
    dog: Watchdog<u32>,
    now: Instant,
    /// When answers arrive.
    answers: Vec<(Instant, u32)>,
    asked: BTreeMap<u32, Instant>,
    hung: Vec<u32>,
}

impl World {
    fn advance(&mut self, until: Instant) -> Result<(), TestCaseError> {
        loop {
            let due = self.dog.poll_timeout();
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
                    self.dog.handle_pong(answer.1, self.now);
                    self.asked.remove(&answer.1);
                }
                None => self.dog.handle_timeout(self.now),
            }
            self.drain()?;
        }
    }

    fn stall(&mut self, until: Instant) -> Result<(), TestCaseError> {
        self.now = until;
        // The timer first, which is the harder order: the answers are there, but unread.
        self.dog.handle_timeout(until);
        self.drain()?;
        self.advance(until)
    }

    fn drain(&mut self) -> Result<(), TestCaseError> {
        while let Some(event) = self.dog.poll_event() {
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
                    prop_assert!(self.now - asked >= PACE.patience);
                    self.hung.push(child);
                    self.dog.watch(child, PACE, self.now);
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self, child: u32) {
        self.dog.forget(child);
        self.asked.remove(&child);
        self.answers.retain(|(_, other)| *other != child);
    }
}

proptest! {
    #[test]
    fn only_who_never_answers_is_hung(acts in prop::collection::vec(act(), 1..60)) {
        let start = beginning();
        let mut world = World {
            dog: Watchdog::new(),
            now: start,
            answers: Vec::new(),
            asked: BTreeMap::new(),
            hung: Vec::new(),
        };
        for child in 0..8 {
            world.dog.watch(child, PACE, start);
        }
        for act in acts {
            match act {
                Act::Run(millis) => world.advance(world.now + ms(millis))?,
                Act::Stall(millis) => world.stall(world.now + ms(millis))?,
                Act::Forget(child) => world.forget(child),
                Act::Watch(child) => {
                    world.forget(child);
                    world.dog.watch(child, PACE, world.now);
                }
            }
        }
        // Left alone, it finds within an interval and its patience whoever is stuck.
        world.dog.watch(9, PACE, world.now);
        world.advance(world.now + PACE.interval + PACE.patience + ms(1))?;
        prop_assert!(world.hung.contains(&9));
    }
}

#[test]
fn a_crowd_is_asked_more_rarely_but_each_is_asked() {
    let (start, mut dog) = (beginning(), Watchdog::new());
    for child in 0..2000 {
        dog.watch(child, PACE, start);
    }
    let mut asked: BTreeMap<u32, u32> = BTreeMap::new();
    let mut last_minute = 0;
    let end = start + ms(120_000);
    while let Some(due) = dog.poll_timeout().filter(|due| *due <= end) {
        dog.handle_timeout(due);
        for event in events(&mut dog) {
            let WatchdogEvent::Ping(child) = event else {
                panic!("{event:?} of one that always answers");
            };
            *asked.entry(child).or_default() += 1;
            last_minute += u32::from(due > start + ms(60_000));
            dog.handle_pong(child, due);
        }
    }
    assert!((0..2000).all(|child| asked.get(&child).is_some_and(|times| *times >= 10)));
    assert!((10_000..=13_000).contains(&last_minute), "{last_minute}");
}
