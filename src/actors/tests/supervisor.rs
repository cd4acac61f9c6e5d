//! A SupervisorActor with real connections, without deaths; shard and portal are probes.

use super::probe::Break;
use super::samples::request;
use super::samples::{allow, client, open, open_for, relay, tunnel};
use super::scene::{MAX_CLIENTS, Scene, goodbye, initialized, revoke};
use super::seen::{
    ConfigureInterface, ConnectionAccepted, DetachClient, DetachPeer, FlushDatagrams, LeavePortal,
    RequestRelays,
};
use super::{in_virtual_time, until_exit};
use crate::messages::dns::ServeNames;
use crate::messages::nat_table::AttachClient;
use crate::messages::supervisor::Child;
use crate::messages::supervisor::HealthNews;
use crate::messages::supervisor::PortalNews;
use crate::messages::supervisor::{ConnectionFact, ConnectionNews};
use crate::messages::udp::AttachPeer;
use postern_core::command::ClientCommand;
use postern_core::grant::Relay;
use postern_core::ids::RelayId;

#[test]
fn two_grants_of_a_client_share_a_connection_and_are_both_acknowledged() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(open(1));
        scene.tell(open(2));
        assert_eq!(scene.accepted().await, "ref-1");
        assert_eq!(scene.accepted().await, "ref-2");
        let attached: AttachClient = scene.nat_table.next().await;
        assert_eq!(attached.client, client(1));
        scene.nat_table.nothing().await;
        scene.udp.next::<AttachPeer>().await;
        scene.udp.nothing().await;
    });
}

/// docs/lessons.md 23: an `init` reconciles the grants.
#[test]
fn init_without_grants_closes_connections_and_configures_interface_and_relays() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(open(1));
        assert_eq!(scene.accepted().await, "ref-1");
        let attached: AttachPeer = scene.udp.next().await;
        scene.nat_table.next::<AttachClient>().await;

        scene.tell(initialized(vec![relay("r1", "203.0.113.1:3478")]));
        let ConfigureInterface(addresses) = scene.tun.next().await;
        assert_eq!(addresses, tunnel(0));
        let ServeNames(addresses) = scene.dns.next().await;
        assert_eq!(addresses, tunnel(0));
        assert_eq!(scene.relays().await, ["203.0.113.1:3478"]);
        let detached: DetachPeer = scene.udp.next().await;
        assert_eq!(detached.index, attached.index);
        let detached: DetachClient = scene.nat_table.next().await;
        assert_eq!(detached.client, client(1));
    });
}

/// docs/lessons.md 18: messages of the portal may come in any order.
#[test]
fn accepts_an_access_before_its_connection_if_it_has_the_addresses() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(allow(1, None));
        scene.portal.nothing().await;
        scene.tell(allow(2, Some(tunnel(1))));
        assert_eq!(scene.accepted().await, "ref-2");
        let attached: AttachClient = scene.nat_table.next().await;
        assert_eq!(attached.tunnel, tunnel(1));
        scene.udp.nothing().await;

        scene.tell(open(3));
        assert_eq!(scene.accepted().await, "ref-3");
        scene.udp.next::<AttachPeer>().await;
        scene.tell(allow(4, None));
        assert_eq!(scene.accepted().await, "ref-4");
        scene.nat_table.nothing().await;
    });
}

#[test]
fn an_access_under_way_keeps_a_closed_connection() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(open(1));
        assert_eq!(scene.accepted().await, "ref-1");
        scene.nat_table.next::<AttachClient>().await;
        scene.tell(revoke(1));
        scene.tell(allow(2, None));
        assert_eq!(scene.accepted().await, "ref-2");
        scene.nat_table.nothing().await;
    });
}

#[test]
fn a_full_gateway_acknowledges_no_new_client_until_one_leaves() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        for number in 1..=MAX_CLIENTS {
            scene.tell(open_for(number, number));
            scene.portal.next::<ConnectionAccepted>().await;
            scene.nat_table.next::<AttachClient>().await;
        }
        scene.tell(open_for(9, 9));
        scene.portal.nothing().await;
        scene.nat_table.nothing().await;

        scene.tell(revoke(1));
        scene.nat_table.next::<DetachClient>().await;
        scene.tell(open_for(9, 9));
        assert_eq!(scene.accepted().await, "ref-9");
    });
}

#[test]
fn a_grant_under_way_keeps_a_closed_connection() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(open(1));
        assert_eq!(scene.accepted().await, "ref-1");
        scene.nat_table.next::<AttachClient>().await;

        // Both reach the connection before it can report that the first has closed it.
        scene.tell(revoke(1));
        scene.tell(open(2));
        assert_eq!(scene.accepted().await, "ref-2");
        scene.tell(open(3));
        assert_eq!(scene.accepted().await, "ref-3");
        scene.nat_table.nothing().await;
    });
}

#[test]
fn a_client_with_a_new_tunnel_address_keeps_its_new_connection() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(open(1));
        assert_eq!(scene.accepted().await, "ref-1");
        let former = scene.nat_table.next::<AttachClient>().await.index;

        let mut moved = request(2);
        moved.client.tunnel = tunnel(7);
        scene.tell(ClientCommand::Authorize(moved));
        assert_eq!(scene.accepted().await, "ref-2");
        let detached: DetachClient = scene.nat_table.next().await;
        assert_eq!(detached.index, former);
        // The supervisor checks by itself, not by the actor's claim.
        let detached: DetachClient = scene.nat_table.next().await;
        assert_eq!(detached.index, former);
        let attached: AttachClient = scene.nat_table.next().await;
        assert_eq!(attached.tunnel, tunnel(7));
        scene.nat_table.nothing().await;
    });
}

#[test]
fn a_closing_of_an_older_connection_is_ignored() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(open(1));
        scene.tell(open(2));
        scene.nat_table.next::<AttachClient>().await;
        let instance = scene.spawner.instance(client(1));
        let closed = |opened| ConnectionNews {
            client: client(1),
            instance,
            opened,
            fact: ConnectionFact::Closed,
        };
        scene.tell(closed(1));
        scene.nat_table.nothing().await;
        scene.tell(closed(2));
        scene.nat_table.next::<DetachClient>().await;
    });
}

#[test]
fn asks_for_relays_once_each_time_that_none_is_left() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(open(1));
        scene.tell(open(2));
        scene.asked.next::<RequestRelays>().await;
        scene.asked.nothing().await;
        scene.tell(relays_changed(&[], vec![relay("r1", "203.0.113.1:3478")]));
        scene.tell(open(3));
        scene.asked.nothing().await;
        scene.tell(relays_changed(&["r1"], vec![]));
        scene.asked.next::<RequestRelays>().await;
    });
}

#[test]
fn a_failed_interface_ends_the_process() {
    let code = until_exit(async {
        let scene = Scene::new();
        let reason = "taken".to_owned();
        scene.tell(HealthNews::InterfaceFailed { reason });
    });
    assert_eq!(code, 1);
}

#[test]
fn a_second_shutdown_is_ignored() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        scene.tell(goodbye(3));
        scene.tell(goodbye(4));
        scene.udp.next::<FlushDatagrams>().await;
        scene.udp.nothing().await;
        scene.portal.next::<LeavePortal>().await;
        scene.portal.nothing().await;
    });
    assert_eq!(code, 3);
}

#[test]
fn shutdown_does_not_wait_for_silent_actors() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        scene.tell(open(1));
        scene.udp.next::<AttachPeer>().await;
        for mute in [Child::Udp(0), Child::Portal] {
            scene.spawner.break_child(mute, Break::Hang);
        }
        scene.tell(goodbye(0));
    });
    assert_eq!(code, 0);
}

#[test]
fn relays_change_one_by_one_and_init_replaces_them() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let [v4, v6] = ["203.0.113.1:3478", "[2001:db8::1]:3478"];
        let [other, latest] = ["203.0.113.2:3478", "203.0.113.3:3478"];
        scene.tell(initialized(vec![relay("r1", v4), relay("r1", v6)]));
        assert_eq!(scene.relays().await, [v4, v6]);
        scene.tell(relays_changed(&[], vec![relay("r2", other)]));
        assert_eq!(scene.relays().await, [v4, v6, other]);
        scene.tell(relays_changed(&["r1"], vec![relay("r2", other)]));
        assert_eq!(scene.relays().await, [other]);
        scene.tell(initialized(vec![relay("r3", latest)]));
        assert_eq!(scene.relays().await, [latest]);
    });
}

fn relays_changed(disconnected: &[&str], connected: Vec<Relay>) -> PortalNews {
    let disconnected = disconnected.iter().map(|id| RelayId::of(id));
    PortalNews::RelaysChanged {
        disconnected: disconnected.collect(),
        connected,
    }
}
