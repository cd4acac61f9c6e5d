//! Doubly linked lists threaded through a slab: an entry leaves the middle of a list in constant
//! time.
//!
//! The links are beside the entries, not in them, so that a packet, which moves no entry, does not
//! load them into the cache.

pub(super) const NIL: u32 = u32::MAX;

/// The lane of the list by owner: a client, or the free entries.
pub(super) const OWNER: usize = 0;
/// The lane of the list by time: a slot of the wheel, or the remembered flows.
pub(super) const CLOCK: usize = 1;

/// The links of one entry, one pair for each lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    links: [Links; 2],
    /// The tick under which [`CLOCK`] files it.
    pub(super) due: u32,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    previous: u32,
    next: u32,
}

impl Chain {
    pub(super) const LOOSE: Self = Self {
        links: [Links {
            previous: NIL,
            next: NIL,
        }; 2],
        due: 0,
    };
}

/// A queue of entries. An entry is in at most one list of a `LANE` at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<const LANE: usize> {
    head: u32,
    tail: u32,
}

impl<const LANE: usize> List<LANE> {
    pub(super) const EMPTY: Self = Self {
        head: NIL,
        tail: NIL,
    };

    /// The entry that was added first.
    pub(super) fn front(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    /// The entry after one that is in this list.
    pub(super) fn next(chains: &[Chain], at: u32) -> Option<u32> {
        let next = chains[at as usize].links[LANE].next;
        (next != NIL).then_some(next)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == NIL
    }

    pub(super) fn push_back(&mut self, chains: &mut [Chain], at: u32) {
        chains[at as usize].links[LANE] = Links {
            previous: self.tail,
            next: NIL,
        };
        match self.tail {
            NIL => self.head = at,
            tail => chains[tail as usize].links[LANE].next = at,
        }
        self.tail = at;
    }

    /// Removes an entry that is in this list.
    pub(super) fn remove(&mut self, chains: &mut [Chain], at: u32) {
        let Links { previous, next } = chains[at as usize].links[LANE];
        match previous {
            NIL => self.head = next,
            previous => chains[previous as usize].links[LANE].next = next,
        }
        match next {
            NIL => self.tail = previous,
            next => chains[next as usize].links[LANE].previous = previous,
        }
    }

    pub(super) fn pop_front(&mut self, chains: &mut [Chain]) -> Option<u32> {
        let at = self.front()?;
        self.remove(chains, at);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_queue_with_removal_anywhere(
            steps in vec((any::<bool>(), 0u32..8), 0..60),
        ) {
            let mut chains = [Chain::LOOSE; 8];
            let mut list = List::<OWNER>::EMPTY;
            let mut reference: Vec<u32> = Vec::new();
            for (push, at) in steps {
                let present = reference.contains(&at);
                if push && !present {
                    list.push_back(&mut chains, at);
                    reference.push(at);
                } else if !push && present {
                    list.remove(&mut chains, at);
                    reference.retain(|other| *other != at);
                }
                prop_assert_eq!(list.front(), reference.first().copied());
                prop_assert_eq!(list.is_empty(), reference.is_empty());
            }
            let mut drained = Vec::new();
            while let Some(at) = list.pop_front(&mut chains) {
                drained.push(at);
            }
            prop_assert_eq!(drained, reference);
        }
    }
}
