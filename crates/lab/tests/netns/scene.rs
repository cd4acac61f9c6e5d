//! The scene's names and what can go wrong with them, seen from the gateway's place without any
//! gateway: what the tests of names stand on.

use crate::{LIMIT, Trial};
use postern_lab::dns::mode::Mode;
use postern_lab::playground::Role;
use postern_lab::playground::faults::{Fault, heal, inflict};
use postern_lab::playground::lab::{ECHO_PORT, WEB_PORT};
use postern_lab::playground::lookup::{Said, ask};
use postern_lab::playground::network::{NAME_SERVER_V4, WEB_V4, WEBS_V4, WEBS_V6};
use postern_lab::playground::scene::{APP, SERVICE, SERVICE_TEXT};
use postern_lab::playground::traffic::{Families, fetch_over, udp_echo};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

/// How long a connection is given that must not come about.
const SHORTLY: Duration = Duration::from_millis(700);

fn page_at_gateway(trial: &Trial, families: Families) -> String {
    let url = format!("http://{APP}/");
    let fetched = fetch_over(trial.playground(), Role::Gateway, &url, families, LIMIT);
    let fetched = fetched.expect("curl runs");
    assert!(fetched.is_page(), "{fetched:?}");
    fetched.body
}

#[test]
fn programs_find_names_at_the_scenes_own_server() {
    let trial = Trial::names_only();
    for (families, here) in [
        (Families::V4, "at 10.20.0.100:80;"),
        (Families::V6, "at [fd20::100]:80;"),
    ] {
        let page = page_at_gateway(&trial, families);
        assert!(page.contains(here), "{page}");
        assert!(page.contains("asked for as app.lab.example."), "{page}");
    }
    let asked = trial.names().asked().expect("counters");
    for kind in ["A", "AAAA"] {
        let counted = asked.iter().find(|it| it.name == APP && it.kind == kind);
        assert!(counted.expect("asked").queries > 0, "{asked:?}");
    }
}

/// The lines of the machine's mount table that concern its configuration files.
fn mounts() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    let lines = table.lines().filter(|line| line.contains(" /etc"));
    lines.map(str::to_owned).collect()
}

#[test]
fn what_programs_see_of_names_never_shows_outside() {
    let before = (mounts(), std::fs::read("/etc/resolv.conf").ok());
    let trial = Trial::names_only();
    let playground = trial.playground();
    for (role, server) in [
        (Role::Client, "100.100.111.1"),
        (Role::Gateway, "10.20.0.53"),
    ] {
        let mut command = playground.command(role, "sh");
        command.args(["-c", "cat /etc/resolv.conf /etc/hosts; exec sleep 600"]);
        let seen = playground.spawn("seen", command).expect("starts");
        let expected = format!("nameserver {server}\n");
        let sees = || seen.log().contains("localhost").then(|| seen.log());
        let log = playground.interrupt().until("the files", LIMIT, sees);
        let log = log.expect("are shown");
        assert!(log.starts_with(&expected), "{log}");
        let during = (mounts(), std::fs::read("/etc/resolv.conf").ok());
        assert_eq!(during, before);
    }
}

/// A download that has begun, at the gateway's place.
fn flowing(trial: &Trial, address: IpAddr) -> TcpStream {
    let stream = trial.playground().enter(Role::Gateway, || {
        let mut stream = TcpStream::connect_timeout(&(address, WEB_PORT).into(), LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(b"GET /slow/200000/2 HTTP/1.0\r\n\r\n")?;
        stream.read_exact(&mut [0; 1000])?;
        Ok(stream)
    });
    stream.expect("flows")
}

fn connect(trial: &Trial, address: IpAddr, limit: Duration) -> std::io::Result<TcpStream> {
    let to = (address, WEB_PORT).into();
    let connected = trial
        .playground()
        .enter(Role::Gateway, || Ok(TcpStream::connect_timeout(&to, limit)));
    connected.expect("is tried")
}

#[test]
fn an_address_that_is_silent_to_new_connections_keeps_those_it_has() {
    let trial = Trial::names_only();
    for address in [IpAddr::from(WEBS_V4[1]), WEBS_V6[1].into()] {
        let mut stream = flowing(&trial, address);
        inflict(trial.playground(), address, Fault::SilentToNew).expect("inflicted");
        let error = connect(&trial, address, SHORTLY).expect_err("silent");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{address}");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("goes on");
        assert!(rest.len() > 190_000, "{address}: {}", rest.len());
        heal(trial.playground(), address).expect("healed");
        connect(&trial, address, LIMIT).expect("well again");
    }
}

#[test]
fn a_silent_address_is_silent_to_all_and_an_unreachable_one_says_so() {
    let trial = Trial::names_only();
    for address in [IpAddr::from(WEBS_V4[2]), WEBS_V6[2].into()] {
        let playground = trial.playground();
        let echo = (address, ECHO_PORT).into();
        let echoes = || udp_echo(playground, Role::Gateway, echo, SHORTLY).expect("is sent");
        assert!(echoes().is_some(), "{address}");
        inflict(playground, address, Fault::Silent).expect("inflicted");
        assert_eq!(echoes(), None, "{address}");
        heal(playground, address).expect("healed");
        inflict(playground, address, Fault::Unreachable).expect("inflicted");
        // An error that comes while the kernel is still busy with connecting is only noted: on a
        // link without delay it takes the second SYN, after a second.
        let error = connect(&trial, address, LIMIT).expect_err("unreachable");
        assert_eq!(error.kind(), ErrorKind::HostUnreachable, "{address}");
        heal(playground, address).expect("healed");
        assert!(echoes().is_some(), "{address}");
    }
}

fn said(trial: &Trial, name: &str, kind: &str) -> anyhow::Result<Said> {
    let server = (NAME_SERVER_V4, 53).into();
    let kind = kind.parse().expect("a kind");
    let question = (name, kind);
    ask(trial.playground(), Role::Gateway, server, question, SHORTLY)
}

#[test]
fn the_name_server_fails_as_it_is_told_and_counts() {
    let mut trial = Trial::names_only();
    let names = trial.names();
    let found = said(&trial, APP, "A").expect("answered");
    assert_eq!(found.addresses, [IpAddr::from(WEB_V4)]);
    let found = said(&trial, SERVICE, "TXT").expect("answered");
    assert_eq!(found.data, [SERVICE_TEXT]);
    names.set_mode(Mode::Silent).expect("set");
    said(&trial, APP, "A").expect_err("silent");
    names.set_mode_of(APP, Some(Mode::Servfail)).expect("set");
    let failed = said(&trial, APP, "A").expect("answered");
    assert_eq!(failed.code.to_string(), "Server Failure");
    names.set_mode_of(APP, None).expect("set");
    names.set_mode(Mode::Healthy).expect("set");
    let moved = WEBS_V4[1].into();
    names.set_addresses(APP, 1, &[moved]).expect("set");
    assert_eq!(said(&trial, APP, "A").expect("answered").addresses, [moved]);
    assert_eq!(names.lookups(APP, 0.0).expect("counted"), 4);
    trial.kill_names();
    said(&trial, APP, "A").expect_err("nobody is there");
    trial.start_names().expect("starts again");
    let found = said(&trial, APP, "A").expect("answered");
    assert_eq!(found.addresses, [IpAddr::from(WEB_V4)]);
}
