//! Names in use, when their DNS server fails, or their addresses move or fail.

use crate::names::{expect_page_of, fetch_name, proxies_of};
use crate::{LIMIT, Trial, WEB};
use postern_lab::clock::unix_ms;
use postern_lab::dns::mode::Mode;
use postern_lab::playground::Role;
use postern_lab::playground::download::Download;
use postern_lab::playground::faults::{HostFault, inflict};
use postern_lab::playground::milestones::count;
use postern_lab::playground::network::{WEBS_V4, WEBS_V6};
use postern_lab::playground::scene::{APP, LATE, TTL};
use postern_lab::playground::setup::WEB_PORT;
use postern_lab::playground::traffic::{Connected, Families, connect_until};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Interval between an application's attempts to connect.
const TRY_EVERY: Duration = Duration::from_millis(250);
/// Limit for healing after a name server has recovered (specified).
const HEALS_WITHIN: Duration = Duration::from_millis(1500);
/// Limit for moving to a new address (specified).
const MOVES_WITHIN: Duration = Duration::from_secs(6);
/// Allowance for a test machine that builds and runs other tests at the same time.
const SLACK: Duration = Duration::from_millis(1500);
/// The addresses that names move to.
const ELSEWHERE: [IpAddr; 2] = [IpAddr::V4(WEBS_V4[1]), IpAddr::V6(WEBS_V6[1])];

/// Lets time pass while other programs continue.
fn pass(trial: &Trial, span: Duration) {
    let passed = trial.playground().interrupt().pass(span);
    passed.expect("no interrupt");
}

/// Repeats attempts to connect to one proxy IP until one succeeds.
fn connect(trial: &Trial, proxy: IpAddr) -> Connected {
    let to = (proxy, WEB_PORT).into();
    let connected = connect_until(trial.playground(), Role::Client, to, TRY_EVERY, LIMIT);
    connected.expect("connects in the end")
}

/// A download by name that lasts `seconds`, and its size.
fn flowing(trial: &Trial, name: &str, families: Families, seconds: u64) -> (Download, u64) {
    let bytes = seconds * 100_000;
    let url = format!("http://{name}/slow/{bytes}/{seconds}");
    let download = Download::start(trial.playground(), &url, families, LIMIT * 2);
    let download = download.expect("curl starts");
    download
        .wait_more(trial.playground(), 20_000, LIMIT)
        .expect("it flows");
    (download, bytes)
}

/// Waits until no query for `name` has come for `quiet`.
fn wait_no_more_lookups(trial: &Trial, name: &str, quiet: Duration) {
    let names = trial.names();
    let limit = LIMIT + quiet;
    let interrupt = trial.playground().interrupt();
    let asked = interrupt.until_ok("lookups to end", limit, || {
        let since = unix_ms() - quiet.as_secs_f64() * 1000.0;
        Ok((names.lookups(name, since)? == 0).then_some(()))
    });
    asked.expect("they end");
}

/// docs/lessons.md 1 and 7: a name without its DNS server is accepted, looked up again while a
/// client uses it, and served as soon as the server recovers, without another request of the
/// client.
#[test]
fn a_name_heals_when_its_dns_server_comes_back() {
    let trial = Trial::start();
    // Another name first: the test measures the name, not the tunnel.
    expect_page_of(&trial, LATE, Families::Any);
    let names = trial.names();
    names.set_mode(Mode::Silent).expect("set");
    names.forget().expect("forgets");
    let proxy = proxies_of(&trial, APP, true)[0];
    let outage = Duration::from_secs(6);
    let (connected, begun, revived) = std::thread::scope(|scope| {
        let begun = Instant::now();
        let connecting = scope.spawn(|| connect(&trial, proxy));
        pass(&trial, outage);
        let lookups = names.lookups(APP, 0.0).expect("counted");
        assert!(
            (2..=40).contains(&lookups),
            "{lookups} lookups in {outage:?}"
        );
        names.set_mode(Mode::Healthy).expect("set");
        let revived = Instant::now();
        (connecting.join().expect("connects"), begun, revived)
    });
    let healed = (begun + connected.after).saturating_duration_since(revived);
    assert!(connected.after >= outage, "{connected:?}");
    assert!(
        healed < HEALS_WITHIN + SLACK,
        "{healed:?} after the revival"
    );
}

/// docs/lessons.md 3: an unused name is not looked up.
#[test]
fn lookups_end_when_the_client_stops_sending() {
    let trial = Trial::start();
    expect_page_of(&trial, LATE, Families::Any);
    trial.names().set_mode(Mode::Silent).expect("set");
    let proxy = proxies_of(&trial, APP, true)[0];
    let to = (proxy, WEB_PORT).into();
    let limit = Duration::from_secs(3);
    let tried = connect_until(trial.playground(), Role::Client, to, TRY_EVERY, limit);
    tried.expect_err("there is no address");
    let asked = trial.names().lookups(APP, 0.0).expect("counted");
    assert!(asked >= 2, "{asked} lookups");
    wait_no_more_lookups(&trial, APP, Duration::from_secs(8));
}

/// docs/lessons.md 5 and 6: new flows take the new address, those to an old one that still answers
/// continue.
#[test]
fn a_name_moves_and_its_running_flows_continue() {
    let trial = Trial::start();
    let (mut download, bytes) = flowing(&trial, APP, Families::V4, 12);
    let proxy = proxies_of(&trial, APP, true)[0];
    let names = trial.names();
    names.set_addresses(APP, TTL, &ELSEWHERE).expect("set");
    for address in WEB {
        inflict(trial.playground(), address, HostFault::SilentToNew).expect("inflicted");
    }
    let connected = connect(&trial, proxy);
    assert!(connected.after < MOVES_WITHIN + SLACK, "{connected:?}");
    let page = expect_page_of(&trial, APP, Families::V4);
    assert!(page.body.contains("at 10.20.0.101:80;"), "{page:?}");
    let whole = download.wait_whole(trial.playground(), bytes, LIMIT);
    let whole = whole.expect("comes whole");
    assert!(whole.longest_pause < AS_GOOD_AS_NONE, "{whole:?}");
}

/// A pause that a busy machine causes in a download of 100 kB/s.
const AS_GOOD_AS_NONE: Duration = Duration::from_secs(2);

/// docs/lessons.md 6: the SYNs of one continuing connection attempt move to the new address.
#[test]
fn an_unanswered_connection_moves_to_the_new_address() {
    let trial = Trial::start();
    for (place, families) in [Families::V4, Families::V6].into_iter().enumerate() {
        expect_page_of(&trial, APP, families);
        let names = trial.names();
        names.set_addresses(APP, TTL, &ELSEWHERE).expect("set");
        inflict(trial.playground(), WEB[place], HostFault::Silent).expect("inflicted");
        let fetched = fetch_name(&trial, APP, families);
        assert!(fetched.is_page(), "{fetched:?}");
        let waited = fetched.wait();
        // SYNs leave after 0, 1, 3 and 7 s (RFC 6298): the first after the move goes to the new
        // address.
        assert!(waited < Duration::from_secs(7) + SLACK, "{fetched:?}");
    }
}

#[test]
fn an_address_reported_unreachable_is_replaced_at_once() {
    let trial = Trial::start();
    expect_page_of(&trial, APP, Families::V4);
    let names = trial.names();
    names.set_addresses(APP, TTL, &ELSEWHERE).expect("set");
    inflict(trial.playground(), WEB[0], HostFault::Unreachable).expect("inflicted");
    let proxy = proxies_of(&trial, APP, true)[0];
    let connected = connect(&trial, proxy);
    assert!(
        connected.after < Duration::from_secs(1) + SLACK,
        "{connected:?}"
    );
}

/// docs/lessons.md 7: a failed lookup erases nothing.
#[test]
fn traffic_continues_at_the_last_known_good_address() {
    let trial = Trial::start();
    let names = trial.names();
    // As short as possible, so that the gateway looks the name up repeatedly.
    names.set_addresses(APP, 1, &WEB).expect("set");
    expect_page_of(&trial, APP, Families::Any);
    for mode in [Mode::Servfail, Mode::Silent, Mode::Refused] {
        names.set_mode(mode).expect("set");
        names.forget().expect("forgets");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(7) {
            let fetched = expect_page_of(&trial, APP, Families::Any);
            assert!(fetched.total < AS_GOOD_AS_NONE, "{mode}: {fetched:?}");
            pass(&trial, Duration::from_millis(300));
        }
        let lookups = names.lookups(APP, 0.0).expect("counted");
        assert!((1..=30).contains(&lookups), "{mode}: {lookups} lookups");
    }
    assert_eq!(count(&trial.gateway_milestones(), "joined"), 1);
}
