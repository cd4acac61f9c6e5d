//! The death of a client's connection: a successor is built from the ledger, and no other actor
//! notices.

use super::fault::panic_on_warnings_of;
use super::in_virtual_time;
use super::probe::only;
use super::samples::request;
use super::samples::{allow, client, open, open_for, open_name, proxied, resource, tunnel};
use super::scene::{MAX_RESOURCES, Scene, initialized, revoke};
use super::seen::{ConnectionAccepted, DetachClient, DetachPeer, Seen};
use crate::messages::nat_table::AttachClient;
use crate::messages::packets::OutboundDatagrams;
use crate::messages::supervisor::ConnectionNews;
use crate::messages::supervisor::{Child, ConnectionFact};
use crate::messages::udp::AttachPeer;
use postern_core::UnixTime;
use postern_core::command::ClientCommand;
use postern_core::grant::AuthorizationEntry;
use postern_core::supervision::RestartPolicy;
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;
const DEAD_FOR: Duration = RestartPolicy::CONNECTION.first_delay;

#[test]
fn a_restarted_connection_has_its_index_and_names_and_starts_a_handshake() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let index = scene.connect(open_name(1)).await;
        let path = scene.use_path();
        scene.settle().await;

        scene.spawner.kill_connection(client(1));
        let told = scene.nat_table.drain().await;
        let [Seen::AttachClient(attached), Seen::NameChanged(told_name)] = &told[..] else {
            panic!("{} messages to the nat table", told.len());
        };
        assert_eq!((attached.client, attached.index), (client(1), index));
        assert_eq!(proxied(told_name).proxy_ips.len(), 4);
        let attached: AttachPeer = scene.udp.next().await;
        assert_eq!(attached.index, index);
        let OutboundDatagrams { from, batch, .. } = scene.udp.next().await;
        assert_eq!((from, batch.path), (index, path));
        assert_eq!(batch.bytes()[0], HANDSHAKE_INITIATION);

        // There is no second acknowledgement, and no other actor has noticed.
        scene.portal.nothing().await;
        let connection = Child::Connection(client(1), index);
        assert_eq!(scene.spawner.started(), [connection]);
        scene.tun.nothing().await;
        scene.introduced.nothing().await;
    });
}

#[test]
fn a_restarted_connection_without_a_path_waits_for_the_client() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let index = scene.connect(open(1)).await;
        scene.spawner.kill_connection(client(1));
        let attached: AttachPeer = scene.udp.next().await;
        assert_eq!(attached.index, index);
        scene.udp.nothing().await;
    });
}

#[test]
fn a_recovery_counts_when_the_session_exists() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let index = scene.connect(open(1)).await;
        scene.spawner.kill_connection(client(1));
        scene.settle().await;
        let connection = Child::Connection(client(1), index);
        assert_eq!(
            (scene.deaths(connection), scene.recoveries(connection)),
            (1, 0)
        );
        scene.tell(ConnectionNews {
            client: client(1),
            instance: scene.spawner.instance(client(1)),
            opened: 0,
            fact: ConnectionFact::SessionEstablished,
        });
        scene.settle().await;
        assert_eq!(scene.recoveries(connection), 1);
    });
}

#[test]
fn a_request_during_a_restart_is_acknowledged_once_by_the_successor() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.die_slowly().await;
        scene.tell(open(2));
        scene.tell(allow(3, None));
        scene.portal.nothing().await;
        tokio::time::sleep(DEAD_FOR).await;
        assert_eq!(scene.accepted().await, "ref-2");
        assert_eq!(scene.accepted().await, "ref-3");
        scene.portal.nothing().await;

        // After a further death nothing is pending.
        tokio::time::sleep(MS(30_000)).await;
        scene.spawner.kill_connection(client(1));
        scene.udp.find::<AttachPeer>().await;
        scene.portal.nothing().await;
    });
}

#[test]
fn a_revocation_during_a_restart_holds() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.connect_more(open_name(2)).await;
        scene.die_slowly().await;
        scene.tell(revoke(2));
        tokio::time::sleep(DEAD_FOR + MS(1)).await;
        let told = scene.nat_table.drain().await;
        let [Seen::AttachClient(_)] = &told[..] else {
            panic!("{} messages to the nat table", told.len());
        };
    });
}

#[test]
fn a_pending_request_that_is_revoked_is_not_granted() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.die_slowly().await;
        scene.tell(open_name(2));
        scene.tell(revoke(2));
        tokio::time::sleep(DEAD_FOR + MS(1)).await;
        scene.portal.nothing().await;
        let told = scene.nat_table.drain().await;
        let [Seen::AttachClient(_)] = &told[..] else {
            panic!("{} messages to the nat table", told.len());
        };
    });
}

#[test]
fn a_pending_request_keeps_its_expiry() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.die_slowly().await;
        scene.tell(open_name(2));
        scene.tell(expired(2));
        scene.tell(revoke(1));
        tokio::time::sleep(DEAD_FOR + MS(1)).await;
        // No grant is left, so the connection ends.
        scene.nat_table.find::<DetachClient>().await;
    });
}

#[test]
fn a_client_that_loses_all_grants_during_a_restart_is_detached() {
    in_virtual_time(async {
        for lose in [
            |scene: &Scene| scene.tell(revoke(1)),
            |scene: &Scene| scene.tell(expired(1)),
            |scene: &Scene| scene.tell(initialized(Vec::new())),
        ] {
            let mut scene = Scene::new();
            let index = scene.connect(open(1)).await;
            scene.die_slowly().await;
            lose(&scene);
            let detached: DetachClient = scene.nat_table.find().await;
            assert_eq!((detached.client, detached.index), (client(1), index));
            let detached: DetachPeer = scene.udp.find().await;
            assert_eq!(detached.index, index);
            scene.settle().await;

            // The table has room for it and for another one.
            for number in [1, 2] {
                scene.tell(open_for(number, number));
                scene.nat_table.next::<AttachClient>().await;
                scene.portal.next::<ConnectionAccepted>().await;
            }
        }
    });
}

#[test]
fn a_panic_over_a_request_counts_as_one_death() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        for number in 1..=MAX_RESOURCES {
            scene.tell(open(number));
            scene.portal.next::<ConnectionAccepted>().await;
        }
        let dead: AttachPeer = scene.udp.next().await;
        scene.settle().await;

        let fault = panic_on_warnings_of("postern::actors::connection");
        scene.tell(open(MAX_RESOURCES + 1));
        let attached: AttachPeer = scene.udp.next().await;
        assert_eq!(attached.index, dead.index);
        scene.portal.nothing().await;
        drop(fault);
        tokio::time::sleep(MS(1000)).await;
        assert_eq!(scene.deaths(Child::Connection(client(1), dead.index)), 1);
        assert_eq!(scene.spawner.started().len(), 1);
    });
}

#[test]
fn a_client_with_a_new_tunnel_address_during_a_restart_starts_fresh() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let former = scene.connect(open_name(1)).await;
        scene.die_slowly().await;
        let mut moved = request(2);
        moved.client.tunnel = tunnel(7);
        scene.tell(ClientCommand::Authorize(moved));
        let told = scene.nat_table.drain().await;
        let [Seen::DetachClient(detached), Seen::AttachClient(attached)] = &told[..] else {
            panic!("{} messages to the nat table", told.len());
        };
        assert_eq!((detached.index, attached.tunnel), (former, tunnel(7)));
        let detached: DetachPeer = scene.udp.next().await;
        assert_eq!(detached.index, former);
        assert_eq!(scene.accepted().await, "ref-2");
        // It gets no successor.
        tokio::time::sleep(MS(100)).await;
        assert_eq!(scene.spawner.started().len(), 1);
    });
}

#[test]
fn an_access_after_the_last_revocation_is_recorded() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let index = scene.connect(open(1)).await;
        scene.tell(revoke(1));
        scene.tell(allow(2, None));
        assert_eq!(scene.accepted().await, "ref-2");
        scene.settle().await;
        scene.spawner.kill_connection(client(1));
        let attached: AttachClient = scene.nat_table.next().await;
        assert_eq!(attached.index, index);
    });
}

#[test]
fn each_connection_has_its_own_restart_delay() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let index = scene.connect(open(1)).await;
        scene.die_slowly().await;
        tokio::time::sleep(DEAD_FOR - MS(5)).await;
        assert_eq!(scene.spawner.started(), []);
        tokio::time::sleep(MS(7)).await;
        assert_eq!(
            scene.spawner.started(),
            [Child::Connection(client(1), index)]
        );
        let attached: Vec<AttachPeer> = only(scene.udp.drain().await);
        assert_eq!(attached.len(), 1);
    });
}

impl Scene {
    /// A further grant to a connected client.
    async fn connect_more(&mut self, open: ClientCommand) {
        self.tell(open);
        self.portal.find::<ConnectionAccepted>().await;
        self.settle().await;
    }

    /// The connection of client 1 has died for the second time: it restarts after [`DEAD_FOR`].
    async fn die_slowly(&mut self) {
        for _ in 0..2 {
            self.spawner.kill_connection(client(1));
            tokio::time::sleep(MS(1)).await;
        }
        assert!(!self.spawner.connection(client(1)).connected());
        self.forget();
    }
}

fn expired(number: u8) -> ClientCommand {
    ClientCommand::SetExpiry(AuthorizationEntry {
        client: client(1),
        resource: resource(number),
        expires_at: Some(UnixTime(1)),
    })
}

/// The first byte of the message (WireGuard white paper, section 5.4.2).
const HANDSHAKE_INITIATION: u8 = 1;
