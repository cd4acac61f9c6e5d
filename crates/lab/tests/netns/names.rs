//! Resources that are names: reached by name, over both families, and whatever the DNS does.

use crate::{LIMIT, Trial};
use hickory_proto::rr::RecordType;
use postern_lab::dns::mode::Mode;
use postern_lab::playground::Role;
use postern_lab::playground::lab::{ECHO_PORT, Generation, Setup, WEB_PORT};
use postern_lab::playground::lookup::{ask, proxies};
use postern_lab::playground::network::STUB_V4;
use postern_lab::playground::scene::{APP, MISSING, SERVICE, SERVICE_TEXT, V4_ONLY, V6_ONLY};
use postern_lab::playground::traffic::{Families, Fetched, fetch_over, udp_echo};
use postern_lab::web::pattern;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;
use tokio::time::Instant;

/// "At once" for a refusal that takes a round trip, on a machine that is busy compiling.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Fetches the page of a name at the client.
pub(crate) fn fetch_name(trial: &Trial, name: &str, families: Families) -> Fetched {
    let url = format!("http://{name}/");
    let fetched = fetch_over(trial.playground(), Role::Client, &url, families, LIMIT);
    fetched.expect("curl runs")
}

/// The same, insisting that it comes, from the web server and under its own name.
#[track_caller]
pub(crate) fn expect_page_of(trial: &Trial, name: &str, families: Families) -> Fetched {
    let fetched = fetch_name(trial, name, families);
    assert!(fetched.is_page(), "no page of {name}: {fetched:?}");
    let asked_for = format!("asked for as {name}.");
    assert!(fetched.body.contains(&asked_for), "{fetched:?}");
    fetched
}

/// The proxy IPs of a name, of one family.
pub(crate) fn proxies_of(trial: &Trial, name: &str, v4: bool) -> Vec<IpAddr> {
    let mut all =
        proxies(trial.playground(), Role::Client, name, LIMIT).expect("the client's stub answers");
    all.retain(|proxy| proxy.is_ipv4() == v4);
    assert!(!all.is_empty(), "no proxy IPs of {name}");
    all
}

fn is_in_v6_range(address: Ipv6Addr) -> bool {
    address.segments()[..3] == [0xfd00, 0x2021, 0x1111] && address.segments()[3] & 0x8000 != 0
}

fn is_proxy(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[0] == 100 && address.octets()[1] & 0xe0 == 96,
        IpAddr::V6(address) => is_in_v6_range(address),
    }
}

#[test]
fn a_page_comes_by_name_over_both_families_and_dual_stack() {
    let trial = Trial::start();
    for families in Families::ALL {
        let fetched = expect_page_of(&trial, APP, families);
        let remote = fetched.remote.expect("connected");
        assert!(is_proxy(remote), "{remote}");
        let here = match remote {
            IpAddr::V4(_) => "at 10.20.0.100:80; the request came from 10.20.0.1:",
            IpAddr::V6(_) => "at [fd20::100]:80; the request came from [fd20::1]:",
        };
        assert!(fetched.body.contains(here), "{fetched:?}");
    }
    for v4 in [true, false] {
        let proxy = proxies_of(&trial, APP, v4)[0];
        let echo = (proxy, ECHO_PORT).into();
        let echoed = udp_echo(trial.playground(), Role::Client, echo, LIMIT);
        assert!(echoed.expect("is sent").is_some(), "{proxy}");
    }
}

/// Three names, one address behind them, one port before them: only the proxy IPs tell them apart.
#[test]
fn names_on_one_address_are_told_apart_with_one_source_port() {
    const BYTES: usize = 3_000_000;
    const SOURCE_PORT: u16 = 40_123;
    let trial = Trial::start();
    let names = ["one", "two", "three"].map(|label| format!("{label}.wild.lab.example"));
    let answers = std::thread::scope(|scope| {
        let downloads = names.each_ref().map(|name| {
            let proxy = proxies_of(&trial, name, true)[0];
            let trial = &trial;
            scope.spawn(move || {
                download_from(trial, SOURCE_PORT, (proxy, WEB_PORT).into(), name, BYTES)
            })
        });
        downloads.map(|download| download.join().expect("downloads"))
    });
    for (name, answer) in names.iter().zip(answers) {
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
        let (head, body) = answer.split_at(head.expect("a head") + 4);
        let head = String::from_utf8_lossy(head);
        assert!(head.contains(&format!("X-Host: {name}\r\n")), "{head}");
        assert_eq!(body.len(), BYTES, "{name}");
        let wrong = body
            .iter()
            .zip(pattern())
            .position(|(is, should)| *is != should);
        assert_eq!(wrong, None, "{name}");
    }
}

/// Downloads with a source port of its own choice.
fn download_from(trial: &Trial, port: u16, to: SocketAddr, host: &str, bytes: usize) -> Vec<u8> {
    let answer = trial.playground().enter(Role::Client, || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        // Connections to different addresses may share a port, if each says so.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())?;
        socket.connect_timeout(&to.into(), LIMIT)?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LIMIT))?;
        write!(
            stream,
            "GET /bytes/{bytes} HTTP/1.0\r\nHost: {host}\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    });
    answer.expect("downloads")
}

/// Insists that every proxy IP of a name refuses connections in one family, at once and as
/// "unreachable". Not by curl, which takes its time between the addresses of a name.
#[track_caller]
fn expect_refusals(trial: &Trial, name: &str, v4: bool) {
    // As the kernel translates the ICMP errors: net unreachable, and address unreachable.
    let expected = match v4 {
        true => ErrorKind::NetworkUnreachable,
        false => ErrorKind::HostUnreachable,
    };
    for proxy in proxies_of(trial, name, v4) {
        let refused = trial.playground().enter(Role::Client, || {
            let begun = Instant::now();
            let connected = TcpStream::connect_timeout(&(proxy, WEB_PORT).into(), LIMIT);
            Ok((connected.map(drop), begun.elapsed()))
        });
        let (refused, waited) = refused.expect("is tried");
        let error = refused.expect_err("there is nothing");
        assert_eq!(error.kind(), expected, "{name} {proxy}: {error}");
        assert!(waited < AT_ONCE, "{name} {proxy}: {waited:?}");
    }
}

/// docs/lessons.md 9: each family stands for itself, and an absent one is refused rather than left
/// silent.
///
/// docs/lessons.md 9.
#[test]
fn names_of_one_family_are_served_and_the_other_is_refused_at_once() {
    let trial = Trial::start();
    for (name, present, absent) in [
        (V4_ONLY, Families::V4, Families::V6),
        (V6_ONLY, Families::V6, Families::V4),
    ] {
        expect_page_of(&trial, name, present);
        expect_refusals(&trial, name, absent == Families::V4);
        expect_page_of(&trial, name, Families::Any);
    }
}

/// docs/lessons.md 8: "unreachable", which says that it is not there, not "prohibited", which asks
/// to ask again.
///
/// docs/lessons.md 8.
#[test]
fn a_name_that_does_not_exist_is_unreachable_at_once() {
    let trial = Trial::start();
    let refused = fetch_name(&trial, MISSING, Families::Any);
    assert_eq!(refused.exit, 7, "{refused:?}");
    for v4 in [true, false] {
        expect_refusals(&trial, MISSING, v4);
    }
    trial
        .names()
        .set_addresses(MISSING, 30, &crate::WEB)
        .expect("is made to exist");
    let appears = || {
        fetch_name(&trial, MISSING, Families::Any)
            .is_page()
            .then_some(())
    };
    let interrupt = trial.playground().interrupt();
    interrupt
        .until("a name that exists by now", LIMIT, appears)
        .expect("is found");
}

/// The names of one wildcard need one authorization between them.
#[test]
fn any_name_below_a_wildcard_is_served_under_one_authorization() {
    let trial = Trial::start();
    expect_page_of(&trial, "first.wild.lab.example", Families::Any);
    let authorized = trial.control().ack_times().expect("told").len();
    for label in ["second", "third", "a-rather-long-label-with-123"] {
        let name = format!("{label}.wild.lab.example");
        for families in Families::ALL {
            expect_page_of(&trial, &name, families);
        }
    }
    let times = trial.control().ack_times().expect("told");
    assert_eq!(times.len(), authorized, "{times:?}");
    let foreign = fetch_name(&trial, "two.labels.wild.lab.example", Families::Any);
    assert!(!foreign.is_page(), "{foreign:?}");
}

#[test]
fn services_and_texts_are_asked_for_through_the_tunnel() {
    let trial = Trial::start();
    // A tunnel first: until there is one, nobody repeats a question that was lost.
    expect_page_of(&trial, APP, Families::Any);
    let stub = (STUB_V4, 53).into();
    for (kind, expected) in [
        (RecordType::SRV, "1 2 80 app.lab.example."),
        (RecordType::TXT, SERVICE_TEXT),
    ] {
        let said = ask(
            trial.playground(),
            Role::Client,
            stub,
            (SERVICE, kind),
            LIMIT,
        );
        let said = said.expect("answered");
        assert_eq!(said.data, [expected], "{kind}: {said:?}");
    }
    trial.names().set_mode(Mode::Servfail).expect("set");
    let question = (SERVICE, RecordType::TXT);
    let said = ask(trial.playground(), Role::Client, stub, question, LIMIT);
    assert_eq!(said.expect("answered").code.to_string(), "Server Failure");
}

#[test]
fn a_client_of_generation_0_reaches_names() {
    let trial = Trial::with(Setup {
        client_generation: Generation::V0,
        ..Setup::default()
    });
    for name in [APP, "old.wild.lab.example", "older.wild.lab.example"] {
        for families in Families::ALL {
            expect_page_of(&trial, name, families);
        }
    }
    for (name, families) in [(V4_ONLY, Families::V4), (V6_ONLY, Families::V6)] {
        expect_page_of(&trial, name, families);
    }
}
