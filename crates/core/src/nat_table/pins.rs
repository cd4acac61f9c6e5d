//! Flows that a rebuilt table could not recreate by the rule: recorded by the owner, and restored.
//!
//! The rule: a flow has its client's port, and goes to the address of its proxy IP in the order
//! last reported to the owner. Two kinds of flows deviate: those with a port that was taken, and
//! those that were confirmed before the addresses of their name changed (docs/lessons.md 5). Only
//! confirmed flows are pinned; others may move. Echo flows have nothing to lose.
//!
//! None of this runs for every packet: only for the first one that comes back in a flow.

use super::flows::{Binding, FlowProtocol, FlowTarget, Inside, Outside, PinnedFlow};
use super::{ClientSlot, NatTable, NatTableEvent};
use crate::DropReason;
use crate::domains::Domains;
use crate::ids::ClientId;
use crate::names::{AddressFamily, DomainName};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Pins {
    /// The owner's record, at most [`MAX_PINS`]; further flows are not reported.
    reported: BTreeMap<Inside, Pin>,
    /// The clients whose pins the owner has to record again.
    changed: BTreeSet<ClientSlot>,
    /// Pins of each client, at most [`MAX_PINS_OF_CLIENT`].
    counts: BTreeMap<ClientSlot, usize>,
    /// Pins without a packet since the table was built.
    restored: BTreeMap<Inside, Pin>,
    restored_outside: BTreeMap<Outside, Inside>,
    restored_until: Option<Instant>,
    /// When to look for ended flows.
    sweep_at: Option<Instant>,
}

impl Pins {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// The slot is reused. The owner removes the pins with the client.
    pub(super) fn forget(&mut self, client: ClientSlot) {
        self.reported.retain(|inside, _| inside.client != client);
        self.counts.remove(&client);
        self.changed.remove(&client);
        self.restored.retain(|inside, _| inside.client != client);
        (self.restored_outside).retain(|outside, _| outside.client != client);
    }

    /// Returns whether there was room, or a pin with the same key to replace.
    fn note_reported(&mut self, inside: Inside, pin: Pin) -> bool {
        let is_full = self.reported.len() >= MAX_PINS;
        if let Entry::Occupied(mut place) = self.reported.entry(inside) {
            place.insert(pin);
            return true;
        }
        let count = self.counts.entry(inside.client).or_default();
        let has_room = !is_full && *count < MAX_PINS_OF_CLIENT;
        if has_room {
            *count += 1;
            self.reported.insert(inside, pin);
        }
        has_room
    }

    fn forget_reported(&mut self, inside: &Inside) {
        let was_reported = self.reported.remove(inside).is_some();
        if was_reported && let Some(count) = self.counts.get_mut(&inside.client) {
            *count -= 1;
            self.changed.insert(inside.client);
        }
    }

    /// A restored pin is used or void.
    fn settle(&mut self, inside: &Inside) {
        if let Some(pin) = self.restored.remove(inside) {
            self.restored_outside.remove(&pin.outside);
        }
    }
}

/// The outside tuple of a flow, and its name: the proxy IP may get another one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pin {
    outside: Outside,
    name: DomainName,
}

impl NatTable {
    /// Takes over flows of a client from before a rebuild, as recorded by
    /// [`NatTableEvent::PinsChanged`]: the next packet of each, in either direction, finds its
    /// former binding. Ignores pins beyond the limits of 4096 and of 256 for each client.
    pub fn restore_pins(&mut self, client: ClientId, pins: Vec<PinnedFlow>, now: Instant) {
        let Some(slot) = self.clients.slot(client) else {
            return;
        };
        for pin in pins {
            let (inside, outside) = tuples(slot, &pin);
            let is_one_family = pin.proxy.is_ipv4() == pin.real.is_ipv4();
            let name = pin.name;
            let pin = Pin { outside, name };
            if is_one_family && self.pins.note_reported(inside, pin.clone()) {
                self.pins.settle(&inside);
                self.pins.restored.insert(inside, pin);
                self.pins.restored_outside.insert(outside, inside);
            } else {
                // The owner's record has one too many.
                self.pins.changed.insert(slot);
            }
        }
        self.pins.restored_until = Some(now + FLOWS_LIVE);
        self.pins.sweep_at.get_or_insert(now + SWEEP_EVERY);
    }

    /// Opens the flow of a restored pin for its first packet. A SYN opens a new flow instead, and a
    /// pin is void if its proxy IP now belongs to another name: access to one name does not permit
    /// the other (docs/lessons.md 17).
    pub(super) fn open_pinned(
        &mut self,
        inside: &Inside,
        is_syn: bool,
        now: Instant,
    ) -> Option<Result<Binding, DropReason>> {
        if is_syn {
            self.pins.settle(inside);
        }
        let pin = self.pins.restored.get(inside)?;
        let mapping = self.domains.find(inside.client, inside.proxy)?;
        if self.domains.name(mapping) != Some(&pin.name) {
            self.pins.settle(inside);
            return None;
        }
        let outside = pin.outside;
        let family = AddressFamily::of(outside.real);
        let target = FlowTarget {
            real: outside.real,
            mapping,
            epoch: self.domains.epoch(mapping, family)?,
        };
        self.domains.note_new_flow(mapping, outside.real, now);
        let opened = self.flows.open_at(*inside, target, outside.port, now);
        if opened.is_ok() {
            self.pins.settle(inside);
        }
        Some(opened)
    }

    /// As [`Self::open_pinned`], for a packet from the resource. A SYN has no meaning there: the
    /// client starts a flow.
    pub(super) fn open_pinned_outside(
        &mut self,
        outside: &Outside,
        is_syn: bool,
        now: Instant,
    ) -> Option<Binding> {
        let inside = *self
            .pins
            .restored_outside
            .get(outside)
            .filter(|_| !is_syn)?;
        let opened = self.open_pinned(&inside, is_syn, now)?.ok()?;
        (opened.outside == *outside).then_some(opened)
    }

    /// Reports a newly confirmed flow to the owner if it deviates.
    pub(super) fn pin_if_deviating(&mut self, flow: &Binding, now: Instant) {
        let Binding {
            inside, outside, ..
        } = *flow;
        if inside.protocol == FlowProtocol::Echo {
            return;
        }
        if !is_deviating(&self.domains, flow) {
            return self.pins.forget_reported(&inside);
        }
        let Some(name) = self.domains.name(flow.mapping).cloned() else {
            return;
        };
        let pin = Pin { outside, name };
        let is_known = self.pins.reported.get(&inside) == Some(&pin);
        if !is_known && self.pins.note_reported(inside, pin) {
            self.pins.sweep_at.get_or_insert(now + SWEEP_EVERY);
            self.pins.changed.insert(inside.client);
        }
    }

    /// Pins the flows to former addresses of a name after its addresses changed.
    pub(super) fn pin_left_behind(
        &mut self,
        name: &DomainName,
        family: AddressFamily,
        now: Instant,
    ) {
        for (client, mapping) in self.domains.mappings_of(name) {
            let flows = self.flows.confirmed_of(client);
            let is_meant = |flow: &Binding| {
                flow.mapping == mapping && AddressFamily::of(flow.inside.proxy) == family
            };
            for flow in flows.filter(is_meant).collect::<Vec<_>>() {
                self.pin_if_deviating(&flow, now);
            }
        }
    }

    /// Reports the pinned flows that ended since the last time.
    pub(super) fn sweep_pins(&mut self, now: Instant) {
        if self.pins.sweep_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        if (self.pins.restored_until.take_if(|at| *at <= now)).is_some() {
            self.pins.restored.clear();
            self.pins.restored_outside.clear();
        }
        let mut ended = Vec::new();
        for (inside, pin) in &self.pins.reported {
            let live = self.flows.find_inside(inside, now);
            let is_live = live.is_some_and(|flow| flow.outside == pin.outside);
            if !is_live && !self.pins.restored.contains_key(inside) {
                ended.push(*inside);
            }
        }
        for inside in ended {
            self.pins.forget_reported(&inside);
        }
        if !self.pins.reported.is_empty() {
            self.pins.sweep_at = Some(now + SWEEP_EVERY);
        }
    }

    /// The pins of the next client whose pins changed.
    pub(super) fn poll_pins(&mut self) -> Option<NatTableEvent> {
        let slot = self.pins.changed.pop_first()?;
        let client = self.clients.id(slot)?;
        let of_client = self.pins.reported.range(first_of(slot)..);
        let of_client = of_client.take_while(|(inside, _)| inside.client == slot);
        let pins = of_client.map(|(inside, pin)| PinnedFlow {
            protocol: inside.protocol,
            port: inside.port,
            proxy: inside.proxy,
            name: pin.name.clone(),
            outside_port: pin.outside.port,
            real: pin.outside.real,
        });
        let pins = pins.collect();
        Some(NatTableEvent::PinsChanged { client, pins })
    }
}

/// Whether the rule would create another flow.
fn is_deviating(domains: &Domains, flow: &Binding) -> bool {
    let by_rule = domains.reported_real(flow.mapping, flow.inside.proxy);
    flow.outside.port != flow.inside.port || by_rule != Some(flow.outside.real)
}

/// Not after any flow of the client.
fn first_of(client: ClientSlot) -> Inside {
    Inside {
        client,
        protocol: FlowProtocol::Tcp,
        port: 0,
        proxy: Ipv4Addr::UNSPECIFIED.into(),
    }
}

fn tuples(client: ClientSlot, pin: &PinnedFlow) -> (Inside, Outside) {
    let inside = Inside {
        client,
        protocol: pin.protocol,
        port: pin.port,
        proxy: pin.proxy,
    };
    let outside = Outside {
        client,
        protocol: pin.protocol,
        port: pin.outside_port,
        real: pin.real,
    };
    (inside, outside)
}

/// The lifetime of a silent TCP flow (RFC 5382, 5, REQ-5).
const FLOWS_LIVE: Duration = Duration::from_secs(7440);
/// Half a megabyte; only a change of a name with thousands of flows needs more.
const MAX_PINS: usize = 4096;
/// Keeps a client from using the room of the others.
pub const MAX_PINS_OF_CLIENT: usize = 256;
/// A pin kept too long does no harm: a flow that starts again is reported again.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
