//! What goes to the portal: refs, the queue before a join, and candidates held during an outage.
//!
//! Decides only what may be written when; whether there is a socket, and whether it is joined, it
//! is told. Source: docs/protocol.md 1.4, 1.5, 1.7 and 2.3.

use super::config::{Generation, PortalLimits};
use super::wire;
use super::wire::generation0::{self, GatewayResponse};
use crate::grant::{AccessRequest, AuthorizationRequest, IceCredentials, ReplyKind};
use crate::ids::ClientId;
use std::collections::{BTreeMap, VecDeque};

/// A message to the portal that has no ref yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// Asks to join the gateway's topic.
    Join,
    /// Asks for a sign of life.
    Heartbeat,
    /// Says that we do not speak the ICE-less path protocol.
    Capabilities,
    /// Grants the request with this ref.
    Acknowledge(String, Acknowledgement),
    /// New local candidates for a client.
    Candidates(ClientId, Vec<String>),
    /// Local candidates that a client should forget.
    Invalidated(ClientId, Vec<String>),
    /// No relay answers us.
    NoRelays,
}

/// What the portal waits to hear about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    /// Generations 1 and 2: the ref alone.
    Granted,
    /// Generation 0, a connection: our ICE credentials, and the announced name.
    ConnectionReady {
        ice: IceCredentials,
        domain: Option<String>,
    },
    /// Generation 0, a further name over a connection that there is.
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

    /// Without a name nobody waits.
    pub(super) fn of_access(request: &AccessRequest) -> Option<Self> {
        let domain = request.announced.as_ref()?.domain.clone();
        Some(Self::ResourceAccepted { domain })
    }
}

/// Something did not fit and was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Everything on its way to the portal.
#[derive(Debug)]
pub(super) struct Outbox {
    limits: PortalLimits,
    generation: Generation,
    next_ref: u64,
    frames: VecDeque<String>,
    queue: VecDeque<Outgoing>,
    pending: PendingRefs,
    held: BTreeMap<ClientId, Held>,
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

    /// A new socket: refs start at 0, nothing that belongs to another socket survives but the
    /// candidates that are held.
    pub(super) fn reset(&mut self, generation: Generation) {
        self.generation = generation;
        self.next_ref = 0;
        self.frames.clear();
        self.queue.clear();
        self.pending = PendingRefs::default();
    }

    /// The next frame for the socket.
    pub(super) fn poll_frame(&mut self) -> Option<String> {
        self.frames.pop_front()
    }

    /// Writes a message at once and returns its ref.
    pub(super) fn write(&mut self, message: &Outgoing) -> u64 {
        let reference = self.next_ref;
        self.next_ref += 1;
        self.frames
            .push_back(encode(self.generation, message, reference));
        reference
    }

    /// Keeps a message until the join is answered; a repetition of one that waits is dropped.
    pub(super) fn queue(&mut self, message: Outgoing) -> Result<(), Full> {
        if self.queue.contains(&message) {
            return Ok(());
        }
        if self.queue.len() >= self.limits.pending_authorizations {
            return Err(Full);
        }
        self.queue.push_back(message);
        Ok(())
    }

    /// Writes all that waited for the join: messages first, so that no candidate overtakes the
    /// acknowledgement of its connection, then the held candidates of each client.
    pub(super) fn flush(&mut self) {
        while let Some(message) = self.queue.pop_front() {
            self.write(&message);
        }
        while let Some((client, held)) = self.held.pop_first() {
            self.broadcast(client, held.added);
            self.invalidate(client, held.removed);
        }
    }

    /// Remembers what the portal waits for under this ref on this socket.
    pub(super) fn expect_acknowledgement(&mut self, reply_ref: &str, what: Acknowledgement) {
        let limit = self.limits.pending_authorizations;
        self.pending.insert(reply_ref, what, limit);
    }

    /// What the portal waits for under this ref on this socket, if anything; it does not from now
    /// on.
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

    /// Writes one batch of candidates to forget.
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
    ) -> Result<(), Full> {
        self.hold(client, candidates, Held::add)
    }

    /// Holds removals until the next join.
    pub(super) fn hold_removed(
        &mut self,
        client: ClientId,
        candidates: Vec<String>,
    ) -> Result<(), Full> {
        self.hold(client, candidates, Held::remove)
    }

    fn hold(
        &mut self,
        client: ClientId,
        candidates: Vec<String>,
        keep: fn(&mut Held, String, usize) -> Result<(), Full>,
    ) -> Result<(), Full> {
        if self.held.len() >= self.limits.held_clients && !self.held.contains_key(&client) {
            return Err(Full);
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

/// What a client has not been told because the portal was away.
#[derive(Debug, Default)]
struct Held {
    added: Vec<String>,
    removed: Vec<String>,
}

impl Held {
    /// An addition after a removal takes the removal back: the client still has the candidate.
    fn add(&mut self, candidate: String, limit: usize) -> Result<(), Full> {
        if !take(&mut self.removed, &candidate) {
            return keep(&mut self.added, candidate, limit);
        }
        Ok(())
    }

    /// A removal after an addition takes the addition back: the client never hears of either.
    fn remove(&mut self, candidate: String, limit: usize) -> Result<(), Full> {
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

fn keep(list: &mut Vec<String>, candidate: String, limit: usize) -> Result<(), Full> {
    if list.contains(&candidate) {
        return Ok(());
    }
    if list.len() >= limit {
        return Err(Full);
    }
    list.push(candidate);
    Ok(())
}

/// Refs that the portal waits for, oldest forgotten first.
#[derive(Debug, Default)]
struct PendingRefs {
    refs: BTreeMap<String, Acknowledgement>,
    /// Order of arrival; holds refs that were taken, too, until they are the oldest.
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

/// The priority of a candidate (RFC 8839, section 5.1): the fourth word. A string that has none
/// goes to the end.
fn priority(candidate: &str) -> u32 {
    let word = candidate.split_ascii_whitespace().nth(3);
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn encode(generation: Generation, message: &Outgoing, reference: u64) -> String {
    let gateway = |event: &str, payload: &wire::Outgoing| {
        wire::write_frame(wire::GATEWAY_TOPIC, event, payload, reference)
    };
    let candidates = |client: &ClientId, candidates: &[String]| {
        wire::Outgoing::Candidates(wire::BroadcastCandidates {
            client_ids: vec![client.to_string()],
            candidates: candidates.to_vec(),
        })
    };
    match message {
        Outgoing::Join => gateway("phx_join", &wire::Outgoing::Null),
        Outgoing::Heartbeat => wire::write_frame(
            wire::HEARTBEAT_TOPIC,
            "heartbeat",
            &wire::Outgoing::Empty {},
            reference,
        ),
        Outgoing::Capabilities => gateway(
            "set_snownet_capabilities",
            &wire::Outgoing::Capabilities(wire::Capabilities { iceless: false }),
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
        Outgoing::NoRelays => gateway("no_relays", &wire::Outgoing::Empty {}),
    }
}

fn acknowledgement(
    generation: Generation,
    reference: String,
    what: &Acknowledgement,
) -> (&'static str, wire::Outgoing) {
    let ready = |gateway_payload| {
        let ready = generation0::ConnectionReady {
            reference: reference.clone(),
            gateway_payload,
        };
        ("connection_ready", wire::Outgoing::Ready(ready))
    };
    match what {
        Acknowledgement::Granted => {
            let event = match generation {
                Generation::V1 => "flow_authorized",
                Generation::V2 => "authorization_created",
            };
            let created = wire::AuthorizationCreated { reference };
            (event, wire::Outgoing::Created(created))
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

/// docs/lessons.md 1: the answer does not wait for the name's addresses; the client speaks to its
/// own.
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
    fn candidates_go_out_highest_priority_first() {
        let mut outbox = outbox(PortalLimits::default());
        let relay = "candidate:2 1 udp 37748479 203.0.113.1 50000 typ relay";
        let host = "candidate:1 1 udp 2130706175 192.0.2.10 52625 typ host";
        outbox.broadcast(client(1), vec!["garbage".into(), relay.into(), host.into()]);
        let frame = frames(&mut outbox).remove(0);
        let at = |text| frame.find(text).unwrap();
        assert!(at(host) < at(relay) && at(relay) < at("garbage"));
    }

    #[test]
    fn an_addition_taken_back_during_an_outage_is_never_signalled() {
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
    fn a_full_hold_drops_the_newest_and_says_so() {
        let limits = PortalLimits {
            held_clients: 1,
            held_candidates: 1,
            ..PortalLimits::default()
        };
        let mut outbox = outbox(limits);
        assert_eq!(
            outbox.hold_added(client(1), vec!["a".into(), "b".into()]),
            Err(Full)
        );
        assert_eq!(outbox.hold_added(client(2), vec!["c".into()]), Err(Full));
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
        assert_eq!(outbox.queue(ack("3")), Err(Full));
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
        /// Whatever happens during an outage, a client that applies the two batches ends up with
        /// the candidates that are really there.
        #[test]
        fn held_batches_lead_to_the_true_set(
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
            let mut told = known;
            told.extend(held.added.iter().map(number));
            for removed in held.removed.iter().map(number) {
                prop_assert!(told.remove(&removed), "a removal of something never signalled");
            }
            prop_assert_eq!(told, truth);
        }

        #[test]
        fn no_candidate_string_panics(candidates in prop::collection::vec(".{0,60}", 0..8)) {
            let mut outbox = Outbox::new(PortalLimits::default());
            outbox.broadcast(client(1), candidates);
        }
    }
}
