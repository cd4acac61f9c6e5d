//! One client of the gateway: its authorizations, its transport and its packets.
//!
//! The authorizations outlive the transport: they stay for a client that lost its path or roams to
//! new keys. When the last one ends, the client gets a goodbye and the connection closes. Source:
//! docs/protocol.md 3.4, docs/protocol.md 4 and docs/protocol.md 5.

mod announced;
mod budget;
mod command;
mod destinations;
mod explain;
mod restore;
mod stats;

pub use explain::{ConnectionFacts, TransportFacts};
pub use stats::{ConnectionStats, TrafficStats};

use crate::UnixTime;
use crate::grant::{
    AccessRequest, AnnouncedName, AuthorizationEntry, AuthorizationRequest, Resource, ResourceKind,
    TransportKeys, TunnelAddresses,
};
use crate::ids::{PublicKey, ResourceId};
use crate::names::DomainName;
use crate::packet::checksum::mark_congestion;
use crate::packet::icmp;
use crate::packet::{DatagramBatch, DropCounts, Ecn, IpPacket, PacketBatch, PacketMut, Path};
use crate::peer::{
    AssignedIps, ControlPacket, DomainStatus, GatewayKeys, HandshakeCounts, LocalAddresses,
    PathKind, Peer, PeerConfig, PeerEvent, PeerIndex,
};
use crate::policy::{Policy, PolicyConfig, PolicyEvent, Verdict, pattern};
use crate::{DropReason, policy};
use announced::AnnouncedNames;
use budget::AnnouncementBudget;
use destinations::Destinations;
use stats::TrafficMeter;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

/// The keys, addresses and limits of a [`Connection`].
#[derive(Clone)]
pub struct ConnectionConfig {
    /// The gateway's WireGuard keys.
    pub keys: GatewayKeys,
    /// Unique while the connection exists.
    pub index: PeerIndex,
    /// The client's tunnel addresses.
    pub client: TunnelAddresses,
    /// The gateway's own tunnel addresses; `None` until the portal has sent them.
    pub gateway: Option<TunnelAddresses>,
    /// Limit of the client's resources.
    pub max_resources: usize,
}

/// An action or a report for the owner, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// Acknowledge the request to the portal; always before any candidate.
    Accepted {
        /// The reference in the request.
        reply_ref: String,
    },
    /// The request cannot be granted.
    Refused(policy::PolicyError),
    /// Deliver this client's datagrams from now on.
    PeerAttached {
        /// Identifies its handshakes.
        public_key: PublicKey,
        /// Identifies its STUN requests: `<our fragment>:<its fragment>`.
        stun_username: String,
    },
    /// The transport is gone; the authorizations stay.
    PeerDetached,
    /// Signal these candidates to the client.
    CandidatesGathered(Vec<String>),
    /// This many of the client's candidates did not parse; for the log.
    CandidatesSkipped(usize),
    /// ICE nominated a path; for the log.
    PathNominated(Path),
    /// Packets for the client take this path from now on; record it.
    PathInUse(Path),
    /// A WireGuard session exists; for the log.
    SessionEstablished,
    /// An authorization expired; for the log.
    Expired(ResourceId),
    /// The client was granted this one name and will soon announce it: look it up.
    NameExpected(DomainName),
    /// The client announced proxy IPs of a name, and the policy accepted them.
    ProxyIpsAssigned {
        /// The resource that covers the name.
        resource: ResourceId,
        /// The name and proxy IPs as announced.
        announced: AnnouncedName,
        /// The name in the form that is looked up.
        name: DomainName,
        /// Whether the client waits for a DomainStatus.
        in_tunnel: bool,
    },
    /// The client lost a resource, and its names with it.
    ResourceReleased(ResourceId),
    /// The connection has ended; remove it.
    Closed,
}

/// See the module's documentation.
pub struct Connection {
    config: ConnectionConfig,
    policy: Policy,
    transport: Option<(TransportKeys, Peer)>,
    addresses: LocalAddresses,
    announcements: AnnouncementBudget,
    names: AnnouncedNames,
    destinations: Destinations,
    /// When the last transport was lost, for a diagnosis.
    lost_at: Option<Instant>,
    inbound: VecDeque<PacketBatch>,
    events: VecDeque<ConnectionEvent>,
    shutdown_mode: VecDeque<DatagramBatch>,
    drops: DropCounts,
    inbound_meter: TrafficMeter,
    outbound_meter: TrafficMeter,
    closed: bool,
}

impl Connection {
    /// A connection without authorizations and without a transport.
    #[must_use]
    pub fn new(config: ConnectionConfig) -> Self {
        Self {
            policy: fresh_policy(&config),
            config,
            transport: None,
            addresses: LocalAddresses::default(),
            announcements: AnnouncementBudget::default(),
            names: AnnouncedNames::default(),
            destinations: Destinations::default(),
            lost_at: None,
            inbound: VecDeque::new(),
            events: VecDeque::new(),
            shutdown_mode: VecDeque::new(),
            drops: DropCounts::default(),
            inbound_meter: TrafficMeter::default(),
            outbound_meter: TrafficMeter::default(),
            closed: false,
        }
    }

    /// The portal grants a resource: records it, keeps or replaces the transport, acknowledges.
    /// Names are looked up later (docs/lessons.md 1).
    pub fn handle_authorization(
        &mut self,
        request: AuthorizationRequest,
        unix_now: UnixTime,
        now: Instant,
    ) {
        let keys = request.transport_keys();
        let resource = request.resource.id;
        let expected = expected_name(&request.resource);
        if !self.admit(request.resource, request.expires_at, unix_now, now) {
            return;
        }
        self.events.push_back(ConnectionEvent::Accepted {
            reply_ref: request.reply_ref,
        });
        self.events.extend(expected);
        self.announce(resource, request.announced);
        self.upsert_transport(keys, now);
    }

    /// The portal grants a further resource, or a further name of one, and leaves the transport as
    /// it is (generation 0). The portal waits for an answer only if a name is announced.
    pub fn handle_access(&mut self, request: AccessRequest, unix_now: UnixTime, now: Instant) {
        let resource = request.resource.id;
        let expected = expected_name(&request.resource);
        if !self.admit(request.resource, request.expires_at, unix_now, now) {
            return;
        }
        if request.announced.is_some() {
            self.events.push_back(ConnectionEvent::Accepted {
                reply_ref: request.reply_ref,
            });
        }
        self.events.extend(expected);
        self.announce(resource, request.announced);
    }

    /// Whether the client holds the resource now, in the new form or the former.
    fn admit(
        &mut self,
        resource: Resource,
        expires_at: Option<UnixTime>,
        unix_now: UnixTime,
        now: Instant,
    ) -> bool {
        if let Err(error) = self.policy.allow(resource, expires_at, unix_now, now) {
            let full = matches!(error, policy::PolicyError::TooManyResources { .. });
            self.events.push_back(ConnectionEvent::Refused(error));
            if full {
                return false;
            }
            // Other errors are mistakes of the portal: the earlier grant stays and is acknowledged.
        }
        self.closed = false;
        true
    }

    /// A name without proxy IPs only indicates a later announcement.
    fn announce(&mut self, resource: ResourceId, announced: Option<AnnouncedName>) {
        if let Some(announced) = announced.filter(|name| !name.proxy_ips.is_empty())
            && let Err(error) = self.assign(resource, announced, false)
        {
            self.events.push_back(ConnectionEvent::Refused(error));
        }
    }

    fn assign(
        &mut self,
        resource: ResourceId,
        announced: AnnouncedName,
        in_tunnel: bool,
    ) -> Result<(), policy::PolicyError> {
        let Ok(name) = announced.domain.parse::<DomainName>() else {
            return Err(policy::PolicyError::NameNotCovered { resource });
        };
        self.policy
            .assign_proxies(resource, &name, &announced.proxy_ips)?;
        self.names
            .insert((&name, resource), &announced, in_tunnel, &self.policy);
        self.events.push_back(ConnectionEvent::ProxyIpsAssigned {
            resource,
            announced,
            name,
            in_tunnel,
        });
        Ok(())
    }

    fn upsert_transport(&mut self, keys: TransportKeys, now: Instant) {
        if let Some((current, peer)) = &mut self.transport
            && *current == keys
        {
            peer.handle_upsert(now);
            self.after_peer(now);
            return;
        }
        let mut peer = Peer::new(&self.peer_config(&keys), now);
        self.events.push_back(attached(&keys));
        peer.handle_local_addresses(&self.addresses, now);
        self.transport = Some((keys, peer));
        self.after_peer(now);
    }

    fn peer_config(&self, keys: &TransportKeys) -> PeerConfig {
        PeerConfig {
            keys: self.config.keys.clone(),
            index: self.config.index,
            transport: keys.clone(),
        }
    }

    /// Sets the gateway's local addresses.
    pub fn handle_local_addresses(&mut self, addresses: LocalAddresses, now: Instant) {
        self.addresses = addresses;
        if let Some((_, peer)) = &mut self.transport {
            peer.handle_local_addresses(&self.addresses, now);
        }
        self.after_peer(now);
    }

    /// Adds candidates of the client. Returns how many did not parse.
    pub fn add_remote_candidates(&mut self, candidates: &[String], now: Instant) -> usize {
        let peer = self.transport.as_mut().map(|(_, peer)| peer);
        let odd = peer.map_or(0, |peer| peer.add_remote_candidates(candidates, now));
        self.after_peer(now);
        odd
    }

    /// Removes candidates that the client withdrew. Returns how many did not parse.
    pub fn remove_remote_candidates(&mut self, candidates: &[String], now: Instant) -> usize {
        let peer = self.transport.as_mut().map(|(_, peer)| peer);
        let odd = peer.map_or(0, |peer| peer.remove_remote_candidates(candidates, now));
        self.after_peer(now);
        odd
    }

    /// The portal revokes a resource.
    pub fn handle_revocation(&mut self, resource: ResourceId, now: Instant) {
        self.policy.revoke(resource);
        self.after_policy(now);
    }

    /// A resource changed: updates its filters if this client holds it.
    pub fn handle_resource_update(&mut self, resource: &Resource) {
        self.policy.update_filters(resource);
    }

    /// The portal changes the expiry of one authorization.
    pub fn handle_expiry(&mut self, entry: AuthorizationEntry, unix_now: UnixTime, now: Instant) {
        self.policy
            .set_expiry(entry.resource, entry.expires_at, unix_now, now);
        self.after_policy(now);
    }

    /// Changes the limit of resources; held ones stay.
    pub fn limit_resources(&mut self, max_resources: usize) {
        self.config.max_resources = max_resources;
        self.policy.limit_resources(max_resources);
    }

    /// Revokes everything that is absent from the portal's list for this client
    /// (docs/lessons.md 23).
    pub fn handle_reconciliation(
        &mut self,
        gateway: TunnelAddresses,
        granted: &[AuthorizationEntry],
        unix_now: UnixTime,
        now: Instant,
    ) {
        self.config.gateway = Some(gateway);
        self.policy.set_gateway_addresses(gateway);
        let granted = granted
            .iter()
            .map(|entry| (entry.resource, entry.expires_at));
        self.policy.reconcile(granted, unix_now, now);
        self.after_policy(now);
    }

    /// Handles datagrams from the client.
    pub fn handle_datagrams(&mut self, datagrams: &DatagramBatch, now: Instant) {
        let Some((_, peer)) = &mut self.transport else {
            self.drops
                .count_many(DropReason::NotConnected, datagrams.len());
            return;
        };
        let mut packets = peer.handle_datagrams(datagrams, &mut self.drops, now);
        // A client's announcement applies to the packets beside it: they reach the NAT later, and
        // must be decided by the names that it will translate them for.
        packets.retain_mut(|packet| {
            let control = ControlPacket::parse(packet.bytes);
            control
                .map(|message| self.handle_control(message, now))
                .is_none()
        });
        self.admit_all(packets, datagrams.ecn, now);
        self.after_peer(now);
    }

    fn admit_all(&mut self, mut packets: PacketBatch, outer: Ecn, now: Instant) {
        let mut replies = PacketBatch::default();
        let (policy, drops) = (&self.policy, &mut self.drops);
        let destinations = &mut self.destinations;
        packets.retain_mut(|packet| {
            mark_congestion(packet.bytes, outer);
            let admitted = admit(policy, packet, &mut replies, drops);
            if let Some(to) = admitted {
                destinations.note_sent(to, now);
            }
            admitted.is_some()
        });
        if let Some((_, peer)) = &mut self.transport
            && !replies.is_empty()
        {
            peer.send(replies, drops, now);
        }
        self.inbound_meter.note(&packets, now);
        if !packets.is_empty() {
            self.inbound.push_back(packets);
        }
    }

    fn handle_control(&mut self, message: Result<ControlPacket, DropReason>, now: Instant) {
        match message {
            Ok(ControlPacket::Goodbye) => self.forget_everything(),
            Ok(ControlPacket::AssignedIps(assigned)) => self.handle_assigned_ips(assigned, now),
            Ok(ControlPacket::DomainStatus(_) | ControlPacket::Unknown(_)) => {}
            Err(reason) => self.drops.count(reason),
        }
    }

    /// The NAT answers accepted announcements; this answers only the refused ones.
    fn handle_assigned_ips(&mut self, assigned: AssignedIps, now: Instant) {
        if !self.announcements.take(now) {
            return self.drops.count(DropReason::ControlRejected);
        }
        let resource = assigned.resource;
        let domain = assigned.domain.clone();
        let announced = AnnouncedName {
            domain: assigned.domain,
            proxy_ips: assigned.proxy_ips,
        };
        if self.assign(resource, announced, true).is_err() {
            let status = DomainStatus {
                resource,
                domain,
                active: false,
            };
            self.handle_domain_status(&status, now);
        }
    }

    /// Sends the status of a name to the client. A client without a session gets none: it repeats
    /// its announcement until it does.
    pub fn handle_domain_status(&mut self, status: &DomainStatus, now: Instant) {
        if let Some((_, peer)) = &mut self.transport {
            let packet = PacketBatch::of(&ControlPacket::domain_status(status));
            peer.send_if_connected(packet, &mut self.drops, now);
        }
    }

    /// Handles packets for the client.
    pub fn handle_packets(&mut self, mut packets: PacketBatch, now: Instant) {
        let (policy, drops) = (&mut self.policy, &mut self.drops);
        let destinations = &mut self.destinations;
        packets.retain_mut(|packet| {
            let parsed = packet.parse();
            let verdict = parsed.map(|packet| (policy.outbound(&packet), packet));
            match verdict {
                Ok((Verdict::Forward { .. }, packet)) => {
                    destinations.note_back(&packet, now);
                    true
                }
                Ok((Verdict::Drop(reason) | Verdict::Reject(reason, _), _)) | Err(reason) => {
                    drops.count_many(reason, packet.segments());
                    false
                }
            }
        });
        self.outbound_meter.note(&packets, now);
        match &mut self.transport {
            Some((_, peer)) => {
                peer.send(packets, &mut self.drops, now);
                self.after_peer(now);
            }
            None => self
                .drops
                .count_many(DropReason::NotConnected, packets.segments()),
        }
    }

    /// Sends the client a goodbye and closes the connection.
    pub fn close(&mut self, now: Instant) {
        if let Some((_, peer)) = &mut self.transport {
            let goodbye = PacketBatch::of(&ControlPacket::goodbye());
            peer.send_if_connected(goodbye, &mut DropCounts::default(), now);
            self.shutdown_mode
                .extend(std::iter::from_fn(|| peer.poll_transmit()));
        }
        self.forget_everything();
    }

    /// Runs the timers of the policy, ICE and WireGuard.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.policy.handle_timeout(now);
        self.after_policy(now);
        if let Some((_, peer)) = &mut self.transport {
            peer.handle_timeout(now);
        }
        self.after_peer(now);
    }

    /// When to call [`Self::handle_timeout`] next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let peer = self
            .transport
            .as_mut()
            .and_then(|(_, peer)| peer.poll_timeout());
        [self.policy.poll_timeout(), peer]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next batch of datagrams to send.
    pub fn poll_transmit(&mut self) -> Option<DatagramBatch> {
        let shutdown_mode = self.shutdown_mode.pop_front();
        shutdown_mode.or_else(|| {
            self.transport
                .as_mut()
                .and_then(|(_, peer)| peer.poll_transmit())
        })
    }

    /// The next batch of admitted packets towards a resource.
    pub fn poll_inbound(&mut self) -> Option<PacketBatch> {
        self.inbound.pop_front()
    }

    /// The next action or report for the owner.
    pub fn poll_event(&mut self) -> Option<ConnectionEvent> {
        self.events.pop_front()
    }

    /// Dropped packets since the last call.
    pub fn take_drops(&mut self) -> DropCounts {
        std::mem::take(&mut self.drops)
    }

    /// Counts of the client's handshake messages since the last call.
    pub fn take_handshakes(&mut self) -> HandshakeCounts {
        let peer = self.transport.as_mut().map(|(_, peer)| peer);
        peer.map(Peer::take_handshakes).unwrap_or_default()
    }

    /// Whether there is a WireGuard session, as far as known.
    #[must_use]
    pub fn has_session(&self) -> bool {
        (self.transport.as_ref()).is_some_and(|(_, peer)| peer.has_session())
    }

    /// How the client's address on the nominated path is known.
    #[must_use]
    pub fn path_kind(&self) -> Option<PathKind> {
        self.transport.as_ref()?.1.path_kind()
    }

    fn after_policy(&mut self, now: Instant) {
        while let Some(event) = self.policy.poll_event() {
            match event {
                PolicyEvent::Expired { resource } => {
                    self.events.push_back(ConnectionEvent::Expired(resource));
                    self.events
                        .push_back(ConnectionEvent::ResourceReleased(resource));
                }
                PolicyEvent::Revoked { resource } => {
                    self.events
                        .push_back(ConnectionEvent::ResourceReleased(resource));
                }
            }
        }
        if self.policy.is_empty() && !self.closed {
            self.close(now);
        }
    }

    fn after_peer(&mut self, now: Instant) {
        let mut failed = false;
        let Some((_, peer)) = &mut self.transport else {
            return;
        };
        let in_vain = peer.take_held_dropped();
        self.drops.count_many(DropReason::NotConnected, in_vain);
        while let Some(event) = peer.poll_event() {
            self.events.push_back(match event {
                PeerEvent::CandidatesGathered(lines) => ConnectionEvent::CandidatesGathered(lines),
                PeerEvent::PathNominated(path) => ConnectionEvent::PathNominated(path),
                PeerEvent::PathInUse(path) => ConnectionEvent::PathInUse(path),
                PeerEvent::SessionEstablished => ConnectionEvent::SessionEstablished,
                PeerEvent::Failed => {
                    failed = true;
                    ConnectionEvent::PeerDetached
                }
            });
        }
        if failed {
            self.transport = None;
            self.lost_at = Some(now);
        }
    }

    /// A later authorization starts the connection again.
    fn forget_everything(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let held = self.policy.resources().map(|resource| resource.id);
        self.events
            .extend(held.map(ConnectionEvent::ResourceReleased));
        self.policy = fresh_policy(&self.config);
        self.names = AnnouncedNames::default();
        if self.transport.take().is_some() {
            self.events.push_back(ConnectionEvent::PeerDetached);
        }
        self.events.push_back(ConnectionEvent::Closed);
    }
}

fn fresh_policy(config: &ConnectionConfig) -> Policy {
    Policy::new(PolicyConfig {
        client: config.client,
        gateway: config.gateway,
        max_resources: config.max_resources,
    })
}

fn attached(keys: &TransportKeys) -> ConnectionEvent {
    ConnectionEvent::PeerAttached {
        public_key: keys.client_public_key,
        stun_username: format!("{}:{}", keys.local_ice.ufrag, keys.remote_ice.ufrag),
    }
}

/// A resource with one name predicts the client's announcement.
fn expected_name(resource: &Resource) -> Option<ConnectionEvent> {
    let name = match &resource.kind {
        ResourceKind::Dns(pattern) => pattern::exact_name(pattern),
        ResourceKind::Cidr(_) | ResourceKind::Internet => None,
    };
    name.map(ConnectionEvent::NameExpected)
}

/// Decides about a decrypted packet; counts a refused one and, if the client gets an answer,
/// appends the ICMP error to `replies`.
fn admit(
    policy: &Policy,
    packet: &mut PacketMut<'_>,
    replies: &mut PacketBatch,
    drops: &mut DropCounts,
) -> Option<IpAddr> {
    let parsed = packet.parse();
    let verdict = parsed.map(|packet| (policy.inbound(&packet), packet.destination()));
    match verdict {
        Ok((Verdict::Forward { .. }, destination)) => return Some(destination),
        Ok((Verdict::Drop(reason), _)) | Err(reason) => {
            drops.count_many(reason, packet.segments());
        }
        Ok((Verdict::Reject(reason, reply), _)) => {
            drops.count_many(reason, packet.segments());
            let about = IpPacket::parse(packet.first());
            if let Some(reply) = about.ok().and_then(|about| icmp::reply_to(&about, reply)) {
                replies.push(&reply);
            }
        }
    }
    None
}

#[cfg(test)]
mod explain_tests;
#[cfg(test)]
mod idle_tests;
#[cfg(test)]
mod name_tests;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod tests;
