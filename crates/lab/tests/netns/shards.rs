//! A gateway with two shards and a client on each: both reach everything, in order, and one is
//! unaffected when the other's shard fails.

use crate::metrics::{page, value};
use crate::traffic::download;
use crate::{LIMIT, Trial, WEB, programs};
use postern_lab::playground::component::Component;
use postern_lab::playground::download::Download;
use postern_lab::playground::lab::Lab;
use postern_lab::playground::lookup::proxies;
use postern_lab::playground::scene::APP;
use postern_lab::playground::setup::{ECHO_PORT, Setup, WEB_PORT};
use postern_lab::playground::traffic::{Families, fetch, url};
use postern_lab::playground::{Plan, Playground, Role};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const CLIENTS: [Role; 2] = [Role::Client, Role::Member(0)];

/// The playground's client is on shard 0, the crowd's member on shard 1.
fn two_shards() -> Trial {
    let setup = Setup {
        shards: Some(2),
        crowd: 1,
        faults: true,
        ..Setup::default()
    };
    let plan = Plan {
        crowd: 1,
        ..Plan::default()
    };
    let lab = Playground::planned(plan).and_then(|place| Lab::new(place, &programs(), setup));
    let trial = Trial::up(lab.and_then(|mut lab| {
        lab.start_all(&[
            Component::Web,
            Component::Names,
            Component::Relay,
            Component::Portal,
            Component::Gateway,
            Component::Client,
        ])?;
        lab.start_crowd()?;
        Ok(lab)
    }));
    // The first client that asks gets the first shard.
    for role in CLIENTS {
        expect_pages(&trial, role);
    }
    trial
}

#[track_caller]
fn expect_pages(trial: &Trial, role: Role) {
    for address in WEB {
        expect_page(trial, role, address);
    }
    // By the proxy IPs that the client's programs use for the name.
    let proxies = proxies(trial.playground(), role, APP, LIMIT).expect("the stub answers");
    let v4 = proxies.iter().find(|proxy| proxy.is_ipv4());
    let v6 = proxies.iter().find(|proxy| proxy.is_ipv6());
    for proxy in [v4.expect("IPv4"), v6.expect("IPv6")] {
        expect_page(trial, role, *proxy);
    }
}

#[track_caller]
fn expect_page(trial: &Trial, role: Role, address: IpAddr) {
    let url = url(address, WEB_PORT, "/");
    let fetched = fetch(trial.playground(), role, &url, LIMIT).expect("curl runs");
    assert!(
        fetched.is_page(),
        "no page from {url} at {role}: {fetched:?}"
    );
}

#[test]
fn two_clients_on_two_shards_reach_everything_and_both_shards_work() {
    let trial = two_shards();
    for role in CLIENTS {
        let body = download(&trial, role, WEB[0], 4_000_000);
        let is_right = body
            .iter()
            .zip((0..251u8).cycle())
            .all(|(is, should)| *is == should);
        assert!(
            is_right && body.len() == 4_000_000,
            "{role}: {}",
            body.len()
        );
    }
    let page = page(&trial);
    for shard in [0, 1] {
        let lag = format!("postern_event_loop_lag_seconds{{thread=\"shard_{shard}\"}}");
        assert!(page.contains(&lag), "{page}");
    }
    assert_eq!(value(&page, "postern_sessions"), 2.0, "{page}");
    // Checks and handshakes of the client of shard 1 arrive at shard 0; the rest is data, which the
    // kernel delivers to the right shard.
    let handed_over = value(&page, "postern_handed_over_packets_total{kind=\"udp\"}");
    let received = value(&page, "postern_udp_datagrams_total{direction=\"received\"}");
    assert!(handed_over > 0.0, "{page}");
    assert!(handed_over < received / 5.0, "{page}");
    let log = trial.log_tails(200);
    assert!(
        !log.contains("does not give datagrams to the shards"),
        "{log}"
    );
}

#[test]
fn every_thread_has_a_descriptive_name() {
    let mut trial = two_shards();
    let gateway = trial.gateway().expect("runs");
    let threads = gateway.threads().expect("runs");
    for name in ["admin", "control", "shard-0", "shard-1"] {
        let is_there = threads.iter().any(|(_, it)| it == name);
        assert!(is_there, "no {name} in {threads:?}");
    }
}

/// docs/lessons.md 26: one flow stays on one shard.
#[test]
fn the_packets_of_a_flow_stay_in_order() {
    let trial = two_shards();
    std::thread::scope(|scope| {
        for role in CLIENTS {
            for address in WEB {
                let trial = &trial;
                scope.spawn(move || expect_order(trial, role, (address, ECHO_PORT).into()));
            }
        }
    });
}

/// Numbered datagrams, echoed by the resource, through both directions of the gateway.
fn expect_order(trial: &Trial, role: Role, echo: SocketAddr) {
    const FLOWS: usize = 8;
    const BURSTS: u32 = 20;
    const BURST: u32 = 16;
    for flow in 0..FLOWS {
        let socket = trial.playground().enter(role, || {
            let any: IpAddr = match echo {
                SocketAddr::V4(_) => [0, 0, 0, 0].into(),
                SocketAddr::V6(_) => [0u16; 8].into(),
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(echo)?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            Ok(socket)
        });
        let socket = socket.expect("a socket");
        let mut seen = Vec::new();
        for burst in 0..BURSTS {
            for number in burst * BURST..(burst + 1) * BURST {
                let mut datagram = [0; 900];
                datagram[..4].copy_from_slice(&number.to_be_bytes());
                socket.send(&datagram).expect("sent");
            }
            let mut buffer = [0; 1500];
            // A busy machine may lose datagrams; those that arrive are in order.
            for _ in 0..BURST {
                if socket.recv(&mut buffer).is_err() {
                    break;
                }
                let number = [buffer[0], buffer[1], buffer[2], buffer[3]];
                seen.push(u32::from_be_bytes(number));
            }
        }
        assert!(seen.is_sorted(), "{role}, {echo}, flow {flow}: {seen:?}");
        assert!(
            seen.len() > 200,
            "{role}, {echo}, flow {flow}: {}",
            seen.len()
        );
    }
}

/// Inflicts a fault, and waits until the gateway has logged `said` once more.
fn inflict_and_wait(trial: &Trial, fault: &str, said: &str) {
    let before = said_by_gateway(trial, said);
    inflict(trial, fault);
    let noticed = || (said_by_gateway(trial, said) > before).then_some(());
    let interrupt = trial.playground().interrupt();
    interrupt
        .until(fault, LIMIT, noticed)
        .expect("it is noticed");
}

#[test]
fn a_failing_shard_does_not_affect_the_other_shards_client() {
    let trial = two_shards();
    let url = url(WEB[0], WEB_PORT, "/slow/60000000/60");
    let download = Download::start(trial.playground(), &url, Families::V4, 4 * LIMIT);
    let download = download.expect("curl starts");
    let flows_on = || download.wait_more(trial.playground(), 200_000, LIMIT);
    flows_on().expect("it begins");
    for (fault, said) in [
        ("nat_table panic-handler 1", "actor rebuilt"),
        ("udp panic-handler 1", "actor rebuilt"),
        ("tun stop 1", "actor rebuilt"),
        ("udp block 1", "a thread is stuck and was given up"),
    ] {
        inflict_and_wait(&trial, fault, said);
        flows_on().expect("it goes on");
        expect_pages(&trial, Role::Member(0));
    }
    // The thread was blocked for three seconds.
    let pause = download.progress().longest_pause;
    assert!(pause < Duration::from_millis(1500), "{pause:?}");
}

/// A command without a shard goes to the first one, whose sockets and thread all shards use.
#[test]
fn the_first_shard_may_fail_too() {
    let trial = two_shards();
    for (fault, said) in [
        ("udp panic-handler", "actor rebuilt"),
        ("nat_table stop", "actor rebuilt"),
        ("tun block", "a thread is stuck and was given up"),
    ] {
        inflict_and_wait(&trial, fault, said);
        for role in CLIENTS {
            expect_pages(&trial, role);
        }
    }
}

fn inflict(trial: &Trial, fault: &str) {
    let stream = UnixStream::connect(trial.fault_socket()).expect("a gateway that takes faults");
    (&stream)
        .write_all(format!("{fault}\n").as_bytes())
        .expect("told");
    let mut answer = String::new();
    BufReader::new(&stream)
        .read_line(&mut answer)
        .expect("an answer");
    assert_eq!(answer, "ok\n", "{fault}");
}

fn said_by_gateway(trial: &Trial, what: &str) -> usize {
    trial.gateway_log().matches(what).count()
}
