//! The gateway's metrics after real traffic, read as Prometheus reads them.

use crate::{LIMIT, Trial, WEB};
use postern_lab::playground::Role;
use postern_lab::playground::scene::APP;
use postern_lab::playground::traffic::{Families, fetch_over};
use std::io::{Read, Write};
use std::net::TcpStream;

/// docs/lessons.md 34: the metrics that an operator needs are there after real traffic.
#[test]
fn a_busy_gateway_exports_its_metrics() {
    let trial = Trial::start();
    for address in WEB {
        trial.expect_page(address);
    }
    let url = format!("http://{APP}/");
    let fetched = fetch_over(trial.playground(), Role::Client, &url, Families::V4, LIMIT);
    assert!(fetched.expect("curl runs").is_page());

    let (head, page) = measured(&trial);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(page.ends_with("# EOF\n"), "{page}");
    expect_values(&page);
}

/// Waits until the event loop has been sampled once and ICE has chosen a path: packets flow before
/// that.
fn measured(trial: &Trial) -> (String, String) {
    let longest = "postern_event_loop_lag_longest_seconds{thread=\"shard_0\"}";
    let interrupt = trial.playground().interrupt();
    let found = interrupt.until("a look at the event loop and a path", LIMIT, || {
        let answer = scrape(trial);
        let (head, page) = answer.split_once("\r\n\r\n").expect("a head");
        let is_measured = value(page, longest) > 0.0 && paths(page) > 0.0;
        is_measured.then(|| (head.to_owned(), page.to_owned()))
    });
    found.expect("it is measured")
}

fn expect_values(page: &str) {
    for (series, least, most) in [
        ("postern_clients", 1.0, 1.0),
        ("postern_sessions", 1.0, 1.0),
        ("postern_sessions_begun_total", 1.0, 1.0),
        ("postern_handshakes_total{result=\"answered\"}", 1.0, 10.0),
        (
            "postern_authorizations_total{result=\"accepted\"}",
            2.0,
            20.0,
        ),
        ("postern_portal_joined", 1.0, 1.0),
        ("postern_relays", 1.0, 9.0),
        (
            "postern_tun_packets_total{direction=\"inbound\"}",
            10.0,
            1e6,
        ),
        (
            "postern_tun_packets_total{direction=\"outbound\"}",
            10.0,
            1e6,
        ),
        ("postern_tun_bytes_total{direction=\"inbound\"}", 400.0, 1e9),
        (
            "postern_tun_bytes_total{direction=\"outbound\"}",
            400.0,
            1e9,
        ),
        (
            "postern_udp_datagrams_total{direction=\"received\"}",
            10.0,
            1e6,
        ),
        ("postern_udp_datagrams_total{direction=\"sent\"}", 10.0, 1e6),
        ("postern_nat_mappings", 1.0, 9.0),
        ("postern_nat_flows", 1.0, 9.0),
        ("postern_nat_held_packets", 0.0, 0.0),
        ("postern_dns_lookups_total{result=\"found\"}", 1.0, 99.0),
        (
            "postern_dns_lookup_seconds_count{result=\"found\"}",
            1.0,
            99.0,
        ),
        ("postern_event_loop_lag_seconds{thread=\"main\"}", 0.0, 5.0),
        (
            "postern_event_loop_lag_longest_seconds{thread=\"shard_0\"}",
            1e-6,
            5.0,
        ),
        ("process_open_fds", 10.0, 1e6),
        ("process_resident_memory_bytes", 1e6, 1e9),
    ] {
        let value = value(page, series);
        assert!((least..=most).contains(&value), "{series} {value}");
    }
    assert_eq!(paths(page), 1.0, "{page}");
}

/// Number of paths of all kinds.
fn paths(page: &str) -> f64 {
    let kinds = ["host", "server_reflexive", "peer_reflexive", "relayed"];
    let count = |kind| value(page, &format!("postern_paths{{kind=\"{kind}\"}}"));
    kinds.map(count).iter().sum()
}

pub(crate) fn value(page: &str, series: &str) -> f64 {
    let is_it = |line: &&str| {
        line.rsplit_once(' ')
            .is_some_and(|(name, _)| name == series)
    };
    let line = page.lines().find(is_it);
    let line = line.unwrap_or_else(|| panic!("no {series} in {page}"));
    let value = line.rsplit(' ').next().and_then(|value| value.parse().ok());
    value.expect("a number")
}

/// The metrics without the answer's head.
pub(crate) fn page(trial: &Trial) -> String {
    let answer = scrape(trial);
    let (_, page) = answer.split_once("\r\n\r\n").expect("a head");
    page.to_owned()
}

/// Reads the metrics from the gateway's namespace, as Prometheus does.
fn scrape(trial: &Trial) -> String {
    let answer = trial.playground().enter(Role::Gateway, || {
        let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], 9599).into(), LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    answer.expect("the gateway answers")
}
