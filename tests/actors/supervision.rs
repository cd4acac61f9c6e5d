//! The death of a child that all clients share: it is started again, everybody who speaks to it is
//! told, and the rest of the tree is not touched.

use crate::probe::{Break, Seen, only};
use crate::samples::{client, local_addresses, open, open_name, relay, tunnel, udp};
use crate::scene::{Scene, goodbye, initialized};
use crate::spawner::SHARED;
use crate::{in_virtual_time, until_exit};
use actix::prelude::*;
use postern::messages::connection::OpenConnection;
use postern::messages::dns::{ResolveName, ServeNames};
use postern::messages::packets::{InboundPackets, OutboundPackets};
use postern::messages::portal::{CandidatesGathered, ConnectionAccepted, LeavePortal};
use postern::messages::successors::{UseDns, UseOutbound, UseTun};
use postern::messages::supervisor::{Child, ChildDied, DeathCause, InstanceId, NatTableChanged};
use postern::messages::tun::ConfigureInterface;
use postern::messages::udp::{AttachPeer, DetachPeer, FlushDatagrams};
use postern_core::UnixTime;
use postern_core::grant::ResourceKind;
use postern_core::ledger::ResolvedName;
use postern_core::names::AddressFamily;
use postern_core::packet::PacketBatch;
use postern_core::supervision::RestartPolicy;
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn all_are_started_and_the_portal_comes_last() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.inboxes().clear().await;
        assert_eq!(scene.desk.started(), SHARED);
    });
}

#[test]
fn a_tun_that_dies_is_introduced_to_the_nat_table_and_configured() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(initialized(Vec::new()));
        scene.connect(open(1)).await;

        scene.desk.break_child(Child::Tun(0), Break::Panic);
        let introduced = scene.introduced.drain().await;
        let (use_tun, use_outbound) = both(introduced);
        let ConfigureInterface(addresses) = scene.tun.next().await;
        assert_eq!(addresses, tunnel(0));
        let packet = udp([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let sent = use_tun.try_send(InboundPackets::new(PacketBatch::of(&packet)));
        sent.expect("the successor lives");
        scene.tun.next::<InboundPackets>().await;
        let sent = use_outbound.try_send(OutboundPackets::new(PacketBatch::of(&packet)));
        sent.expect("the nat table lives");
        scene.nat_table.next::<OutboundPackets>().await;

        assert_eq!(scene.desk.started(), [Child::Tun(0)]);
        scene.udp.nothing().await;
        scene.portal.nothing().await;
        scene.dns.nothing().await;
    });
}

#[test]
fn a_nat_table_that_dies_knows_names_again_and_connections_attach_and_announce() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let index = scene.connect(open_name(1)).await;
        let ips = vec![[10, 20, 0, 1].into()];
        scene.tell(NatTableChanged::NameLearned(ResolvedName {
            name: "app.corp.example".parse().expect("a name"),
            family: AddressFamily::V4,
            ips: ips.clone(),
            resolved_at: UnixTime(0),
        }));
        scene.settle().await;

        scene.desk.break_child(Child::NatTable(0), Break::Panic);
        let told = scene.nat_table.drain().await;
        let [Seen::AttachClient(attached), Seen::AssignProxyIps(assigned)] = &told[..] else {
            panic!("{} messages to the successor", told.len());
        };
        assert_eq!((attached.client, attached.index), (client(1), index));
        assert_eq!(assigned.announced.domain, "app.corp.example");
        let introduced = scene.introduced.drain().await;
        let asks_dns = |seen: &Seen| matches!(seen, Seen::UseDns(_));
        assert_eq!(introduced.iter().filter(|seen| asks_dns(seen)).count(), 1);
        let (use_tun, use_outbound) = both(introduced);
        assert!(use_tun.connected() && use_outbound.connected());
        let snapshot = scene.desk.snapshot();
        assert!(snapshot.is_successor);
        assert_eq!(snapshot.names[0].ips, ips);

        assert_eq!(scene.desk.started(), [Child::NatTable(0)]);
        scene.udp.nothing().await;
        scene.portal.nothing().await;
        scene.tun.nothing().await;
    });
}

#[test]
fn a_udp_that_dies_learns_of_peers_and_relays_again() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(initialized(vec![relay("r1", "203.0.113.1:3478")]));
        let index = scene.connect(open(1)).await;

        scene.desk.break_child(Child::Udp(0), Break::Panic);
        let told = scene.udp.drain().await;
        let (mut attached, mut relays) = (Vec::new(), Vec::new());
        for seen in told {
            if let Seen::AttachPeer(peer) = seen {
                attached.push(peer.index);
            } else if let Seen::UseRelays(all) = seen {
                relays.push(all.0.len());
            } else {
                panic!("something else is told");
            }
        }
        assert_eq!((attached, relays), (vec![index], vec![1]));

        assert_eq!(scene.desk.started(), [Child::Udp(0)]);
        scene.nat_table.nothing().await;
        scene.portal.nothing().await;
        scene.tun.nothing().await;
    });
}

#[test]
fn a_resolver_that_dies_is_told_to_nat_table_and_connections_and_serves_again() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(initialized(Vec::new()));
        scene.connect(open(1)).await;

        scene.desk.break_child(Child::Dns, Break::Panic);
        let ServeNames(addresses) = scene.dns.next().await;
        assert_eq!(addresses, tunnel(0));
        let introduced = scene.introduced.drain().await;
        let [UseDns(resolve)] = &only(introduced)[..] else {
            panic!("the nat table is told once");
        };
        assert!(resolve.connected());
        let OpenConnection(mut named) = open(2);
        named.resource.kind = ResourceKind::Dns("app.example".into());
        scene.tell(OpenConnection(named));
        scene.dns.next::<ResolveName>().await;
        assert_eq!(scene.accepted().await, "ref-2");

        assert_eq!(scene.desk.started(), [Child::Dns]);
        scene.udp.nothing().await;
        scene.nat_table.nothing().await;
    });
}

#[test]
fn a_portal_that_dies_hears_candidates_again_and_what_is_acknowledged_from_now_on() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(open(1));
        let attached: AttachPeer = scene.udp.next().await;
        let addresses = attached.addresses.expect("there is one shard");
        let told = addresses.try_send(local_addresses());
        told.expect("the connection lives");
        let before: CandidatesGathered = scene.portal.find().await;
        scene.settle().await;

        scene.desk.break_child(Child::Portal, Break::Panic);
        let after: CandidatesGathered = scene.portal.next().await;
        assert_eq!(after.client, client(1));
        assert_eq!(after.candidates, before.candidates);
        // What it says arrives.
        let sent = scene.desk.portal().open.try_send(open(2));
        sent.expect("the supervisor lives");
        let accepted: ConnectionAccepted = scene.portal.next().await;
        assert_eq!(accepted.reply_ref, "ref-2");

        assert_eq!(scene.desk.started(), [Child::Portal]);
        scene.udp.nothing().await;
        scene.nat_table.nothing().await;
        scene.introduced.nothing().await;
    });
}

#[test]
fn a_child_that_stops_by_itself_is_started_again() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.settle().await;
        for child in SHARED {
            scene.desk.break_child(child, Break::Stop);
            scene.inboxes().clear().await;
            assert_eq!(scene.desk.started(), [child]);
        }
    });
}

#[test]
fn four_deaths_are_survived_with_growing_delays_and_the_fifth_is_the_end_after_goodbyes() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        for factor in [0, 1, 2, 4] {
            let delay = RestartPolicy::SHARED.first_delay * factor;
            scene.desk.break_child(Child::Dns, Break::Panic);
            tokio::time::sleep(delay.saturating_sub(MS(3))).await;
            if factor > 0 {
                assert_eq!(scene.desk.started(), []);
            }
            tokio::time::sleep(MS(6)).await;
            assert_eq!(scene.desk.started(), [Child::Dns], "after {delay:?}");
        }
        scene.settle().await;
        scene.desk.break_child(Child::Dns, Break::Panic);
        // The connection has closed before the sockets are flushed and the portal is left.
        scene.udp.next::<DetachPeer>().await;
        scene.udp.next::<FlushDatagrams>().await;
        scene.portal.next::<LeavePortal>().await;
        assert_eq!(scene.desk.started(), []);
    });
    assert_eq!(code, 70);
}

#[test]
fn deaths_long_ago_and_deaths_of_others_do_not_count() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.settle().await;
        for _ in 0..4 {
            for child in SHARED {
                scene.desk.break_child(child, Break::Stop);
            }
            tokio::time::sleep(MS(300)).await;
            assert_eq!(scene.desk.started().len(), SHARED.len());
        }
        tokio::time::sleep(MS(30_000)).await;
        for _ in 0..4 {
            scene.desk.break_child(Child::Udp(0), Break::Stop);
            tokio::time::sleep(MS(300)).await;
            assert_eq!(scene.desk.started(), [Child::Udp(0)]);
        }
    });
}

#[test]
fn a_child_that_cannot_be_built_has_died() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        scene.settle().await;
        scene.desk.set_stillborn(Child::Udp(0), true);
        scene.desk.break_child(Child::Udp(0), Break::Stop);
        tokio::time::sleep(MS(400)).await;
        assert_eq!(scene.desk.started(), [Child::Udp(0); 4]);
    });
    assert_eq!(code, 70);
}

#[test]
fn a_death_of_a_former_life_changes_nothing() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.desk.break_child(Child::Portal, Break::Stop);
        scene.settle().await;
        for _ in 0..5 {
            // The portal was the last of five to be started, and a connection came after it.
            scene.tell(ChildDied {
                child: Child::Portal,
                instance: InstanceId(5),
                cause: DeathCause::Stopped,
            });
        }
        scene.udp.nothing().await;
        tokio::time::sleep(MS(400)).await;
        assert_eq!(scene.desk.started(), []);
        assert_eq!(scene.deaths(Child::Portal), 1);
    });
}

#[test]
fn a_death_while_stopping_changes_nothing() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        for _ in 0..2 {
            scene.desk.break_child(Child::NatTable(0), Break::Stop);
            scene.settle().await;
        }
        // The third is under way when the end begins.
        scene.desk.break_child(Child::NatTable(0), Break::Stop);
        scene.tell(goodbye(3));
        scene.desk.break_child(Child::Dns, Break::Panic);
        scene.desk.kill_connection(client(1));
        scene.portal.next::<LeavePortal>().await;
        assert_eq!(scene.desk.started(), []);
    });
    assert_eq!(code, 3);
}

/// How the nat table reaches the tun, and the tun the nat table.
fn both(introduced: Vec<Seen>) -> (Recipient<InboundPackets>, Recipient<OutboundPackets>) {
    let (mut tuns, mut tables) = (Vec::new(), Vec::new());
    for seen in introduced {
        if let Seen::UseTun(UseTun(tun)) = seen {
            tuns.push(tun);
        } else if let Seen::UseOutbound(UseOutbound(table)) = seen {
            tables.push(table);
        }
    }
    assert_eq!((tuns.len(), tables.len()), (1, 1));
    (tuns.remove(0), tables.remove(0))
}
