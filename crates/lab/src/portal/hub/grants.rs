//! Grants: a client asks for them, a gateway acknowledges them, and then they are given.
//!
//! The hub refuses a request with `offline` when its gateway does not answer within
//! [`ACK_TIMEOUT`]. It remembers a grant until it expires or the configuration takes it away,
//! across reconnects of both ends, because every `init` lists it. Source: docs/protocol.md 2.2,
//! 2.3, 2.4, 2.5 and 12.1.

use super::frames::{KEEPALIVE_SECS, NEVER, Proposal, Requester};
use super::{
    FrameResult, GrantKey, Hub, MAX_ACK_TIMES, MAX_PENDING, Output, PeerId, ReceivedFrame, Session,
    Side,
};
use crate::clock::ClockReading;
use crate::portal::client_wire::ResourceRequest;
use crate::portal::config::Policy;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_core::portal::wire::generation0::GatewayResponse;
use postern_core::portal::wire::{AuthorizationCreated, Frame};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tracing::{debug, info};
use uuid::Uuid;

/// How long a gateway may take to acknowledge (docs/protocol.md 2.2).
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(15);

/// The gateway and the time of a grant, in UNIX seconds. Without `expires_at` it never expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    #[serde(rename = "gateway_id")]
    pub gateway: Uuid,
    pub granted_at: u64,
    pub expires_at: Option<u64>,
}

impl Grant {
    pub(super) fn is_valid(&self, now: ClockReading) -> bool {
        self.expires_at.is_none_or(|expiry| expiry > now.unix)
    }
}

/// A grant in the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGrant {
    #[serde(flatten)]
    pub key: GrantKey,
    #[serde(flatten)]
    pub grant: Grant,
}

/// The number of a control command that waits for a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A request to a gateway that is not yet acknowledged.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) key: GrantKey,
    pub(super) grant: Grant,
    pub(super) gateway_key: String,
    pub(super) purpose: Purpose,
    /// Whether `connection_ready` acknowledges it, and no other event.
    pub(super) in_generation_0: bool,
    pub(super) sent_at: Instant,
    pub(super) deadline: Instant,
}

/// An access of a client to a resource that the policies permit, and the gateway for it.
pub(super) struct AccessRequest {
    pub(super) requester: Requester,
    pub(super) key: GrantKey,
    pub(super) gateway: PeerId,
    pub(super) expires_at: Option<u64>,
}

/// A message to a gateway that it acknowledges by its reference.
pub(super) struct GatewayRequest {
    pub(super) reference: String,
    pub(super) event: &'static str,
    pub(super) payload: Value,
    pub(super) in_generation_0: bool,
}

/// The effect of an acknowledgement.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Sends the grant to the client, if this very connection of it is still open: another
    /// connection may have another key.
    Access { peer: PeerId, payload: Value },
    /// Replies to the question of a client of generation 0, under the same condition.
    Connection { peer: PeerId, question: Frame },
    /// Settles a control command.
    Repeat(Ticket),
    /// Settles a control command and makes the gateway forget the client.
    Measurement(Ticket),
    /// Settles a control command and records nothing.
    Admission(Ticket),
}

impl Hub {
    /// The frame of this grant was written to the gateway's socket at `at`.
    pub fn handle_sent(&mut self, reference: &str, at: Instant) {
        if let Some(pending) = self.pending.get_mut(reference) {
            pending.sent_at = at;
        }
    }

    /// Time has passed: gateways that did not answer are offline.
    pub fn handle_timeout(&mut self, now: ClockReading) {
        self.abandon_all("offline", |pending| pending.deadline <= now.instant);
    }

    /// Restores the grants of an earlier process; drops those that the configuration no longer
    /// permits.
    pub fn restore(&mut self, saved: &[SavedGrant], now: ClockReading) {
        for SavedGrant { key, grant } in saved {
            if grant.is_valid(now) && self.permits(*key, grant.gateway) {
                self.grants.insert(*key, *grant);
            }
        }
        info!(grants = self.grants.len(), "grants taken over");
    }

    /// The argument for [`Self::restore`] in the next process.
    #[must_use]
    pub fn saved_grants(&self) -> Vec<SavedGrant> {
        let saved = |(key, grant): (&GrantKey, &Grant)| SavedGrant {
            key: *key,
            grant: *grant,
        };
        self.grants.iter().map(saved).collect()
    }

    /// Whether grants have changed since the last call.
    pub fn take_grants_changed(&mut self) -> bool {
        std::mem::take(&mut self.grants_changed)
    }

    /// `request_authorization` and `create_flow`.
    pub(super) fn handle_request(&mut self, received: &ReceivedFrame<'_>) -> FrameResult {
        let request: ResourceRequest = received.payload()?;
        let peer = received.peer;
        let purpose = |payload| Purpose::Access { peer, payload };
        let sent = self
            .access_request(received, &request)
            .and_then(|access| self.propose(&access, received.now, purpose));
        if let Err(reason) = sent {
            self.refuse(peer, &request.resource_id, reason);
        }
        Ok(None)
    }

    /// Whether this client may reach this resource, and through which gateway.
    pub(super) fn access_request(
        &self,
        received: &ReceivedFrame<'_>,
        request: &ResourceRequest,
    ) -> Result<AccessRequest, &'static str> {
        let ReceivedFrame { session, now, .. } = *received;
        let id: Uuid = request.resource_id.parse().map_err(|_| "not_found")?;
        let resource = self.config.resources.get(&id).ok_or("not_found")?;
        let key = GrantKey {
            client: session.device,
            resource: id,
        };
        let policy = self.config.policy(key.client, key.resource);
        Ok(AccessRequest {
            expires_at: expiry(policy.ok_or("forbidden")?, now.unix),
            requester: self.requester(session).ok_or("forbidden")?,
            key,
            gateway: self
                .choose_gateway(key, resource.site.id, &request.connected_gateway_ids)
                .ok_or("offline")?,
        })
    }

    /// A connected client as a requester; `None` when it has left the configuration.
    pub(super) fn requester(&self, session: &Session) -> Option<Requester> {
        let device = self.config.clients.get(&session.device)?;
        Some(Requester {
            id: session.device,
            name: session.name.clone(),
            public_key: session.public_key.clone(),
            ipv4: device.ipv4,
            ipv6: device.ipv6,
            agent: session.agent.clone(),
            generation: session.generation,
        })
    }

    /// A joined gateway of the site: by the client's preference, else the one that holds the grant
    /// already, else the one with the fewest grants.
    fn choose_gateway(&self, key: GrantKey, site: Uuid, preferred: &[String]) -> Option<PeerId> {
        let usable: BTreeMap<Uuid, PeerId> = self.joined_gateways_of(site).collect();
        let wanted = preferred.iter().filter_map(|id| id.parse().ok());
        let holder = self.grants.get(&key).map(|grant| grant.gateway);
        let favourite = wanted.chain(holder).find_map(|id: Uuid| usable.get(&id));
        let load = |device: &Uuid| {
            let grants = self.grants.values();
            grants.filter(|grant| grant.gateway == *device).count()
        };
        let idlest = usable.iter().min_by_key(|(device, _)| load(device));
        favourite.or(idlest.map(|(_, peer)| peer)).copied()
    }

    pub(super) fn joined_gateways_of(&self, site: Uuid) -> impl Iterator<Item = (Uuid, PeerId)> {
        let stands_at = move |device: &Uuid| {
            let device = self.config.gateways.get(device);
            device.is_some_and(|it| it.site.as_ref().is_some_and(|it| it.id == site))
        };
        self.sessions
            .iter()
            .filter(move |(_, it)| it.side == Side::Gateway && it.joined && stands_at(&it.device))
            .map(|(peer, it)| (it.device, *peer))
    }

    /// Asks a gateway to admit a client. `purpose` is made from the grant for the client.
    pub(super) fn propose(
        &mut self,
        access: &AccessRequest,
        now: ClockReading,
        purpose: impl FnOnce(Value) -> Purpose,
    ) -> Result<(), &'static str> {
        let key = access.key;
        let reference = self.new_reference()?;
        let gateway = self.sessions.get(&access.gateway).ok_or("offline")?;
        let gateway_device = self.config.gateways.get(&gateway.device);
        let resource = self.config.resources.get(&key.resource);
        let policy = self.config.policy(key.client, key.resource);
        let proposal = Proposal {
            account: &self.config.account,
            seed: &self.seed,
            reference: &reference,
            requester: &access.requester,
            gateway,
            gateway_device: gateway_device.ok_or("offline")?,
            resource_id: key.resource,
            resource: resource.ok_or("not_found")?,
            policy_id: policy.map_or(Uuid::nil(), |policy| policy.id),
            expires_at: access.expires_at,
            now,
        };
        let purpose = purpose(proposal.for_client());
        let request = GatewayRequest {
            event: gateway
                .generation
                .pick("authorize_flow", "create_authorization"),
            payload: proposal.for_gateway(),
            reference,
            in_generation_0: false,
        };
        self.send_request(request, access, purpose, now)
    }

    /// A unique reference.
    ///
    /// # Errors
    /// `offline` when too many requests wait already.
    pub(super) fn new_reference(&mut self) -> Result<String, &'static str> {
        if self.pending.len() >= MAX_PENDING {
            return Err("offline");
        }
        Ok(URL_SAFE_NO_PAD.encode(&self.unforeseeable()[..16]))
    }

    /// Sends a request to a gateway and waits for its acknowledgement.
    pub(super) fn send_request(
        &mut self,
        request: GatewayRequest,
        access: &AccessRequest,
        purpose: Purpose,
        now: ClockReading,
    ) -> Result<(), &'static str> {
        let session = self.sessions.get(&access.gateway).ok_or("offline")?;
        let pending = Pending {
            key: access.key,
            grant: Grant {
                gateway: session.device,
                granted_at: now.unix,
                expires_at: access.expires_at,
            },
            gateway_key: session.public_key.clone(),
            purpose,
            in_generation_0: request.in_generation_0,
            sent_at: now.instant,
            deadline: now.instant + ACK_TIMEOUT,
        };
        let measured = Some(request.reference.clone());
        self.push_grant(access.gateway, request.event, request.payload, measured);
        self.pending.insert(request.reference, pending);
        Ok(())
    }

    /// `authorization_created` and `flow_authorized`. The client gets its grant before the gateway
    /// gets its reply, as in the recording: the gateway's candidates follow on the same path and
    /// must not overtake the grant.
    pub(super) fn handle_ack(&mut self, received: &ReceivedFrame<'_>) -> FrameResult {
        let ack = received.payload::<AuthorizationCreated>();
        let reference = ack.map_err(|_| "invalid_ref")?.reference;
        self.acknowledged(received, &reference, None)
    }

    /// A gateway has answered, in generation 0 with a response for the client.
    pub(super) fn acknowledged(
        &mut self,
        received: &ReceivedFrame<'_>,
        reference: &str,
        response: Option<GatewayResponse>,
    ) -> FrameResult {
        let ReceivedFrame { session, now, .. } = *received;
        let matches = self.pending.get(reference).is_some_and(|pending| {
            pending.grant.gateway == session.device && pending.in_generation_0 == response.is_some()
        });
        let pending = matches.then(|| self.pending.remove(reference)).flatten();
        let pending = pending.ok_or("invalid_ref")?;
        let elapsed = now.instant.saturating_duration_since(pending.sent_at);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        debug!(gateway = session.name, micros, "grant acknowledged");
        if self.ack_times.len() >= MAX_ACK_TIMES {
            self.ack_times.pop_front();
        }
        self.ack_times.push_back(micros);
        let is_synthetic = matches!(
            pending.purpose,
            Purpose::Measurement(_) | Purpose::Admission(_)
        );
        if !is_synthetic {
            self.give(pending.key, pending.grant, now);
        }
        match pending.purpose {
            Purpose::Access { peer, payload } => {
                let events = ("flow_created", "authorization_created");
                self.push_to_client(peer, events, payload);
            }
            Purpose::Connection { peer, question } => {
                let reply = json!({
                    "resource_id": pending.key.resource,
                    "persistent_keepalive": KEEPALIVE_SECS,
                    "gateway_public_key": pending.gateway_key,
                    "gateway_payload": response,
                });
                self.answer(peer, &question, "ok", reply);
            }
            Purpose::Measurement(ticket) => {
                self.push_reject(pending.key, pending.grant.gateway);
                self.settle(ticket, Ok(micros));
            }
            Purpose::Repeat(ticket) | Purpose::Admission(ticket) => {
                self.settle(ticket, Ok(micros));
            }
        }
        Ok(Some(json!({})))
    }

    pub(super) fn give(&mut self, key: GrantKey, grant: Grant, now: ClockReading) {
        self.grants.retain(|_, grant| grant.is_valid(now));
        let before = self.grants.insert(key, grant);
        self.grants_changed = true;
        if let Some(before) = before
            && before.gateway != grant.gateway
        {
            // The client has moved to another gateway of the site; the old one need not admit it.
            self.push_reject(key, before.gateway);
        }
    }

    /// Pushes a message that has one name in generation 1 and another in generation 2.
    fn push_to_client(
        &mut self,
        peer: PeerId,
        (v1, v2): (&'static str, &'static str),
        payload: Value,
    ) {
        if let Some(session) = self.sessions.get(&peer) {
            self.push(peer, session.generation.pick(v1, v2), payload);
        }
    }

    fn refuse(&mut self, peer: PeerId, resource_id: &str, reason: &str) {
        if let Some(session) = self.sessions.get(&peer) {
            info!(client = session.name, reason, "access refused");
        }
        let payload = json!({
            "resource_id": resource_id,
            "reason": reason,
            "violated_properties": [],
        });
        let events = ("flow_creation_failed", "authorization_creation_failed");
        self.push_to_client(peer, events, payload);
    }

    /// Replies to an earlier question, if the connection that it came over is still open.
    fn answer(&mut self, peer: PeerId, question: &Frame, status: &str, response: Value) {
        if self.sessions.contains_key(&peer) {
            self.reply(peer, question, status, response);
        }
    }

    fn abandon_all(&mut self, reason: &str, is_over: impl Fn(&Pending) -> bool) {
        let over: Vec<String> = self
            .pending
            .iter()
            .filter(|(_, pending)| is_over(pending))
            .map(|(reference, _)| reference.clone())
            .collect();
        for reference in over {
            self.abandon(&reference, reason);
        }
    }

    /// Drops an unanswered request and notifies its originator.
    pub(super) fn abandon(&mut self, reference: &str, reason: &str) {
        let Some(pending) = self.pending.remove(reference) else {
            return;
        };
        match pending.purpose {
            Purpose::Access { peer, .. } => {
                self.refuse(peer, &pending.key.resource.to_string(), reason);
            }
            Purpose::Connection { peer, question } => {
                self.answer(peer, &question, "error", json!({ "reason": reason }));
            }
            Purpose::Repeat(ticket) | Purpose::Measurement(ticket) | Purpose::Admission(ticket) => {
                self.settle(ticket, Err(reason.to_owned()));
            }
        }
    }

    /// A gateway has connected with this key. An earlier process of it will never acknowledge its
    /// requests, and their grants would have the wrong key.
    pub(super) fn abandon_outdated(&mut self, gateway: Uuid, public_key: &str) {
        self.abandon_all("offline", |it| {
            it.grant.gateway == gateway && it.gateway_key != public_key
        });
    }

    fn settle(&mut self, ticket: Ticket, result: Result<u64, String>) {
        self.outbox.push_back(Output::Settled { ticket, result });
    }

    /// `reject_access`, when the gateway is connected. Otherwise its next `init` has the same
    /// effect.
    pub(super) fn push_reject(&mut self, key: GrantKey, gateway: Uuid) {
        if let Some(peer) = self.joined_device(Side::Gateway, gateway) {
            let payload = json!({ "client_id": key.client, "resource_id": key.resource });
            self.push(peer, "reject_access", payload);
        }
    }

    /// Revokes a grant and notifies its gateway. Returns whether there was one.
    pub(super) fn revoke(&mut self, key: GrantKey) -> bool {
        let Some(grant) = self.grants.remove(&key) else {
            return false;
        };
        self.grants_changed = true;
        self.push_reject(key, grant.gateway);
        true
    }

    /// The expiries of all grants that `init` lists for this gateway: given or requested, and not
    /// expired.
    pub(super) fn valid_grants_of(
        &self,
        gateway: Uuid,
        now: ClockReading,
    ) -> BTreeMap<GrantKey, Option<u64>> {
        let pending = self.pending.values().map(|it| (it.key, it.grant));
        let given = self.grants.iter().map(|(key, grant)| (*key, *grant));
        given
            .chain(pending)
            .filter(|(_, grant)| grant.gateway == gateway && grant.is_valid(now))
            .map(|(key, grant)| (key, grant.expires_at))
            .collect()
    }

    /// Whether the configuration lets this client reach this resource through this gateway.
    pub(super) fn permits(&self, key: GrantKey, gateway: Uuid) -> bool {
        let client = self.config.clients.contains_key(&key.client);
        let policy = self.config.policy(key.client, key.resource).is_some();
        let resource = self.config.resources.get(&key.resource);
        let gateway = self.config.gateways.get(&gateway);
        let site = gateway.and_then(|it| it.site.as_ref());
        client && policy && site.is_some() && site == resource.map(|it| &it.site)
    }
}

/// When a grant given at `unix` ends.
pub(super) fn expiry(policy: Policy, unix: u64) -> Option<u64> {
    let lifetime = policy.expires_in.map(|it| it.as_secs());
    Some(lifetime.map_or(NEVER, |it| unix.saturating_add(it)))
}
