//! Each actor with a full mailbox: what its senders do, and whether all is right once it has room.
//!
//! An actor that is not started reads nothing: its mailbox fills, and keeps what it has got. Each
//! sender has one place of its own beyond the limit.

use super::name_server::{self, NameServer};
use super::probe::{Break, Inbox, Probe};
use super::reload::use_settings;
use super::samples::{
    PROXY_IPS, announced, client, connection_spec, open, open_for, open_name, outputs, peer_index,
    resource, tunnel,
};
use super::scene::{Scene, initialized};
use super::seen::{ConfigureInterface, ConnectionAccepted, DetachPeer, DomainStatusChanged};
use super::{in_virtual_time, tell_addr};
use crate::actors::connection::{ConnectionActor, ConnectionOutputs, ConnectionSpec};
use crate::actors::nat_table::{NatSnapshot, NatTableActor, NatTableSpec};
use crate::messages::connection::ConnectionCommand;
use crate::messages::diagnosis::ExplainName;
use crate::messages::dns::{NameAnswered, ResolveName};
use crate::messages::nat_table::{AttachClient, NatTableCommand, NatTableInputs, NatTableSetup};
use crate::messages::operator::DrainGateway;
use crate::messages::packets::OutboundPackets;
use crate::messages::supervisor::{Child, HealthNews, InstanceId, NatTableChanged, PortalNews};
use crate::messages::udp::AttachPeer;
use crate::metrics::Metrics;
use crate::post::{FOR_SHARED, Post};
use crate::supervision::{DeathNotice, Ping};
use actix::prelude::*;
use postern_core::authorizations::Announcer;
use postern_core::command::ClientCommand;
use postern_core::grant::{AnnouncedName, Resource, ResourceKind};
use postern_core::health::ResolverState;
use postern_core::ledger::ClientRecord;
use postern_core::names::{AddressFamily, NameAnswer, ResolvedAddresses};
use postern_core::nat_table::{NatFacts, NatTableConfig};
use postern_core::peer::PeerIndex;
use postern_core::target::Target;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

// ---- The ConnectionActor's mailbox is full

/// Supervisor → connection: what does not fit waits, and beyond that the connection is ended.
#[test]
fn a_connection_that_takes_no_commands_is_rebuilt_from_the_ledger() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.spawner.set_stuck(client(1), true);
        scene.tell(open(1));
        for _ in 0..200 {
            scene.tell(add_candidate());
        }
        scene.tun.drain().await;
        assert_eq!(scene.deaths(Child::Connection(client(1), peer_index())), 0);
        scene.spawner.set_stuck(client(1), false);
        // The watchdog would notice after more than a second.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(scene.accepted().await, "ref-1");
        assert_eq!(scene.deaths(Child::Connection(client(1), peer_index())), 1);
    });
}

/// Supervisor → connection: a short jam costs nothing.
#[test]
fn commands_wait_for_a_connection_in_order() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        let connection = scene.spawner.connection(client(1));
        // The supervisor runs first, and finds the mailbox full.
        for number in 2..=4 {
            scene.tell(open(number));
        }
        fill(&connection);
        for number in 2..=4 {
            assert_eq!(scene.accepted().await, format!("ref-{number}"));
        }
        assert_eq!(scene.spawner.started(), []);
    });
}

/// NAT → connection: the status of a name is lost, and the client's next announcement gets it.
#[test]
fn a_name_s_status_that_was_lost_comes_with_the_next_announcement() {
    in_virtual_time(async {
        let (names_probe, mut names) = Probe::new();
        let names_context = full();
        let (deaf, _) = Probe::start();
        let table = table(&deaf).start();
        let attach = attach(names_context.address(), deaf.recipient());
        tell_addr(&table, NatTableCommand::Attach(attach));
        // The first takes the sender's own place.
        for _ in 0..2 {
            tell_addr(&table, assign("app.example"));
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        names_context.run(names_probe);
        names.next::<DomainStatusChanged>().await;
        names.nothing().await;
        tell_addr(&table, assign("app.example"));
        assert!(names.next::<DomainStatusChanged>().await.0.active);
    });
}

// ---- The NatTableActor's mailbox is full

/// Connection → NAT: the client and its names are published whole once there is room.
#[test]
fn a_nat_that_had_no_room_learns_all_that_is_valid_and_nothing_else() {
    in_virtual_time(async {
        let nat = full::<NatTableActor>();
        let (deaf, _) = Probe::start();
        let mut scene = ConnectionScene::with(|outputs| {
            outputs.nat_table = NatTableInputs::from(&nat.address());
        });
        // What the NAT knew before, a name that the client has lost since.
        let before = attach(deaf.clone(), deaf.clone().recipient());
        tell_addr(&nat.address(), NatTableCommand::Attach(before));
        tell_addr(&nat.address(), old_name());
        scene.tell(open_name(2));
        scene.accept(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;

        let table = nat.run(table(&deaf));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let known = facts(&table, "app.corp.example").await;
        assert!(known.is_attached && known.mapping.is_some(), "{known:?}");
        assert_eq!(facts(&table, "old.example").await.mapping, None);
    });
}

/// Connection → NAT: however many names a client has, they fit where one message does.
#[test]
fn a_client_has_more_names_than_the_mailbox_of_the_nat_has_places() {
    in_virtual_time(async {
        let nat = Context::<NatTableActor>::new();
        let (deaf, _) = Probe::start();
        let names = NatTableActor::MAILBOX + 200;
        let _scene = ConnectionScene::of(Some(with_names(names)), |outputs| {
            outputs.nat_table = NatTableInputs::from(&nat.address());
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let table = nat.run(table(&deaf));
        tokio::time::sleep(Duration::from_millis(100)).await;
        for number in [0, names - 1] {
            let known = facts(&table, &numbered(number)).await;
            assert!(known.is_attached && known.mapping.is_some(), "{known:?}");
        }
    });
}

/// A client with this many names, each with one proxy IP.
fn with_names(names: usize) -> ClientRecord {
    let mut record = ClientRecord::new(tunnel(1));
    let resource = Resource {
        id: resource(1),
        name: String::new(),
        kind: ResourceKind::Dns("**.corp.example".into()),
        filters: Vec::new(),
    };
    let authorizations = &mut record.authorizations;
    authorizations.allow(resource, None, 1).expect("room");
    for number in 0..names {
        let ip = 0x6460_0001 + u32::try_from(number).expect("few");
        let announced = AnnouncedName {
            domain: numbered(number),
            proxy_ips: vec![Ipv4Addr::from(ip).into()],
        };
        let assigned = authorizations.assign(self::resource(1), &announced, Announcer::Client);
        assigned.expect("a name of the resource");
    }
    record
}

fn numbered(number: usize) -> String {
    format!("host-{number}.corp.example")
}

/// DNS → NAT: an answer finds room, because each question brings a sender.
#[test]
fn answers_find_room_in_a_full_mailbox() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        let scene = name_server::Scene::new(&[&server]);
        let (probe, mut asker) = Probe::new();
        let context = full::<Probe>();
        let question = ResolveName {
            name: "both.example".parse().expect("a name"),
            client: client(1),
            refresh: false,
            reply_to: Some(context.address().recipient()),
        };
        tell_addr(&scene.actor, question);
        tokio::time::sleep(Duration::from_secs(1)).await;
        context.run(probe);
        let mut families = Vec::new();
        for _ in 0..2 {
            families.push(asker.next::<NameAnswered>().await.0.family);
        }
        families.sort();
        assert_eq!(families, [AddressFamily::V4, AddressFamily::V6]);
    });
}

// ---- The UdpActor's mailbox is full

/// Connection → UDP: the peer's present state is published once there is room.
#[test]
fn sockets_that_had_no_room_learn_the_peer_of_the_moment() {
    in_virtual_time(async {
        let (probe, mut udp) = Probe::new();
        let context = full::<Probe>();
        let mut scene = ConnectionScene::with(|outputs| {
            outputs.udp.commands = context.address().recipient();
        });
        // `Attach` takes the sender's own place; `Detach` and the next `Attach` find none.
        scene.tell(open(1));
        scene.tell(moved(2));
        scene.accept(2).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        context.run(probe);
        assert_eq!(udp.next::<AttachPeer>().await.stun_username, "6m26:eokn");
        assert_eq!(udp.next::<AttachPeer>().await.stun_username, "6m26:moved");

        udp.nothing().await;
        scene.tell(revoke(1));
        scene.tell(revoke(2));
        assert_eq!(udp.next::<DetachPeer>().await.index, scene.index);
    });
}

// ---- The TunActor's, the DnsActor's and the PortalActor's mailboxes are full

/// Supervisor → TUN, DNS, portal: commands wait in order, acknowledgements among them.
#[test]
fn commands_wait_for_a_busy_shared_actor() {
    in_virtual_time(async {
        let mut scene = Scene::with(|spec| spec.max_clients = 200);
        scene.settle().await;
        for child in [Child::Tun(0), Child::Portal] {
            scene.spawner.break_child(child, Break::Work(BUSY));
            fill(&scene.spawner.probe(child));
        }
        scene.tell(initialized(Vec::new()));
        for number in 1..=150 {
            scene.tell(open_for(number, number));
        }
        for number in 1..=150 {
            let accepted: ConnectionAccepted = scene.portal.next().await;
            assert_eq!(accepted.reply_ref, format!("ref-{number}"));
        }
        let ConfigureInterface(addresses) = scene.tun.next().await;
        assert_eq!(addresses, tunnel(0));
        assert_eq!(scene.deaths(Child::Portal) + scene.deaths(Child::Tun(0)), 0);
    });
}

/// Supervisor → a shared actor: one that takes nothing is ended and rebuilt.
#[test]
fn a_shared_actor_that_takes_no_commands_is_rebuilt() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.settle().await;
        scene.spawner.break_child(Child::Dns, Break::Hang);
        scene.dns.nothing().await;
        let settings = use_settings("");
        for _ in 0..(FOR_SHARED + 2 * Probe::MAILBOX).div_ceil(50) {
            (0..50).for_each(|_| scene.tell(settings.clone()));
            scene.portal.drain().await;
        }
        // The watchdog would notice after more than a second.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(scene.deaths(Child::Dns), 1);
        assert_eq!(scene.spawner.started(), [Child::Dns]);
    });
}

/// NAT → DNS: questions wait in order.
#[test]
fn questions_wait_for_the_dns() {
    in_virtual_time(async {
        let (dns, mut questions) = Probe::new();
        let context = full::<Probe>();
        let (deaf, _) = Probe::start();
        let table = table(&deaf).start();
        let resolve = context.address().recipient();
        tell_addr(&table, NatTableSetup::UseDns(resolve));
        let attach = attach(deaf.clone(), deaf.recipient());
        tell_addr(&table, NatTableCommand::Attach(attach));
        NAMES
            .iter()
            .for_each(|name| tell_addr(&table, assign(name)));
        tokio::time::sleep(Duration::from_millis(100)).await;
        context.run(dns);
        for name in NAMES {
            assert_eq!(questions.next::<ResolveName>().await.name.as_str(), name);
        }
    });
}

// ---- The SupervisorActor's mailbox is full

/// Connection → supervisor: acknowledgements wait in order.
#[test]
fn acknowledgements_wait_for_the_supervisor() {
    in_virtual_time(async {
        let (probe, mut supervisor) = Probe::new();
        let context = full::<Probe>();
        let scene = ConnectionScene::with(|outputs| {
            outputs.news = context.address().recipient();
        });
        for number in 1..=6 {
            scene.tell(open(number));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        context.run(probe);
        for number in 1..=6 {
            let accepted: ConnectionAccepted = supervisor.find().await;
            assert_eq!(accepted.reply_ref, format!("ref-{number}"));
        }
    });
}

/// NAT → supervisor: the addresses of all names arrive.
#[test]
fn addresses_of_names_wait_for_the_supervisor() {
    in_virtual_time(async {
        let (probe, mut supervisor) = Probe::new();
        let context = full::<Probe>();
        let (deaf, _) = Probe::start();
        let mut spec = table_spec(&deaf);
        spec.changed = context.address().recipient();
        let table = NatTableActor::new(spec).start();
        let attach = attach(deaf.clone(), deaf.recipient());
        tell_addr(&table, NatTableCommand::Attach(attach));
        for name in NAMES {
            tell_addr(&table, assign(name));
            tell_addr(&table, found(name));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        context.run(probe);
        for name in NAMES {
            let NatTableChanged::NameLearned(known) = supervisor.next().await else {
                panic!("no flow is pinned");
            };
            assert_eq!(known.name.as_str(), name);
        }
    });
}

/// Operator → supervisor: a question waits for its turn.
#[test]
fn an_operator_s_question_waits_for_the_supervisor() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.settle().await;
        let operator = scene.spawner.operator();
        let health = HealthNews::Resolver(ResolverState::Answering);
        while scene.supervisor.try_send(health.clone()).is_ok() {}
        let full = scene.supervisor.try_send(health);
        assert!(full.is_err());
        let grace = Duration::from_secs(60);
        let drained = operator.drain.send(DrainGateway { grace });
        assert_eq!(drained.await.expect("answers").remaining, 60);
    });
}

/// Portal → supervisor: a grant waits, and is served when the supervisor has room.
#[test]
fn a_grant_waits_for_the_supervisor() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.settle().await;
        let news = Post::new(scene.spawner.portal(), 8);
        let health = HealthNews::Resolver(ResolverState::Answering);
        while scene.supervisor.try_send(health.clone()).is_ok() {}
        for number in 1..=4 {
            news.tell(PortalNews::Client(open(number)));
        }
        assert!(news.is_waiting());
        tokio::time::sleep(Duration::from_millis(5)).await;
        news.resend();
        for number in 1..=4 {
            assert_eq!(scene.accepted().await, format!("ref-{number}"));
        }
    });
}

// ---- The scene

const BUSY: Duration = Duration::from_millis(500);

/// A context that is not started, with a full mailbox.
fn full<A>() -> Context<A>
where
    A: Actor<Context = Context<A>> + Handler<Ping>,
{
    let mut context = Context::new();
    context.set_mailbox_capacity(2);
    fill(&context.address());
    context
}

fn fill<A>(actor: &Addr<A>)
where
    A: Actor<Context = Context<A>> + Handler<Ping>,
{
    while actor.try_send(Ping).is_ok() {}
}

fn add_candidate() -> ClientCommand {
    ClientCommand::AddCandidates {
        client: client(1),
        candidates: vec!["candidate:1 1 udp 2130706431 198.51.100.5 4000 typ host".into()],
    }
}

fn revoke(number: u8) -> ClientCommand {
    ClientCommand::Revoke {
        client: client(1),
        resource: resource(number),
    }
}

/// The client roams: other keys.
fn moved(number: u8) -> ClientCommand {
    let mut request = super::samples::request(number);
    request.client_ice.ufrag = "moved".into();
    ClientCommand::Authorize(request)
}

/// A name with a proxy IP that no other name has.
fn old_name() -> NatTableCommand {
    announced("old.example", [100, 96, 0, 9].into())
}

const NAMES: [&str; 4] = ["a.example", "b.example", "c.example", "d.example"];

/// The names of [`NAMES`] have proxy IPs of their own; other names share those of the first.
fn assign(name: &str) -> NatTableCommand {
    let number = NAMES.iter().position(|it| *it == name).unwrap_or(0);
    announced(name, PROXY_IPS[number])
}

fn found(name: &str) -> NameAnswered {
    NameAnswered(NameAnswer {
        name: name.parse().expect("a name"),
        family: AddressFamily::V4,
        outcome: Ok(ResolvedAddresses {
            ips: vec![[10, 20, 0, 100].into()],
            ttl: Duration::from_secs(60),
        }),
        from_cache: false,
    })
}

fn table_spec(deaf: &Addr<Probe>) -> NatTableSpec {
    NatTableSpec {
        config: NatTableConfig::default(),
        seed: [0; 32],
        snapshot: NatSnapshot::default(),
        changed: deaf.clone().recipient(),
        metrics: Metrics::default().shard(0),
        death: DeathNotice::new(Child::NatTable(0), InstanceId(1), deaf.clone().recipient()),
    }
}

fn table(deaf: &Addr<Probe>) -> NatTableActor {
    NatTableActor::new(table_spec(deaf))
}

fn attach(names: Addr<Probe>, packets: Recipient<OutboundPackets>) -> AttachClient {
    AttachClient {
        client: client(1),
        index: peer_index(),
        tunnel: tunnel(1),
        known: Vec::new(),
        connection: packets,
        names: names.recipient(),
    }
}

async fn facts(table: &Addr<NatTableActor>, name: &str) -> NatFacts {
    let target: Target = name.parse().expect("a target");
    let client = client(1);
    let asked = table.send(ExplainName { client, target });
    asked.await.expect("answers").0
}

/// The connection of client 1; a test replaces those of its neighbours that it wants full.
struct ConnectionScene {
    connection: Addr<ConnectionActor>,
    index: PeerIndex,
    portal: Inbox,
}

impl ConnectionScene {
    fn with(change: impl FnOnce(&mut ConnectionOutputs)) -> Self {
        Self::of(None, change)
    }

    fn of(record: Option<ClientRecord>, change: impl FnOnce(&mut ConnectionOutputs)) -> Self {
        let (deaf, _) = Probe::start();
        let (portal_probe, portal) = Probe::start();
        let mut outputs = outputs(&deaf, &deaf, &portal_probe, &deaf);
        change(&mut outputs);
        let index = peer_index();
        let child = Child::Connection(client(1), index);
        let death = DeathNotice::new(child, InstanceId(7), deaf.recipient());
        let connection = ConnectionActor::new(ConnectionSpec {
            record: record.map(Arc::new),
            ..connection_spec(outputs, Metrics::default().shard(0), death)
        });
        Self {
            connection: connection.start(),
            index,
            portal,
        }
    }

    fn tell(&self, command: ClientCommand) {
        tell_addr(&self.connection, ConnectionCommand::Client(0, command));
    }

    async fn accept(&mut self, grants: usize) {
        for _ in 0..grants {
            self.portal.find::<ConnectionAccepted>().await;
        }
    }
}
