//! A NatTableActor among probes: a connection, a TUN queue, a resolver.

use super::in_virtual_time;
use super::metrics::openmetrics::Page;
use super::metrics::page;
use super::probe::{Inbox, Probe};
use super::samples::{client, resource, tunnel, udp};
use super::seen::DomainStatusChanged;
use super::tell_addr;
use crate::actors::nat_table::{NatSnapshot, NatTableActor, NatTableSpec};
use crate::messages::dns::{NameAnswered, ResolveName};
use crate::messages::nat_table::{AssignProxyIps, AttachClient};
use crate::messages::nat_table::{NatTableCommand, NatTableSetup};
use crate::messages::packets::{InboundPackets, OutboundPackets};
use crate::messages::supervisor::{Child, ChildDied, InstanceId};
use crate::metrics::Metrics;
use crate::supervision::DeathNotice;
use actix::prelude::*;
use postern_core::DropReason;
use postern_core::grant::AnnouncedName;
use postern_core::names::{AddressFamily, NameAnswer, ResolvedAddresses};
use postern_core::nat_table::NatTableConfig;
use postern_core::packet::PacketBatch;
use postern_core::peer::{PeerIndex, PeerIndexPool};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

const PROXY: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 1);
const WEB: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 100);

#[test]
fn delivers_to_the_attached_connection_only() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let answers = || OutboundPackets::new(PacketBatch::of(&udp(WEB, tunnel(1).ipv4)));
        tell_addr(&scene.table, answers());
        let OutboundPackets {
            batch: delivered, ..
        } = scene.connection.next().await;
        let delivered: Vec<_> = delivered.iter().collect();
        assert_eq!(delivered, [udp(WEB, tunnel(1).ipv4)]);

        let detach = |index| NatTableCommand::Detach {
            client: client(1),
            index,
        };
        // A message of an earlier connection of the client does not affect this one.
        tell_addr(&scene.table, detach(scene.earlier));
        tell_addr(&scene.table, answers());
        scene.connection.next::<OutboundPackets>().await;

        tell_addr(&scene.table, detach(scene.index));
        tell_addr(&scene.table, answers());
        scene.connection.nothing().await;
        assert_eq!(scene.metrics.drops(), [(DropReason::UnknownClient, 1)]);
    });
}

#[test]
fn passes_on_other_packets_unchanged_and_reports_its_death() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let request = udp(tunnel(1).ipv4, WEB);
        tell_addr(&scene.table, InboundPackets::new(PacketBatch::of(&request)));
        let InboundPackets {
            batch: forwarded, ..
        } = scene.tun.next().await;
        assert_eq!(forwarded.iter().collect::<Vec<_>>(), [request]);
        drop(scene.table);
        scene.tun.nothing().await;
        scene.supervisor.next::<ChildDied>().await;
    });
}

/// docs/lessons.md 1: a name is active before it is resolved.
#[test]
fn a_name_is_active_immediately_and_its_packets_wait() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.assign();
        let DomainStatusChanged(status) = scene.connection.next().await;
        assert!(status.active && status.domain == "App.Example");
        let question: ResolveName = scene.dns.next().await;
        assert_eq!(question.name.as_str(), "app.example");
        assert!(question.client == client(1) && !question.refresh);

        let request = udp(tunnel(1).ipv4, PROXY);
        tell_addr(&scene.table, InboundPackets::new(PacketBatch::of(&request)));
        scene.tun.nothing().await;
        let reply_to = question.reply_to.expect("an asker");
        reply_to.try_send(found()).expect("the table runs");
        let InboundPackets {
            batch: released, ..
        } = scene.tun.next().await;
        let destination = released.iter().map(|packet| packet[16..20].to_vec());
        assert_eq!(destination.collect::<Vec<_>>(), [WEB.octets()]);
    });
}

/// docs/lessons.md 8: unresolved is "unreachable", not "prohibited".
#[test]
fn without_an_answer_the_client_gets_icmp_unreachable() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.assign();
        scene.connection.next::<DomainStatusChanged>().await;
        let request = udp(tunnel(1).ipv4, PROXY);
        tell_addr(&scene.table, InboundPackets::new(PacketBatch::of(&request)));
        let patience = Duration::from_secs(3);
        let OutboundPackets { batch: refusal, .. } = scene.connection.next_within(patience).await;
        let kinds: Vec<_> = refusal
            .iter()
            .map(|packet| packet[20..22].to_vec())
            .collect();
        assert_eq!(kinds, [[3, 0]]);
    });
}

#[test]
fn releasing_a_resource_releases_its_names() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.assign();
        scene.connection.next::<DomainStatusChanged>().await;
        let question: ResolveName = scene.dns.next().await;
        let reply_to = question.reply_to.expect("an asker");
        reply_to.try_send(found()).expect("the table runs");
        let release = NatTableCommand::Release {
            client: client(1),
            resource: resource(1),
        };
        tell_addr(&scene.table, release);
        let request = udp(tunnel(1).ipv4, PROXY);
        tell_addr(&scene.table, InboundPackets::new(PacketBatch::of(&request)));
        scene.connection.next::<OutboundPackets>().await;
        scene.tun.nothing().await;
    });
}

#[test]
fn counts_flows_mappings_and_heals() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.assign();
        let question: ResolveName = scene.dns.next().await;
        let request = udp(tunnel(1).ipv4, PROXY);
        tell_addr(&scene.table, InboundPackets::new(PacketBatch::of(&request)));
        scene.tun.nothing().await;
        let seen = page(&scene.metrics);
        let kept = |page: &Page| {
            ["flows", "mappings", "held_packets", "held_bytes"]
                .map(|what| page.value(&format!("postern_nat_{what}")))
        };
        assert_eq!(kept(&seen), [0.0, 1.0, 1.0, request.len() as f64]);
        let signals = "postern_heal_signals_total{signal=\"unmapped\"}";
        let healed = "postern_time_to_heal_seconds_count{signal=\"unmapped\"}";
        assert_eq!((seen.value(signals), seen.value(healed)), (1.0, 0.0));

        let reply_to = question.reply_to.expect("an asker");
        reply_to.try_send(found()).expect("the table runs");
        scene.tun.next::<InboundPackets>().await;
        let seen = page(&scene.metrics);
        assert_eq!(kept(&seen), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!((seen.value(signals), seen.value(healed)), (1.0, 1.0));

        let detach = NatTableCommand::Detach {
            client: client(1),
            index: scene.index,
        };
        tell_addr(&scene.table, detach);
        scene.tun.nothing().await;
        assert_eq!(kept(&page(&scene.metrics)), [0.0; 4]);
    });
}

fn found() -> NameAnswered {
    NameAnswered(NameAnswer {
        name: "app.example".parse().expect("a name"),
        family: AddressFamily::V4,
        outcome: Ok(ResolvedAddresses {
            ips: vec![WEB.into()],
            ttl: Duration::from_secs(60),
        }),
        from_cache: false,
    })
}

/// A table with client 1.
struct Scene {
    table: Addr<NatTableActor>,
    tun: Inbox,
    connection: Inbox,
    dns: Inbox,
    supervisor: Inbox,
    metrics: Arc<Metrics>,
    /// From an earlier connection of client 1.
    earlier: PeerIndex,
    index: PeerIndex,
}

impl Scene {
    fn new() -> Self {
        let mut indices = PeerIndexPool::new([0; 32]);
        let mut allocate = || indices.allocate(0).expect("room");
        let (earlier, index) = (allocate(), allocate());
        let (tun_probe, tun) = Probe::start();
        let (connection_probe, connection) = Probe::start();
        let (dns_probe, dns) = Probe::start();
        let (supervisor_probe, supervisor) = Probe::start();
        let metrics = Arc::new(Metrics::default());
        let table = NatTableActor::new(NatTableSpec {
            config: NatTableConfig::default(),
            seed: [0; 32],
            snapshot: NatSnapshot::default(),
            changed: supervisor_probe.clone().recipient(),
            metrics: metrics.shard(0),
            death: DeathNotice::new(
                Child::NatTable(0),
                InstanceId(1),
                supervisor_probe.recipient(),
            ),
        })
        .start();
        tell_addr(&table, NatTableSetup::UseTun(tun_probe.recipient()));
        tell_addr(&table, NatTableSetup::UseDns(dns_probe.recipient()));
        tell_addr(
            &table,
            NatTableCommand::Attach(AttachClient {
                client: client(1),
                index,
                tunnel: tunnel(1),
                resources: Vec::new(),
                connection: connection_probe.clone().recipient(),
                names: connection_probe.recipient(),
            }),
        );
        Self {
            table,
            tun,
            connection,
            dns,
            supervisor,
            metrics,
            earlier,
            index,
        }
    }

    fn assign(&self) {
        let assign = AssignProxyIps {
            client: client(1),
            resource: resource(1),
            announced: AnnouncedName {
                domain: "App.Example".into(),
                proxy_ips: vec![PROXY.into()],
            },
            name: "app.example".parse().expect("a name"),
            in_tunnel: true,
        };
        tell_addr(&self.table, NatTableCommand::Assign(assign));
    }
}
