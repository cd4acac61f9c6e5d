//! The end of one process and the start of the next, with the state file in between.

use super::metrics::page;
use super::probe::Break;
use super::samples::{allow, client, open, open_for, open_name, proxied, resource, tunnel};
use super::samples::{request, request_for, request_name};
use super::scene::{GATEWAY_KEY, Scene, goodbye, ledger};
use super::seen::NameChanged;
use super::seen::{ConfigureInterface, DetachPeer, FlushDatagrams, LeavePortal, Seen};
use super::spawner::SHARED;
use super::{in_virtual_time, until_exit};
use crate::actors::supervisor::state_saver::{StateSaver, StateSaverSpec};
use crate::messages::dns::ServeNames;
use crate::messages::nat_table::AttachClient;
use crate::messages::packets::OutboundDatagrams;
use crate::messages::supervisor::{Child, Shutdown, ShutdownMode};
use crate::messages::udp::AttachPeer;
use crate::shell::unix_now;
use crate::state::StateFile;
use postern_core::UnixTime;
use postern_core::command::ClientCommand;
use postern_core::ledger::{LedgerLimits, SavedState};
use postern_core::packet::Path;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tempfile::TempDir;
use zeroize::Zeroizing;

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn without_a_state_file_a_handover_is_a_goodbye() {
    let code = until_exit(async {
        let mut scene = Scene::new();
        scene.connect(open(1)).await;
        scene.tell(hand_over(0));
        scene.udp.next::<DetachPeer>().await;
        scene.udp.next::<FlushDatagrams>().await;
        scene.portal.next::<LeavePortal>().await;
        assert!(!scene.handed_over.load(Ordering::Relaxed));
    });
    assert_eq!(code, 0);
}

#[test]
fn after_a_handover_the_next_process_contacts_the_clients_before_it_joins() {
    let place = Place::new();
    let mut path = None;
    let code = until_exit(async {
        let mut scene = Scene::with(|spec| spec.state_saver = Some(place.state_saver(None)));
        scene.connect(open_name(1)).await;
        path = Some(scene.use_path());
        scene.settle().await;
        scene.tell(hand_over(0));
        // No goodbye was sent before.
        scene.udp.next::<FlushDatagrams>().await;
        scene.portal.next::<LeavePortal>().await;
        scene.udp.nothing().await;
        assert!(scene.handed_over.load(Ordering::Relaxed));
    });
    assert_eq!(code, 0);

    let state = place.load().expect("a state");
    let record = state.ledger.client(client(1)).expect("the client");
    assert_eq!(record.path, path);
    in_virtual_time(is_taken_over(state, path));
}

async fn is_taken_over(state: SavedState, path: Option<Path>) {
    let mut scene = Scene::with(|spec| spec.ledger = state.ledger);
    let attached: AttachPeer = scene.udp.next().await;
    let OutboundDatagrams { from, batch, .. } = scene.udp.next().await;
    assert_eq!((from, Some(batch.path)), (attached.index, path));
    assert_eq!(batch.bytes()[0], HANDSHAKE_INITIATION);
    scene.nat_table.next::<AttachClient>().await;
    let told: NameChanged = scene.nat_table.next().await;
    assert!(proxied(&told).resources.contains_key(&resource(1)));
    scene.portal.nothing().await;
    let all = [
        Child::Admin,
        Child::Tun(0),
        Child::NatTable(0),
        Child::Udp(0),
        Child::Dns,
        Child::Connection(client(1), attached.index),
        Child::Portal,
    ];
    assert_eq!(scene.spawner.started(), all);
}

#[test]
fn a_goodbye_removes_the_state_file() {
    let place = Place::new();
    let code = until_exit(async {
        let mut scene = Scene::with(|spec| spec.state_saver = Some(place.state_saver(None)));
        scene.connect(open(1)).await;
        tokio::time::sleep(MS(100)).await;
        assert!(place.path.exists());
        scene.tell(goodbye(0));
        scene.udp.next::<DetachPeer>().await;
        scene.portal.next::<LeavePortal>().await;
        assert!(!scene.handed_over.load(Ordering::Relaxed));
    });
    assert_eq!(code, 0);
    assert!(!place.path.exists());
}

#[test]
fn saves_changes_soon() {
    let place = Place::new();
    in_virtual_time(async {
        let mut scene = Scene::with(|spec| spec.state_saver = Some(place.state_saver(None)));
        scene.connect(open(1)).await;
        let path = scene.use_path();
        tokio::time::sleep(MS(100)).await;
        let state = place.look().expect("a state");
        let record = state.ledger.client(client(1)).expect("the client");
        assert_eq!(record.path, Some(path));
        assert_eq!(state.gateway_key[..], GATEWAY_KEY);
        let saves = page(&scene.metrics).value("postern_state_saves_total{result=\"saved\"}");
        assert!(saves >= 1.0);
    });
}

#[test]
fn a_client_that_is_cut_off_is_not_saved() {
    let place = Place::new();
    in_virtual_time(async {
        let mut scene = Scene::with(|spec| spec.state_saver = Some(place.state_saver(None)));
        scene.connect(open(1)).await;
        scene.connect(open_for(2, 2)).await;
        for _ in 0..3 {
            scene.spawner.kill_connection(client(1));
            tokio::time::sleep(MS(60)).await;
        }
        tokio::time::sleep(MS(100)).await;
        let state = place.look().expect("a state");
        let clients: Vec<_> = state.ledger.clients().map(|(id, _)| id).collect();
        assert_eq!(clients, [client(2)]);
    });
}

#[test]
fn a_spent_budget_hands_the_clients_over() {
    for taken_over_at in [None, Some(UnixTime(unix_now().0 - 61))] {
        let place = Place::new();
        assert_eq!(spend_budget(&place, taken_over_at), 70);
        let state = place.load().expect("a state");
        assert!(state.ledger.client(client(1)).is_some());
        assert_eq!(state.taken_over_at, taken_over_at);
    }
}

#[test]
fn a_spent_budget_soon_after_a_takeover_hands_over_nothing() {
    let place = Place::new();
    assert_eq!(spend_budget(&place, Some(unix_now())), 70);
    assert!(!place.path.exists());
}

fn spend_budget(place: &Place, taken_over_at: Option<UnixTime>) -> i32 {
    until_exit(async {
        let mut scene =
            Scene::with(|spec| spec.state_saver = Some(place.state_saver(taken_over_at)));
        scene.connect(open(1)).await;
        for _ in 0..5 {
            scene.spawner.break_child(Child::Tun(0), Break::Panic);
            tokio::time::sleep(MS(300)).await;
        }
    })
}

#[test]
fn restored_addresses_are_configured_once() {
    in_virtual_time(async {
        let mut scene = Scene::with(|spec| spec.ledger.set_gateway(tunnel(0)));
        let ConfigureInterface(addresses) = scene.tun.next().await;
        assert_eq!(addresses, tunnel(0));
        scene.tun.nothing().await;
        let ServeNames(addresses) = scene.dns.next().await;
        assert_eq!(addresses, tunnel(0));
        scene.dns.nothing().await;
    });
}

/// Four handshakes in a second: the second client comes 250 ms after the first.
fn with_two_clients() -> Scene {
    Scene::with(|spec| {
        spec.handshakes_per_second = 4;
        spec.ledger = ledger();
        spec.ledger.record_authorization(&request(1));
        let mut other = request_name(3);
        other.client = request_for(2, 3).client;
        spec.ledger.record_authorization(&other);
    })
}

#[test]
fn clients_are_taken_over_in_batches() {
    in_virtual_time(async {
        let mut scene = with_two_clients();
        scene.tun.drain().await;
        assert_eq!(scene.spawner.started().len(), SHARED.len() + 1);
        tokio::time::sleep(MS(240)).await;
        assert_eq!(scene.spawner.started(), []);
        tokio::time::sleep(MS(15)).await;
        assert_eq!(scene.spawner.started().len(), 1);
    });
}

#[test]
fn a_client_granted_before_its_batch_keeps_its_record_and_is_started_once() {
    in_virtual_time(async {
        let mut scene = with_two_clients();
        scene.settle().await;
        scene.tell(open_for(2, 4));
        assert_eq!(scene.accepted().await, "ref-4");
        let told = scene.nat_table.drain().await;
        let [Seen::AttachClient(attached), Seen::NameChanged(told_name)] = &told[..] else {
            panic!("{} messages to the nat table", told.len());
        };
        assert_eq!(attached.client, client(2));
        assert!(proxied(told_name).resources.contains_key(&resource(3)));
        tokio::time::sleep(MS(1000)).await;
        assert_eq!(scene.spawner.started().len(), 1);
        scene.nat_table.nothing().await;
    });
}

#[test]
fn an_access_before_the_client_s_batch_is_kept() {
    in_virtual_time(async {
        let mut scene = with_two_clients();
        scene.settle().await;
        let mut access = allow(4, None);
        if let ClientCommand::Allow(request) = &mut access {
            request.client = client(2);
        }
        scene.tell(access);
        assert_eq!(scene.accepted().await, "ref-4");
    });
}

/// A directory in memory with a state file in it.
struct Place {
    _directory: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("postern-takeover-")
            .tempdir_in("/dev/shm")
            .expect("these tests need a tmpfs at /dev/shm");
        let path = directory.path().join("gateway.state");
        Self {
            _directory: directory,
            path,
        }
    }

    fn open(&self) -> StateFile {
        StateFile::open(&self.path, [9; 32], Duration::ZERO).expect("not locked")
    }

    fn state_saver(&self, taken_over_at: Option<UnixTime>) -> StateSaver {
        StateSaver::new(StateSaverSpec {
            file: self.open(),
            gateway_key: Zeroizing::new(GATEWAY_KEY),
            ice_secret: Zeroizing::new([4; 32]),
            udp_port: 52625,
            taken_over_at,
        })
    }

    /// As the next process finds it.
    fn look(&self) -> Option<SavedState> {
        let copy = Self::new();
        // With the file's mode.
        std::fs::copy(&self.path, &copy.path).expect("there is room");
        copy.load()
    }

    fn load(&self) -> Option<SavedState> {
        let limits = LedgerLimits::default();
        let state = self
            .open()
            .load(unix_now(), Duration::from_secs(300), limits);
        state.expect("a file that can be read")
    }
}

fn hand_over(exit_code: i32) -> Shutdown {
    Shutdown {
        exit_code,
        mode: ShutdownMode::HandOver,
    }
}

/// The first byte of the message (WireGuard white paper, section 5.4.2).
const HANDSHAKE_INITIATION: u8 = 1;
