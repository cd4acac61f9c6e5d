//! The NAT of a shard: translates proxy IPs of names to real addresses and back, and finds the
//! client of a packet from a resource.
//!
//! Composes the mappings ([`Domains`]: the real addresses of a name, and their healing) with the
//! flows ([`flows`]: clients, addresses and ports) and the bytes ([`rewrite`]). Addresses that are
//! no proxy IPs pass unchanged: they belong to CIDR and Internet resources. It does not decide
//! about access: the policy does, before it inbound and after it outbound. Source:
//! docs/protocol.md 5.2 to 5.4.

mod clients;
mod explain;
pub mod flows;
mod pins;
mod recovery;
pub mod rewrite;
mod sorting;

pub use explain::NatFacts;
pub use pins::MAX_PINS_OF_CLIENT;

use crate::DropReason;
use crate::authorizations::{Announcer, NameMeaning, ranges};
pub use crate::domains::{ClientSlot, HealCounts, MappingId, RestoredName};
use crate::domains::{Domains, DomainsConfig, DomainsEvent, HeldOutcome, HeldPacket, Route, Sent};
use crate::grant::TunnelAddresses;
use crate::ids::ClientId;
use crate::names::{AddressFamily, DomainName, NameAnswer};
use crate::packet::icmp::{self, IcmpReply};
use crate::packet::{DropCounts, IpPacket, PacketBatch, PacketMut, TcpFlags, Transport, ip};
use crate::peer::DomainStatus;
use crate::replies::Refusal;
use clients::ClientTable;
use flows::{Binding, FlowLimits, FlowTable, FlowTarget, Inside, Lookup, Outside, PinnedFlow};
use pins::Pins;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use recovery::Recovery;
use rewrite::{IcmpError, IcmpErrorKind, Layout};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

/// The limits of a [`NatTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatTableConfig {
    /// The limits of names and held packets.
    pub domains: DomainsConfig,
    /// The limits of flows, remembered ones included.
    pub flows: FlowLimits,
}

impl NatTableConfig {
    /// The share of one of `shards` tables: divides the limit of all flows. Limits for each client
    /// stay.
    #[must_use]
    pub fn divided(self, shards: u8) -> Self {
        let FlowLimits {
            flows,
            flows_per_client,
        } = self.flows;
        let flows = FlowLimits {
            flows: flows.div_ceil(shards.max(1).into()),
            flows_per_client,
        };
        Self { flows, ..self }
    }
}

impl Default for NatTableConfig {
    /// The values of the example configuration.
    fn default() -> Self {
        Self {
            domains: DomainsConfig::default(),
            flows: FlowLimits {
                flows: 262_144,
                flows_per_client: 16_384,
            },
        }
    }
}

/// An action for the owner of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatTableEvent {
    /// Look up both families of a name.
    Resolve {
        /// The client whose quota applies.
        client: ClientId,
        /// The name to look up, in both families.
        name: DomainName,
        /// Whether to bypass the cache.
        refresh: bool,
    },
    /// Record the addresses of a name for [`NatTable::restore_names`], as named by the DNS now.
    /// Sent once for all clients with the name.
    NameKnown {
        /// The name in the form that is looked up.
        name: DomainName,
        /// The family of all the addresses.
        family: AddressFamily,
        /// In the order of the proxy IPs. Empty if none is valid any more.
        ips: Vec<IpAddr>,
    },
    /// Record the flows of a client for [`NatTable::restore_pins`], in place of the former ones.
    PinsChanged {
        /// The client of the flows.
        client: ClientId,
        /// All its flows that deviate from the rule, or have ended less than 30 s ago.
        pins: Vec<PinnedFlow>,
    },
    /// Send a status inside the tunnel.
    Status {
        /// The client that gets the status.
        client: ClientId,
        /// The status of a name.
        status: DomainStatus,
    },
}

/// The current contents of a [`NatTable`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatUsage {
    /// Number of live flows.
    pub flows: usize,
    /// Number of mappings, resolved or not.
    pub mappings: usize,
    /// Packets that wait for the address of a name.
    pub held_packets: usize,
    /// Total bytes of the held packets.
    pub held_bytes: usize,
}

/// See the module's documentation.
pub struct NatTable {
    clients: ClientTable,
    domains: Domains,
    flows: FlowTable,
    recovery: Recovery,
    pins: Pins,
    inbound: VecDeque<PacketBatch>,
    outbound: VecDeque<(ClientId, PacketBatch)>,
    /// Batches for other shards.
    strays: VecDeque<(u8, PacketBatch)>,
    events: VecDeque<NatTableEvent>,
    drops: DropCounts,
    /// Why the last flow of a client was refused, for a diagnosis.
    refused_flows: BTreeMap<ClientSlot, (Instant, DropReason)>,
}

/// Where a packet towards a proxy IP goes.
enum InboundRoute {
    /// To this address, from the outside port.
    To(Outside),
    /// Held by its mapping until the name is resolved.
    Hold(MappingId),
    /// Nowhere; the client gets an ICMP error.
    Unreachable,
}

impl NatTable {
    /// A table without clients. The same seed gives the same ports and the same jitter.
    #[must_use]
    pub fn new(config: NatTableConfig, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        let mut seed_of_each = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        Self {
            clients: ClientTable::default(),
            domains: Domains::new(config.domains, seed_of_each(), now),
            flows: FlowTable::new(config.flows, seed_of_each(), now),
            recovery: Recovery::default(),
            pins: Pins::default(),
            inbound: VecDeque::new(),
            outbound: VecDeque::new(),
            strays: VecDeque::new(),
            events: VecDeque::new(),
            drops: DropCounts::default(),
            refused_flows: BTreeMap::new(),
        }
    }

    /// Changes the limits; no flow and no address is removed immediately.
    pub fn use_config(&mut self, config: NatTableConfig) {
        self.domains.use_config(config.domains);
        self.flows.limit(config.flows);
    }

    /// Assigns the addresses to `client`. An address of another client is taken over. The state of
    /// the client stays, unless it comes with other addresses.
    pub fn attach(&mut self, client: ClientId, tunnel: TunnelAddresses) {
        if let Some(former) = self.clients.attach(client, tunnel) {
            self.forget(former);
        }
        if let Some(slot) = self.clients.slot(client) {
            self.recovery.admit(slot);
        }
    }

    /// Removes the client with all its state.
    pub fn detach(&mut self, client: ClientId) {
        if let Some(slot) = self.clients.detach(client) {
            self.forget(slot);
        }
    }

    fn forget(&mut self, slot: ClientSlot) {
        self.domains.remove_client(slot);
        self.flows.remove_client(slot);
        self.recovery.forget(slot);
        self.pins.forget(slot);
        self.refused_flows.remove(&slot);
    }

    /// Takes over what a name of a client means from now on. Without room for it, a client that
    /// waits for a DomainStatus gets `Inactive`.
    pub fn handle_name(&mut self, client: ClientId, meaning: &NameMeaning, now: Instant) {
        let Some(slot) = self.clients.slot(client) else {
            return;
        };
        if let Err(error) = self.domains.handle_name(slot, meaning, now) {
            tracing::debug!(%client, %error, "name without a mapping");
            let resources = meaning.proxied.iter().flat_map(|it| &it.resources);
            let waiting = resources.filter(|(_, announced)| announced.by == Announcer::Client);
            let refused = waiting.map(|(resource, announced)| NatTableEvent::Status {
                client,
                status: DomainStatus {
                    resource: *resource,
                    domain: announced.domain.clone(),
                    active: false,
                },
            });
            self.events.extend(refused);
        }
        self.after_domains(now);
    }

    /// A client has these names, which are sorted, and no others: those that are not listed are
    /// gone.
    pub fn retain_names(&mut self, client: ClientId, held: &[DomainName], now: Instant) {
        if let Some(slot) = self.clients.slot(client) {
            let is_held = |name: &DomainName| held.binary_search(name).is_ok();
            self.domains.retain_names(slot, is_held);
        }
        self.after_domains(now);
    }

    /// Applies the result of a lookup for all clients with that name.
    pub fn handle_answer(&mut self, answer: &NameAnswer, now: Instant) {
        self.domains.handle_answer(answer, now);
        self.after_domains(now);
    }

    /// Takes over recorded addresses of names. Call it before the clients announce their names:
    /// packets then pass immediately, and the lookup that an announcement starts renews the
    /// addresses. Ignores addresses older than [`DomainsConfig::last_known_good`], and names beyond
    /// [`DomainsConfig::mappings`].
    pub fn restore_names(&mut self, names: Vec<RestoredName>, now: Instant) {
        self.domains.restore_names(names, now);
        self.after_domains(now);
    }

    /// Repeats the lookups in progress after a restart of the resolver. Held packets wait no longer
    /// than before.
    pub fn handle_resolver_restarted(&mut self, now: Instant) {
        self.domains.handle_resolver_restarted(now);
        self.after_domains(now);
    }

    /// Translates packets from clients to resources that the policy has admitted.
    pub fn handle_inbound(&mut self, mut batch: PacketBatch, now: Instant) {
        batch.retain_mut(|packet| {
            let is_translated = ip::destination(packet.bytes).is_some_and(ranges::is_proxy);
            match is_translated {
                true => self.translate_inbound(packet, now),
                false => self.passes_unchanged(packet, now),
            }
        });
        if !batch.is_empty() {
            self.inbound.push_back(batch);
        }
        self.after_domains(now);
    }

    /// Runs the timers of names, held packets and flows.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.flows.handle_timeout(now);
        self.domains.handle_timeout(now);
        self.sweep_pins(now);
        self.recovery.handle_timeout(now);
        self.after_domains(now);
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = [
            self.flows.poll_timeout(),
            self.domains.poll_timeout(),
            self.pins.poll_timeout(),
            self.recovery.poll_timeout(),
        ];
        timeouts.into_iter().flatten().min()
    }

    /// The next batch for the TUN.
    pub fn poll_inbound(&mut self) -> Option<PacketBatch> {
        self.inbound.pop_front()
    }

    /// The next batch for a client.
    pub fn poll_outbound(&mut self) -> Option<(ClientId, PacketBatch)> {
        self.outbound.pop_front()
    }

    /// The next action for the owner.
    pub fn poll_event(&mut self) -> Option<NatTableEvent> {
        self.events.pop_front().or_else(|| self.poll_pins())
    }

    /// Dropped packets since the last call.
    pub fn take_drops(&mut self) -> DropCounts {
        let mut drops = std::mem::take(&mut self.drops);
        drops.add(&self.domains.take_drops());
        drops
    }

    /// Signals and ended incidents since the last call.
    pub fn take_heals(&mut self) -> HealCounts {
        self.domains.take_heals()
    }

    /// The current numbers of flows, names and held packets.
    #[must_use]
    pub fn usage(&self) -> NatUsage {
        NatUsage {
            flows: self.flows.len(),
            mappings: self.domains.mappings(),
            held_packets: self.domains.held_packets(),
            held_bytes: self.domains.held_bytes(),
        }
    }

    /// Whether an untranslated packet is forwarded; if not, it was counted.
    fn passes_unchanged(&mut self, packet: &PacketMut<'_>, now: Instant) -> bool {
        let is_dropped = self.is_reset_of_guess(packet.bytes, now);
        if is_dropped {
            self.drops
                .count_many(DropReason::ExpiredFlow, packet.segments());
        }
        !is_dropped
    }

    /// Whether the packet is forwarded; if not, it was held, answered or counted.
    fn translate_inbound(&mut self, packet: &mut PacketMut<'_>, now: Instant) -> bool {
        match self.try_translate_inbound(packet, now) {
            Ok(is_forwarded) => is_forwarded,
            Err(reason) => {
                self.drops.count_many(reason, packet.segments());
                false
            }
        }
    }

    fn try_translate_inbound(
        &mut self,
        packet: &mut PacketMut<'_>,
        now: Instant,
    ) -> Result<bool, DropReason> {
        let parsed = packet.parse()?;
        let layout = Layout::of(&parsed).ok_or(DropReason::Untranslatable)?;
        match self.bind(&parsed, now)? {
            InboundRoute::To(outside) => {
                rewrite::inbound(packet.bytes, layout, &outside)?;
                return Ok(true);
            }
            InboundRoute::Hold(mapping) => packet.cut(|segment| self.hold(mapping, segment, now)),
            InboundRoute::Unreachable => self.refuse(packet),
        }
        Ok(false)
    }

    fn hold(&mut self, mapping: MappingId, packet: &[u8], now: Instant) {
        if let Err(reason) = self.domains.hold(mapping, packet, now) {
            self.drops.count(reason);
            self.answer_unreachable(packet);
        }
    }

    /// Finds or creates the flow of a packet.
    fn bind(&mut self, packet: &IpPacket<'_>, now: Instant) -> Result<InboundRoute, DropReason> {
        let client = self.clients.at(packet.source());
        let inside = Inside::of(client.ok_or(DropReason::UnknownClient)?, packet)?;
        let Some(mapping) = self.domains.find(inside.client, inside.proxy) else {
            return Ok(InboundRoute::Unreachable);
        };
        let flags = TcpFlags::of(packet);
        let known = self.flow_of(&inside, mapping, flags, now);
        let is_unknown = known.is_none() && flags.rst;
        if is_unknown && (self.recovery).is_guessed(inside.client, inside.port, now) {
            return Err(DropReason::ExpiredFlow);
        }
        let bound = match known {
            Some(flow) if flow.confirmed || self.is_settled(&flow) => Ok(flow),
            Some(flow) => match self.domains.route(mapping, inside.proxy, now) {
                Route::To { real, epoch } => self.flows.rebind(flow.flow, real, epoch, now),
                // Unanswered, but no better address is known.
                Route::Hold => Ok(flow),
                Route::Unreachable => {
                    self.flows.expire(flow.flow, now);
                    return Ok(InboundRoute::Unreachable);
                }
            },
            None if let Some(pinned) = self.open_pinned(&inside, flags.syn, now) => pinned,
            None => match self.domains.route(mapping, inside.proxy, now) {
                Route::To { real, epoch } => {
                    let target = FlowTarget {
                        real,
                        mapping,
                        epoch,
                    };
                    self.open(inside, target, now)
                }
                Route::Hold => return Ok(InboundRoute::Hold(mapping)),
                Route::Unreachable => return Ok(InboundRoute::Unreachable),
            },
        }?;
        let sent = match (bound.confirmed, flags.syn) {
            (true, _) => Sent::Confirmed,
            (false, true) => Sent::Syn,
            (false, false) => Sent::Unconfirmed,
        };
        self.flows.note_inbound(bound.flow, flags, now);
        self.domains
            .note_inbound(mapping, bound.outside.real, sent, now);
        Ok(InboundRoute::To(bound.outside))
    }

    /// The flow of a packet. A flow of another name is removed: the proxy IP has changed its
    /// meaning (docs/lessons.md 17). A SYN starts a connection, so the flow becomes unconfirmed: a
    /// client that reuses a port must not reach an outdated address.
    fn flow_of(
        &mut self,
        inside: &Inside,
        mapping: MappingId,
        flags: TcpFlags,
        now: Instant,
    ) -> Option<Binding> {
        let flow = self.flows.find_inside(inside, now)?;
        if flow.mapping != mapping {
            self.flows.expire(flow.flow, now);
            return None;
        }
        if flow.confirmed && flags.syn {
            return self.flows.reopen(flow.flow, now);
        }
        Some(flow)
    }

    /// Whether an unanswered flow keeps its address (docs/lessons.md 6).
    fn is_settled(&self, flow: &Binding) -> bool {
        let family = AddressFamily::of(flow.inside.proxy);
        self.domains.epoch(flow.mapping, family) == Some(flow.epoch)
    }

    fn open(
        &mut self,
        inside: Inside,
        target: FlowTarget,
        now: Instant,
    ) -> Result<Binding, DropReason> {
        self.domains.note_new_flow(target.mapping, target.real, now);
        let client = inside.client;
        let opened = self.flows.open(inside, target, now);
        opened.inspect_err(|reason| {
            self.refused_flows.insert(client, (now, *reason));
        })
    }

    /// The new length of a packet that is forwarded to its client.
    fn translate_outbound(
        &mut self,
        client: ClientSlot,
        packet: &mut PacketMut<'_>,
        now: Instant,
    ) -> Result<usize, DropReason> {
        let unchanged = Ok(packet.bytes.len());
        // A malformed packet is left to the connection, which checks every packet.
        let Ok(parsed) = packet.parse() else {
            return unchanged;
        };
        if ranges::is_proxy(parsed.source()) {
            return Err(DropReason::TunnelRange);
        }
        if parsed.transport() == Transport::IcmpError {
            let error = IcmpError::parse(client, &parsed)?;
            return self.translate_icmp_error(error, packet.bytes, now);
        }
        let translatable = Outside::of(client, &parsed).zip(Layout::of(&parsed));
        let Some((outside, layout)) = translatable else {
            return unchanged;
        };
        let flags = TcpFlags::of(&parsed);
        let known = self.find_outside(&outside, now)?;
        let known = known.or_else(|| self.open_pinned_outside(&outside, flags.syn, now));
        let Some(flow) = known else {
            if !flags.syn {
                self.copy_to_candidates(&outside, packet, layout, now);
            }
            return unchanged;
        };
        let is_first = self.flows.note_outbound(flow.flow, flags, now);
        if is_first {
            self.pin_if_deviating(&flow, now);
        }
        self.domains
            .note_outbound(flow.mapping, outside.real, is_first, now);
        if flags.rst {
            self.note_reset(&flow, packet.bytes, now);
        }
        rewrite::outbound(packet.bytes, layout, &flow.inside)?;
        unchanged
    }

    /// An error about a packet of a flow is rewritten as if the proxy IP had sent it. Others pass:
    /// they are about untranslated packets.
    fn translate_icmp_error(
        &mut self,
        error: Option<IcmpError>,
        bytes: &mut [u8],
        now: Instant,
    ) -> Result<usize, DropReason> {
        let Some(error) = error else {
            return Ok(bytes.len());
        };
        let outside = error.about();
        let Some(flow) = self.find_outside(&outside, now)? else {
            return Ok(bytes.len());
        };
        let refused = Refusal::from(error.kind());
        (self.domains).note_refusal(flow.mapping, outside.real, refused, now);
        match error.kind() {
            IcmpErrorKind::AddressUnreachable => {
                self.domains
                    .note_unreachable(flow.mapping, outside.real, now);
            }
            IcmpErrorKind::PortUnreachable | IcmpErrorKind::Other => {
                self.domains
                    .note_answer_by_icmp(flow.mapping, outside.real, now);
            }
        }
        error.rewrite(bytes, &flow.inside)
    }

    /// The flow of an outside tuple; `None` for untranslated packets.
    fn find_outside(
        &mut self,
        outside: &Outside,
        now: Instant,
    ) -> Result<Option<Binding>, DropReason> {
        match self.flows.find_outside(outside, now) {
            Lookup::Live(flow) => {
                let owner = self.domains.find(outside.client, flow.inside.proxy);
                if owner == Some(flow.mapping) {
                    return Ok(Some(flow));
                }
                self.flows.expire(flow.flow, now);
                Err(DropReason::ExpiredFlow)
            }
            Lookup::Expired => Err(DropReason::ExpiredFlow),
            Lookup::Unknown => Ok(None),
        }
    }

    /// Forwards or answers released packets, and passes on the events of the mappings.
    fn after_domains(&mut self, now: Instant) {
        let mut batch = PacketBatch::default();
        while let Some(mut held) = self.domains.poll_released() {
            match held.outcome {
                _ if !self.is_still_valid(&held) => self.drops.count(DropReason::Unmapped),
                HeldOutcome::Released if self.translate_held(&mut held.bytes, now) => {
                    batch.push(&held.bytes);
                }
                HeldOutcome::Released => {}
                HeldOutcome::Unreachable => self.refuse(&mut single(&mut held.bytes)),
            }
            if batch.len() >= PacketBatch::MAX_PACKETS {
                self.inbound.push_back(std::mem::take(&mut batch));
            }
        }
        if !batch.is_empty() {
            self.inbound.push_back(batch);
        }
        while let Some(event) = self.domains.poll_event() {
            if let DomainsEvent::NameKnown {
                name,
                family,
                is_news: true,
                ..
            } = &event
            {
                self.pin_left_behind(name, *family, now);
            }
            self.events.extend(self.name_client(event));
        }
    }

    /// Whether the proxy IP of a held packet still belongs to the name that it was admitted for,
    /// and its source address to the same client.
    fn is_still_valid(&self, held: &HeldPacket) -> bool {
        let Ok(packet) = IpPacket::parse(&held.bytes) else {
            return false;
        };
        let proxy_ip = packet.destination();
        self.clients.at(packet.source()) == Some(held.client)
            && self.domains.find(held.client, proxy_ip) == Some(held.mapping)
    }

    fn name_client(&self, event: DomainsEvent) -> Option<NatTableEvent> {
        Some(match event {
            DomainsEvent::Resolve {
                client,
                name,
                refresh,
            } => NatTableEvent::Resolve {
                client: self.clients.id(client)?,
                name,
                refresh,
            },
            DomainsEvent::NameKnown {
                name, family, ips, ..
            } => NatTableEvent::NameKnown { name, family, ips },
            DomainsEvent::Status {
                client,
                resource,
                domain,
                active,
            } => NatTableEvent::Status {
                client: self.clients.id(client)?,
                status: DomainStatus {
                    resource,
                    domain,
                    active,
                },
            },
        })
    }

    fn translate_held(&mut self, packet: &mut [u8], now: Instant) -> bool {
        self.translate_inbound(&mut single(packet), now)
    }

    fn refuse(&mut self, packet: &mut PacketMut<'_>) {
        self.drops
            .count_many(DropReason::Unmapped, packet.segments());
        self.answer_unreachable(packet.first());
    }

    /// Unreachable, never prohibited: the client would request access that it has
    /// (docs/lessons.md 8).
    fn answer_unreachable(&mut self, bytes: &[u8]) {
        let Ok(packet) = IpPacket::parse(bytes) else {
            return;
        };
        let slot = self.clients.at(packet.source());
        let client = slot.and_then(|slot| self.clients.id(slot));
        let reply = icmp::reply_to(&packet, IcmpReply::NetworkUnreachable);
        if let (Some(client), Some(reply)) = (client, reply) {
            self.outbound.push_back((client, PacketBatch::of(&reply)));
        }
    }
}

fn single(bytes: &mut [u8]) -> PacketMut<'_> {
    PacketMut {
        bytes,
        segmentation: None,
    }
}

#[cfg(test)]
mod tests;
