//! The gateway's counters, as Prometheus reads them.

mod documents;
pub(crate) mod openmetrics;

use super::in_virtual_time;
use super::probe::{Break, Probe};
use super::samples::{open_for, relay, udp};
use super::scene::{MAX_CLIENTS, Scene, initialized};
use crate::actors::tests::samples::request_for;
use crate::actors::tests::seen::DetachPeer;
use crate::actors::tests::tell_addr;
use crate::link::Link;
use crate::messages::packets::{
    InboundDatagrams, InboundPackets, OutboundDatagrams, OutboundPackets,
};
use crate::messages::reload::ReloadNews;
use crate::messages::reload::{ReloadOutcome, ReloadReport};
use crate::messages::supervisor::Child;
use crate::messages::udp::AttachPeer;
use crate::metrics::process::Process;
use crate::metrics::{Metrics, Receiver};
use crate::shell::now;
use actix::prelude::*;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey as X25519Public, StaticSecret};
use openmetrics::Page;
use postern_core::command::ClientCommand;
use postern_core::grant::TunnelAddresses;
use postern_core::ids::{ClientId, PublicKey};
use postern_core::packet::{DatagramBatch, PacketBatch, Path};
use postern_core::peer::GatewayKeys;
use postern_core::{DropReason, UnixTime, grant};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const MS: fn(u64) -> Duration = Duration::from_millis;

pub(crate) fn page(metrics: &Arc<Metrics>) -> Page {
    match Page::parse(&metrics.page()) {
        Ok(page) => page,
        Err(why) => panic!("{why}\n{}", metrics.page()),
    }
}

#[test]
fn the_page_is_valid_openmetrics_and_includes_zeros() {
    let metrics = Arc::new(Metrics::default());
    let process = Process {
        cpu: MS(1500),
        max_fds: u64::MAX,
        ..Process::default()
    };
    let text = metrics.render(now(), Some(process));
    let page = Page::parse(&text).expect("a page");
    for reason in DropReason::ALL {
        let series = format!(
            "postern_dropped_packets_total{{reason=\"{}\"}}",
            reason.label()
        );
        assert_eq!(page.value(&series), 0.0);
    }
    assert_eq!(page.value("process_cpu_seconds_total"), 1.5);
    let version = env!("CARGO_PKG_VERSION");
    let build = format!("postern_build_info{{version=\"{version}\"}}");
    assert_eq!(page.value(&build), 1.0);
    // Without figures of the kernel, the page omits them.
    let page = Page::parse(&metrics.render(now(), None)).expect("a page");
    assert!(!page.families().contains_key("process_cpu_seconds"));
}

#[test]
fn sums_over_shards() {
    let metrics = Arc::new(Metrics::new(2, now()));
    metrics.shard(0).count_drops(DropReason::NotAuthorized, 3);
    metrics.shard(1).count_drops(DropReason::NotAuthorized, 4);
    let page = page(&metrics);
    let series = "postern_dropped_packets_total{reason=\"not_authorized\"}";
    assert_eq!(page.value(series), 7.0);
    assert_eq!(metrics.drops(), [(DropReason::NotAuthorized, 7)]);
    for thread in ["main", "control", "admin", "shard_0", "shard_1"] {
        page.value(&format!(
            "postern_event_loop_lag_seconds{{thread=\"{thread}\"}}"
        ));
    }
}

/// docs/lessons.md 34: the numbers exist, and the set of series is constant.
#[test]
fn a_thousand_clients_add_no_series() {
    let (few, known) = series_with(1);
    assert_eq!(known, 1.0);
    let (many, known) = series_with(1000);
    assert_eq!(known, 1000.0);
    assert_eq!(few, many);
    assert!(few.len() < 400, "{} series", few.len());
}

/// The series of a gateway with many busy clients, one of which has died, and the number of clients
/// that it knows.
fn series_with(clients: u16) -> (Vec<String>, f64) {
    in_virtual_time(async {
        let scene = Scene::with(|spec| spec.max_clients = clients.into());
        for number in 0..clients {
            scene.tell(open_of(number));
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(MS(5000)).await;
        for number in 0..clients {
            let connection = scene.spawner.connection(id(number));
            let packets = PacketBatch::of(&udp([10, 0, 0, 1].into(), [10, 0, 0, 2].into()));
            tell_addr(&connection, OutboundPackets::new(packets));
        }
        scene.spawner.kill_connection(id(0));
        tokio::time::sleep(MS(5000)).await;
        let page = page(&scene.metrics);
        assert_eq!(
            page.value("postern_actor_deaths_total{actor=\"connection\"}"),
            1.0
        );
        let reason = "postern_dropped_packets_total{reason=\"unknown_client\"}";
        let drops = page.value(reason);
        assert_eq!(drops, f64::from(clients) - 1.0, "all but the dead one");
        let series = page.series().into_iter().map(str::to_owned).collect();
        (series, page.value("postern_clients"))
    })
}

fn id(number: u16) -> ClientId {
    ClientId(Uuid::from_u128(u128::from(number) + 1))
}

fn open_of(number: u16) -> ClientCommand {
    let mut open = request_for(1, 1);
    let [high, low] = number.to_be_bytes();
    let mut key = [7; 32];
    key[..2].copy_from_slice(&[high, low]);
    open.client = grant::ClientProfile {
        id: id(number),
        public_key: PublicKey(key),
        tunnel: TunnelAddresses {
            ipv4: [100, 64, 128 | high, low].into(),
            ipv6: [0xfd00, 0x2021, 0x1111, 0, 0, 0, 1, number].into(),
        },
        ..open.client
    };
    ClientCommand::Authorize(open)
}

#[test]
fn counts_clients_requests_relays_deaths_and_answers() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        scene.tell(initialized(vec![relay("r1", "203.0.113.1:3478")]));
        for number in 1..=MAX_CLIENTS + 2 {
            scene.tell(open_for(number, number));
        }
        scene.settle().await;
        let seen = page(&scene.metrics);
        assert_eq!(seen.value("postern_clients"), f64::from(MAX_CLIENTS));
        assert_eq!(seen.value("postern_relays"), 1.0);
        let accepted = "postern_authorizations_total{result=\"accepted\"}";
        assert_eq!(seen.value(accepted), f64::from(MAX_CLIENTS));
        let refused = "postern_authorizations_total{result=\"refused\"}";
        assert_eq!(seen.value(refused), 2.0);

        scene.spawner.break_child(Child::Dns, Break::Panic);
        scene.tell(super::scene::revoke(1));
        scene.tell(ReloadNews::Done(ReloadReport {
            at: UnixTime(1),
            outcome: ReloadOutcome::Unchanged,
        }));
        tokio::time::sleep(MS(3000)).await;
        let seen = page(&scene.metrics);
        assert_eq!(seen.value("postern_clients"), f64::from(MAX_CLIENTS) - 1.0);
        assert_eq!(seen.value("postern_actor_deaths_total{actor=\"dns\"}"), 1.0);
        assert_eq!(
            seen.value("postern_actor_recoveries_total{actor=\"dns\"}"),
            1.0
        );
        let reloads = "postern_config_reloads_total{outcome=\"unchanged\"}";
        assert_eq!(seen.value(reloads), 1.0);
        let answers = "postern_actor_answer_seconds_count{actor=\"nat_table\"}";
        assert!(seen.value(answers) >= 2.0);

        // It is pinged once a second, so a ping waits for at least 0.2 s.
        scene
            .spawner
            .break_child(Child::Udp(0), Break::Work(MS(1200)));
        tokio::time::sleep(MS(3000)).await;
        let seen = page(&scene.metrics);
        let soon = "postern_actor_answer_seconds_bucket{le=\"0.1\",actor=\"udp\"}";
        let all = "postern_actor_answer_seconds_count{actor=\"udp\"}";
        assert!(seen.value(all) > seen.value(soon));
    });
}

#[test]
fn sums_recovery_times_and_keeps_the_longest() {
    let metrics = Arc::new(Metrics::default());
    metrics.count_recovery(Child::Tun(0), MS(250));
    metrics.count_recovery(Child::Tun(0), MS(500));
    let page = page(&metrics);
    let sum = page.value("postern_actor_recovery_seconds_total{actor=\"tun\"}");
    let longest = page.value("postern_actor_recovery_longest_seconds{actor=\"tun\"}");
    assert_eq!((sum, longest), (0.75, 0.5));
}

#[test]
fn counts_batches_in_a_mailbox_until_handled_or_dropped() {
    in_virtual_time(async {
        const ROOM: usize = 4;
        let metrics = Arc::new(Metrics::default());
        let shard = metrics.shard(0);
        let waiting = || page(&metrics).value("postern_mailbox_batches{actor=\"tun\"}");
        let mut context = Context::<Probe>::new();
        context.set_mailbox_capacity(ROOM);
        let mut link = Link::new(Receiver::Tun, context.address().recipient());
        for _ in 0..ROOM {
            link.offer(packet(), &shard);
        }
        assert_eq!(waiting(), ROOM as f64);
        let (probe, mut inbox) = Probe::new();
        context.run(probe);
        let seen = inbox.drain().await;
        assert_eq!(waiting(), ROOM as f64, "the test has them now");
        drop(seen);
        assert_eq!(waiting(), 0.0);

        // A batch that is never handled.
        let mut context = Context::<Probe>::new();
        context.set_mailbox_capacity(ROOM);
        link.lead_to(context.address().recipient(), &shard);
        for _ in 0..30 {
            link.offer(packet(), &shard);
        }
        let full = "postern_mailbox_full_packets_total{actor=\"tun\"}";
        let lost = page(&metrics).value(full);
        assert!(lost > 20.0, "{lost}");
        assert_eq!(waiting() + lost, 30.0);
        // A death loses the mailbox; later batches wait for the successor.
        drop(context);
        assert_eq!(waiting(), 0.0);
        link.offer(packet(), &shard);
        assert_eq!(waiting(), 1.0);
        drop(link);
        assert_eq!(waiting(), 0.0);
        assert_eq!(
            page(&metrics).value("postern_mailbox_batches{actor=\"udp\"}"),
            0.0
        );
    });
}

fn packet() -> InboundPackets {
    InboundPackets::new(PacketBatch::of(&[0x45; 20]))
}

#[test]
fn counts_sessions_while_they_exist_and_handshakes_in_total() {
    in_virtual_time(async {
        let mut scene = Scene::new();
        let mut client = Client::new();
        scene.tell(client.open());
        let attached: AttachPeer = scene.udp.find().await;
        let answered = "postern_handshakes_total{result=\"answered\"}";
        let sessions = |scene: &Scene| page(&scene.metrics).value("postern_sessions");
        assert_eq!(sessions(&scene), 0.0);

        let initiation = client.initiation();
        client.send(&attached, initiation);
        let answer: OutboundDatagrams = scene.udp.find().await;
        assert_eq!(page(&scene.metrics).value(answered), 1.0);
        assert_eq!(sessions(&scene), 0.0, "it is not proved yet");
        let keepalive = client.answer_to(answer.batch.bytes());
        client.send(&attached, keepalive);
        scene.settle().await;
        assert_eq!(sessions(&scene), 1.0);
        assert_eq!(
            page(&scene.metrics).value("postern_sessions_begun_total"),
            1.0
        );

        // Its death ends the session, and no other number falls.
        scene.spawner.kill_connection(super::samples::client(1));
        scene.udp.find::<AttachPeer>().await;
        assert_eq!(sessions(&scene), 0.0);
        assert_eq!(page(&scene.metrics).value(answered), 1.0);
        assert_eq!(
            page(&scene.metrics).value("postern_sessions_begun_total"),
            1.0
        );
        scene.tell(super::scene::revoke(1));
        scene.udp.find::<DetachPeer>().await;
    });
}

/// The WireGuard end of client 1.
struct Client {
    secret: StaticSecret,
    tunnel: Tunn,
}

impl Client {
    fn new() -> Self {
        let secret = StaticSecret::from([9; 32]);
        let gateway = GatewayKeys::new(super::scene::GATEWAY_KEY).public();
        let gateway = X25519Public::from(gateway.0);
        let tunnel = Tunn::new(secret.clone(), gateway, Some([3; 32]), None, 77, None);
        Self { secret, tunnel }
    }

    fn open(&self) -> ClientCommand {
        let mut open = request_for(1, 1);
        let public = X25519Public::from(&self.secret);
        open.client.public_key = PublicKey(public.to_bytes());
        ClientCommand::Authorize(open)
    }

    fn send(&self, gateway: &AttachPeer, datagram: Vec<u8>) {
        let path = Path {
            local: "192.0.2.10:52625".parse().expect("literal"),
            remote: "198.51.100.5:4000".parse().expect("literal"),
        };
        let datagrams = InboundDatagrams::new(DatagramBatch::of(path, datagram));
        let sent = gateway.connection.try_send(datagrams);
        sent.expect("the connection runs");
    }

    fn answer_to(&mut self, response: &[u8]) -> Vec<u8> {
        let mut room = [0; 256];
        let opened = self.tunnel.decapsulate(None, response, &mut room);
        let TunnResult::WriteToNetwork(keepalive) = opened else {
            panic!("{opened:?}");
        };
        keepalive.to_vec()
    }

    fn initiation(&mut self) -> Vec<u8> {
        let mut room = [0; 256];
        let begun = self.tunnel.format_handshake_initiation(&mut room, false);
        let TunnResult::WriteToNetwork(initiation) = begun else {
            panic!("{begun:?}");
        };
        initiation.to_vec()
    }
}

#[test]
fn counts_saves_reloads_and_portal_failures() {
    let metrics = Arc::new(Metrics::default());
    metrics.count_save(true);
    metrics.count_save(false);
    metrics.count_save(false);
    let applied = |needs_restart| ReloadOutcome::Applied {
        changed: vec!["log.filter"],
        needs_restart,
    };
    let problems = vec!["wrong".to_owned()];
    let outcomes = [
        ("applied", applied(vec![])),
        ("partial", applied(vec!["tunnel.interface"])),
        ("unchanged", ReloadOutcome::Unchanged),
        ("refused", ReloadOutcome::Refused { problems }),
    ];
    for (count, (_, outcome)) in outcomes.iter().enumerate() {
        for _ in 0..count {
            metrics.count_reload(outcome);
        }
    }
    metrics.portal.count_failure();
    let page = page(&metrics);
    assert_eq!(
        page.value("postern_state_saves_total{result=\"saved\"}"),
        1.0
    );
    assert_eq!(
        page.value("postern_state_saves_total{result=\"failed\"}"),
        2.0
    );
    for (count, (label, _)) in outcomes.iter().enumerate() {
        let series = format!("postern_config_reloads_total{{outcome=\"{label}\"}}");
        assert_eq!(page.value(&series), count as f64);
    }
    assert_eq!(page.value("postern_portal_failures_total"), 1.0);
}

#[test]
fn an_outage_ends_with_a_join_and_begins_with_a_death() {
    in_virtual_time(async {
        let metrics = Arc::new(Metrics::default());
        let portal = |metrics: &Arc<Metrics>| {
            let page = page(metrics);
            let out = page.value("postern_portal_outage_seconds_total");
            (page.value("postern_portal_joined"), out.round())
        };
        tokio::time::advance(MS(3000)).await;
        assert_eq!(portal(&metrics), (0.0, 3.0));
        let joined = metrics.join();
        tokio::time::advance(MS(50_000)).await;
        assert_eq!(portal(&metrics), (1.0, 3.0));
        // As at the death of the PortalActor.
        drop(joined);
        tokio::time::advance(MS(4000)).await;
        assert_eq!(portal(&metrics), (0.0, 7.0));
        let reconnects = || page(&metrics).value("postern_portal_reconnects_total");
        assert_eq!(reconnects(), 0.0);
        // A guard on a stuck thread is dropped late: the other still counts as joined.
        let stuck = metrics.join();
        let joined = metrics.join();
        drop(stuck);
        assert_eq!(portal(&metrics), (1.0, 7.0));
        assert_eq!(reconnects(), 2.0);
        drop(joined);
        assert_eq!(portal(&metrics), (0.0, 7.0));
    });
}

#[test]
fn measures_the_lag_of_a_busy_event_loop() {
    in_virtual_time(async {
        use crate::metrics::lag::{EventLoop, measure};
        let metrics = Arc::new(Metrics::default());
        actix_rt::spawn(measure(Arc::clone(&metrics), EventLoop::Shard(0)));
        let lag = |metrics: &Arc<Metrics>, what: &str| {
            let series = format!("postern_event_loop_{what}_seconds{{thread=\"shard_0\"}}");
            page(metrics).value(&series)
        };
        tokio::time::sleep(MS(1100)).await;
        assert!(lag(&metrics, "lag") < 0.01);
        // Time passes while the event loop is blocked.
        tokio::time::advance(MS(900)).await;
        tokio::time::sleep(MS(1)).await;
        assert!(lag(&metrics, "lag") > 0.5);
        tokio::time::sleep(MS(1000)).await;
        assert!(lag(&metrics, "lag") < 0.01);
        assert!(lag(&metrics, "lag_longest") > 0.5);
        tokio::time::sleep(MS(120_000)).await;
        assert!(lag(&metrics, "lag_longest") < 0.01);
    });
}
