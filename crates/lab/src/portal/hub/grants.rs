//! Grants: asked for by a client, acknowledged by a gateway, and only then given.
//!
//! A request that its gateway leaves unanswered for [`ACK_TIMEOUT`] is refused with `offline`. What
//! was given is remembered until it expires or the configuration takes it away, across reconnects
//! of both ends, because every `init` lists it. Source: docs/protocol.md 2.2 – 2.5 and 12.1.

use super::frames::{Applicant, NEVER, Proposal};
use super::generation0;
use super::{Heard, Hub, MAX_ACK_TIMES, MAX_PENDING, Output, PeerId, Session, Side, Verdict, read};
use crate::portal::client_wire::{ClientGrant, ClientRefusal, RequestAuthorization};
use crate::portal::clock::Moment;
use crate::portal::config::Policy;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_core::portal::wire::generation0::GatewayResponse;
use postern_core::portal::wire::{AuthorizationCreated, Frame, RejectAccess};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tracing::{debug, info};
use uuid::Uuid;

/// How long a gateway may take to acknowledge (docs/protocol.md 2.2.
pub(super) const ACK_TIMEOUT: Duration = Duration::from_secs(15);

/// Who was granted what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantKey {
    /// The client.
    pub client: Uuid,
    /// The resource.
    pub resource: Uuid,
}

/// Through which gateway, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) gateway: Uuid,
    pub(super) granted_at: u64,
    pub(super) expires_at: Option<u64>,
}

impl Grant {
    pub(super) fn is_valid(&self, now: Moment) -> bool {
        self.expires_at.is_none_or(|expiry| expiry > now.unix)
    }
}

/// A grant in the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGrant {
    /// UUID.
    pub client_id: Uuid,
    /// UUID.
    pub resource_id: Uuid,
    /// UUID.
    pub gateway_id: Uuid,
    /// UNIX seconds.
    pub granted_at: u64,
    /// UNIX seconds; absent never expires.
    pub expires_at: Option<u64>,
}

/// A question of the control socket that is answered later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// How long a gateway took to acknowledge, from writing the request to the socket to reading the
/// acknowledgement from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AckTime {
    /// UUID.
    pub client_id: Uuid,
    /// UUID.
    pub resource_id: Uuid,
    /// Name.
    pub gateway: String,
    /// Microseconds.
    pub micros: u64,
}

/// Sent to a gateway, not yet acknowledged.
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

/// What a gateway is asked.
pub(super) struct Ask<'a> {
    pub(super) applicant: &'a Applicant,
    pub(super) key: GrantKey,
    pub(super) gateway: PeerId,
    pub(super) expires_at: Option<u64>,
}

/// What a gateway is told.
pub(super) struct Request {
    pub(super) reference: String,
    pub(super) event: &'static str,
    pub(super) payload: Value,
    pub(super) in_generation_0: bool,
}

/// What the acknowledgement leads to.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The client is told, if this very connection of it is still there: another connection may
    /// have another key.
    Access {
        peer: PeerId,
        payload: Box<ClientGrant>,
    },
    /// A client of generation 0 gets the reply to its question, as above.
    Connection { peer: PeerId, question: Frame },
    /// Only the control socket is told.
    Repeat(Ticket),
    /// The control socket is told, and the gateway to forget it again.
    Measurement(Ticket),
    /// The control socket is told, and nothing recorded.
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
    pub fn handle_timeout(&mut self, now: Moment) {
        let late: Vec<String> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.deadline <= now.instant)
            .map(|(reference, _)| reference.clone())
            .collect();
        for reference in late {
            self.abandon(&reference, "offline");
        }
    }

    /// Takes over what an earlier process granted; drops what the configuration no longer permits.
    pub fn restore(&mut self, saved: &[SavedGrant], now: Moment) {
        for it in saved {
            let key = GrantKey {
                client: it.client_id,
                resource: it.resource_id,
            };
            let grant = Grant {
                gateway: it.gateway_id,
                granted_at: it.granted_at,
                expires_at: it.expires_at,
            };
            if grant.is_valid(now) && self.permits(key, grant.gateway) {
                self.grants.insert(key, grant);
            }
        }
        info!(grants = self.grants.len(), "grants taken over");
    }

    /// What [`Self::restore`] wants back.
    #[must_use]
    pub fn saved_grants(&self) -> Vec<SavedGrant> {
        let saved = |(key, grant): (&GrantKey, &Grant)| SavedGrant {
            client_id: key.client,
            resource_id: key.resource,
            gateway_id: grant.gateway,
            granted_at: grant.granted_at,
            expires_at: grant.expires_at,
        };
        self.grants.iter().map(saved).collect()
    }

    /// Whether grants have changed since the last call.
    pub fn take_grants_changed(&mut self) -> bool {
        std::mem::take(&mut self.grants_changed)
    }

    /// `request_authorization` and `create_flow`.
    pub(super) fn handle_request(&mut self, heard: &Heard<'_>) -> Verdict {
        let Some(request) = read::<RequestAuthorization>(heard.frame) else {
            return Verdict::Error("invalid_payload");
        };
        if let Err(reason) = self.grant_access(heard, &request) {
            self.refuse(heard.peer, request.resource_id, reason);
        }
        Verdict::Silent
    }

    fn grant_access(
        &mut self,
        heard: &Heard<'_>,
        request: &RequestAuthorization,
    ) -> Result<(), &'static str> {
        let Heard { peer, session, .. } = *heard;
        let resource_id: Uuid = request.resource_id.parse().map_err(|_| "not_found")?;
        let resource = self.config.resources.get(&resource_id);
        let site = resource.ok_or("not_found")?.site.id;
        let key = GrantKey {
            client: session.device,
            resource: resource_id,
        };
        let policy = self.config.policy(key.client, key.resource);
        let expires_at = expiry(policy.ok_or("forbidden")?, heard.now.unix);
        let applicant = self.applicant(session).ok_or("forbidden")?;
        let gateway = self
            .choose_gateway(key, site, &request.connected_gateway_ids)
            .ok_or("offline")?;
        let ask = Ask {
            applicant: &applicant,
            key,
            gateway,
            expires_at,
        };
        let purpose = |payload| Purpose::Access {
            peer,
            payload: Box::new(payload),
        };
        self.propose(&ask, heard.now, purpose)
    }

    /// A connected client as an applicant; `None` when it has left the configuration.
    pub(super) fn applicant(&self, session: &Session) -> Option<Applicant> {
        let device = self.config.clients.get(&session.device)?;
        Some(Applicant {
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
    pub(super) fn choose_gateway(
        &self,
        key: GrantKey,
        site: Uuid,
        preferred: &[String],
    ) -> Option<PeerId> {
        let stands_at = |device: &Uuid| {
            let device = self.config.gateways.get(device);
            device.is_some_and(|it| it.site.as_ref().is_some_and(|it| it.id == site))
        };
        let mut usable: BTreeMap<Uuid, PeerId> = BTreeMap::new();
        for (peer, session) in &self.sessions {
            if session.side == Side::Gateway && session.joined && stands_at(&session.device) {
                usable.insert(session.device, *peer);
            }
        }
        let wanted = preferred.iter().filter_map(|id| id.parse().ok());
        let holder = self.grants.get(&key).map(|grant| grant.gateway);
        let favourite = wanted.chain(holder).find_map(|id: Uuid| usable.get(&id));
        let load = |device: &Uuid| {
            let mut grants = self.grants.values().map(|grant| grant.gateway);
            grants.by_ref().filter(|gateway| gateway == device).count()
        };
        let idlest = usable.iter().min_by_key(|(device, _)| load(device));
        favourite.or(idlest.map(|(_, peer)| peer)).copied()
    }

    /// Asks a gateway to admit a client. `purpose` is made from what the client is to be told.
    pub(super) fn propose(
        &mut self,
        ask: &Ask<'_>,
        now: Moment,
        purpose: impl FnOnce(ClientGrant) -> Purpose,
    ) -> Result<(), &'static str> {
        let Ask {
            applicant,
            key,
            gateway,
            expires_at,
        } = *ask;
        let reference = self.new_reference()?;
        let gateway_session = self.sessions.get(&gateway).ok_or("offline")?;
        let gateway_device = self.config.gateways.get(&gateway_session.device);
        let resource = self.config.resources.get(&key.resource);
        let policy = self.config.policy(key.client, key.resource);
        let proposal = Proposal {
            reference: &reference,
            applicant,
            gateway: gateway_session,
            gateway_device: gateway_device.ok_or("offline")?,
            resource_id: key.resource,
            resource: resource.ok_or("not_found")?,
            policy_id: policy.map_or(Uuid::nil(), |policy| policy.id),
            expires_at,
        };
        let for_gateway = proposal.for_gateway(&self.config.account, &self.seed, now);
        let for_client = proposal.for_client(&self.config.account, &self.seed, now);
        let event = gateway_session
            .generation
            .pick("authorize_flow", "create_authorization");
        let request = Request {
            reference,
            event,
            payload: for_gateway,
            in_generation_0: false,
        };
        self.send_request(request, ask, purpose(for_client), now)
    }

    /// A reference that no other request has.
    ///
    /// # Errors
    /// `offline` when too many wait already.
    pub(super) fn new_reference(&mut self) -> Result<String, &'static str> {
        if self.pending.len() >= MAX_PENDING {
            return Err("offline");
        }
        Ok(URL_SAFE_NO_PAD.encode(&self.unforeseeable()[..16]))
    }

    /// Sends a request to a gateway and waits for its acknowledgement.
    pub(super) fn send_request(
        &mut self,
        request: Request,
        ask: &Ask<'_>,
        purpose: Purpose,
        now: Moment,
    ) -> Result<(), &'static str> {
        let session = self.sessions.get(&ask.gateway).ok_or("offline")?;
        let pending = Pending {
            key: ask.key,
            grant: Grant {
                gateway: session.device,
                granted_at: now.unix,
                expires_at: ask.expires_at,
            },
            gateway_key: session.public_key.clone(),
            purpose,
            in_generation_0: request.in_generation_0,
            sent_at: now.instant,
            deadline: now.instant + ACK_TIMEOUT,
        };
        let measured = Some(request.reference.clone());
        self.push_grant(ask.gateway, request.event, &request.payload, measured);
        self.pending.insert(request.reference, pending);
        Ok(())
    }

    /// `authorization_created` and `flow_authorized`. The client is told before the gateway gets
    /// its reply, as in the recording: the gateway's candidates follow on the same path and must
    /// not overtake the grant.
    pub(super) fn handle_ack(&mut self, heard: &Heard<'_>) -> Verdict {
        let Some(AuthorizationCreated { reference }) = read(heard.frame) else {
            return Verdict::Error("invalid_ref");
        };
        self.acknowledged(heard, &reference, None)
    }

    /// A gateway has answered, in generation 0 with something for the client.
    pub(super) fn acknowledged(
        &mut self,
        heard: &Heard<'_>,
        reference: &str,
        response: Option<GatewayResponse>,
    ) -> Verdict {
        let Heard {
            session: from, now, ..
        } = *heard;
        let meant = self.pending.get(reference).is_some_and(|pending| {
            pending.grant.gateway == from.device && pending.in_generation_0 == response.is_some()
        });
        let Some(pending) = meant.then(|| self.pending.remove(reference)).flatten() else {
            return Verdict::Error("invalid_ref");
        };
        let elapsed = now.instant.saturating_duration_since(pending.sent_at);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        debug!(gateway = from.name, micros, "grant acknowledged");
        self.record(AckTime {
            client_id: pending.key.client,
            resource_id: pending.key.resource,
            gateway: from.name.clone(),
            micros,
        });
        match pending.purpose {
            Purpose::Access { peer, payload } => {
                self.give(pending.key, pending.grant, now);
                self.tell_granted(peer, &payload);
            }
            Purpose::Connection { peer, question } => {
                self.give(pending.key, pending.grant, now);
                if let Some(response) = response {
                    let reply = generation0::reply(pending.key, pending.gateway_key, response);
                    self.answer(peer, &question, "ok", reply);
                }
            }
            Purpose::Repeat(ticket) => {
                self.give(pending.key, pending.grant, now);
                self.settle(ticket, Ok(micros));
            }
            Purpose::Measurement(ticket) => {
                self.push_reject(pending.key, pending.grant.gateway);
                self.settle(ticket, Ok(micros));
            }
            Purpose::Admission(ticket) => self.settle(ticket, Ok(micros)),
        }
        Verdict::Ok
    }

    fn record(&mut self, ack: AckTime) {
        if self.ack_times.len() >= MAX_ACK_TIMES {
            self.ack_times.pop_front();
        }
        self.ack_times.push_back(ack);
    }

    pub(super) fn give(&mut self, key: GrantKey, grant: Grant, now: Moment) {
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

    fn tell_granted(&mut self, peer: PeerId, payload: &ClientGrant) {
        let Some(session) = self.sessions.get(&peer) else {
            return;
        };
        let event = session
            .generation
            .pick("flow_created", "authorization_created");
        self.push(peer, event, payload);
    }

    /// `authorization_creation_failed` and `flow_creation_failed`.
    fn refuse(&mut self, peer: PeerId, resource_id: String, reason: &str) {
        let Some(session) = self.sessions.get(&peer) else {
            return;
        };
        info!(client = session.name, reason, "access refused");
        let event = session
            .generation
            .pick("flow_creation_failed", "authorization_creation_failed");
        let payload = ClientRefusal {
            resource_id,
            reason: reason.to_owned(),
            violated_properties: Vec::new(),
        };
        self.push(peer, event, &payload);
    }

    /// Gives up on an unanswered request and tells whoever waits for it.
    pub(super) fn abandon(&mut self, reference: &str, reason: &str) {
        let Some(pending) = self.pending.remove(reference) else {
            return;
        };
        match pending.purpose {
            Purpose::Access { peer, .. } => {
                self.refuse(peer, pending.key.resource.to_string(), reason);
            }
            Purpose::Connection { peer, question } => {
                self.answer(peer, &question, "error", json!({ "reason": reason }));
            }
            Purpose::Repeat(ticket) | Purpose::Measurement(ticket) | Purpose::Admission(ticket) => {
                self.settle(ticket, Err(reason.to_owned()));
            }
        }
    }

    /// A gateway has come with this key: what an earlier process of it was asked will never be
    /// acknowledged, and what the clients would be told about it would be wrong.
    pub(super) fn abandon_outdated(&mut self, gateway: Uuid, public_key: &str) {
        let outdated: Vec<String> = self
            .pending
            .iter()
            .filter(|(_, it)| it.grant.gateway == gateway && it.gateway_key != public_key)
            .map(|(reference, _)| reference.clone())
            .collect();
        for reference in outdated {
            self.abandon(&reference, "offline");
        }
    }

    fn settle(&mut self, ticket: Ticket, result: Result<u64, String>) {
        self.outbox.push_back(Output::Settled { ticket, result });
    }

    /// `reject_access`, when the gateway is here. Otherwise its next `init` says the same.
    pub(super) fn push_reject(&mut self, key: GrantKey, gateway: Uuid) {
        let Some(peer) = self.joined_device(Side::Gateway, gateway) else {
            return;
        };
        let payload = RejectAccess {
            client_id: key.client.to_string(),
            resource_id: key.resource.to_string(),
        };
        self.push(peer, "reject_access", &payload);
    }

    /// Takes back a grant and tells its gateway. Whether there was one.
    pub(super) fn revoke(&mut self, key: GrantKey) -> bool {
        let Some(grant) = self.grants.remove(&key) else {
            return false;
        };
        self.grants_changed = true;
        self.push_reject(key, grant.gateway);
        true
    }

    /// All that `init` lists for this gateway: given or about to be given, and not expired.
    pub(super) fn valid_grants_of(
        &self,
        gateway: Uuid,
        now: Moment,
    ) -> Vec<(GrantKey, Option<u64>)> {
        let pending = self.pending.values().map(|it| (it.key, it.grant));
        let given = self.grants.iter().map(|(key, grant)| (*key, *grant));
        let valid: BTreeMap<_, _> = given
            .chain(pending)
            .filter(|(_, grant)| grant.gateway == gateway && grant.is_valid(now))
            .map(|(key, grant)| (key, grant.expires_at))
            .collect();
        valid.into_iter().collect()
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
