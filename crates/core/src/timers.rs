//! The deadlines of a core, one for each of its timers.
//!
//! The timers of a core are the variants of an enum (or the keys of a small set), each documented
//! with what is due. A search is linear: for tens of timers, not for thousands.

use std::time::Instant;

/// Deadlines by timer; a timer without a deadline is off.
#[derive(Clone, Debug)]
pub struct Timers<T> {
    due: Vec<(T, Instant)>,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self { due: Vec::new() }
    }
}

impl<T: Copy + Ord> Timers<T> {
    /// Sets the deadline of `timer`; returns the one that it replaces.
    pub fn set(&mut self, timer: T, at: Instant) -> Option<Instant> {
        let mut due = self.due.iter_mut();
        match due.find(|(set, _)| *set == timer) {
            Some((_, due)) => Some(std::mem::replace(due, at)),
            None => {
                self.due.push((timer, at));
                None
            }
        }
    }

    /// Turns `timer` off, whether it was set or not.
    pub fn clear(&mut self, timer: T) {
        self.take_if(|set, _| set == timer);
    }

    /// Turns off all timers that `is_kept` refuses.
    pub fn retain(&mut self, is_kept: impl Fn(T) -> bool) {
        self.due.retain(|(timer, _)| is_kept(*timer));
    }

    /// Whether `timer` has a deadline, past or future.
    #[must_use]
    pub fn is_set(&self, timer: T) -> bool {
        self.due.iter().any(|(set, _)| *set == timer)
    }

    /// Turns `timer` off if its deadline has come; returns whether it had.
    pub fn take_expired(&mut self, timer: T, now: Instant) -> bool {
        self.take_if(|set, at| set == timer && at <= now).is_some()
    }

    /// Turns off one timer whose deadline has come, and returns both; the first variant first.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(T, Instant)> {
        let expired = self.due.iter().filter(|(_, at)| *at <= now);
        let first = expired.map(|(timer, _)| *timer).min()?;
        self.take_if(|set, _| set == first)
    }

    /// The earliest deadline.
    #[must_use]
    pub fn earliest(&self) -> Option<Instant> {
        self.due.iter().map(|(_, at)| *at).min()
    }

    fn take_if(&mut self, is_meant: impl Fn(T, Instant) -> bool) -> Option<(T, Instant)> {
        let mut due = self.due.iter();
        let at = due.position(|(timer, at)| is_meant(*timer, *at))?;
        Some(self.due.swap_remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::beginning;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    proptest! {
        /// Compares with a map from timer to deadline.
        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec((0u8..6, 0u8..5, 0u64..20), 0..60)) {
            let start = beginning();
            let (mut timers, mut model) = (Timers::default(), BTreeMap::new());
            for (step, timer, seconds) in steps {
                let at = start + Duration::from_secs(seconds);
                let is_due = |due: &Instant| *due <= at;
                match step {
                    0 | 1 => prop_assert_eq!(timers.set(timer, at), model.insert(timer, at)),
                    2 => {
                        timers.clear(timer);
                        model.remove(&timer);
                    }
                    3 => {
                        let expired = model.get(&timer).is_some_and(is_due);
                        prop_assert_eq!(timers.take_expired(timer, at), expired);
                        model.retain(|other, _| *other != timer || !expired);
                    }
                    4 => {
                        let expired = model.iter().find(|(_, due)| is_due(due));
                        let expired = expired.map(|(timer, due)| (*timer, *due));
                        prop_assert_eq!(timers.pop_expired(at), expired);
                        model.retain(|timer, _| expired.is_none_or(|(it, _)| it != *timer));
                    }
                    _ => {
                        timers.retain(|it| it < timer);
                        model.retain(|it, _| *it < timer);
                    }
                }
                prop_assert_eq!(timers.earliest(), model.values().min().copied());
                prop_assert!((0..5).all(|it| timers.is_set(it) == model.contains_key(&it)));
            }
        }
    }
}
