//! Finds the addresses at which peers can reach the shared socket: the host's own, and those that
//! STUN servers see.
//!
//! Sends plain Binding requests (RFC 8489, 5; no attributes are needed) to every server, retries
//! within a bound, and keeps the NAT bindings open. A server that never answers costs only those
//! requests: host addresses are published immediately.

use crate::packet::datagram::unspecified_for;
use crate::packet::{DatagramBatch, Path};
use crate::peer::demux::STUN_HEADER_BYTES;
use crate::timers::Timers;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Addresses that may be signalled as candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAddresses {
    /// Addresses of the host's interfaces, with the socket's port, best first.
    pub host: Vec<SocketAddr>,
    /// Addresses that STUN servers saw, each with the host address behind it.
    pub reflexive: Vec<(SocketAddr, SocketAddr)>,
}

/// The settings of an [`AddressGatherer`].
pub struct GathererConfig {
    /// The port of the shared sockets.
    pub port: u16,
    /// Maximum number of servers to query; more are ignored.
    pub max_servers: usize,
}

/// See the module's documentation.
pub struct AddressGatherer {
    config: GathererConfig,
    rng: ChaCha12Rng,
    host: Vec<SocketAddr>,
    servers: BTreeMap<SocketAddr, StunServer>,
    /// For each server, when to send it the next request.
    timers: Timers<SocketAddr>,
    transmits: VecDeque<DatagramBatch>,
    published: LocalAddresses,
    changed: bool,
}

#[derive(Default)]
struct StunServer {
    phase: Phase,
    mapping: Option<(SocketAddr, SocketAddr)>,
}

#[derive(Default)]
enum Phase {
    /// No answer is awaited until the next request.
    #[default]
    Resting,
    /// So many requests with this transaction are unanswered.
    Asking {
        transaction: [u8; 12],
        requests: u32,
    },
}

impl AddressGatherer {
    /// A gatherer without addresses and servers.
    #[must_use]
    pub fn new(config: GathererConfig, seed: [u8; 32]) -> Self {
        Self {
            config,
            rng: ChaCha12Rng::from_seed(seed),
            host: Vec::new(),
            servers: BTreeMap::new(),
            timers: Timers::default(),
            transmits: VecDeque::new(),
            published: LocalAddresses::default(),
            changed: false,
        }
    }

    /// Sets the host's addresses, best first. Replaces the earlier list.
    pub fn handle_interfaces(&mut self, addresses: &[IpAddr]) {
        let port = self.config.port;
        self.host = addresses
            .iter()
            .map(|ip| SocketAddr::new(*ip, port))
            .collect();
        self.publish();
    }

    /// Sets the STUN servers to query. Replaces the earlier list; known servers keep their mapping.
    pub fn handle_servers(&mut self, servers: &[SocketAddr], now: Instant) {
        let wanted: BTreeSet<_> = servers
            .iter()
            .take(self.config.max_servers)
            .copied()
            .collect();
        self.servers.retain(|server, _| wanted.contains(server));
        self.timers.retain(|server| wanted.contains(&server));
        for server in wanted {
            self.servers.entry(server).or_insert_with(|| {
                self.timers.set(server, now);
                StunServer::default()
            });
        }
        self.publish();
        self.handle_timeout(now);
    }

    /// Handles a STUN response that belongs to no peer. Returns whether it was expected from there.
    pub fn handle_response(&mut self, path: Path, datagram: &[u8], now: Instant) -> bool {
        let Some(server) = self.servers.get_mut(&path.remote) else {
            return false;
        };
        let claimed = datagram.get(8..STUN_HEADER_BYTES);
        let is_awaited = match &server.phase {
            Phase::Asking { transaction, .. } => claimed == Some(transaction),
            Phase::Resting => false,
        };
        let Some(mapped) = xor_mapped_address(datagram).filter(|_| is_awaited) else {
            return false;
        };
        server.mapping = Some((mapped, path.local));
        server.phase = Phase::Resting;
        self.timers.set(path.remote, now + KEEPALIVE);
        self.publish();
        true
    }

    /// Creates the requests that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((address, _)) = self.timers.pop_expired(now) {
            self.handle_due(address, now);
        }
    }

    fn handle_due(&mut self, address: SocketAddr, now: Instant) {
        let Some(server) = self.servers.get_mut(&address) else {
            return;
        };
        let (transaction, requests) = match server.phase {
            Phase::Resting => (random_id(&mut self.rng), 1),
            Phase::Asking { requests, .. } if requests == MAX_ATTEMPTS => {
                // The last mapping stays valid until another answer: it belongs to the NAT, not to
                // the server.
                server.phase = Phase::Resting;
                self.timers.set(address, now + RETRY_SILENT_SERVER);
                return;
            }
            Phase::Asking {
                transaction,
                requests,
            } => (transaction, requests + 1),
        };
        server.phase = Phase::Asking {
            transaction,
            requests,
        };
        self.timers.set(address, now + RTO * requests);
        self.transmits
            .push_back(binding_request(address, transaction));
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.earliest()
    }

    /// The next request to send. Its local address is unspecified: the kernel selects it by route.
    pub fn poll_transmit(&mut self) -> Option<DatagramBatch> {
        self.transmits.pop_front()
    }

    /// The addresses, if they changed since the last call.
    pub fn poll_change(&mut self) -> Option<LocalAddresses> {
        std::mem::take(&mut self.changed).then(|| self.published.clone())
    }

    /// Whether `ip` is in the last list of the host's addresses.
    #[must_use]
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.host.iter().any(|address| address.ip() == ip)
    }

    /// The current addresses, host and reflexive.
    #[must_use]
    pub fn current(&self) -> &LocalAddresses {
        &self.published
    }

    fn publish(&mut self) {
        // A mapping equal to a host address means that there is no NAT: nothing to add.
        let reflexive: BTreeSet<_> = self
            .servers
            .values()
            .filter_map(|server| server.mapping)
            .filter(|(mapped, base)| !self.host.contains(mapped) && self.host.contains(base))
            .collect();
        let current = LocalAddresses {
            host: self.host.clone(),
            reflexive: reflexive.into_iter().collect(),
        };
        self.changed |= current != self.published;
        self.published = current;
    }
}

fn random_id(rng: &mut ChaCha12Rng) -> [u8; 12] {
    let mut id = [0; 12];
    rng.fill_bytes(&mut id);
    id
}

fn binding_request(server: SocketAddr, transaction: [u8; 12]) -> DatagramBatch {
    let mut datagram = vec![0x00, 0x01, 0x00, 0x00, 0x21, 0x12, 0xA4, 0x42];
    datagram.extend(transaction);
    let path = Path::direct(SocketAddr::new(unspecified_for(server), 0), server);
    DatagramBatch::of(path, datagram)
}

/// Reads XOR-MAPPED-ADDRESS from a Binding success response (RFC 8489, 14.2). The ICE agent's own
/// parser requires MESSAGE-INTEGRITY, which a server without credentials does not send.
fn xor_mapped_address(datagram: &[u8]) -> Option<SocketAddr> {
    let (header, mut attributes) = datagram.split_at_checked(STUN_HEADER_BYTES)?;
    if header[..2] != BINDING_SUCCESS {
        return None;
    }
    let mask = &header[4..];
    while let Some((&[t0, t1, l0, l1], rest)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let value = rest.get(..length)?;
        if [t0, t1] == XOR_MAPPED_ADDRESS {
            return unmask(value, mask);
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn unmask(value: &[u8], mask: &[u8]) -> Option<SocketAddr> {
    let (&[_, family, p0, p1], address) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([p0 ^ mask[0], p1 ^ mask[1]]);
    let clear: Vec<u8> = address.iter().zip(mask).map(|(a, m)| a ^ m).collect();
    let ip: IpAddr = match (family, address.len()) {
        (1, 4) => <[u8; 4]>::try_from(clear).ok()?.into(),
        (2, 16) => <[u8; 16]>::try_from(clear).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const XOR_MAPPED_ADDRESS: [u8; 2] = [0x00, 0x20];
/// First retransmission timeout; it grows linearly with each attempt (RFC 8489, 6.2.1, doubles it;
/// four attempts within 5 s suffice for a gateway that already has host addresses).
const RTO: Duration = Duration::from_millis(500);
const MAX_ATTEMPTS: u32 = 4;
/// Keeps the NAT binding open (docs/protocol.md 3.6).
const KEEPALIVE: Duration = Duration::from_secs(25);
const RETRY_SILENT_SERVER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::beginning;
    use is::stun::{StunMessage, TransId};
    use proptest::collection::vec;
    use proptest::prelude::*;

    const SERVER: &str = "203.0.113.1:3478";

    fn gatherer() -> AddressGatherer {
        let config = GathererConfig {
            port: 52625,
            max_servers: 4,
        };
        let mut gatherer = AddressGatherer::new(config, [5; 32]);
        gatherer.handle_interfaces(&[IpAddr::from([192, 168, 0, 9])]);
        gatherer
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("literal")
    }

    /// A response built by another implementation, with our transaction id inserted.
    fn answer(request: &DatagramBatch, mapped: &str) -> Vec<u8> {
        // The cookie alone masks an IPv4 XOR-MAPPED-ADDRESS, so the id can be replaced.
        let mut buffer = vec![0; 200];
        let reply = StunMessage::binding_reply(TransId::new(), addr(mapped));
        let length = reply
            .to_bytes(None, &mut buffer, |_, _| [0; 20])
            .expect("fits");
        buffer.truncate(length);
        buffer[8..20].copy_from_slice(&request.bytes()[8..20]);
        buffer
    }

    fn path_from(server: &str) -> Path {
        Path::direct(addr("192.168.0.9:52625"), addr(server))
    }

    #[test]
    fn host_addresses_are_known_without_any_server() {
        let mut gatherer = gatherer();
        let known = gatherer.poll_change().expect("changed");
        assert_eq!(known.host, [addr("192.168.0.9:52625")]);
        assert_eq!(gatherer.poll_change(), None);
    }

    #[test]
    fn learns_the_reflexive_address_behind_a_nat() {
        let now = beginning();
        let mut gatherer = gatherer();
        gatherer.poll_change();
        gatherer.handle_servers(&[addr(SERVER)], now);
        let request = gatherer.poll_transmit().expect("asked at once");
        assert_eq!(request.path.remote, addr(SERVER));
        let response = answer(&request, "198.51.100.7:40000");
        assert!(gatherer.handle_response(path_from(SERVER), &response, now));
        let known = gatherer.poll_change().expect("changed");
        assert_eq!(
            known.reflexive,
            [(addr("198.51.100.7:40000"), addr("192.168.0.9:52625"))]
        );
        assert_eq!(gatherer.poll_timeout(), Some(now + KEEPALIVE));
    }

    #[test]
    fn without_nat_no_reflexive_address_is_published() {
        let now = beginning();
        let mut gatherer = gatherer();
        gatherer.poll_change();
        gatherer.handle_servers(&[addr(SERVER)], now);
        let request = gatherer.poll_transmit().expect("asked");
        let response = answer(&request, "192.168.0.9:52625");
        assert!(gatherer.handle_response(path_from(SERVER), &response, now));
        assert_eq!(gatherer.poll_change(), None);
    }

    #[test]
    fn responses_from_other_addresses_or_transactions_are_ignored() {
        let now = beginning();
        let mut gatherer = gatherer();
        gatherer.handle_servers(&[addr(SERVER)], now);
        let request = gatherer.poll_transmit().expect("asked");
        let mut response = answer(&request, "198.51.100.7:40000");
        assert!(!gatherer.handle_response(path_from("203.0.113.2:3478"), &response, now));
        response[12] ^= 1;
        assert!(!gatherer.handle_response(path_from(SERVER), &response, now));
    }

    #[test]
    fn a_silent_server_is_queried_a_bounded_number_of_times() {
        let mut now = beginning();
        let start = now;
        let mut gatherer = gatherer();
        gatherer.handle_servers(&[addr(SERVER)], now);
        let mut requests = 0;
        while now < start + Duration::from_secs(300) {
            while gatherer.poll_transmit().is_some() {
                requests += 1;
            }
            now = gatherer.poll_timeout().expect("a server is configured");
            gatherer.handle_timeout(now);
        }
        assert!(
            (20..=40).contains(&requests),
            "{requests} requests in 300 s"
        );
    }

    #[test]
    fn a_server_that_falls_silent_keeps_its_mapping() {
        let start = beginning();
        let mut gatherer = gatherer();
        gatherer.handle_servers(&[addr(SERVER)], start);
        let request = gatherer.poll_transmit().expect("asked");
        let response = answer(&request, "198.51.100.7:1");
        gatherer.handle_response(path_from(SERVER), &response, start);
        let known = gatherer.poll_change().expect("changed");
        let mut now = start;
        while now < start + Duration::from_secs(120) {
            now = gatherer.poll_timeout().expect("a server is configured");
            gatherer.handle_timeout(now);
        }
        assert_eq!(gatherer.current(), &known);
        assert_eq!(gatherer.poll_change(), None);
    }

    proptest! {
        #[test]
        fn arbitrary_responses_never_panic(bytes in vec(any::<u8>(), 0..120)) {
            let now = beginning();
            let mut gatherer = gatherer();
            gatherer.handle_servers(&[addr(SERVER)], now);
            prop_assert!(!gatherer.handle_response(path_from(SERVER), &bytes, now));
        }
    }
}
