//! The choice of a flow's outside port.
//!
//! A bounded number of tries and no scan: the cost does not depend on how many ports are taken
//! (docs/lessons.md 15).

use super::key::{FlowProtocol, Inside};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::iter;

/// The state of an outside tuple.
pub(super) enum TupleState {
    Free,
    /// Remembered of an ended flow with this inside key.
    Remembered(Inside),
    Live,
}

/// Proposes ports in an unpredictable order.
pub(super) struct Ports {
    random: ChaCha8Rng,
}

impl Ports {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self {
            random: ChaCha8Rng::from_seed(seed),
        }
    }

    pub(super) fn random_u64(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// A port for `inside`: `former` if given, else its own, else any free one.
    ///
    /// A remembered tuple of another flow is avoided, so that late answers to that flow do not
    /// reach this one; but it is used if the first [`FRESH_TRIES`] found no free port.
    pub(super) fn choose(
        &mut self,
        inside: &Inside,
        former: Option<u16>,
        state_of: impl Fn(u16) -> TupleState,
    ) -> Option<u16> {
        let protocol = inside.protocol;
        let random = iter::repeat_with(|| self.any_port(protocol)).take(RANDOM_TRIES);
        let tries = former.into_iter().chain([inside.port]).chain(random);
        let mut second_best = None;
        for (count, port) in tries.enumerate() {
            if count >= FRESH_TRIES && second_best.is_some() {
                break;
            }
            if port == 0 && protocol != FlowProtocol::Echo {
                continue;
            }
            match state_of(port) {
                TupleState::Free => return Some(port),
                TupleState::Remembered(other) if other == *inside => return Some(port),
                TupleState::Remembered(_) => second_best = second_best.or(Some(port)),
                TupleState::Live => {}
            }
        }
        second_best
    }

    fn any_port(&mut self, protocol: FlowProtocol) -> u16 {
        let first = match protocol {
            FlowProtocol::Tcp | FlowProtocol::Udp => FIRST_FREE_PORT,
            FlowProtocol::Echo => 0,
        };
        scale(self.random.next_u32(), first)
    }
}

/// Scales 32 random bits evenly to `first..=65535`.
fn scale(random: u32, first: u16) -> u16 {
    let ports = u64::from(u16::MAX - first) + 1;
    let offset = u16::try_from((u64::from(random) * ports) >> 32).unwrap_or(0);
    first.saturating_add(offset)
}

/// At least half of the ports are free, see `FlowLimits::FLOWS_PER_CLIENT_MAX`, so all tries fail
/// once in four billion times.
const RANDOM_TRIES: usize = 32;
/// Number of tries for a port without a remembered flow.
const FRESH_TRIES: usize = 8;
/// Below are the system ports (RFC 6335, 6), which services may treat differently.
const FIRST_FREE_PORT: u16 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat_table::ClientSlot;

    /// docs/lessons.md 15: Port search works at the edges and when the table is full.
    #[test]
    fn random_ports_stay_within_both_edges() {
        assert_eq!(scale(0, FIRST_FREE_PORT), 1024);
        assert_eq!(scale(u32::MAX, FIRST_FREE_PORT), 65535);
        assert_eq!(scale(0, 0), 0);
        assert_eq!(scale(u32::MAX, 0), 65535);
    }

    fn inside(protocol: FlowProtocol, port: u16) -> Inside {
        Inside {
            client: ClientSlot(1),
            protocol,
            port,
            proxy: [100, 96, 0, 1].into(),
        }
    }

    /// docs/lessons.md 15: Port search works at the edges and when the table is full.
    #[test]
    fn gives_up_after_a_bounded_number_of_tries() {
        let tries = std::cell::Cell::new(0);
        let all_taken = |_| {
            tries.set(tries.get() + 1);
            TupleState::Live
        };
        let mut ports = Ports::new([0; 32]);
        let inside = inside(FlowProtocol::Tcp, 65535);
        assert_eq!(ports.choose(&inside, Some(65535), all_taken), None);
        assert_eq!(tries.get(), RANDOM_TRIES + 2);
    }

    #[test]
    fn prefers_the_clients_port_even_a_system_port_but_never_zero() {
        let mut ports = Ports::new([0; 32]);
        let free = |_| TupleState::Free;
        let mut choose = |protocol, port| ports.choose(&inside(protocol, port), None, free);
        assert_eq!(choose(FlowProtocol::Udp, 123), Some(123));
        assert_eq!(choose(FlowProtocol::Echo, 0), Some(0));
        assert!(choose(FlowProtocol::Udp, 0).is_some_and(|port| port >= 1024));
    }

    #[test]
    fn takes_a_remembered_tuple_only_if_none_is_free() {
        let mut ports = Ports::new([0; 32]);
        let (mine, other) = (
            inside(FlowProtocol::Tcp, 5000),
            inside(FlowProtocol::Tcp, 1),
        );
        let left = |by: Inside| {
            move |port| match port {
                5000 => TupleState::Remembered(by),
                _ => TupleState::Free,
            }
        };
        assert_eq!(ports.choose(&mine, None, left(mine)), Some(5000));
        assert_ne!(ports.choose(&mine, None, left(other)), Some(5000));
        let crowded = |port| match port {
            5000 => TupleState::Remembered(other),
            _ => TupleState::Live,
        };
        assert_eq!(ports.choose(&mine, None, crowded), Some(5000));
    }
}
