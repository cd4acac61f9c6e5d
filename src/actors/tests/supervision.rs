//! The death of a shared child: it is restarted and introduced to its senders, and the rest of the
//! tree is not touched.

use super::probe::{Break, only};
use super::samples::request;
use super::samples::{client, local_addresses, open, open_name, relay, tunnel, udp};
use super::scene::{Scene, goodbye, initialized};
use super::seen::{
    CandidatesGathered, ConfigureInterface, ConnectionAccepted, DetachPeer, FlushDatagrams,
    LeavePortal, Seen, UseDns, UseOutbound, UseTun,
};
use super::spawner::SHARED;
use super::{in_virtual_time, until_exit};
use crate::messages::dns::{ResolveName, ServeNames};
use crate::messages::packets::{InboundPackets, OutboundPackets};
use crate::messages::supervisor::PortalNews;
use crate::messages::supervisor::{Child, ChildDied, DeathCause, InstanceId, NatTableChanged};
use crate::messages::udp::AttachPeer;
use actix::prelude::*;
use postern_core::UnixTime;
use postern_core::command::ClientCommand;
use postern_core::grant::ResourceKind;
use postern_core::ledger::ResolvedName;
use postern_core::names::AddressFamily;
use postern_core::packet::PacketBatch;
use postern_core::supervision::RestartPolicy;
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn starts_all_children_and_the_portal_last() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.inboxes().clear().await;
        assert_eq!(scene.spawner.started(), SHARED);
    });
}

#[test]
fn a_restarted_tun_is_introduced_and_configured() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(initialized(Vec::new()));
        scene.connect(open(1)).await;

        scene.spawner.break_child(Child::Tun(0), Break::Panic);
        let introduced = scene.introduced.drain().await;
        let (use_tun, use_outbound) = both(introduced);
        let ConfigureInterface(addresses) = scene.tun.next().await;
        assert_eq!(addresses, tunnel(0));
        let packet = udp([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let sent = use_tun.try_send(InboundPackets::new(PacketBatch::of(&packet)));
        sent.expect("the successor runs");
        scene.tun.next::<InboundPackets>().await;
        let sent = use_outbound.try_send(OutboundPackets::new(PacketBatch::of(&packet)));
        sent.expect("the nat table runs");
        scene.nat_table.next::<OutboundPackets>().await;

        assert_eq!(scene.spawner.started(), [Child::Tun(0)]);
        scene.udp.nothing().await;
        scene.portal.nothing().await;
        scene.dns.nothing().await;
    });
}

#[test]
fn a_restarted_nat_table_gets_its_names_and_connections_attach_and_announce() {
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

        scene.spawner.break_child(Child::NatTable(0), Break::Panic);
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
        let snapshot = scene.spawner.snapshot();
        assert!(snapshot.is_successor);
        assert_eq!(snapshot.names[0].ips, ips);

        assert_eq!(scene.spawner.started(), [Child::NatTable(0)]);
        scene.udp.nothing().await;
        scene.portal.nothing().await;
        scene.tun.nothing().await;
    });
}

#[test]
fn a_restarted_udp_gets_peers_and_relays() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(initialized(vec![relay("r1", "203.0.113.1:3478")]));
        let index = scene.connect(open(1)).await;

        scene.spawner.break_child(Child::Udp(0), Break::Panic);
        let told = scene.udp.drain().await;
        let (mut attached, mut relays) = (Vec::new(), Vec::new());
        for seen in told {
            if let Seen::AttachPeer(peer) = seen {
                attached.push(peer.index);
            } else if let Seen::UseRelays(all) = seen {
                relays.push(all.0.len());
            } else {
                panic!("another message");
            }
        }
        assert_eq!((attached, relays), (vec![index], vec![1]));

        assert_eq!(scene.spawner.started(), [Child::Udp(0)]);
        scene.nat_table.nothing().await;
        scene.portal.nothing().await;
        scene.tun.nothing().await;
    });
}

#[test]
fn a_restarted_resolver_is_introduced_and_serves_again() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(initialized(Vec::new()));
        scene.connect(open(1)).await;

        scene.spawner.break_child(Child::Dns, Break::Panic);
        let ServeNames(addresses) = scene.dns.next().await;
        assert_eq!(addresses, tunnel(0));
        let introduced = scene.introduced.drain().await;
        let [UseDns(resolve)] = &only(introduced)[..] else {
            panic!("one introduction");
        };
        assert!(resolve.connected());
        let mut named = request(2);
        named.resource.kind = ResourceKind::Dns("app.example".into());
        scene.tell(ClientCommand::Authorize(named));
        scene.dns.next::<ResolveName>().await;
        assert_eq!(scene.accepted().await, "ref-2");

        assert_eq!(scene.spawner.started(), [Child::Dns]);
        scene.udp.nothing().await;
        scene.nat_table.nothing().await;
    });
}

#[test]
fn a_restarted_portal_gets_candidates_and_later_acknowledgements() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(open(1));
        let attached: AttachPeer = scene.udp.next().await;
        let addresses = attached.addresses.expect("there is one shard");
        let told = addresses.try_send(local_addresses());
        told.expect("the connection runs");
        let before: CandidatesGathered = scene.portal.find().await;
        scene.settle().await;

        scene.spawner.break_child(Child::Portal, Break::Panic);
        let after: CandidatesGathered = scene.portal.next().await;
        assert_eq!(after.client, client(1));
        assert_eq!(after.candidates, before.candidates);
        // Its messages arrive.
        let sent = scene.spawner.portal().try_send(PortalNews::Client(open(2)));
        sent.expect("the supervisor runs");
        let accepted: ConnectionAccepted = scene.portal.next().await;
        assert_eq!(accepted.reply_ref, "ref-2");

        assert_eq!(scene.spawner.started(), [Child::Portal]);
        scene.udp.nothing().await;
        scene.nat_table.nothing().await;
        scene.introduced.nothing().await;
    });
}

#[test]
fn restarts_a_child_that_stops_by_itself() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.settle().await;
        for child in SHARED {
            scene.spawner.break_child(child, Break::Stop);
            scene.inboxes().clear().await;
            assert_eq!(scene.spawner.started(), [child]);
        }
    });
}

#[test]
fn the_fifth_death_ends_the_process_after_growing_delays() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        for factor in [0, 1, 2, 4] {
            let delay = RestartPolicy::SHARED.first_delay * factor;
            scene.spawner.break_child(Child::Dns, Break::Panic);
            tokio::time::sleep(delay.saturating_sub(MS(3))).await;
            if factor > 0 {
                assert_eq!(scene.spawner.started(), []);
            }
            tokio::time::sleep(MS(6)).await;
            assert_eq!(scene.spawner.started(), [Child::Dns], "after {delay:?}");
        }
        scene.settle().await;
        scene.spawner.break_child(Child::Dns, Break::Panic);
        // The connection closes before the sockets are flushed and the portal is left.
        scene.udp.next::<DetachPeer>().await;
        scene.udp.next::<FlushDatagrams>().await;
        scene.portal.next::<LeavePortal>().await;
        assert_eq!(scene.spawner.started(), []);
    });
    assert_eq!(code, 70);
}

#[test]
fn old_deaths_and_deaths_of_others_do_not_count() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.settle().await;
        for _ in 0..4 {
            for child in SHARED {
                scene.spawner.break_child(child, Break::Stop);
            }
            tokio::time::sleep(MS(300)).await;
            assert_eq!(scene.spawner.started().len(), SHARED.len());
        }
        tokio::time::sleep(MS(30_000)).await;
        for _ in 0..4 {
            scene.spawner.break_child(Child::Udp(0), Break::Stop);
            tokio::time::sleep(MS(300)).await;
            assert_eq!(scene.spawner.started(), [Child::Udp(0)]);
        }
    });
}

#[test]
fn a_child_that_fails_to_build_counts_as_dead() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        scene.settle().await;
        scene.spawner.set_unbuildable(Child::Udp(0), true);
        scene.spawner.break_child(Child::Udp(0), Break::Stop);
        tokio::time::sleep(MS(400)).await;
        assert_eq!(scene.spawner.started(), [Child::Udp(0); 4]);
    });
    assert_eq!(code, 70);
}

#[test]
fn a_death_of_an_earlier_instance_is_ignored() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.spawner.break_child(Child::Portal, Break::Stop);
        scene.settle().await;
        for _ in 0..5 {
            // The portal was the last of five to be started; a connection followed.
            scene.tell(ChildDied {
                child: Child::Portal,
                instance: InstanceId(5),
                cause: DeathCause::Stopped,
            });
        }
        scene.udp.nothing().await;
        tokio::time::sleep(MS(400)).await;
        assert_eq!(scene.spawner.started(), []);
        assert_eq!(scene.deaths(Child::Portal), 1);
    });
}

#[test]
fn a_death_during_shutdown_is_ignored() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        for _ in 0..2 {
            scene.spawner.break_child(Child::NatTable(0), Break::Stop);
            scene.settle().await;
        }
        // The third is under way when the shutdown begins.
        scene.spawner.break_child(Child::NatTable(0), Break::Stop);
        scene.tell(goodbye(3));
        scene.spawner.break_child(Child::Dns, Break::Panic);
        scene.spawner.kill_connection(client(1));
        scene.portal.next::<LeavePortal>().await;
        assert_eq!(scene.spawner.started(), []);
    });
    assert_eq!(code, 3);
}

/// The links from the nat table to the tun and back.
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
