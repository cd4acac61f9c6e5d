//! Configuration changes of a running gateway, and the messages to its service manager.

use crate::names::expect_page_of;
use crate::{LIMIT, Trial, WEB, programs};
use nix::sys::signal::Signal;
use postern_lab::dns::mode::Mode;
use postern_lab::playground::Role;
use postern_lab::playground::download::LineDownload;
use postern_lab::playground::injector::{ActorFault, ActorKind, Injector};
use postern_lab::playground::milestones::count;
use postern_lab::playground::network::{WEBS_V4, WEBS_V6};
use postern_lab::playground::process::Process;
use postern_lab::playground::scene::{APP, LATE};
use postern_lab::playground::setup::Setup;
use postern_lab::playground::traffic::Families;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Lines of a line download in one second.
const ONE_SECOND: u64 = 50;

fn with_faults(environment: Vec<(&'static str, String)>) -> Setup {
    Setup {
        faults: true,
        gateway_environment: environment,
        ..Setup::default()
    }
}

impl Trial {
    /// Replaces the gateway's configuration as orchestrators do: by renaming a new file into
    /// place.
    fn rewrite(&self, text: &str) {
        let path = self.gateway_config();
        let next = path.with_extension("next");
        fs::write(&next, text).expect("written");
        fs::rename(&next, &path).expect("renamed");
    }

    fn configuration(&self) -> String {
        fs::read_to_string(self.gateway_config()).expect("there")
    }

    fn gateway_says(&mut self, what: &str, times: usize) {
        let interrupt = self.playground().interrupt().clone();
        let gateway = self.gateway().expect("runs");
        let said = || (gateway.log().matches(what).count() >= times).then_some(());
        interrupt.until(what, LIMIT, said).expect("is said");
    }

    /// A second name server, where the names have the second address of the web server.
    fn start_other_names(&self) -> Process {
        let at = |name: &str| self.playground().directory().join(name);
        let zone = fs::read_to_string(at("zone.toml")).expect("there");
        let zone = zone
            .replace(
                &format!("\"{}\"", WEBS_V4[0]),
                &format!("\"{}\"", WEBS_V4[1]),
            )
            .replace(
                &format!("\"{}\"", WEBS_V6[0]),
                &format!("\"{}\"", WEBS_V6[1]),
            );
        fs::write(at("other-zone.toml"), zone).expect("written");
        let mut command = self.playground().command(Role::Resource, programs().lab());
        command.args(["dns", "--listen", &format!("{}:53", WEBS_V4[1])]);
        command.arg("--zone").arg(at("other-zone.toml"));
        command.arg("--control").arg(at("other-names.sock"));
        let process = self.playground().spawn("other-names", command);
        let interrupt = self.playground().interrupt();
        let listens = || at("other-names.sock").exists().then_some(());
        let process = process.expect("starts");
        interrupt
            .until("a socket", LIMIT, listens)
            .expect("listens");
        process
    }
}

#[track_caller]
fn expect_flow(trial: &Trial, drip: &LineDownload, when: &str) {
    let more = drip.wait_more(trial.playground(), ONE_SECOND, Duration::from_secs(10));
    assert!(more.is_ok(), "{when}: {more:?}");
}

#[track_caller]
fn expect_page_at_the_second_address(trial: &Trial, name: &str) {
    let page = expect_page_of(trial, name, Families::V4).body;
    let second = format!("at {}:80;", WEBS_V4[1]);
    assert!(page.contains(&second), "{name}: {page}");
}

#[test]
fn a_new_name_server_is_used_during_a_download_and_by_restarted_actors() {
    let mut trial = Trial::with(with_faults(Vec::new()));
    let _other = trial.start_other_names();
    let drip = LineDownload::start(trial.playground(), WEB[0], 120).expect("curl starts");
    expect_flow(&trial, &drip, "before");
    let before = trial.configuration();
    let server = WEBS_V4[1];
    trial.rewrite(&format!("{before}[dns]\nservers = [\"{server}\"]\n"));
    trial.gateway_says("\"keys\":\"dns.servers\"", 1);
    trial.names().set_mode(Mode::Silent).expect("set");
    expect_page_at_the_second_address(&trial, APP);
    expect_flow(&trial, &drip, "with another name server");
    let injector = Injector::new(trial.fault_socket());
    let inflicted = injector.inflict(ActorKind::Dns, ActorFault::PanicHandler, None);
    inflicted.expect("it dies");
    trial.gateway_says("actor rebuilt", 1);
    expect_page_at_the_second_address(&trial, LATE);
    expect_flow(&trial, &drip, "after the resolver has died");
    assert_eq!(count(&trial.gateway_milestones(), "joined"), 1);
}

/// docs/lessons.md 34: neither a typo nor the signal for it ends anything.
#[test]
fn a_wrong_file_and_sighup_end_nothing_and_the_log_names_the_error() {
    let mut trial = Trial::start();
    trial.expect_page(WEB[0]);
    let before = trial.configuration();
    let wrong = format!("{before}[limits]\nclient = 1\n");
    trial.rewrite(&wrong);
    trial.gateway_says("did you mean \\\"limits.clients\\\"?", 1);
    for address in WEB {
        trial.expect_page(address);
    }
    let gateway = trial.gateway().expect("runs");
    gateway.signal(Signal::SIGHUP).expect("is sent");
    trial.gateway_says("the former one stays", 2);
    trial.rewrite(&format!("{before}[limits]\nclients = 9\n"));
    trial.gateway_says("\"keys\":\"limits.clients\"", 1);
    let gateway = trial.gateway().expect("runs");
    gateway.signal(Signal::SIGHUP).expect("is sent");
    trial.gateway_says("nothing has changed", 1);
    trial.rewrite(&before.replace("debug", "error"));
    let gateway = trial.gateway().expect("runs");
    let interrupt = gateway.ended().expect("is known");
    assert!(interrupt.is_none(), "it goes on");
    trial.expect_page(WEB[1]);
    assert_eq!(count(&trial.gateway_milestones(), "joined"), 1);
}

/// Receives the messages on a socket like a service manager's.
struct Listener {
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
}

impl Listener {
    fn new() -> (Self, Vec<(&'static str, String)>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(LIMIT)).expect("a timeout");
        let environment = vec![
            ("NOTIFY_SOCKET", path.display().to_string()),
            ("WATCHDOG_USEC", "2000000".to_owned()),
        ];
        let listener = Self {
            socket,
            _folder: folder,
        };
        (listener, environment)
    }

    /// The next message that is neither a watchdog keepalive nor a status.
    fn next(&self) -> String {
        loop {
            let message = self.any();
            let is_routine = message == "WATCHDOG=1\n" || message.starts_with("STATUS=");
            if !is_routine {
                return message;
            }
        }
    }

    fn any(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

#[test]
fn a_service_manager_is_notified_of_start_reload_and_end_but_not_by_a_hanging_gateway() {
    let (listener, environment) = Listener::new();
    let mut trial = Trial::with(with_faults(environment));
    assert_eq!(listener.next(), "READY=1\n");
    let status = std::iter::repeat_with(|| listener.any())
        .find(|message| message.starts_with("STATUS=ready, "));
    assert!(status.is_some());
    trial.expect_page(WEB[0]);
    let gateway = trial.gateway().expect("runs");
    gateway.signal(Signal::SIGHUP).expect("is sent");
    let began = listener.next();
    assert!(began.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{began}");
    assert_eq!(listener.next(), "READY=1\n");

    let injector = Injector::new(trial.fault_socket());
    let inflicted = injector.inflict(ActorKind::Udp, ActorFault::Hang, None);
    inflicted.expect("it hangs");
    // The gateway needs more than a second to detect it, and a keepalive is due every half second.
    let mut meals = 0;
    loop {
        let is_meal = listener.any() == "WATCHDOG=1\n";
        let gateway = trial.gateway().expect("runs");
        let is_over = gateway.log().contains("did not answer and was ended");
        match (is_meal, is_over) {
            (true, true) => break,
            (true, false) => meals += 1,
            (false, _) => {}
        }
    }
    assert!(meals <= 1, "{meals}: only what was on its way");

    let mut gateway = trial.take_gateway().expect("runs");
    gateway.signal(Signal::SIGTERM).expect("is sent");
    let end = listener.next();
    assert_eq!(end, "STOPPING=1\nSTATUS=stopping\n");
    gateway.wait_end(LIMIT).expect("ends");
}
