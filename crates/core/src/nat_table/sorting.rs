//! Finds the client of packets from resources, on this shard or on another.
//!
//! The kernel chooses the queue of the TUN for each flow, and sometimes not that of the client's
//! shard. Packets on the wrong queue are handed over whole and once: a packet that was handed over
//! goes to a client or is dropped, so that two tables which disagree about a client for a moment do
//! not pass it back and forth.

use super::ClientSlot;
use super::NatTable;
use crate::DropReason;
use crate::grant::TunnelAddresses;
use crate::ids::ClientId;
use crate::packet::{PacketBatch, ip};
use std::net::IpAddr;
use std::time::Instant;

/// The owner of an address in the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// A client of this shard.
    Local(ClientSlot),
    /// A client of this other shard.
    Remote(u8, ClientId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    Client(ClientSlot),
    Shard(u8),
}

impl From<Location> for Destination {
    fn from(location: Location) -> Self {
        match location {
            Location::Local(slot) => Self::Client(slot),
            Location::Remote(shard, _) => Self::Shard(shard),
        }
    }
}

impl NatTable {
    /// Assigns the addresses to a client of another shard. An address of another client is taken
    /// over.
    pub fn route(&mut self, client: ClientId, tunnel: TunnelAddresses, shard: u8) {
        self.clients.route(client, tunnel, shard);
    }

    /// The client has left its other shard.
    pub fn unroute(&mut self, client: ClientId) {
        self.clients.unroute(client);
    }

    /// Packets from resources to any client; the order within a client is kept. Packets for unknown
    /// addresses are counted as [`DropReason::UnknownClient`].
    pub fn handle_outbound(&mut self, batch: PacketBatch, now: Instant) {
        for (destination, batch) in self.sort(batch) {
            match destination {
                Destination::Client(slot) => self.return_to(slot, batch, now),
                Destination::Shard(shard) => self.strays.push_back((shard, batch)),
            }
        }
        self.after_domains(now);
    }

    /// As [`Self::handle_outbound`], for packets that another shard has read for a client of this
    /// one.
    pub fn handle_strays(&mut self, batch: PacketBatch, now: Instant) {
        for (destination, batch) in self.sort(batch) {
            match destination {
                Destination::Client(slot) => self.return_to(slot, batch, now),
                // The client has just left, or has not arrived yet.
                Destination::Shard(_) => {
                    self.drops
                        .count_many(DropReason::UnknownClient, batch.segments());
                }
            }
        }
        self.after_domains(now);
    }

    /// The next batch for another shard, with the number of that shard.
    pub fn poll_stray(&mut self) -> Option<(u8, PacketBatch)> {
        self.strays.pop_front()
    }

    fn return_to(&mut self, slot: ClientSlot, mut batch: PacketBatch, now: Instant) {
        batch.retain_resized(|packet| {
            let translated = self.translate_outbound(slot, packet, now);
            let segments = packet.segments();
            translated
                .inspect_err(|reason| self.drops.count_many(*reason, segments))
                .ok()
        });
        if let Some(client) = self.clients.id(slot).filter(|_| !batch.is_empty()) {
            self.outbound.push_back((client, batch));
        }
    }

    /// A read of the TUN device is one flow, so it usually has one receiver.
    fn sort(&mut self, batch: PacketBatch) -> Vec<(Destination, PacketBatch)> {
        if let Some(destination) = self.sole_receiver(&batch) {
            return vec![(destination, batch)];
        }
        let mut sorted: Vec<(Destination, PacketBatch)> = Vec::new();
        for (packet, segmentation) in batch.segmented() {
            let destination = ip::destination(packet).and_then(|ip| self.destination(ip));
            let Some(destination) = destination else {
                let segments = segmentation.map_or(1, |it| it.segments(packet.len()));
                self.drops.count_many(DropReason::UnknownClient, segments);
                continue;
            };
            match sorted.iter_mut().find(|(known, _)| *known == destination) {
                Some((_, packets)) => packets.push_segmented(packet, segmentation),
                None => {
                    let mut packets = PacketBatch::with_capacity(packet.len());
                    packets.push_segmented(packet, segmentation);
                    sorted.push((destination, packets));
                }
            }
        }
        sorted
    }

    fn sole_receiver(&self, batch: &PacketBatch) -> Option<Destination> {
        let mut destinations = batch.iter().map(ip::destination);
        let first = destinations.next()??;
        let all_alike = destinations.all(|other| other == Some(first));
        all_alike.then(|| self.destination(first)).flatten()
    }

    fn destination(&self, address: IpAddr) -> Option<Destination> {
        self.clients.location(address).map(Destination::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat_table::tests::{Scene, client, own_v4};
    use crate::packet::samples::{Shape, packet_between};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// From a resource to client `number`; `mark` identifies the packet.
    fn answer_to(number: u8, mark: u16) -> Vec<u8> {
        let shape = Shape::Udp {
            from: mark,
            to: 5000,
        };
        packet_between("10.99.0.1", &own_v4(number), shape)
    }

    fn batch(packets: &[Vec<u8>]) -> PacketBatch {
        let mut batch = PacketBatch::default();
        packets.iter().for_each(|packet| batch.push(packet));
        batch
    }

    fn bytes(batch: &PacketBatch) -> Vec<Vec<u8>> {
        batch.iter().map(<[u8]>::to_vec).collect()
    }

    /// Shard 0 with client 1; 2 and 3 are on shard 1, 4 on shard 2.
    fn scene() -> Scene {
        let mut scene = Scene::new(&[1]);
        for (number, shard) in [(2, 1), (3, 1), (4, 2)] {
            let (id, tunnel) = client(number);
            scene.nat.route(id, tunnel, shard);
        }
        scene
    }

    #[test]
    fn packets_for_other_shards_go_in_one_batch_each_and_in_order() {
        let mut scene = scene();
        let packets: Vec<_> = [2, 1, 3, 4, 2, 9].iter().zip(1..).collect();
        let packets: Vec<_> = packets
            .iter()
            .map(|(to, mark)| answer_to(**to, *mark))
            .collect();
        scene.nat.handle_outbound(batch(&packets), scene.now);
        let (owner, own) = scene.nat.poll_outbound().expect("one of five is its own");
        assert_eq!(
            (owner, bytes(&own)),
            (client(1).0, vec![packets[1].clone()])
        );
        let strays: Vec<_> = std::iter::from_fn(|| scene.nat.poll_stray()).collect();
        let shards: Vec<_> = strays.iter().map(|(shard, _)| *shard).collect();
        assert_eq!(shards, [1, 2]);
        let of_shard_1 = [0, 2, 4].map(|place: usize| packets[place].clone());
        assert_eq!(bytes(&strays[0].1), of_shard_1);
        assert_eq!(scene.drops(DropReason::UnknownClient), 1);
    }

    #[test]
    fn a_packet_is_handed_over_only_once() {
        let mut scene = scene();
        let packets = [answer_to(1, 1), answer_to(2, 2)];
        scene.nat.handle_strays(batch(&packets), scene.now);
        assert_eq!(
            scene.nat.poll_outbound().map(|(id, _)| id),
            Some(client(1).0)
        );
        assert!(scene.nat.poll_stray().is_none());
        assert_eq!(scene.drops(DropReason::UnknownClient), 1);
    }

    #[test]
    fn a_batch_for_many_clients_reserves_no_excess_memory() {
        let numbers: Vec<u8> = (1..=200).collect();
        let mut scene = Scene::new(&numbers);
        let packets: Vec<_> = numbers.iter().map(|number| answer_to(*number, 1)).collect();
        scene.nat.handle_outbound(batch(&packets), scene.now);
        for _ in &numbers {
            let (_, own) = scene.nat.poll_outbound().expect("each has one");
            assert!(!own.has_room(4096));
        }
    }

    #[test]
    fn a_dropped_super_packet_counts_all_its_segments() {
        let mut scene = scene();
        let mut datagrams = PacketBatch::default();
        for _ in 0..5 {
            let datagram = answer_to(2, 1);
            datagrams.push_merging(datagram.len(), |room| {
                room.copy_from_slice(&datagram);
                Some(datagram.len())
            });
        }
        assert_eq!((datagrams.len(), datagrams.segments()), (1, 5));
        scene.nat.handle_strays(datagrams, scene.now);
        assert_eq!(scene.drops(DropReason::UnknownClient), 5);
    }

    #[test]
    fn a_client_is_on_one_shard_and_keeps_taken_over_addresses() {
        let mut scene = scene();
        let (id, tunnel) = client(2);
        scene.nat.attach(id, tunnel);
        scene
            .nat
            .handle_outbound(batch(&[answer_to(2, 1)]), scene.now);
        assert_eq!(scene.nat.poll_outbound().map(|(id, _)| id), Some(id));
        // Outdated news of its former shard.
        scene.nat.unroute(id);
        // Client 4 comes back to shard 1 with the addresses of client 3, which leaves.
        let (successor, former) = (client(4).0, client(3));
        scene.nat.route(successor, former.1, 1);
        scene.nat.unroute(former.0);
        let packets = [answer_to(2, 1), answer_to(3, 2), answer_to(4, 3)];
        scene.nat.handle_outbound(batch(&packets), scene.now);
        assert_eq!(scene.nat.poll_outbound().map(|(id, _)| id), Some(id));
        assert_eq!(scene.nat.poll_stray().map(|(shard, _)| shard), Some(1));
        assert_eq!(scene.drops(DropReason::UnknownClient), 1);
    }

    proptest! {
        /// For any placement of clients and any reading shard: each packet reaches its client's
        /// shard once, and the packets of a client stay in order.
        #[test]
        fn every_packet_reaches_the_shard_of_its_client_in_order(
            homes in vec(0u8..4, 8),
            reads in vec((0u8..4, vec(0u8..8, 1..10)), 1..10),
        ) {
            let mut shards: Vec<Scene> = (0..4).map(|_| Scene::new(&[])).collect();
            for (shard, scene) in (0..).zip(&mut shards) {
                for (number, location) in (0..).zip(&homes) {
                    let (id, tunnel) = client(number);
                    match *location == shard {
                        true => scene.nat.attach(id, tunnel),
                        false => scene.nat.route(id, tunnel, *location),
                    }
                }
            }
            let mut mark = 0;
            let mut expected: Vec<Vec<Vec<u8>>> = vec![Vec::new(); 8];
            for (reader, receivers) in &reads {
                let packets: Vec<_> = receivers.iter().map(|number| {
                    mark += 1;
                    answer_to(*number, mark)
                }).collect();
                for (number, packet) in receivers.iter().zip(&packets) {
                    expected[usize::from(*number)].push(packet.clone());
                }
                let reader = &mut shards[usize::from(*reader)];
                reader.nat.handle_outbound(batch(&packets), reader.now);
                let strays: Vec<_> = std::iter::from_fn(|| reader.nat.poll_stray()).collect();
                for (owner, stray) in strays {
                    let owner = &mut shards[usize::from(owner)];
                    owner.nat.handle_strays(stray, owner.now);
                }
            }
            for (number, location) in (0..).zip(&homes) {
                let of_client = &mut expected[usize::from(number)];
                let scene = &mut shards[usize::from(*location)];
                let mut arrived = Vec::new();
                let mut others = Vec::new();
                while let Some((id, packets)) = scene.nat.poll_outbound() {
                    match id == client(number).0 {
                        true => arrived.extend(bytes(&packets)),
                        false => others.push((id, packets)),
                    }
                }
                scene.nat.outbound.extend(others);
                prop_assert_eq!(&arrived, of_client);
            }
        }
    }
}
