//! A gateway of two shards: each has its clients, its actors die alone, and it hands over strays.

use super::metrics::page;
use super::probe::{Break, Inbox, Probe, only};
use super::reload::use_settings;
use super::samples::{client, local_addresses, open_for, tunnel};
use super::scene::{Scene, goodbye, revoke};
use super::seen::{DetachPeer, FlushDatagrams, Seen, UnrouteClient, UseSibling};
use super::tell_addr;
use super::{in_virtual_time, until_exit};
use crate::actors::nat_table::{self, NatSnapshot, NatTableActor, NatTableSpec};
use crate::actors::supervisor::spawner::Place;
use crate::actors::udp;
use crate::config::UseSettings;
use crate::messages::nat_table::{AttachClient, RouteClient};
use crate::messages::nat_table::{NatTableCommand, NatTableSetup};
use crate::messages::packets::{OutboundDatagrams, OutboundPackets};
use crate::messages::supervisor::{Child, InstanceId};
use crate::messages::udp::AttachPeer;
use crate::metrics::Metrics;
use crate::shell;
use crate::supervision::{DeathNotice, RunningInstance, launch};
use actix::prelude::*;
use futures_util::future::AbortHandle;
use postern_core::DropReason;
use postern_core::command::ClientCommand;
use postern_core::nat_table::NatTableConfig;
use postern_core::packet::PacketBatch;
use postern_core::peer::{PeerIndex, PeerIndexPool};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// A supervisor of two shards.
fn two_shards() -> Scene {
    Scene::with(|spec| {
        spec.shards = 2;
        spec.metrics = Arc::new(Metrics::new(2, shell::now()));
    })
}

/// Client 1 on shard 0 and client 2 on shard 1, with the indices of their connections.
async fn two_clients(scene: &mut Scene) -> [PeerIndex; 2] {
    scene.tell(open_for(1, 1));
    scene.tell(open_for(2, 1));
    let attached: AttachClient = scene.nat_table.find().await;
    let other: AttachClient = scene.second.nat_table.find().await;
    let indices = [attached.index, other.index];
    assert_eq!(indices.map(PeerIndex::shard), [0, 1]);
    scene.settle().await;
    indices
}

async fn nothing_happens_on_the_first(scene: &mut Scene) {
    scene.udp.nothing().await;
    scene.nat_table.nothing().await;
    scene.tun.nothing().await;
}

#[test]
fn spreads_clients_and_tells_every_shard_the_routes() {
    in_virtual_time(async {
        let mut scene = two_shards();
        let shard = |number| {
            [
                Child::Tun(number),
                Child::NatTable(number),
                Child::Udp(number),
            ]
        };
        let mut all = vec![Child::Admin];
        all.extend(shard(0).into_iter().chain(shard(1)));
        all.extend([Child::Dns, Child::Portal]);
        scene.inboxes().clear().await;
        assert_eq!(scene.spawner.started(), all);

        scene.tell(open_for(1, 1));
        scene.tell(open_for(2, 1));
        // Each client attaches to its own shard, and to shard 0 for datagrams that name no shard.
        let first: AttachPeer = scene.udp.next().await;
        assert!(first.addresses.is_some() && first.index.shard() == 0);
        let second: AttachPeer = scene.udp.next().await;
        assert!(second.addresses.is_some() && second.index.shard() == 1);
        let own: AttachPeer = scene.second.udp.next().await;
        assert!(own.addresses.is_none() && own.index == second.index);
        let route: RouteClient = scene.second.nat_table.next().await;
        assert_eq!(
            (route.client, route.tunnel, route.shard),
            (client(1), tunnel(1), 0)
        );
        let attached: AttachClient = scene.second.nat_table.next().await;
        assert_eq!((attached.client, attached.index), (client(2), second.index));
        let told = scene.nat_table.drain().await;
        let [
            RouteClient {
                client: id, shard, ..
            },
        ] = only(told)[..]
        else {
            panic!("the first learns of one");
        };
        assert_eq!((id, shard), (client(2), 1));
    });
}

#[test]
fn a_client_that_leaves_is_removed_from_all_shards() {
    in_virtual_time(async {
        let mut scene = two_shards();
        let [index, _] = two_clients(&mut scene).await;
        scene.tell(revoke(1));
        let detached: DetachPeer = scene.udp.find().await;
        assert_eq!(detached.index, index);
        let UnrouteClient(id) = scene.second.nat_table.find().await;
        assert_eq!(id, client(1));
        scene.settle().await;
        scene.tell(open_for(3, 1));
        let attached: AttachClient = scene.nat_table.find().await;
        assert_eq!((attached.client, attached.index.shard()), (client(3), 0));
    });
}

#[test]
fn the_death_of_a_nat_does_not_affect_the_other_shard() {
    in_virtual_time(async {
        let mut scene = two_shards();
        let [_, index] = two_clients(&mut scene).await;
        scene.spawner.break_child(Child::NatTable(1), Break::Panic);
        let told = scene.second.nat_table.drain().await;
        let [
            AttachClient {
                client: id,
                index: again,
                ..
            },
        ] = &only(told)[..]
        else {
            panic!("its own client attaches again, and no other");
        };
        assert_eq!((*id, *again), (client(2), index));
        let routes = scene.spawner.snapshot().routes;
        let routes: Vec<_> = routes.iter().map(|it| (it.client, it.shard)).collect();
        assert_eq!(routes, [(client(1), 0)]);
        assert_eq!(scene.spawner.started(), [Child::NatTable(1)]);
        nothing_happens_on_the_first(&mut scene).await;
        // But its NAT must know the route.
        let told = scene.introduced.drain().await;
        assert_eq!(told.len(), 1);
        let [UseSibling { shard: 1, strays }] = &only(told)[..] else {
            panic!("the sibling is introduced");
        };
        assert!(strays.connected());
        scene.second.udp.nothing().await;
    });
}

#[test]
fn the_death_of_a_tun_or_udp_affects_only_its_shard() {
    in_virtual_time(async {
        let mut scene = two_shards();
        let [first, second] = two_clients(&mut scene).await;
        scene.spawner.break_child(Child::Tun(1), Break::Panic);
        let told = scene.second.introduced.drain().await;
        assert_eq!(
            told.len(),
            2,
            "tun and nat table of the shard, to each other"
        );
        // Shard 0 configures the interface.
        scene.second.tun.nothing().await;
        nothing_happens_on_the_first(&mut scene).await;

        let attached = |told: Vec<Seen>| -> Vec<PeerIndex> {
            only(told).iter().map(|it: &AttachPeer| it.index).collect()
        };
        scene.spawner.break_child(Child::Udp(1), Break::Panic);
        assert_eq!(attached(scene.second.udp.drain().await), [second]);
        assert!(!attached(scene.udp.drain().await).contains(&first));

        // Shard 0 knows all peers.
        scene.spawner.break_child(Child::Udp(0), Break::Panic);
        let mut told = attached(scene.udp.drain().await);
        told.sort_unstable();
        assert_eq!(told, [first.min(second), first.max(second)]);
        let started = [Child::Tun(1), Child::Udp(1), Child::Udp(0)];
        assert_eq!(scene.spawner.started(), started);
    });
}

#[test]
fn replaces_only_the_stuck_shard() {
    in_virtual_time(async {
        let mut scene = two_shards();
        scene.spawner.set_thread_stuck();
        let [_, index] = two_clients(&mut scene).await;
        scene.spawner.break_child(Child::Udp(1), Break::Hang);
        tokio::time::sleep(MS(3500)).await;
        assert_eq!(scene.spawner.replaced(), [Place::Shard(1)]);
        let connection = Child::Connection(client(2), index);
        let all = [Child::Tun(1), Child::NatTable(1), Child::Udp(1), connection];
        assert_eq!(scene.spawner.started(), all);
        let told = scene.udp.drain().await;
        let attached: Vec<AttachPeer> = only(told);
        assert!(attached.iter().all(|peer| peer.index == index));
        scene.tun.nothing().await;
        scene.spawner.thread_comes_round();
        tokio::time::sleep(MS(10_000)).await;
        assert_eq!(scene.spawner.replaced(), [Place::Shard(1)]);
    });
}

#[test]
fn sends_stun_requests_through_shard_0_and_data_through_its_own() {
    in_virtual_time(async {
        let mut scene = two_shards();
        scene.tell(open_for(1, 1));
        scene.tell(open_for(2, 1));
        scene.settle().await;
        scene.spawner.break_child(Child::Udp(0), Break::Stop);
        let attached: AttachPeer = loop {
            let peer: AttachPeer = scene.udp.find().await;
            if peer.index.shard() == 1 {
                break peer;
            }
        };
        let addresses = attached.addresses.expect("shard 0 sends them");
        addresses.try_send(local_addresses()).expect("it runs");
        scene.tell(ClientCommand::AddCandidates {
            client: client(2),
            candidates: vec!["candidate:1 1 udp 2130706175 198.51.100.5 4000 typ host".into()],
        });
        let check: OutboundDatagrams = scene.udp.find().await;
        assert_eq!(check.from, attached.index);
        assert_eq!(check.batch.bytes()[..2], STUN_REQUEST);
        let sent: Vec<OutboundDatagrams> = only(scene.second.udp.drain().await);
        assert!(sent.is_empty());

        scene.use_path_of(client(2));
        scene.settle().await;
        scene.spawner.kill_connection(client(2));
        let initiation: OutboundDatagrams = scene.second.udp.find().await;
        assert_eq!(initiation.batch.bytes()[0], HANDSHAKE_INITIATION);
    });
}

#[test]
fn settings_and_shutdown_reach_all_shards() {
    in_virtual_time(async {
        let mut scene = two_shards();
        two_clients(&mut scene).await;
        let more = "[network]\nstun_servers = [\"192.0.2.1:3478\"]\n\
                    [limits]\nhandshakes_per_second = 7\nflows = 2000\n\
                    [tunnel]\nshards = 2\n";
        scene.tell(use_settings(more));
        let UseSettings { after, .. } = scene.second.nat_table.next().await;
        let limits = nat_table::shard_config(&after);
        assert_eq!(limits.flows.flows, 1000, "half of what is for all");
        let UseSettings { after, .. } = scene.second.udp.next().await;
        assert_eq!(after.config.limits.handshakes_per_second, 7);
        let asked = |shard| udp::stun_servers(&after.config, shard).len();
        assert_eq!((asked(0), asked(1)), (1, 0), "the first asks");
        scene.udp.find::<UseSettings>().await;
    });
    let code = until_exit(async {
        let mut scene = two_shards();
        two_clients(&mut scene).await;
        scene.tell(goodbye(0));
        scene.udp.find::<FlushDatagrams>().await;
        scene.second.udp.find::<FlushDatagrams>().await;
    });
    assert_eq!(code, 0);
}

#[test]
fn stray_packets_reach_their_client_in_order_also_after_a_death() {
    in_virtual_time(async {
        let metrics = Arc::new(Metrics::new(2, shell::now()));
        let ((near_probe, mut near), (far_probe, mut far)) = (Probe::start(), Probe::start());
        let (first, second) = (Table::new(&metrics, 0), Table::new(&metrics, 1));
        first.attach(1, &near_probe);
        second.attach(2, &far_probe);
        let (number, shard) = (2, 1);
        first.route(number, shard);
        first.introduce(shard, &second);

        tell_addr(&first.addr, answers(&[(2, 1), (1, 2), (2, 3)]));
        let OutboundPackets { batch, .. } = near.next().await;
        assert_eq!(marks(&batch), [2]);
        let OutboundPackets { batch, .. } = far.next().await;
        assert_eq!(marks(&batch), [1, 3]);

        // Packets wait for the successor, and no later packet overtakes them.
        second.abort.abort();
        tokio::time::sleep(MS(1)).await;
        tell_addr(&first.addr, answers(&[(2, 4)]));
        tell_addr(&first.addr, answers(&[(2, 5), (2, 6)]));
        far.nothing().await;
        let successor = Table::new(&metrics, 1);
        successor.attach(2, &far_probe);
        first.introduce(shard, &successor);
        tell_addr(&first.addr, answers(&[(2, 7)]));
        let mut arrived = Vec::new();
        while arrived.len() < 4 {
            let OutboundPackets { batch, .. } = far.next().await;
            arrived.extend(marks(&batch));
        }
        assert_eq!(arrived, [4, 5, 6, 7]);

        let page = page(&metrics);
        let handed_over = |what: &str, kind: &str| {
            page.value(&format!(
                "postern_handed_over_{what}_total{{kind=\"{kind}\"}}"
            ))
        };
        assert_eq!(handed_over("packets", "tun"), 6.0);
        assert_eq!(handed_over("batches", "tun"), 4.0);
        assert_eq!(handed_over("packets", "udp"), 0.0);
        assert_eq!(metrics.drops(), []);
    });
}

#[test]
fn stray_packets_are_not_handed_on_twice() {
    in_virtual_time(async {
        let metrics = Arc::new(Metrics::new(2, shell::now()));
        let (first, second) = (Table::new(&metrics, 0), Table::new(&metrics, 1));
        first.route(2, 1);
        first.introduce(1, &second);
        second.route(2, 0);
        second.introduce(0, &first);
        tell_addr(&first.addr, answers(&[(2, 1), (2, 2)]));
        tokio::time::sleep(MS(1)).await;
        assert_eq!(metrics.drops(), [(DropReason::UnknownClient, 2)]);
    });
}

/// A NatTableActor of a shard.
struct Table {
    addr: Addr<NatTableActor>,
    abort: AbortHandle,
    _supervisor: Inbox,
}

impl Table {
    fn new(metrics: &Arc<Metrics>, shard: u8) -> Self {
        let (supervisor, inbox) = Probe::start();
        let instance = InstanceId(1);
        let child = Child::NatTable(shard);
        let table = NatTableActor::new(NatTableSpec {
            config: NatTableConfig::default(),
            seed: [0; 32],
            snapshot: NatSnapshot::default(),
            changed: supervisor.clone().recipient(),
            metrics: metrics.shard(shard.into()),
            death: DeathNotice::new(child, instance, supervisor.recipient()),
        });
        let mark = RunningInstance::default().mark(instance);
        let mailbox = NatTableActor::MAILBOX;
        let (addr, abort) = launch(&Arbiter::current(), mark, mailbox, |_| Ok(table));
        Self {
            addr,
            abort,
            _supervisor: inbox,
        }
    }

    /// Attaches client `number` to this table.
    fn attach(&self, number: u8, connection: &Addr<Probe>) {
        let attach = NatTableCommand::Attach(AttachClient {
            client: client(number),
            index: PeerIndexPool::new([0; 32]).allocate(0).expect("room"),
            tunnel: tunnel(number),
            known: Vec::new(),
            connection: connection.clone().recipient(),
            names: connection.clone().recipient(),
        });
        tell_addr(&self.addr, attach);
    }

    /// Routes client `number` to another shard.
    fn route(&self, number: u8, shard: u8) {
        let route = RouteClient {
            client: client(number),
            tunnel: tunnel(number),
            shard,
        };
        tell_addr(&self.addr, NatTableSetup::Route(route));
    }

    fn introduce(&self, shard: u8, sibling: &Self) {
        let strays = sibling.addr.clone().recipient();
        tell_addr(&self.addr, NatTableSetup::UseSibling { shard, strays });
    }
}

/// Packets from a resource, each with its client and a mark.
fn answers(packets: &[(u8, u16)]) -> OutboundPackets {
    let mut batch = PacketBatch::default();
    for (number, mark) in packets {
        let mut packet = Vec::new();
        let destination = tunnel(*number).ipv4.octets();
        etherparse::PacketBuilder::ipv4(WEB.octets(), destination, 64)
            .udp(*mark, 5000)
            .write(&mut packet, &[])
            .expect("fits");
        batch.push(&packet);
    }
    OutboundPackets::new(batch)
}

fn marks(batch: &PacketBatch) -> Vec<u16> {
    let port = |packet: &[u8]| u16::from_be_bytes([packet[20], packet[21]]);
    batch.iter().map(port).collect()
}

/// First bytes of a Binding request and of a WireGuard initiation.
const STUN_REQUEST: [u8; 2] = [0, 1];
const HANDSHAKE_INITIATION: u8 = 1;
const WEB: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 100);
const MS: fn(u64) -> Duration = Duration::from_millis;
