//! A ConnectionActor among probes: portal, NAT table, sockets, supervisor.

use super::in_virtual_time;
use super::probe::{Inbox, Probe};
use super::samples::{
    client, connection_spec, local_addresses, open, outputs, peer_index, request, resource, tunnel,
};
use super::seen::{
    CandidatesGathered, ConnectionAccepted, ConnectionClosed, DetachClient, DetachPeer, NameChanged,
};
use super::tell_addr;
use crate::actors::connection::{ConnectionActor, ConnectionOutputs};
use crate::messages::connection::ConnectionCommand;
use crate::messages::dns::ResolveName;
use crate::messages::nat_table::AttachClient;
use crate::messages::packets::OutboundDatagrams;
use crate::messages::supervisor::{Child, ChildDied, DeathCause, InstanceId};
use crate::messages::udp::AttachPeer;
use crate::metrics::Metrics;
use crate::shell::unix_now;
use crate::supervision::DeathNotice;
use actix::prelude::*;
use postern_core::command::ClientCommand;
use postern_core::grant::{AnnouncedName, ResourceKind};
use postern_core::ids::PublicKey;
use postern_core::peer::PeerIndex;
use postern_core::{DropReason, UnixTime};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn acknowledges_a_grant_before_candidates_and_attaches_the_client() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        tell_addr(&scene.connection, local_addresses());
        scene.tell(open(1));
        let accepted: ConnectionAccepted = scene.portal.next().await;
        assert_eq!(accepted.reply_ref, "ref-1");
        let gathered: CandidatesGathered = scene.portal.next().await;
        assert_eq!(gathered.client, client(1));

        let attached: AttachClient = scene.nat_table.next().await;
        assert_eq!((attached.client, attached.tunnel), (client(1), tunnel(1)));
        let attached: AttachPeer = scene.udp.next().await;
        assert_eq!(attached.index, scene.index);
        assert_eq!(attached.public_key, PublicKey([1; 32]));
        assert_eq!(attached.stun_username, "6m26:eokn");
    });
}

/// docs/lessons.md 1: nothing delays an acknowledgement.
#[test]
fn acknowledges_without_addresses_and_sends_them_later_as_candidates() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(open(1));
        scene.portal.next::<ConnectionAccepted>().await;
        scene.portal.nothing().await;

        let attached: AttachPeer = scene.udp.next().await;
        attached
            .addresses
            .expect("there is one shard")
            .try_send(local_addresses())
            .expect("the connection runs");
        let gathered: CandidatesGathered = scene.portal.next().await;
        let [candidate] = &gathered.candidates[..] else {
            panic!("one address, {} candidates", gathered.candidates.len());
        };
        assert!(candidate.contains("192.0.2.10 52625"), "{candidate}");
    });
}

#[test]
fn the_last_revocation_closes_and_reports_the_number_of_grants() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let revoke = |number| ClientCommand::Revoke {
            client: client(1),
            resource: resource(number),
        };
        scene.tell(open(1));
        scene.tell(open(2));
        scene.tell(revoke(1));
        scene.supervisor.nothing().await;

        scene.tell(revoke(2));
        let closed: ConnectionClosed = scene.supervisor.next().await;
        assert_eq!((closed.client, closed.opened), (client(1), 2));
        scene.udp.next::<AttachPeer>().await;
        let detached: DetachPeer = scene.udp.next().await;
        assert_eq!(detached.index, scene.index);
    });
}

/// docs/lessons.md 1: name lookups delay no acknowledgement.
#[test]
fn acknowledges_a_name_then_resolves_it_and_releases_it_with_its_resource() {
    in_virtual_time(async {
        let (names_probe, mut names) = Probe::start();
        let mut scene = Scene::with(|outputs| {
            outputs.resolve = names_probe.clone().recipient();
            outputs.nat_table.commands = names_probe.recipient();
        });
        let mut request = request(1);
        request.resource.kind = ResourceKind::Dns("app.example".into());
        request.announced = Some(AnnouncedName {
            domain: "app.example".into(),
            proxy_ips: vec![[100, 96, 0, 1].into()],
        });
        scene.tell(ClientCommand::Authorize(request));
        scene.portal.next::<ConnectionAccepted>().await;
        let question: ResolveName = names.find().await;
        assert_eq!(
            (question.name.as_str(), question.client),
            ("app.example", client(1))
        );
        assert!(question.reply_to.is_none() && !question.refresh);
        let told: NameChanged = names.find().await;
        assert!(told.meaning.proxied.is_some());

        let revoke = ClientCommand::Revoke {
            client: client(1),
            resource: resource(1),
        };
        scene.tell(revoke);
        let NameChanged {
            client: of,
            meaning,
        } = names.find().await;
        assert_eq!((of, meaning.name.as_str()), (client(1), "app.example"));
        assert!(meaning.proxied.is_none());
    });
}

#[test]
fn closes_when_the_last_grant_expires() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let mut request = request(1);
        request.expires_at = Some(UnixTime(unix_now().0 + 60));
        scene.tell(ClientCommand::Authorize(request));
        scene.portal.next::<ConnectionAccepted>().await;

        // The wall clock may reach the next second before the actor reads it.
        tokio::time::advance(Duration::from_secs(58)).await;
        scene.supervisor.nothing().await;
        tokio::time::advance(Duration::from_secs(2)).await;
        let closed: ConnectionClosed = scene.supervisor.next().await;
        assert_eq!((closed.client, closed.opened), (client(1), 1));
    });
}

#[test]
fn drops_and_counts_datagrams_without_room() {
    in_virtual_time(async {
        const ROOM: usize = 2;
        let mut stuck = Context::<Probe>::new();
        stuck.set_mailbox_capacity(ROOM);
        let sockets = stuck.address();
        let mut scene = Scene::with(|outputs| outputs.udp.datagrams = sockets.recipient());
        tell_addr(&scene.connection, local_addresses());
        scene.tell(open(1));
        scene.tell(ClientCommand::AddCandidates {
            client: client(1),
            candidates: vec!["candidate:1 1 udp 2130706431 198.51.100.5 4000 typ host".into()],
        });
        // An unanswered check is repeated.
        for _ in 0..20 {
            tokio::time::advance(Duration::from_millis(250)).await;
            scene.supervisor.nothing().await;
        }
        tell_addr(&scene.connection, ConnectionCommand::Stop);
        scene.supervisor.next::<ChildDied>().await;

        let (probe, mut sent) = Probe::new();
        stuck.run(probe);
        for _ in 0..ROOM {
            sent.next::<OutboundDatagrams>().await;
        }
        sent.nothing().await;
        let drops = scene.metrics.drops();
        assert!(
            matches!(drops[..], [(DropReason::MailboxFull, 1..)]),
            "{drops:?}"
        );
    });
}

#[test]
fn a_stopped_connection_detaches_its_client_and_is_reported() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.nat_table.next::<AttachClient>().await;
        tell_addr(&scene.connection, ConnectionCommand::Stop);
        let detached: DetachClient = scene.nat_table.next().await;
        assert_eq!(detached.client, client(1));
        let death: ChildDied = scene.supervisor.next().await;
        assert_eq!(death.child, Child::Connection(client(1), scene.index));
        assert_eq!(
            (death.instance, death.cause),
            (INSTANCE, DeathCause::Stopped)
        );
    });
}

const INSTANCE: InstanceId = InstanceId(7);

/// The connection of client 1 and the actors around it.
struct Scene {
    connection: Addr<ConnectionActor>,
    index: PeerIndex,
    nat_table: Inbox,
    udp: Inbox,
    portal: Inbox,
    supervisor: Inbox,
    metrics: Arc<Metrics>,
}

impl Scene {
    fn tell(&self, command: ClientCommand) {
        tell_addr(&self.connection, ConnectionCommand::Client(0, command));
    }

    fn new() -> Self {
        Self::with(|_| ())
    }

    /// With changed outputs.
    fn with(change: impl FnOnce(&mut ConnectionOutputs)) -> Self {
        let (nat_table_probe, nat_table) = Probe::start();
        let (udp_probe, udp) = Probe::start();
        let (portal_probe, portal) = Probe::start();
        let (supervisor_probe, supervisor) = Probe::start();
        let mut outputs = outputs(
            &nat_table_probe,
            &udp_probe,
            &portal_probe,
            &supervisor_probe,
        );
        change(&mut outputs);
        let metrics = Arc::new(Metrics::default());
        let index = peer_index();
        let child = Child::Connection(client(1), index);
        let death = DeathNotice::new(child, INSTANCE, supervisor_probe.recipient());
        let connection = ConnectionActor::new(connection_spec(outputs, metrics.shard(0), death));
        Self {
            connection: connection.start(),
            index,
            nat_table,
            udp,
            portal,
            supervisor,
            metrics,
        }
    }
}
