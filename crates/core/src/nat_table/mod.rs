//! Where a packet from a resource goes: to the connection of the client whose tunnel address it
//! carries.
//!
//! Addresses of CIDR and Internet resources pass unchanged; this version translates no proxy IPs.

pub mod flows;
pub mod rewrite;
pub mod slot;

pub use slot::{ClientSlot, MappingId};

use crate::DropReason;
use crate::grant::TunnelAddresses;
use crate::ids::ClientId;
use crate::packet::{DropCounts, PacketBatch};
use std::collections::HashMap;
use std::net::IpAddr;

/// The clients of one shard by their tunnel addresses.
#[derive(Default)]
pub struct NatTable {
    by_address: HashMap<IpAddr, ClientId>,
    drops: DropCounts,
}

impl NatTable {
    /// From now on these addresses are `client`'s. An address that another client had is taken
    /// over.
    pub fn attach(&mut self, client: ClientId, tunnel: TunnelAddresses) {
        self.by_address.insert(tunnel.ipv4.into(), client);
        self.by_address.insert(tunnel.ipv6.into(), client);
    }

    /// Forgets these addresses where they are still `client`'s.
    pub fn detach(&mut self, client: ClientId, tunnel: TunnelAddresses) {
        for address in [tunnel.ipv4.into(), tunnel.ipv6.into()] {
            if self.by_address.get(&address) == Some(&client) {
                self.by_address.remove(&address);
            }
        }
    }

    /// Sorts packets from resources by client; order within a client is kept. Packets for nobody
    /// are counted as [`DropReason::UnknownClient`].
    pub fn handle_outbound(&mut self, batch: PacketBatch) -> Vec<(ClientId, PacketBatch)> {
        if let Some(client) = self.sole_receiver(&batch) {
            return vec![(client, batch)];
        }
        let mut sorted: Vec<(ClientId, PacketBatch)> = Vec::new();
        for packet in batch.iter() {
            let client = destination(packet).and_then(|address| self.by_address.get(&address));
            let Some(client) = client else {
                self.drops.count(DropReason::UnknownClient);
                continue;
            };
            match sorted.iter_mut().find(|(known, _)| known == client) {
                Some((_, packets)) => packets.push(packet),
                None => sorted.push((*client, PacketBatch::of(packet))),
            }
        }
        sorted
    }

    /// One read of the TUN device is one flow, so this is the rule.
    fn sole_receiver(&self, batch: &PacketBatch) -> Option<ClientId> {
        let mut destinations = batch.iter().map(destination);
        let first = destinations.next()??;
        let all_alike = destinations.all(|other| other == Some(first));
        let client = self.by_address.get(&first)?;
        all_alike.then_some(*client)
    }

    /// What was dropped since the last call.
    pub fn take_drops(&mut self) -> DropCounts {
        std::mem::take(&mut self.drops)
    }
}

/// The destination address, from the fixed header alone; the connection proves the rest.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => <[u8; 4]>::try_from(packet.get(16..20)?)
            .ok()
            .map(Into::into),
        6 => <[u8; 16]>::try_from(packet.get(24..40)?)
            .ok()
            .map(Into::into),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::testing::ipv4_packet;
    use proptest::prelude::*;
    use uuid::Uuid;

    const WEB: [u8; 4] = [10, 20, 0, 100];

    fn client(number: u8) -> (ClientId, TunnelAddresses) {
        let tunnel = TunnelAddresses {
            ipv4: [100, 64, 1, number].into(),
            ipv6: format!("fd00:2021:1111::{number:x}")
                .parse()
                .expect("literal"),
        };
        (ClientId(Uuid::from_u128(number.into())), tunnel)
    }

    fn table_of(numbers: &[u8]) -> NatTable {
        let mut table = NatTable::default();
        for number in numbers {
            let (id, tunnel) = client(*number);
            table.attach(id, tunnel);
        }
        table
    }

    #[test]
    fn packets_of_two_clients_in_one_batch_part_ways_in_order() {
        let mut table = table_of(&[1, 2]);
        let mut batch = PacketBatch::default();
        let packets: Vec<_> = [(1, b"a"), (2, b"b"), (1, b"c"), (9, b"d")]
            .map(|(number, payload)| ipv4_packet(WEB, [100, 64, 1, number], payload))
            .to_vec();
        packets.iter().for_each(|packet| batch.push(packet));
        let sorted = table.handle_outbound(batch);
        assert_eq!(sorted.len(), 2);
        assert_eq!(sorted[0].0, client(1).0);
        assert_eq!(
            sorted[0].1.iter().collect::<Vec<_>>(),
            [&packets[0][..], &packets[2]]
        );
        assert_eq!(sorted[1].0, client(2).0);
        assert_eq!(table.take_drops().of(DropReason::UnknownClient), 1);
    }

    #[test]
    fn a_detached_client_gets_nothing_and_an_heir_keeps_its_address() {
        let mut table = table_of(&[1]);
        let (old, tunnel) = client(1);
        let (heir, _) = client(2);
        table.attach(heir, tunnel);
        table.detach(old, tunnel);
        let batch = || PacketBatch::of(&ipv4_packet(WEB, [100, 64, 1, 1], b"x"));
        assert_eq!(table.handle_outbound(batch())[0].0, heir);
        table.detach(heir, tunnel);
        assert!(table.handle_outbound(batch()).is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_packets_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut table = table_of(&[1]);
            let sorted = table.handle_outbound(PacketBatch::of(&bytes)).len() as u64;
            prop_assert_eq!(sorted + table.take_drops().total(), 1);
        }
    }
}
