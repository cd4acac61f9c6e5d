//! A timer wheel: entries filed by the tick at which they are due.
//!
//! It knows no flows. Filing, removing and advancing cost the same for any number of entries. An
//! entry whose deadline moved later stays in its slot and is filed again when that slot is due, so
//! a packet that prolongs a flow does not touch the wheel.

use super::list::{CLOCK, Chain, List};
use std::iter;

/// One slot per tick; [`Wheel::REACH_TICKS`] of them are ahead at any time.
pub(super) struct Wheel {
    slots: Box<[List<CLOCK>]>,
    /// One bit for each slot that is not empty.
    occupied: [u64; WORDS],
    /// Everything filed at or before this tick has been removed.
    position: u32,
}

impl Wheel {
    /// The greatest distance from the last advance at which an entry can be filed.
    #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
    pub(super) const REACH_TICKS: u32 = SLOTS as u32 - 1;

    pub(super) fn new() -> Self {
        Self {
            slots: vec![List::EMPTY; SLOTS].into_boxed_slice(),
            occupied: [0; WORDS],
            position: 0,
        }
    }

    /// Files `at` under `due`, or the nearest tick within reach.
    pub(super) fn file(&mut self, chains: &mut [Chain], at: u32, due: u32) {
        let due = due.clamp(self.position + 1, self.position + Self::REACH_TICKS);
        chains[at as usize].due = due;
        let slot = slot_of(due);
        self.slots[slot].push_back(chains, at);
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    /// Removes `at`, which is filed.
    pub(super) fn take(&mut self, chains: &mut [Chain], at: u32) {
        let slot = slot_of(chains[at as usize].due);
        self.slots[slot].remove(chains, at);
        if self.slots[slot].is_empty() {
            self.occupied[slot / 64] &= !(1 << (slot % 64));
        }
    }

    /// Removes an entry that is due at `now` or before, earliest first; `None` when there are no
    /// more, and only then is the wheel at `now`.
    pub(super) fn pop_due(&mut self, chains: &mut [Chain], now: u32) -> Option<u32> {
        match self.next_due() {
            Some(due) if due <= now => {
                self.position = due - 1;
                let at = self.slots[slot_of(due)].front()?;
                self.take(chains, at);
                Some(at)
            }
            Some(_) | None => {
                self.position = self.position.max(now);
                None
            }
        }
    }

    /// The earliest tick with an entry.
    pub(super) fn next_due(&self) -> Option<u32> {
        let first = slot_of(self.position + 1);
        let later_bits = self.occupied[first / 64] & (u64::MAX << (first % 64));
        // The first word is visited again at the end, for its bits below `first`.
        let words = (1..=WORDS).map(|step| (first / 64 + step) % WORDS);
        let (word, bits) = iter::once((first / 64, later_bits))
            .chain(words.map(|word| (word, self.occupied[word])))
            .find(|(_, bits)| *bits != 0)?;
        let slot = word * 64 + bits.trailing_zeros() as usize;
        let ahead = u32::try_from((slot + SLOTS - first) % SLOTS).ok()?;
        Some(self.position + 1 + ahead)
    }

    /// Bytes on the heap, as reserved.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }
}

fn slot_of(tick: u32) -> usize {
    tick as usize % SLOTS
}

/// A power of two above the longest lifetime of a flow in ticks, which is 7441.
const SLOTS: usize = 8192;
const WORDS: usize = SLOTS / 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const ENTRIES: u32 = 12;

    #[derive(Clone, Debug)]
    enum Step {
        File { at: u32, ahead: u32 },
        Take { at: u32 },
        Advance { by: u32 },
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let ahead = prop_oneof![1u32..10, 60u32..70, 1u32..=Wheel::REACH_TICKS];
        prop_oneof![
            3 => (0..ENTRIES, ahead).prop_map(|(at, ahead)| Step::File { at, ahead }),
            1 => (0..ENTRIES).prop_map(|at| Step::Take { at }),
            2 => prop_oneof![0u32..5, 0u32..500, 0u32..30_000].prop_map(|by| Step::Advance { by }),
        ]
    }

    fn pop_all(wheel: &mut Wheel, chains: &mut [Chain], now: u32) -> Vec<(u32, u32)> {
        let pop = || {
            let at = wheel.pop_due(chains, now)?;
            Some((chains[at as usize].due, at))
        };
        iter::from_fn(pop).collect()
    }

    proptest! {
        #[test]
        fn returns_the_same_as_a_sorted_map_of_deadlines(
            steps in vec(any_step(), 0..80),
        ) {
            let mut wheel = Wheel::new();
            let mut chains = [Chain::LOOSE; ENTRIES as usize];
            let mut reference: BTreeMap<u32, u32> = BTreeMap::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::File { at, ahead } => {
                        if reference.insert(at, now + ahead).is_some() {
                            wheel.take(&mut chains, at);
                        }
                        wheel.file(&mut chains, at, now + ahead);
                    }
                    Step::Take { at } => {
                        if reference.remove(&at).is_some() {
                            wheel.take(&mut chains, at);
                        }
                    }
                    Step::Advance { by } => {
                        now += by;
                        let mut popped = pop_all(&mut wheel, &mut chains, now);
                        prop_assert!(popped.is_sorted_by_key(|(due, _)| *due));
                        popped.sort_unstable();
                        let mut due: Vec<_> = reference
                            .iter()
                            .filter(|(_, due)| **due <= now)
                            .map(|(at, due)| (*due, *at))
                            .collect();
                        due.sort_unstable();
                        prop_assert_eq!(popped, due);
                        reference.retain(|_, due| *due > now);
                    }
                }
                prop_assert_eq!(wheel.next_due(), reference.values().min().copied());
            }
        }
    }

    #[test]
    fn returns_entries_filed_during_a_turn_in_the_same_turn() {
        let mut wheel = Wheel::new();
        let mut chains = [Chain::LOOSE; 1];
        wheel.file(&mut chains, 0, 5);
        assert_eq!(wheel.pop_due(&mut chains, 100), Some(0));
        wheel.file(&mut chains, 0, 70);
        assert_eq!(wheel.pop_due(&mut chains, 100), Some(0));
        wheel.file(&mut chains, 0, 101);
        assert_eq!(wheel.pop_due(&mut chains, 100), None);
        assert_eq!(wheel.next_due(), Some(101));
    }

    #[test]
    fn a_deadline_out_of_reach_is_due_at_the_edge() {
        let mut wheel = Wheel::new();
        let mut chains = [Chain::LOOSE; 1];
        wheel.file(&mut chains, 0, u32::MAX);
        assert_eq!(wheel.next_due(), Some(Wheel::REACH_TICKS));
        wheel.take(&mut chains, 0);
        wheel.file(&mut chains, 0, 0);
        assert_eq!(wheel.next_due(), Some(1));
    }
}
