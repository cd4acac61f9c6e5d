//! Packets that wait for the address of their name.

use crate::names::AddressFamily;
use std::collections::VecDeque;
use std::time::Instant;

/// The packets held for one mapping, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct HeldPackets {
    packets: VecDeque<Held>,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    family: AddressFamily,
    until: Instant,
}

impl HeldPackets {
    /// Stores a copy. The caller enforces the limits and passes an `until` that never decreases.
    pub(super) fn push(&mut self, packet: &[u8], family: AddressFamily, until: Instant) {
        self.bytes += packet.len();
        let bytes = packet.to_vec();
        self.packets.push_back(Held {
            bytes,
            family,
            until,
        });
    }

    /// Removes and returns the packets of a family.
    pub(super) fn take(&mut self, family: AddressFamily) -> Vec<Vec<u8>> {
        if self.packets.iter().all(|held| held.family != family) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.packets);
        let (taken, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.family == family);
        self.packets = kept.into();
        self.bytes = self.packets.iter().map(|held| held.bytes.len()).sum();
        taken.into_iter().map(|held| held.bytes).collect()
    }

    /// Removes and returns the oldest packet if its time is over.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<Vec<u8>> {
        let held = self.packets.pop_front_if(|held| held.until <= now)?;
        self.bytes -= held.bytes.len();
        Some(held.bytes)
    }

    /// When the time of the oldest packet is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.packets.front().map(|held| held.until)
    }

    pub(super) fn packets(&self) -> usize {
        self.packets.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
