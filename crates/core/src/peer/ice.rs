//! The ICE agent of one peer: full ICE, always controlled; a nomination is never final.
//!
//! Wraps the `is` crate. It gathers nothing itself: the caller adds local addresses. Both sides'
//! credentials come from the portal, so checks can start before any candidate of the client is
//! known (RFC 8445, 7.3.1.3: peer-reflexive candidates). Source of the numbers: docs/protocol.md
//! 3.3.

use crate::authorizations::ranges;
use crate::grant::IceCredentials;
use crate::packet::{DatagramBatch, Path};
use crate::peer::gatherer::LocalAddresses;
use crate::peer::statistics::PathKind;
use is::stun::{StunMessage, StunPacket};
use is::{
    Candidate, CandidateKind, IceAgent, IceAgentEvent, IceConnectionState, IceCreds, Protocol,
};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Events that the owner must handle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum IceEvent {
    /// Send on this path from now on.
    Nominated(Path),
    /// No path works any longer.
    Disconnected,
    /// A path works again after a failure.
    Connected,
    /// Paths are being tried, and none is nominated.
    Checking,
}

/// How often working paths are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckPace {
    /// Packets flow between client and gateway.
    Active,
    /// No packets have flowed for a while.
    Idle,
    /// No packets flow, and the gateway answers the client's own checks: they keep the path,
    /// and the NAT bindings at both ends, as well as ours would.
    Answering,
}

/// One peer's ICE agent.
pub(crate) struct IceTransport {
    agent: IceAgent,
    local: Vec<Candidate>,
    transmits: VecDeque<DatagramBatch>,
}

impl IceTransport {
    pub(crate) fn new(local: &IceCredentials, remote: &IceCredentials) -> Self {
        let mut agent = IceAgent::new(credentials(local));
        agent.set_remote_credentials(credentials(remote));
        agent.set_controlling(false);
        // The higher value keeps its role when both claim the same one: the client always controls.
        agent.set_control_tie_breaker(u64::MAX);
        agent.set_timing_advance(Duration::ZERO);
        agent.set_local_preference(local_preference);
        agent.set_max_candidate_pairs(MAX_CANDIDATE_PAIRS);
        let mut transport = Self {
            agent,
            local: Vec::new(),
            transmits: VecDeque::new(),
        };
        transport.set_pace(CheckPace::Active);
        transport
    }

    /// Sets the check interval. Time limits are long by design: the client decides about failure.
    pub(crate) fn set_pace(&mut self, pace: CheckPace) {
        let (initial, max, retransmits) = match pace {
            CheckPace::Active => (ACTIVE_INITIAL_RTO, ACTIVE_MAX_RTO, 45),
            CheckPace::Idle => (IDLE_RTO, IDLE_RTO, 40),
            CheckPace::Answering => (ANSWERING_RTO, ANSWERING_RTO, 10),
        };
        self.agent.set_initial_stun_rto(initial);
        self.agent.set_max_stun_rto(max);
        self.agent.set_max_stun_retransmits(retransmits);
    }

    /// Adds addresses that are new. Returns their strings, best first.
    ///
    /// Vanished addresses are neither invalidated nor signalled: their pairs fail by their own
    /// checks, and an address that returns before that has lost nothing (docs/protocol.md 3.6: only
    /// relay candidates are ever invalidated).
    pub(crate) fn add_local_addresses(&mut self, addresses: &LocalAddresses) -> Vec<String> {
        let mut added = Vec::new();
        for candidate in candidates_of(addresses) {
            if self
                .local
                .iter()
                .any(|known| is_same_candidate(&candidate, known))
            {
                continue;
            }
            if let Some(accepted) = self.agent.add_local_candidate(candidate) {
                added.push(accepted.clone());
            }
        }
        added.sort_by_key(|candidate| std::cmp::Reverse(candidate.prio()));
        let strings = added.iter().map(signalled).collect();
        self.local.extend(added);
        strings
    }

    /// All current local candidates as strings, best first.
    pub(crate) fn local_candidates(&self) -> Vec<String> {
        let mut current: Vec<&Candidate> = self.local.iter().collect();
        current.sort_by_key(|candidate| std::cmp::Reverse(candidate.prio()));
        current.into_iter().map(signalled).collect()
    }

    /// Adds a candidate of the client. Returns false when the string does not parse.
    pub(crate) fn add_remote_candidate(&mut self, candidate: &str) -> bool {
        let Some(parsed) = parse(candidate) else {
            return false;
        };
        if self.has_room_for(parsed.addr()) {
            self.agent.add_remote_candidate(parsed);
        }
        true
    }

    /// Removes a candidate of the client. Returns false when the string does not parse.
    pub(crate) fn remove_remote_candidate(&mut self, candidate: &str) -> bool {
        let Some(parsed) = parse(candidate) else {
            return false;
        };
        self.agent.invalidate_candidate(&parsed);
        true
    }

    /// The kind of the client's candidate with this address.
    pub(crate) fn kind_of(&self, remote: SocketAddr) -> Option<PathKind> {
        let mut known = self.agent.remote_candidates();
        let candidate = known.find(|candidate| candidate.addr() == remote)?;
        Some(match candidate.kind() {
            CandidateKind::Host => PathKind::Host,
            CandidateKind::ServerReflexive => PathKind::ServerReflexive,
            CandidateKind::PeerReflexive => PathKind::PeerReflexive,
            CandidateKind::Relayed => PathKind::Relayed,
        })
    }

    /// Whether any candidate of the client is known, signalled or discovered.
    pub(crate) fn has_remote_candidates(&self) -> bool {
        self.agent.remote_candidates().next().is_some()
    }

    fn knows(&self, remote: SocketAddr) -> bool {
        let mut known = self.agent.remote_candidates();
        known.any(|candidate| candidate.addr() == remote)
    }

    fn has_room_for(&self, remote: SocketAddr) -> bool {
        let mut known = self.agent.remote_candidates();
        self.knows(remote) || known.nth(MAX_REMOTE_CANDIDATES - 1).is_none()
    }

    /// Whether this is a local address, or may become one: a client can name ever new addresses in
    /// its responses.
    fn has_room_to_learn(&self, mapped: Option<SocketAddr>) -> bool {
        let mut known = self.agent.local_candidates();
        mapped.is_none_or(|mapped| known.clone().any(|candidate| candidate.addr() == mapped))
            || known.nth(MAX_LOCAL_CANDIDATES - 1).is_none()
    }

    /// Handles a STUN message. Returns false if it is not for this agent.
    pub(crate) fn handle_stun(&mut self, path: Path, datagram: &[u8], now: Instant) -> bool {
        let Ok(message) = StunMessage::parse(datagram) else {
            return false;
        };
        let is_acceptable = match message.is_binding_request() {
            // The integrity of a request does not cover its source address: an attacker could
            // replay a captured one to make us remember, and check, any number of addresses.
            true => self.has_room_for(path.remote),
            // RFC 8445, 7.2.5.2.1: a response comes from the request's destination.
            false => self.knows(path.remote) && self.has_room_to_learn(message.mapped_address()),
        };
        if !is_acceptable {
            return false;
        }
        let packet = StunPacket {
            proto: Protocol::Udp,
            source: path.remote,
            destination: path.local,
            message,
        };
        self.agent.handle_packet(now, packet)
    }

    /// Runs everything that is due at `now`. One call of the agent's own handler starts at most one
    /// check, so it is repeated until nothing more is due, within a bound. Transmits are taken
    /// immediately: while one is queued, the agent reports that it is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..MAX_STEPS {
            self.agent.handle_timeout(now);
            self.take_transmits();
            if self.agent.poll_timeout().is_none_or(|due| due > now) {
                return;
            }
        }
    }

    fn take_transmits(&mut self) {
        while let Some(transmit) = self.agent.poll_transmit() {
            let path = Path::direct(transmit.source, transmit.destination);
            let datagram = DatagramBatch::of(path, transmit.contents.into());
            self.transmits.push_back(datagram);
        }
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        self.agent.poll_timeout()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<DatagramBatch> {
        self.take_transmits();
        self.transmits.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<IceEvent> {
        loop {
            match self.agent.poll_event()? {
                IceAgentEvent::NominatedSend {
                    source,
                    destination,
                    ..
                } => {
                    return Some(IceEvent::Nominated(Path::direct(source, destination)));
                }
                IceAgentEvent::IceConnectionStateChange(state) => match state {
                    IceConnectionState::Disconnected => return Some(IceEvent::Disconnected),
                    IceConnectionState::Connected | IceConnectionState::Completed => {
                        return Some(IceEvent::Connected);
                    }
                    IceConnectionState::Checking => return Some(IceEvent::Checking),
                    IceConnectionState::New => {}
                },
                IceAgentEvent::IceRestart(_) | IceAgentEvent::DiscoveredRecv { .. } => {}
            }
        }
    }
}

fn credentials(of: &IceCredentials) -> IceCreds {
    IceCreds {
        ufrag: of.ufrag.clone(),
        pass: of.password.to_string(),
    }
}

fn candidates_of(addresses: &LocalAddresses) -> impl Iterator<Item = Candidate> {
    let host = addresses
        .host
        .iter()
        .filter_map(|addr| Candidate::host(*addr, Protocol::Udp).ok());
    let reflexive = addresses.reflexive.iter().filter_map(|(mapped, base)| {
        Candidate::server_reflexive(*mapped, *base, Protocol::Udp).ok()
    });
    host.chain(reflexive)
}

fn is_same_candidate(a: &Candidate, b: &Candidate) -> bool {
    a.addr() == b.addr() && a.kind() == b.kind()
}

/// The candidate as signalled. The base of a reflexive candidate is a private address of the
/// gateway and is replaced by the unspecified one (docs/protocol.md 3.3.2).
fn signalled(candidate: &Candidate) -> String {
    let text = candidate.to_sdp_string();
    let Some((before, after)) = text.split_once(" raddr ") else {
        return text;
    };
    let hidden = match candidate.addr() {
        SocketAddr::V4(_) => "0.0.0.0",
        SocketAddr::V6(_) => "::",
    };
    let mut fields = after.splitn(4, ' ');
    let extensions = fields.nth(3).map(|rest| format!(" {rest}"));
    format!(
        "{before} raddr {hidden} rport 0{}",
        extensions.unwrap_or_default()
    )
}

/// Refuses lines that the agent's parser accepts: without the prefix or a numeric priority
/// (docs/protocol.md 3.3.2), with transports other than UDP, and with addresses at which no client
/// can be: the host routes packets for the tunnel's range into the tunnel.
fn parse(text: &str) -> Option<Candidate> {
    if !text.starts_with("candidate:") {
        return None;
    }
    text.split(' ').nth(3)?.parse::<u32>().ok()?;
    let candidate = Candidate::from_sdp_string(text).ok()?;
    let addr = candidate.addr();
    let is_possible = addr.port() != 0 && !ranges::is_tunnel(addr.ip());
    (candidate.proto() == Protocol::Udp && is_possible).then_some(candidate)
}

/// RFC 8445, 5.1.2.1, with IPv6 before IPv4 and 2 less for each further candidate of a kind.
fn local_preference(candidate: &Candidate, same_kind: usize) -> u32 {
    let of_kind: u32 = match candidate.kind() {
        CandidateKind::Host => 65_535,
        CandidateKind::PeerReflexive => 49_151,
        CandidateKind::ServerReflexive => 32_767,
        CandidateKind::Relayed => 16_383,
    };
    let family = u32::from(candidate.addr().is_ipv4());
    let further = u32::try_from(same_kind).unwrap_or(u32::MAX);
    of_kind
        .saturating_sub(family)
        .saturating_sub(further.saturating_mul(2))
}

const ACTIVE_INITIAL_RTO: Duration = Duration::from_millis(250);
const ACTIVE_MAX_RTO: Duration = Duration::from_secs(15);
const IDLE_RTO: Duration = Duration::from_secs(25);
/// Saves three of four checks; the total time until failure is that of an idle agent (1000 s).
const ANSWERING_RTO: Duration = Duration::from_secs(100);
/// Bounds the cost of a client with very many addresses; the agent keeps the best pairs.
const MAX_CANDIDATE_PAIRS: usize = 100;
/// Signalled and discovered together; a client has a few of each kind and family.
const MAX_REMOTE_CANDIDATES: usize = 48;
/// Addresses of the gateway's interfaces, and those that clients see.
const MAX_LOCAL_CANDIDATES: usize = 64;
/// As many steps as there can be pairs, and some for replies.
const MAX_STEPS: usize = MAX_CANDIDATE_PAIRS + 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::demux::Kind;
    use crate::peer::testing::TestAgent;
    use crate::testing::beginning;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    fn creds(ufrag: &str, password: &str) -> IceCredentials {
        IceCredentials {
            ufrag: ufrag.into(),
            password: Zeroizing::new(password.into()),
        }
    }

    fn gateway() -> IceTransport {
        IceTransport::new(
            &creds("6m26", "gj5f2zjrxg6cwvtrtqgfva"),
            &creds("eokn", "5enp7ct6775ebzonvunxjy"),
        )
    }

    fn addresses(host: &[&str], reflexive: &[(&str, &str)]) -> LocalAddresses {
        let addr = |text: &str| text.parse().expect("literal");
        LocalAddresses {
            host: host.iter().map(|text| addr(text)).collect(),
            reflexive: reflexive.iter().map(|(a, b)| (addr(a), addr(b))).collect(),
        }
    }

    #[test]
    fn candidates_are_written_in_the_signalled_format() {
        let mut ice = gateway();
        let added = ice.add_local_addresses(&addresses(
            &["192.0.2.10:52625", "[2001:db8::10]:52625"],
            &[("198.51.100.7:40000", "192.0.2.10:52625")],
        ));
        let tails: Vec<&str> = added
            .iter()
            .map(|line| line.split_once(' ').expect("a foundation").1)
            .collect();
        assert_eq!(
            tails,
            [
                "1 udp 2130706431 2001:db8::10 52625 typ host ufrag 6m26",
                "1 udp 2130706175 192.0.2.10 52625 typ host ufrag 6m26",
                "1 udp 1686109951 198.51.100.7 40000 typ srflx raddr 0.0.0.0 rport 0 ufrag 6m26",
            ]
        );
        assert!(added.iter().all(|line| line.starts_with("candidate:")));
        assert_eq!(ice.local_candidates(), added);
    }

    #[test]
    fn a_known_address_is_not_signalled_again_and_a_vanished_one_stays() {
        let mut ice = gateway();
        ice.add_local_addresses(&addresses(&["192.0.2.10:1", "192.0.2.11:1"], &[]));
        assert!(
            ice.add_local_addresses(&addresses(&["192.0.2.10:1"], &[]))
                .is_empty()
        );
        assert_eq!(ice.local_candidates().len(), 2);
    }

    #[test]
    fn addresses_learnt_from_replayed_requests_are_bounded() {
        let now = beginning();
        let mut gateway = gateway();
        let candidates = gateway.add_local_addresses(&addresses(&["192.0.2.10:52625"], &[]));
        let mut client = TestAgent::new("198.51.100.5:4000");
        client.add_remote_candidate(&candidates[0]);
        let request = client.progress(now).pop().expect("a check");
        for port in 1..1000 {
            let remote = SocketAddr::from(([203, 0, 113, 9], port));
            let path = Path {
                remote,
                ..request.path
            };
            gateway.handle_stun(path, request.bytes(), now);
        }
        let known = gateway.agent.remote_candidates().count();
        assert_eq!(known, MAX_REMOTE_CANDIDATES);
        // Known addresses are still served.
        let first = SocketAddr::from(([203, 0, 113, 9], 1));
        let path = Path {
            remote: first,
            ..request.path
        };
        assert!(gateway.handle_stun(path, request.bytes(), now));
    }

    /// A check of the gateway, and the client that will answer it.
    fn asked(now: Instant) -> (IceTransport, TestAgent, DatagramBatch) {
        let mut gateway = gateway();
        let ours = gateway.add_local_addresses(&addresses(&["192.0.2.10:52625"], &[]));
        let mut client = TestAgent::new("198.51.100.5:4000");
        client.add_remote_candidate(&ours[0]);
        let check = client.progress(now).pop().expect("a check");
        assert!(gateway.handle_stun(check.path, check.bytes(), now));
        gateway.handle_timeout(now);
        let mut sent = std::iter::from_fn(|| gateway.poll_transmit());
        let question = sent.find(|sent| Kind::of(sent.bytes()) == Kind::StunRequest);
        let question = question.expect("a check of ours");
        (gateway, client, question)
    }

    fn answer(client: &mut TestAgent, question: &DatagramBatch, now: Instant) -> DatagramBatch {
        client.handle(question, now);
        let mut sent = client.progress(now).into_iter();
        let answer = sent.find(|sent| Kind::of(sent.bytes()) == Kind::StunResponse);
        answer.expect("an answer")
    }

    #[test]
    fn addresses_learnt_from_responses_are_bounded() {
        let now = beginning();
        let (mut gateway, mut client, mut question) = asked(now);
        let path = question.path;
        for port in 1..1000 {
            question.path.local = SocketAddr::from(([203, 0, 113, 9], port));
            let answer = answer(&mut client, &question, now);
            gateway.handle_stun(path, answer.bytes(), now);
        }
        let known = gateway.agent.local_candidates().count();
        assert_eq!(known, MAX_LOCAL_CANDIDATES);
    }

    #[test]
    fn a_response_from_another_address_than_the_requests_is_refused() {
        let now = beginning();
        let (mut gateway, mut client, question) = asked(now);
        let answer = answer(&mut client, &question, now);
        let elsewhere = Path {
            remote: SocketAddr::from(([203, 0, 113, 9], 1)),
            ..question.path
        };
        assert!(!gateway.handle_stun(elsewhere, answer.bytes(), now));
        assert!(gateway.handle_stun(question.path, answer.bytes(), now));
    }

    #[test]
    fn candidates_with_port_0_or_a_tunnel_address_are_refused() {
        let mut ice = gateway();
        for address in ["198.51.100.5 0", "100.64.1.2 9", "fd00:2021:1111::9 9"] {
            let line = format!("candidate:1 1 udp 1 {address} typ host");
            assert!(!ice.add_remote_candidate(&line), "{line}");
        }
    }

    #[test]
    fn nominates_without_knowing_any_candidate_of_the_client() {
        let now = beginning();
        let mut gateway = gateway();
        let candidates = gateway.add_local_addresses(&addresses(&["192.0.2.10:52625"], &[]));
        let mut client = TestAgent::new("198.51.100.5:4000");
        client.add_remote_candidate(&candidates[0]);
        for _ in 0..50 {
            gateway.handle_timeout(now);
            for sent in client.progress(now) {
                gateway.handle_stun(sent.path, sent.bytes(), now);
            }
            while let Some(sent) = gateway.poll_transmit() {
                client.handle(&sent, now);
            }
        }
        assert_eq!(client.nominated(), Some(([192, 0, 2, 10], 52625).into()));
        let nominated = std::iter::from_fn(|| gateway.poll_event())
            .filter_map(|event| match event {
                IceEvent::Nominated(path) => Some(path),
                IceEvent::Connected | IceEvent::Disconnected | IceEvent::Checking => None,
            })
            .last();
        let expected = Path::direct(
            "192.0.2.10:52625".parse().expect("literal"),
            "198.51.100.5:4000".parse().expect("literal"),
        );
        assert_eq!(nominated, Some(expected));
    }

    #[test]
    fn is_never_due_in_the_past() {
        let now = beginning();
        let mut gateway = gateway();
        gateway.add_local_addresses(&addresses(&["192.0.2.10:52625"], &[]));
        for port in 1..20 {
            let line = format!("candidate:{port} 1 udp {port} 198.51.100.5 {port} typ host");
            assert!(gateway.add_remote_candidate(&line));
        }
        for second in 0..60 {
            let now = now + Duration::from_secs(second);
            gateway.handle_timeout(now);
            let due = gateway.poll_timeout();
            assert!(
                due.is_none_or(|due| due > now),
                "due again after {second} s"
            );
        }
    }

    #[test]
    fn parses_candidates_of_the_recording_and_refuses_odd_ones() {
        let mut ice = gateway();
        let recorded = "candidate:fffeff7e871471d11d19d505 1 udp 2130706175 10.50.1.2 52625 typ host ufrag upii";
        assert!(ice.add_remote_candidate(recorded));
        assert!(!ice.add_remote_candidate(&recorded["candidate:".len()..]));
        assert!(!ice.add_remote_candidate("candidate:1 1 udp high 10.50.1.2 52625 typ host"));
        assert!(!ice.add_remote_candidate("candidate:1 1 tcp 1 10.50.1.2 52625 typ host"));
    }

    proptest! {
        #[test]
        fn arbitrary_candidate_strings_never_panic(text in ".{0,120}", tail in ".{0,80}") {
            let mut ice = gateway();
            ice.add_remote_candidate(&text);
            ice.add_remote_candidate(&format!("candidate:{tail}"));
            ice.remove_remote_candidate(&format!("candidate:1 1 udp 1 {tail}"));
        }

        #[test]
        fn arbitrary_stun_never_panics(mut bytes in vec(any::<u8>(), 0..300)) {
            let path = Path::direct(
                ([192, 0, 2, 10], 52625).into(),
                ([198, 51, 100, 5], 4000).into(),
            );
            let now = beginning();
            let mut ice = gateway();
            prop_assert!(!ice.handle_stun(path, &bytes, now));
            if bytes.len() >= 20 {
                let rest = u16::try_from(bytes.len() - 20).expect("short");
                bytes[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42]);
                bytes[2..4].copy_from_slice(&rest.to_be_bytes());
                prop_assert!(!ice.handle_stun(path, &bytes, now));
            }
        }
    }
}
