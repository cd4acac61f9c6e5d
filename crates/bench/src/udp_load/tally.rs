//! What arrived of a load: how many, and in which order.

/// Counts one load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) received: u64,
    /// After one with a higher number.
    pub(super) reordered: u32,
    highest: Option<u64>,
}

impl Tally {
    pub(super) fn note(&mut self, number: u64) {
        self.received += 1;
        match self.highest {
            Some(highest) if number < highest => {
                self.reordered = self.reordered.saturating_add(1);
            }
            _ => self.highest = Some(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_no_reordering_and_late_ones_are() {
        let mut tally = Tally::default();
        for number in [0, 1, 4, 5, 3, 6, 2] {
            tally.note(number);
        }
        assert_eq!((tally.received, tally.reordered), (7, 2));
    }
}
