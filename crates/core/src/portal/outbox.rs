//! Messages to the portal: references, the queue before a join, candidates held during an outage.
//!
//! Only decides which messages may be written when; the caller tracks the state of the socket.
//! Source: docs/protocol.md 1.4, 1.5, 1.7 and 2.3.

use super::config::{Generation, PortalLimits};
use super::wire;
use super::wire::generation0::{self, GatewayResponse};
use crate::grant::{AccessRequest, AuthorizationRequest, IceCredentials, ReplyKind};
use crate::ids::ClientId;
use std::collections::{BTreeMap, VecDeque};

/// A message to the portal without a reference yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// Joins the gateway's topic.
    Join,
    /// Requests a reply, to check that the portal is alive.
    Heartbeat,
    /// Declares that the gateway does not support the ICE-less path protocol.
    Capabilities,
    /// Acknowledges the request with this reference.
    Acknowledge(String, Acknowledgement),
    /// New local candidates for a client.
    Candidates(ClientId, Vec<String>),
    /// Local candidates of which a client must be signalled that they are invalid.
    Invalidated(ClientId, Vec<String>),
    /// Reports that no relay answers.
    NoRelays,
}

/// The acknowledgement that the portal awaits for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    /// Generations 1 and 2: only the reference.
    Granted,
    /// Generation 0, a connection: the gateway's ICE credentials and the announced name.
    ConnectionReady {
        ice: IceCredentials,
        domain: Option<String>,
    },
    /// Generation 0, a further name over an existing connection.
    ResourceAccepted { domain: String },
}

impl Acknowledgement {
    pub(super) fn of_grant(request: &AuthorizationRequest) -> Self {
        match request.reply {
            ReplyKind::Granted => Self::Granted,
            ReplyKind::ConnectionReady => Self::ConnectionReady {
                ice: request.gateway_ice.clone(),
                domain: request.announced.as_ref().map(|name| name.domain.clone()),
            },
        }
    }

    /// `None` without a name: the portal awaits no acknowledgement.
    pub(super) fn of_access(request: &AccessRequest) -> Option<Self> {
        let domain = request.announced.as_ref()?.domain.clone();
        Some(Self::ResourceAccepted { domain })
    }
}

/// A limit was reached, and something was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LimitReached;

/// All messages on their way to the portal.
#[derive(Debug)]
pub(super) struct Outbox {
    limits: PortalLimits,
    generation: Generation,
    next_ref: u64,
    frames: VecDeque<String>,
    queue: VecDeque<Outgoing>,
    pending: PendingRefs,
    held: BTreeMap<ClientId, HeldCandidates>,
}

impl Outbox {
    pub(super) fn new(limits: PortalLimits) -> Self {
        Self {
            limits,
            generation: Generation::V2,
            next_ref: 0,
            frames: VecDeque::new(),
            queue: VecDeque::new(),
            pending: PendingRefs::default(),
            held: BTreeMap::new(),
        }
    }

    /// Starts a new socket: references begin at 0. Of the former socket's state only the held
    /// candidates remain.
    pub(super) fn reset(&mut self, generation: Generation) {
        self.generation = generation;
        self.next_ref = 0;
        self.frames.clear();
        self.queue.clear();
        self.pending = PendingRefs::default();
    }

    /// The next frame to write.
    pub(super) fn poll_frame(&mut self) -> Option<String> {
        self.frames.pop_front()
    }

    /// Writes a message immediately and returns its reference.
    pub(super) fn write(&mut self, message: &Outgoing) -> u64 {
        let reference = self.next_ref;
        self.next_ref += 1;
        self.frames
            .push_back(encode(self.generation, message, reference));
        reference
    }

    /// Queues a message until the join is answered; a repetition of a queued one is dropped.
    pub(super) fn queue(&mut self, message: Outgoing) -> Result<(), LimitReached> {
        if self.queue.contains(&message) {
            return Ok(());
        }
        if self.queue.len() >= self.limits.pending_authorizations {
            return Err(LimitReached);
        }
        self.queue.push_back(message);
        Ok(())
    }

    /// Writes all messages that waited for the join: first those of the queue, so that no candidate
    /// overtakes the acknowledgement of its connection, then each client's held candidates.
    pub(super) fn flush(&mut self) {
        while let Some(message) = self.queue.pop_front() {
            self.write(&message);
        }
        while let Some((client, held)) = self.held.pop_first() {
            self.broadcast(client, held.added);
            self.invalidate(client, held.removed);
        }
    }

    /// Records the acknowledgement that the portal awaits for this reference on this socket.
    pub(super) fn expect_acknowledgement(&mut self, reply_ref: &str, what: Acknowledgement) {
        let limit = self.limits.pending_authorizations;
        self.pending.insert(reply_ref, what, limit);
    }

    /// Takes the acknowledgement that the portal awaits for this reference on this socket, if any.
    pub(super) fn take_expected(&mut self, reply_ref: &str) -> Option<Acknowledgement> {
        self.pending.refs.remove(reply_ref)
    }

    /// Writes one batch of candidates, highest priority first.
    pub(super) fn broadcast(&mut self, client: ClientId, mut candidates: Vec<String>) {
        if !candidates.is_empty() {
            candidates.sort_by_key(|candidate| std::cmp::Reverse(priority(candidate)));
            self.write(&Outgoing::Candidates(client, candidates));
        }
    }

    /// Writes one batch of invalid candidates.
    pub(super) fn invalidate(&mut self, client: ClientId, candidates: Vec<String>) {
        if !candidates.is_empty() {
            self.write(&Outgoing::Invalidated(client, candidates));
        }
    }

    /// Holds new candidates until the next join.
    pub(super) fn hold_added(
        &mut self,
        client: ClientId,
        candidates: Vec<String>,
    ) -> Result<(), LimitReached> {
        self.hold(client, candidates, HeldCandidates::add)
    }

    /// Holds removals until the next join.
    pub(super) fn hold_removed(
        &mut self,
        client: ClientId,
        candidates: Vec<String>,
    ) -> Result<(), LimitReached> {
        self.hold(client, candidates, HeldCandidates::remove)
    }

    fn hold(
        &mut self,
        client: ClientId,
        candidates: Vec<String>,
        keep: fn(&mut HeldCandidates, String, usize) -> Result<(), LimitReached>,
    ) -> Result<(), LimitReached> {
        if self.held.len() >= self.limits.held_clients && !self.held.contains_key(&client) {
            return Err(LimitReached);
        }
        let held = self.held.entry(client).or_default();
        let mut outcome = Ok(());
        for candidate in candidates {
            outcome = keep(held, candidate, self.limits.held_candidates).and(outcome);
        }
        if held.added.is_empty() && held.removed.is_empty() {
            self.held.remove(&client);
        }
        outcome
    }
}

/// Changes of candidates that a client has not received because the portal was unreachable.
#[derive(Debug, Default)]
struct HeldCandidates {
    added: Vec<String>,
    removed: Vec<String>,
}

impl HeldCandidates {
    /// An addition cancels a held removal: the client still has the candidate.
    fn add(&mut self, candidate: String, limit: usize) -> Result<(), LimitReached> {
        if !take(&mut self.removed, &candidate) {
            return keep(&mut self.added, candidate, limit);
        }
        Ok(())
    }

    /// A removal cancels a held addition: the client receives neither.
    fn remove(&mut self, candidate: String, limit: usize) -> Result<(), LimitReached> {
        if !take(&mut self.added, &candidate) {
            return keep(&mut self.removed, candidate, limit);
        }
        Ok(())
    }
}

fn take(list: &mut Vec<String>, candidate: &str) -> bool {
    let at = list.iter().position(|held| held == candidate);
    at.map(|at| list.remove(at)).is_some()
}

fn keep(list: &mut Vec<String>, candidate: String, limit: usize) -> Result<(), LimitReached> {
    if list.contains(&candidate) {
        return Ok(());
    }
    if list.len() >= limit {
        return Err(LimitReached);
    }
    list.push(candidate);
    Ok(())
}

/// References that the portal awaits; the oldest is forgotten first.
#[derive(Debug, Default)]
struct PendingRefs {
    refs: BTreeMap<String, Acknowledgement>,
    /// Order of arrival; includes references already taken, until they are the oldest.
    order: VecDeque<String>,
}

impl PendingRefs {
    fn insert(&mut self, reply_ref: &str, what: Acknowledgement, limit: usize) {
        if self.order.len() >= limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.refs.remove(&oldest);
        }
        if self.refs.insert(reply_ref.to_owned(), what).is_none() {
            self.order.push_back(reply_ref.to_owned());
        }
    }
}

/// The priority of a candidate (RFC 8839, 5.1): the fourth word. A string without one sorts last.
fn priority(candidate: &str) -> u32 {
    let word = candidate.split_ascii_whitespace().nth(3);
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn encode(generation: Generation, message: &Outgoing, reference: u64) -> String {
    let gateway = |event: &str, payload: &wire::OutgoingPayload| {
        wire::write_frame(wire::GATEWAY_TOPIC, event, payload, reference)
    };
    let candidates = |client: &ClientId, candidates: &[String]| {
        wire::OutgoingPayload::Candidates(wire::BroadcastCandidates {
            client_ids: vec![client.to_string()],
            candidates: candidates.to_vec(),
        })
    };
    match message {
        Outgoing::Join => gateway("phx_join", &wire::OutgoingPayload::Null),
        Outgoing::Heartbeat => wire::write_frame(
            wire::HEARTBEAT_TOPIC,
            "heartbeat",
            &wire::OutgoingPayload::Empty {},
            reference,
        ),
        Outgoing::Capabilities => gateway(
            "set_snownet_capabilities",
            &wire::OutgoingPayload::Capabilities(wire::Capabilities { iceless: false }),
        ),
        Outgoing::Acknowledge(reply_ref, what) => {
            let (event, payload) = acknowledgement(generation, reply_ref.clone(), what);
            gateway(event, &payload)
        }
        Outgoing::Candidates(client, list) => {
            gateway("broadcast_ice_candidates", &candidates(client, list))
        }
        Outgoing::Invalidated(client, list) => gateway(
            "broadcast_invalidated_ice_candidates",
            &candidates(client, list),
        ),
        Outgoing::NoRelays => gateway("no_relays", &wire::OutgoingPayload::Empty {}),
    }
}

fn acknowledgement(
    generation: Generation,
    reference: String,
    what: &Acknowledgement,
) -> (&'static str, wire::OutgoingPayload) {
    let ready = |gateway_payload| {
        let ready = generation0::ConnectionReady {
            reference: reference.clone(),
            gateway_payload,
        };
        ("connection_ready", wire::OutgoingPayload::Ready(ready))
    };
    match what {
        Acknowledgement::Granted => {
            let event = match generation {
                Generation::V1 => "flow_authorized",
                Generation::V2 => "authorization_created",
            };
            let created = wire::AuthorizationCreated { reference };
            (event, wire::OutgoingPayload::Created(created))
        }
        Acknowledgement::ConnectionReady { ice, domain } => {
            ready(GatewayResponse::ConnectionAccepted {
                ice_parameters: wire::IceCredentials {
                    username: ice.ufrag.clone(),
                    password: ice.password.to_string(),
                },
                domain_response: domain.as_deref().map(unresolved),
            })
        }
        Acknowledgement::ResourceAccepted { domain } => ready(GatewayResponse::ResourceAccepted {
            domain_response: unresolved(domain),
        }),
    }
}

/// docs/lessons.md 1: the answer does not wait for the name's addresses; the client sends to its
/// proxy IPs.
fn unresolved(domain: &str) -> generation0::DomainResponse {
    generation0::DomainResponse {
        domain: domain.to_owned(),
        address: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn outbox(limits: PortalLimits) -> Outbox {
        Outbox::new(limits)
    }

    fn client(n: u128) -> ClientId {
        ClientId(Uuid::from_u128(n))
    }

    fn frames(outbox: &mut Outbox) -> Vec<String> {
        std::iter::from_fn(|| outbox.poll_frame()).collect()
    }

    #[test]
    fn candidates_are_written_in_order_of_priority() {
        let mut outbox = outbox(PortalLimits::default());
        let relay = "candidate:2 1 udp 37748479 203.0.113.1 50000 typ relay";
        let host = "candidate:1 1 udp 2130706175 192.0.2.10 52625 typ host";
        outbox.broadcast(client(1), vec!["garbage".into(), relay.into(), host.into()]);
        let frame = frames(&mut outbox).remove(0);
        let at = |text| frame.find(text).unwrap();
        assert!(at(host) < at(relay) && at(relay) < at("garbage"));
    }

    #[test]
    fn an_addition_cancelled_during_an_outage_is_never_signalled() {
        let mut outbox = outbox(PortalLimits::default());
        outbox
            .hold_added(client(1), vec!["a".into(), "b".into()])
            .unwrap();
        outbox
            .hold_removed(client(1), vec!["a".into(), "old".into()])
            .unwrap();
        outbox.hold_added(client(2), vec!["c".into()]).unwrap();
        outbox.hold_removed(client(2), vec!["c".into()]).unwrap();
        outbox.flush();
        let frames = frames(&mut outbox);
        assert_eq!(frames.len(), 2);
        assert!(frames[0].contains("broadcast_ice_candidates") && frames[0].contains(r#"["b"]"#));
        assert!(frames[1].contains("broadcast_invalidated") && frames[1].contains(r#"["old"]"#));
    }

    #[test]
    fn a_full_hold_drops_the_newest_and_reports_it() {
        let limits = PortalLimits {
            held_clients: 1,
            held_candidates: 1,
            ..PortalLimits::default()
        };
        let mut outbox = outbox(limits);
        assert_eq!(
            outbox.hold_added(client(1), vec!["a".into(), "b".into()]),
            Err(LimitReached)
        );
        assert_eq!(
            outbox.hold_added(client(2), vec!["c".into()]),
            Err(LimitReached)
        );
        outbox.flush();
        let frames = frames(&mut outbox);
        assert_eq!(frames.len(), 1);
        assert!(frames[0].contains(r#"["a"]"#));
    }

    #[test]
    fn the_queue_is_bounded_and_drops_repetitions() {
        let mut outbox = outbox(PortalLimits {
            pending_authorizations: 2,
            ..PortalLimits::default()
        });
        let ack = |text: &str| Outgoing::Acknowledge(text.into(), Acknowledgement::Granted);
        assert_eq!(outbox.queue(ack("1")), Ok(()));
        assert_eq!(outbox.queue(ack("1")), Ok(()));
        assert_eq!(outbox.queue(ack("2")), Ok(()));
        assert_eq!(outbox.queue(ack("3")), Err(LimitReached));
        outbox.flush();
        assert_eq!(frames(&mut outbox).len(), 2);
    }

    #[test]
    fn forgets_the_oldest_pending_ref_when_full() {
        let mut outbox = outbox(PortalLimits {
            pending_authorizations: 2,
            ..PortalLimits::default()
        });
        for reply_ref in ["1", "2", "3"] {
            outbox.expect_acknowledgement(reply_ref, Acknowledgement::Granted);
        }
        assert_eq!(outbox.take_expected("1"), None);
        assert_eq!(outbox.take_expected("3"), Some(Acknowledgement::Granted));
        assert_eq!(
            outbox.take_expected("3"),
            None,
            "an acknowledgement is sent once"
        );
    }

    proptest! {
        /// After any changes during an outage, a client that applies the two batches has exactly
        /// the current candidates.
        #[test]
        fn held_batches_lead_to_the_current_set(
            known in prop::collection::btree_set(0u8..6, 0..6),
            steps in prop::collection::vec((any::<bool>(), 0u8..6), 0..40),
        ) {
            let mut outbox = Outbox::new(PortalLimits::default());
            let mut truth = known.clone();
            for (add, n) in steps {
                if add && truth.insert(n) {
                    outbox.hold_added(client(1), vec![n.to_string()]).unwrap();
                } else if !add && truth.remove(&n) {
                    outbox.hold_removed(client(1), vec![n.to_string()]).unwrap();
                }
            }
            let held = outbox.held.remove(&client(1)).unwrap_or_default();
            let number = |text: &String| text.parse::<u8>().unwrap();
            let mut signalled = known;
            signalled.extend(held.added.iter().map(number));
            for removed in held.removed.iter().map(number) {
                prop_assert!(signalled.remove(&removed), "a removal of something never signalled");
            }
            prop_assert_eq!(signalled, truth);
        }

        #[test]
        fn no_candidate_string_panics(candidates in prop::collection::vec(".{0,60}", 0..8)) {
            let mut outbox = Outbox::new(PortalLimits::default());
            outbox.broadcast(client(1), candidates);
        }
    }
}
