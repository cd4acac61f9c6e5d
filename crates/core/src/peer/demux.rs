//! Finds the peer of a datagram from the shared socket, in constant time.
//!
//! | datagram | key of its peer |
//! |---|---|
//! | STUN request | its USERNAME: our fragment and the client's (RFC 8445, 7.2.2) |
//! | STUN response | the transaction id of the request we sent |
//! | WireGuard initiation | the initiator's public key, after MAC and rate limit |
//! | other WireGuard messages | the receiver index, with the [`PeerIndex`] in its upper 24 bits |
//!
//! Authenticates nothing beyond a handshake's MAC: the peer refuses datagrams that are not its own.

use crate::DropReason;
use crate::authorizations::ranges;
use crate::ids::PublicKey;
use crate::packet::{DatagramBatch, DropCounts, Path};
use crate::peer::index::PeerIndex;
use crate::peer::statistics::HandshakeCounts;
use crate::peer::wireguard::{
    COOKIE_REPLY_BYTES, DATA_OVERHEAD_BYTES, GatewayKeys, HANDSHAKE_INIT_BYTES,
    HANDSHAKE_RESPONSE_BYTES, HandshakeGate, HandshakeRefusal,
};
use is::stun::StunMessage;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// The limits and keys of a [`Demux`].
pub struct DemuxConfig {
    /// The key pair to which handshakes must be addressed.
    pub keys: GatewayKeys,
    /// Handshake messages per second before the gateway demands cookies.
    pub handshakes_per_second: u64,
    /// Outstanding STUN requests that are remembered; beyond that the oldest is forgotten.
    pub max_transactions: usize,
}

/// The destination of a received datagram or batch.
#[derive(Debug)]
pub enum Routed {
    /// For the peer with this index.
    Peer(PeerIndex, DatagramBatch),
    /// A cookie to send back on the path of the datagram.
    Reply(DatagramBatch),
    /// A STUN response to none of the peers: for the address gatherer.
    StunResponse(Path, Vec<u8>),
}

/// See the module's documentation.
pub struct Demux {
    gate: HandshakeGate,
    peers: HashMap<PeerIndex, PeerKeys>,
    by_public_key: HashMap<PublicKey, PeerIndex>,
    by_username: HashMap<String, PeerIndex>,
    transactions: HashMap<TransactionId, (PeerIndex, Instant)>,
    expiries: VecDeque<(Instant, TransactionId)>,
    max_transactions: usize,
    next_second: Instant,
    drops: DropCounts,
    handshakes: HandshakeCounts,
}

type TransactionId = [u8; 12];

struct PeerKeys {
    public_key: PublicKey,
    username: String,
}

impl Demux {
    /// A demultiplexer without peers.
    #[must_use]
    pub fn new(config: DemuxConfig, now: Instant) -> Self {
        Self {
            gate: HandshakeGate::new(config.keys, config.handshakes_per_second),
            peers: HashMap::new(),
            by_public_key: HashMap::new(),
            by_username: HashMap::new(),
            transactions: HashMap::new(),
            expiries: VecDeque::new(),
            max_transactions: config.max_transactions,
            next_second: now + SECOND,
            drops: DropCounts::default(),
            handshakes: HandshakeCounts::default(),
        }
    }

    /// Changes how many handshake messages per second pass before cookies are demanded. Cookies
    /// handed out earlier become invalid: their senders receive new ones.
    pub fn limit_handshakes(&mut self, per_second: u64) {
        self.gate.limit(per_second);
    }

    /// Registers `index` under these keys: the client's public key and the USERNAME of its STUN
    /// requests, `<our fragment>:<its fragment>` (one fragment alone is four characters and would
    /// collide among many clients). Replaces an earlier attachment of the same index.
    ///
    /// A key that another attached peer holds stays with that peer: a client that claims another
    /// client's public key cannot divert the other's handshakes.
    pub fn attach(&mut self, index: PeerIndex, public_key: PublicKey, username: &str) {
        self.detach(index);
        self.by_public_key.entry(public_key).or_insert(index);
        self.by_username.entry(username.to_owned()).or_insert(index);
        let username = username.to_owned();
        let keys = PeerKeys {
            public_key,
            username,
        };
        self.peers.insert(index, keys);
    }

    /// Removes `index` and its keys.
    pub fn detach(&mut self, index: PeerIndex) {
        let Some(keys) = self.peers.remove(&index) else {
            return;
        };
        if self.by_public_key.get(&keys.public_key) == Some(&index) {
            self.by_public_key.remove(&keys.public_key);
        }
        if self.by_username.get(&keys.username) == Some(&index) {
            self.by_username.remove(&keys.username);
        }
    }

    /// Whether this must be sent through the sockets of shard 0, which receive the responses to it.
    /// The ICE agent sends its requests one by one, never in a batch with data.
    #[must_use]
    pub fn is_stun_request(batch: &DatagramBatch) -> bool {
        batch.len() == 1 && Kind::of(batch.bytes()) == Kind::StunRequest
    }

    /// Remembers the STUN requests that `from` sends, so that the responses find it.
    pub fn note_sent(&mut self, from: PeerIndex, batch: &DatagramBatch, now: Instant) {
        if !Self::is_stun_request(batch) {
            return;
        }
        let id = transaction_id(batch.bytes());
        if self.expiries.len() >= self.max_transactions {
            self.forget_oldest_transaction();
        }
        let expires_at = now + TRANSACTION_LIFETIME;
        self.transactions.insert(id, (from, expires_at));
        self.expiries.push_back((expires_at, id));
    }

    /// Assigns received datagrams to their destinations. Datagrams for no known peer are counted in
    /// [`Self::take_drops`]; so are those from a tunnel address, which would otherwise become a
    /// path through the tunnel itself.
    pub fn route(&mut self, batch: DatagramBatch) -> Vec<Routed> {
        if batch.is_empty() || ranges::is_tunnel(batch.path.remote.ip()) {
            let datagrams = batch.len().max(1);
            self.drops
                .count_many(DropReason::UnknownDatagram, datagrams);
            return Vec::new();
        }
        if let Some(index) = self.sole_data_receiver(&batch) {
            return vec![Routed::Peer(index, batch)];
        }
        let mut routed = Vec::new();
        let mut previous_peer = None;
        for datagram in batch.segments() {
            match self.route_one(batch.path, datagram) {
                Ok(destination) => {
                    let destination = destination.or_previous_peer(&mut previous_peer);
                    routed.push(destination.into_routed(&batch, datagram));
                }
                Err(reason) => {
                    let is_handshake = Kind::of(datagram).is_handshake();
                    self.handshakes.rejected += u64::from(is_handshake);
                    self.drops.count(reason);
                }
            }
        }
        routed
    }

    /// The handshake messages that were rejected since the last call.
    pub fn take_handshakes(&mut self) -> HandshakeCounts {
        std::mem::take(&mut self.handshakes)
    }

    /// The drops since the last call, by reason.
    pub fn take_drops(&mut self) -> DropCounts {
        std::mem::take(&mut self.drops)
    }

    /// Renews the handshake allowance and forgets expired transactions.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_second {
            return;
        }
        self.next_second = now + SECOND;
        self.gate.handle_second();
        while self.expiries.front().is_some_and(|(at, _)| *at <= now) {
            self.forget_oldest_transaction();
        }
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.next_second)
    }

    fn forget_oldest_transaction(&mut self) {
        let Some((expires_at, id)) = self.expiries.pop_front() else {
            return;
        };
        // A retransmitted request has a later expiry.
        if self
            .transactions
            .get(&id)
            .is_some_and(|(_, at)| *at == expires_at)
        {
            self.transactions.remove(&id);
        }
    }

    /// The fast path: a GRO batch of data messages of one session is not cut.
    fn sole_data_receiver(&self, batch: &DatagramBatch) -> Option<PeerIndex> {
        let mut segments = batch.segments();
        let first = segments.next()?;
        if Kind::of(first) != Kind::Data {
            return None;
        }
        let receiver = first.get(4..8);
        let same_receiver = segments
            .all(|datagram| Kind::of(datagram) == Kind::Data && datagram.get(4..8) == receiver);
        let index = receiver_of(first, 4);
        (same_receiver && self.peers.contains_key(&index)).then_some(index)
    }

    fn route_one(&mut self, path: Path, datagram: &[u8]) -> Result<Destination, DropReason> {
        let from = path.remote.ip();
        let index = match Kind::of(datagram) {
            Kind::StunRequest => *self.by_requested_username(datagram)?,
            Kind::StunResponse => match self.transactions.get(&transaction_id(datagram)) {
                Some((index, _)) => *index,
                None => return Ok(Destination::Gatherer),
            },
            Kind::HandshakeInit => match self.gate.initiator(from, datagram) {
                Ok(public_key) => *self
                    .by_public_key
                    .get(&public_key)
                    .ok_or(DropReason::WireguardRejected)?,
                Err(refusal) => return self.refuse(refusal),
            },
            Kind::HandshakeResponse => {
                if let Err(refusal) = self.gate.response(from, datagram) {
                    return self.refuse(refusal);
                }
                receiver_of(datagram, 8)
            }
            Kind::CookieReply | Kind::Data => receiver_of(datagram, 4),
            Kind::ChannelData => return Err(DropReason::ChannelDataRejected),
            Kind::Unknown => return Err(DropReason::UnknownDatagram),
        };
        if self.peers.contains_key(&index) {
            Ok(Destination::Peer(index))
        } else {
            Err(DropReason::WireguardRejected)
        }
    }

    fn by_requested_username(&self, datagram: &[u8]) -> Result<&PeerIndex, DropReason> {
        let message = StunMessage::parse(datagram).map_err(|_| DropReason::StunRejected)?;
        let username = message.username().ok_or(DropReason::StunRejected)?;
        self.by_username
            .get(username)
            .ok_or(DropReason::StunRejected)
    }

    fn refuse(&mut self, refusal: HandshakeRefusal) -> Result<Destination, DropReason> {
        match refusal {
            HandshakeRefusal::Cookie(reply) => {
                self.drops.count(DropReason::HandshakeLimited);
                Ok(Destination::Reply(reply))
            }
            HandshakeRefusal::Drop(reason) => Err(reason),
        }
    }
}

enum Destination {
    Peer(PeerIndex),
    Gatherer,
    Reply(Vec<u8>),
}

impl Destination {
    /// Redirects a response for the gatherer to the peer of the datagram before it. The kernel
    /// steers a batch by its first datagram, and GRO merges datagrams from one address: a STUN
    /// response behind a peer's data belongs to that peer, even if another shard knows the request.
    fn or_previous_peer(self, previous_peer: &mut Option<PeerIndex>) -> Self {
        match self {
            Self::Gatherer => previous_peer.map_or(self, Self::Peer),
            Self::Peer(peer) => {
                *previous_peer = Some(peer);
                self
            }
            Self::Reply(_) => self,
        }
    }

    fn into_routed(self, batch: &DatagramBatch, datagram: &[u8]) -> Routed {
        match self {
            Self::Peer(index) => {
                let single = DatagramBatch::new(batch.path, batch.ecn, 0, datagram.to_vec());
                Routed::Peer(index, single)
            }
            Self::Gatherer => Routed::StunResponse(batch.path, datagram.to_vec()),
            Self::Reply(reply) => Routed::Reply(DatagramBatch::of(batch.path, reply)),
        }
    }
}

/// The kind of a datagram by its first bytes and its length. STUN, ChannelData and WireGuard share
/// a port as RFC 7983 specifies: by the first byte, and STUN also by its magic cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    StunRequest,
    StunResponse,
    HandshakeInit,
    HandshakeResponse,
    CookieReply,
    Data,
    ChannelData,
    Unknown,
}

impl Kind {
    pub(crate) fn of(datagram: &[u8]) -> Self {
        match (datagram, datagram.len()) {
            ([1, 0, 0, 0, ..], HANDSHAKE_INIT_BYTES) => Self::HandshakeInit,
            ([2, 0, 0, 0, ..], HANDSHAKE_RESPONSE_BYTES) => Self::HandshakeResponse,
            ([3, 0, 0, 0, ..], COOKIE_REPLY_BYTES) => Self::CookieReply,
            ([4, 0, 0, 0, ..], DATA_OVERHEAD_BYTES..) => Self::Data,
            ([0..=3, _, _, _, 0x21, 0x12, 0xA4, 0x42, ..], STUN_HEADER_BYTES..) => {
                // The class is spread over bits 4 and 8 of the type (RFC 8489, 5).
                let is_request = datagram[0] & 0x01 == 0 && datagram[1] & 0x10 == 0;
                if is_request {
                    Self::StunRequest
                } else {
                    Self::StunResponse
                }
            }
            ([0x40..=0x4F, ..], 4..) => Self::ChannelData,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn is_handshake(self) -> bool {
        matches!(self, Self::HandshakeInit | Self::HandshakeResponse)
    }

    pub(crate) fn is_stun(self) -> bool {
        matches!(self, Self::StunRequest | Self::StunResponse)
    }
}

fn receiver_of(datagram: &[u8], offset: usize) -> PeerIndex {
    let field = datagram[offset..offset + 4]
        .try_into()
        .expect("Kind::of has checked the length");
    PeerIndex::of_receiver_index(u32::from_le_bytes(field))
}

fn transaction_id(datagram: &[u8]) -> TransactionId {
    datagram[8..STUN_HEADER_BYTES]
        .try_into()
        .expect("Kind::of has checked the length")
}

/// Length of a STUN header in bytes (RFC 8489, 5).
pub(crate) const STUN_HEADER_BYTES: usize = 20;
const SECOND: Duration = Duration::from_secs(1);
/// Longer than any response takes; the same as in Firezone's implementation (docs/protocol.md 3.5).
const TRANSACTION_LIFETIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Ecn;
    use crate::peer::index::PeerIndexPool;
    use crate::peer::testing::{TestAgent, TestClient};
    use crate::testing::beginning;
    use proptest::prelude::*;

    fn path() -> Path {
        Path::direct(
            ([192, 0, 2, 10], 52625).into(),
            ([198, 51, 100, 5], 4000).into(),
        )
    }

    fn demux(handshakes_per_second: u64) -> Demux {
        let config = DemuxConfig {
            keys: GatewayKeys::new([2; 32]),
            handshakes_per_second,
            max_transactions: 2,
        };
        Demux::new(config, beginning())
    }

    fn two_indices() -> [PeerIndex; 2] {
        let mut pool = PeerIndexPool::new([0; 32]);
        [(); 2].map(|()| pool.allocate(0).expect("room"))
    }

    fn data_for(index: PeerIndex, session: u8, bytes: usize) -> Vec<u8> {
        let mut datagram = vec![0; bytes];
        datagram[0] = 4;
        let receiver = index.to_bits() << 8 | u32::from(session);
        datagram[4..8].copy_from_slice(&receiver.to_le_bytes());
        datagram
    }

    fn stun_request(id: u8) -> Vec<u8> {
        let mut datagram = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
        datagram.extend([id; 12]);
        datagram
    }

    fn stun_response(id: u8) -> Vec<u8> {
        let mut datagram = stun_request(id);
        datagram[0] = 1;
        datagram
    }

    fn destinations(routed: &[Routed]) -> Vec<Option<PeerIndex>> {
        routed
            .iter()
            .map(|routed| match routed {
                Routed::Peer(index, _) => Some(*index),
                Routed::Reply(_) | Routed::StunResponse(..) => None,
            })
            .collect()
    }

    #[test]
    fn a_gro_batch_of_one_session_stays_whole() {
        let mut pool = PeerIndexPool::new([0; 32]);
        let index = pool.allocate(0).expect("room");
        let mut demux = demux(100);
        demux.attach(index, PublicKey([1; 32]), "abcd");
        let bytes = [
            data_for(index, 1, 100),
            data_for(index, 1, 100),
            data_for(index, 1, 40),
        ];
        let batch = DatagramBatch::new(path(), Ecn::NotEct, 100, bytes.concat());
        let routed = demux.route(batch);
        assert_eq!(destinations(&routed), [Some(index)]);
        let Routed::Peer(_, batch) = &routed[0] else {
            unreachable!()
        };
        assert_eq!(batch.len(), 3);
    }

    #[test]
    fn two_clients_behind_one_address_are_distinguished() {
        let [a, b] = two_indices();
        let mut demux = demux(100);
        demux.attach(a, PublicKey([1; 32]), "aaaa");
        demux.attach(b, PublicKey([2; 32]), "bbbb");
        let bytes = [data_for(a, 1, 64), data_for(b, 1, 64), data_for(a, 2, 64)].concat();
        let routed = demux.route(DatagramBatch::new(path(), Ecn::Ce, 64, bytes));
        assert_eq!(destinations(&routed), [Some(a), Some(b), Some(a)]);
    }

    #[test]
    fn stun_responses_find_the_sender_of_the_request_until_it_expires() {
        let index = PeerIndexPool::new([0; 32]).allocate(0).expect("room");
        let now = beginning();
        let mut demux = demux(100);
        demux.attach(index, PublicKey([1; 32]), "abcd");
        demux.note_sent(index, &DatagramBatch::of(path(), stun_request(7)), now);
        let answer = || DatagramBatch::of(path(), stun_response(7));
        assert_eq!(destinations(&demux.route(answer())), [Some(index)]);
        demux.handle_timeout(now + Duration::from_secs(11));
        assert!(matches!(
            demux.route(answer())[..],
            [Routed::StunResponse(..)]
        ));
    }

    #[test]
    fn a_response_that_gro_merged_with_a_peers_data_goes_to_that_peer() {
        let index = PeerIndexPool::new([0; 32]).allocate(1).expect("room");
        let mut demux = demux(100);
        demux.attach(index, PublicKey([1; 32]), "abcd");
        let bytes = [
            data_for(index, 1, 64),
            data_for(index, 1, 64),
            stun_response(7),
        ];
        let gathered = DatagramBatch::new(path(), Ecn::NotEct, 64, bytes.concat());
        assert_eq!(destinations(&demux.route(gathered)), [Some(index); 3]);
        let alone = DatagramBatch::of(path(), stun_response(7));
        assert_eq!(destinations(&demux.route(alone)), [None]);
    }

    #[test]
    fn datagrams_from_tunnel_addresses_are_dropped() {
        let index = PeerIndexPool::new([0; 32]).allocate(0).expect("room");
        let mut demux = demux(100);
        demux.attach(index, PublicKey([1; 32]), "abcd");
        let mut routed_from = |remote: &str| {
            let remote = remote.parse().expect("literal");
            let path = Path { remote, ..path() };
            let batch = DatagramBatch::of(path, data_for(index, 1, 64));
            destinations(&demux.route(batch))
        };
        assert_eq!(routed_from("100.64.1.2:4000"), []);
        assert_eq!(routed_from("[fd00:2021:1111::9]:4000"), []);
        // The carrier-grade NAT range of other networks begins where the tunnel range ends.
        assert_eq!(routed_from("100.96.0.1:4000"), [Some(index)]);
        assert_eq!(demux.take_drops().of(DropReason::UnknownDatagram), 2);
    }

    #[test]
    fn an_empty_datagram_is_counted_too() {
        let mut demux = demux(100);
        let empty = DatagramBatch::of(path(), Vec::new());
        assert!(demux.route(empty).is_empty());
        assert_eq!(demux.take_drops().of(DropReason::UnknownDatagram), 1);
    }

    #[test]
    fn the_transaction_table_is_bounded() {
        let index = PeerIndexPool::new([0; 32]).allocate(0).expect("room");
        let now = beginning();
        let mut demux = demux(100);
        demux.attach(index, PublicKey([1; 32]), "abcd");
        for id in 0..100 {
            demux.note_sent(index, &DatagramBatch::of(path(), stun_request(id)), now);
        }
        assert_eq!(demux.transactions.len(), 2);
        assert_eq!(demux.expiries.len(), 2);
        let newest = DatagramBatch::of(path(), stun_response(99));
        assert_eq!(destinations(&demux.route(newest)), [Some(index)]);
    }

    #[test]
    fn initiations_find_their_peer_by_public_key_and_unknown_initiators_are_dropped() {
        let index = PeerIndexPool::new([0; 32]).allocate(0).expect("room");
        let (mut known, mut stranger) = (TestClient::new(), TestClient::with_private([8; 32]));
        let mut demux = demux(100);
        demux.attach(index, known.public_key(), "abcd");
        let routed = demux.route(DatagramBatch::of(path(), known.initiation()));
        assert_eq!(destinations(&routed), [Some(index)]);
        assert!(
            demux
                .route(DatagramBatch::of(path(), stranger.initiation()))
                .is_empty()
        );
        assert_eq!(demux.take_drops().of(DropReason::WireguardRejected), 1);
        assert_eq!(demux.take_handshakes().rejected, 1);
        let mut data = vec![4, 0, 0, 0];
        data.resize(64, 9);
        assert!(demux.route(DatagramBatch::of(path(), data)).is_empty());
        assert_eq!(demux.take_handshakes().rejected, 0, "data is no handshake");
    }

    #[test]
    fn a_handshake_flood_is_answered_with_cookies() {
        let index = PeerIndexPool::new([0; 32]).allocate(0).expect("room");
        let mut client = TestClient::new();
        let mut demux = demux(1);
        demux.attach(index, client.public_key(), "abcd");
        let flood: Vec<_> = (0..10)
            .flat_map(|_| demux.route(DatagramBatch::of(path(), client.initiation())))
            .collect();
        assert!(
            flood
                .iter()
                .any(|routed| matches!(routed, Routed::Reply(_)))
        );
        assert!(demux.take_drops().of(DropReason::HandshakeLimited) >= 8);
        demux.limit_handshakes(100);
        let routed = demux.route(DatagramBatch::of(path(), client.initiation()));
        assert_eq!(destinations(&routed), [Some(index)]);
    }

    #[test]
    fn a_client_that_claims_anothers_public_key_does_not_divert_its_handshakes() {
        let [victim, thief] = two_indices();
        let mut client = TestClient::new();
        let mut demux = demux(100);
        demux.attach(victim, client.public_key(), "abcd:efgh");
        demux.attach(thief, client.public_key(), "ijkl:mnop");
        let routed = demux.route(DatagramBatch::of(path(), client.initiation()));
        assert_eq!(destinations(&routed), [Some(victim)]);
        demux.detach(thief);
        let routed = demux.route(DatagramBatch::of(path(), client.initiation()));
        assert_eq!(destinations(&routed), [Some(victim)]);
    }

    #[test]
    fn equal_gateway_fragments_of_two_peers_are_distinguished_by_the_clients_fragment() {
        let [a, b] = two_indices();
        let mut demux = demux(100);
        demux.attach(a, PublicKey([1; 32]), "6m26:eokn");
        demux.attach(b, PublicKey([2; 32]), "6m26:abcd");
        let mut agent = TestAgent::new("198.51.100.5:4000");
        let gateway = "candidate:1 1 udp 2130706175 192.0.2.10 52625 typ host ufrag 6m26";
        agent.add_remote_candidate(gateway);
        let check = agent.progress(beginning()).pop().expect("a check by eokn");
        assert_eq!(destinations(&demux.route(check)), [Some(a)]);
    }

    proptest! {
        #[test]
        fn arbitrary_datagrams_never_panic_and_are_accounted_for(
            first in 0u8..0x50,
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300),
            segment in 1usize..300,
        ) {
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            let mut demux = demux(100);
            let batch = DatagramBatch::new(path(), Ecn::NotEct, segment, bytes);
            // An empty datagram counts as one.
            let total = batch.len().max(1) as u64;
            let routed = demux.route(batch).len() as u64;
            prop_assert_eq!(routed + demux.take_drops().total(), total);
        }
    }
}
