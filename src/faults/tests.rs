//! Each fault has its effect on an actor, and the control socket takes commands for faults.

use super::control_socket::listen_at;
use super::enabled::{BLOCKED_FOR, FILLED_FOR, accept_packets, panic_on_packets};
use super::{Fault, FaultKind, InjectFault, Target, injectable, on_packets, on_started};
use actix::prelude::*;
use postern_core::ids::ClientId;
use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

/// In paused time, for what must never come; in real time nothing here takes a second.
const PATIENCE: Duration = Duration::from_secs(20);

fn paused<T>(test: impl Future<Output = T>) -> T {
    let system = System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
    });
    system.block_on(test)
}

// ---- A victim
// ----------------------------------------------------------------------------------------

struct Victim(EndReport);

/// Reports how its actor ended: whether by a panic.
struct EndReport(Option<oneshot::Sender<bool>>);

impl Drop for EndReport {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            // The test may have ended first.
            let _ = told.send(std::thread::panicking());
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Ping;

impl Victim {
    const MAILBOX: usize = 4;

    fn begin() -> (Addr<Self>, oneshot::Receiver<bool>) {
        let (told, ended) = oneshot::channel();
        (Self(EndReport(Some(told))).start(), ended)
    }
}

impl Actor for Victim {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        on_started("victim");
        ctx.set_mailbox_capacity(Self::MAILBOX);
        assert!(self.0.0.is_some());
    }
}

impl Handler<Ping> for Victim {
    type Result = ();

    fn handle(&mut self, Ping: Ping, _: &mut Context<Self>) {}
}

injectable!(Victim, "victim");

thread_local! {
    static PANIC_MESSAGES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the messages of this thread's panics for [`panic_messages`] from now on.
fn record_panics() {
    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("not a text").to_owned();
        PANIC_MESSAGES.with_borrow_mut(|words| words.push(message));
    }));
}

fn panic_messages() -> Vec<String> {
    PANIC_MESSAGES.take()
}

/// Injects `fault` into a new victim and waits for its end: whether by a panic, and its words.
async fn ends_by(fault: FaultKind) -> (bool, Vec<String>) {
    let (victim, ended) = Victim::begin();
    victim.send(Ping).await.expect("it runs");
    victim.try_send(Fault(fault)).expect("there is room");
    let panicked = timeout(PATIENCE, ended).await.expect("it ends");
    (panicked.expect("reported"), panic_messages())
}

// ---- The faults
// --------------------------------------------------------------------------------------

#[test]
fn panics_happen_in_the_given_place_and_name_it() {
    record_panics();
    paused(async {
        for (fault, place) in [
            (FaultKind::PanicInHandler, "handler"),
            (FaultKind::PanicInFuture, "future"),
            (FaultKind::PanicInTimer, "timer"),
        ] {
            let words = format!("injected: panic in {place} of victim");
            assert_eq!(ends_by(fault).await, (true, vec![words]));
        }
    });
}

#[test]
fn a_panic_in_started_hits_the_next_instance_and_no_other() {
    record_panics();
    paused(async {
        let words = |place| vec![format!("injected: panic in {place} of victim")];
        let first = ends_by(FaultKind::PanicInStarted).await;
        assert_eq!(first, (true, words("handler")));
        on_started("bystander");
        let (_second, ended) = Victim::begin();
        let panicked = timeout(PATIENCE, ended).await.expect("it ends");
        assert_eq!((panicked, panic_messages()), (Ok(true), words("started")));
        let (third, _ended) = Victim::begin();
        third.send(Ping).await.expect("it runs");
    });
}

#[test]
fn stopping_is_no_panic() {
    record_panics();
    let end = paused(ends_by(FaultKind::Stop));
    assert_eq!(end, (false, Vec::new()));
}

#[test]
fn a_hung_actor_answers_no_more_and_leaves_the_thread_to_others() {
    paused(async {
        let (victim, mut ended) = Victim::begin();
        victim.send(Fault(FaultKind::Hang)).await.expect("it runs");
        let answer = timeout(PATIENCE, victim.send(Ping)).await;
        assert!(answer.is_err(), "{answer:?}");
        assert!(ended.try_recv().is_err(), "it has not ended either");
        let (other, _ended) = Victim::begin();
        other.send(Ping).await.expect("it runs");
    });
}

#[test]
fn a_full_mailbox_stays_full_for_its_time() {
    paused(async {
        let (victim, _ended) = Victim::begin();
        victim.send(Fault(FaultKind::Fill)).await.expect("it runs");
        let begun = crate::shell::now();
        let sent = (0..).take_while(|_| victim.try_send(Ping).is_ok()).count();
        assert!((1..=Victim::MAILBOX + 1).contains(&sent), "{sent}");
        victim.send(Ping).await.expect("it runs");
        let waited: Duration = crate::shell::now() - begun;
        assert!(waited >= FILLED_FOR, "{waited:?}");
        assert!(waited < 2 * FILLED_FOR, "{waited:?}");
    });
}

#[test]
fn a_blocking_actor_blocks_its_thread() {
    System::new().block_on(async {
        let (victim, _ended) = Victim::begin();
        let begun: Instant = crate::shell::now();
        victim.send(Fault(FaultKind::Block)).await.expect("it runs");
        assert!(crate::shell::now() - begun >= BLOCKED_FOR);
    });
}

#[test]
fn faults_of_packets_do_not_affect_an_actor() {
    paused(async {
        let (victim, _ended) = Victim::begin();
        for fault in [FaultKind::PanicOnPackets, FaultKind::AcceptPackets] {
            victim.send(Fault(fault)).await.expect("it runs");
        }
        victim.send(Ping).await.expect("it runs");
    });
}

#[test]
fn packets_of_one_client_panic_until_the_fault_ends() {
    let [broken, other] = [21, 22].map(|id| ClientId(Uuid::from_u128(id)));
    let panics = |client| std::panic::catch_unwind(|| on_packets(client)).is_err();
    panic_on_packets(broken);
    assert!(panics(broken) && panics(broken));
    assert!(!panics(other));
    accept_packets(Some(other));
    assert!(panics(broken));
    accept_packets(Some(broken));
    assert!(!panics(broken));
}

// ---- The control socket
// ------------------------------------------------------------------------------

/// Stands for the supervisor: records the faults, and has no clients.
struct TestSupervisor(Rc<RefCell<Vec<(Target, FaultKind)>>>);

impl Actor for TestSupervisor {
    type Context = Context<Self>;
}

impl Handler<InjectFault> for TestSupervisor {
    type Result = Result<(), String>;

    fn handle(&mut self, fault: InjectFault, _: &mut Context<Self>) -> Self::Result {
        if matches!(fault.target, Target::Connection(_)) {
            return Err("there is no such client".to_owned());
        }
        self.0.borrow_mut().push((fault.target, fault.kind));
        Ok(())
    }
}

struct Socket {
    path: PathBuf,
    faults: Rc<RefCell<Vec<(Target, FaultKind)>>>,
    _directory: tempfile::TempDir,
}

impl Socket {
    /// Listens once the first `connect` has been waited for.
    fn open() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("faults");
        let faults = Rc::new(RefCell::new(Vec::new()));
        let supervisor = TestSupervisor(Rc::clone(&faults)).start().recipient();
        let listening = path.clone();
        actix_rt::spawn(async move { listen_at(&listening, supervisor).await });
        Self {
            path,
            faults,
            _directory: directory,
        }
    }

    async fn connect(&self) -> BufReader<UnixStream> {
        tokio::task::yield_now().await;
        let stream = UnixStream::connect(&self.path).await;
        BufReader::new(stream.expect("it listens"))
    }
}

async fn ask(stream: &mut BufReader<UnixStream>, line: &str) -> String {
    let written = stream.write_all(line.as_bytes()).await;
    written.expect("it reads");
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_line(&mut answer)).await;
    read.expect("an answer comes").expect("readable");
    answer
}

#[test]
fn commands_are_answered_line_by_line() {
    System::new().block_on(async {
        let socket = Socket::open();
        let mut one = socket.connect().await;
        let mut other = socket.connect().await;
        assert_eq!(ask(&mut one, "tun hang\n").await, "ok\n");
        assert_eq!(ask(&mut other, "dns stop\n").await, "ok\n");
        let unknown = ask(&mut one, "connection stop any\n").await;
        assert_eq!(unknown, "error: there is no such client\n");
        let wrong = ask(&mut one, "dns stop any\n").await;
        assert!(wrong.starts_with("error: there is one dns;"), "{wrong}");
        assert_eq!(ask(&mut one, "portal panic-timer\n").await, "ok\n");
        let expected = [
            (Target::Tun(0), FaultKind::Hang),
            (Target::Dns, FaultKind::Stop),
            (Target::Portal, FaultKind::PanicInTimer),
        ];
        assert_eq!(*socket.faults.borrow(), expected);
    });
}

#[test]
fn packet_faults_do_not_go_through_the_supervisor() {
    System::new().block_on(async {
        let socket = Socket::open();
        let client = ClientId(Uuid::from_u128(31));
        let panics = || std::panic::catch_unwind(|| on_packets(client)).is_err();
        let mut stream = socket.connect().await;
        let panic = format!("connection panic-packets {client}\n");
        assert_eq!(ask(&mut stream, &panic).await, "ok\n");
        assert!(panics());
        let accept = format!("connection calm {client}\n");
        assert_eq!(ask(&mut stream, &accept).await, "ok\n");
        assert!(!panics());
        assert!(socket.faults.borrow().is_empty());
    });
}

#[test]
fn a_long_line_is_answered_once_and_the_next_connection_works() {
    System::new().block_on(async {
        let socket = Socket::open();
        let mut stream = socket.connect().await;
        let answer = ask(&mut stream, &"x".repeat(257)).await;
        assert_eq!(answer, "error: a line of more than 256 bytes\n");
        let mut rest = String::new();
        let end = timeout(PATIENCE, stream.read_line(&mut rest)).await;
        assert_eq!((end.expect("it ends").expect("cleanly"), &*rest), (0, ""));
        let mut next = socket.connect().await;
        assert_eq!(ask(&mut next, "udp fill\n").await, "ok\n");
    });
}

#[test]
fn the_socket_is_private_and_replaces_only_one_of_a_dead_process() {
    System::new().block_on(async {
        let socket = Socket::open();
        let _stream = socket.connect().await;
        let mode = std::fs::metadata(&socket.path).expect("it is there");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        let refusal = async |path: &Path| {
            let supervisor = TestSupervisor(Rc::default()).start().recipient();
            let refused = listen_at(path, supervisor).await;
            refused.expect_err("nothing is opened").to_string()
        };
        assert_eq!(refusal(&socket.path).await, "another gateway answers there");
        let file = socket.path.with_extension("file");
        std::fs::write(&file, "precious").expect("writable");
        assert_eq!(refusal(&file).await, "something that is no socket is there");
        assert_eq!(std::fs::read(&file).expect("still there"), b"precious");

        let stale = socket.path.with_extension("stale");
        drop(std::os::unix::net::UnixListener::bind(&stale));
        let supervisor = TestSupervisor(Rc::default()).start().recipient();
        let path = stale.clone();
        actix_rt::spawn(async move { listen_at(&path, supervisor).await });
        tokio::task::yield_now().await;
        UnixStream::connect(&stale).await.expect("it was replaced");
    });
}
