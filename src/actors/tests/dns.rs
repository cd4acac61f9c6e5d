//! A DnsActor and small name servers on loopback.
//!
//! Virtual time: a datagram on loopback arrives when it is sent, so the clock only jumps when all
//! tasks wait.

use super::in_virtual_time;
use super::metrics::page;
use super::name_server::{NameServer, PATIENCE, Scene, V6, config, v4};
use super::reload::{settings, use_settings};
use super::tell_addr;
use crate::actors::dns::Upstreams;
use crate::config::{DnsConfig, LiveSettings, UseSettings};
use crate::messages::dns::NameAnswered;
use crate::metrics::Metrics;
use crate::shell;
use postern_core::names::NameFailure;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

fn found(ip: impl Into<IpAddr>) -> Result<Vec<IpAddr>, NameFailure> {
    Ok(vec![ip.into()])
}

fn seconds_since(beginning: Instant) -> f64 {
    (shell::now() - beginning).as_secs_f64()
}

/// docs/lessons.md 7: a denial and a failure are different outcomes.
#[test]
fn distinguishes_each_outcome() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        let mut scene = Scene::new(&[&server]);
        let both = (found(v4(1)), found(V6));
        assert_eq!(scene.resolve("both.example").await, both);
        for (name, failure) in [
            ("missing.example", NameFailure::NoSuchName),
            ("empty.example", NameFailure::NoData),
            ("broken.example", NameFailure::ServerFailure),
            ("refused.example", NameFailure::ServerFailure),
            ("elsewhere.example", NameFailure::ServerFailure),
        ] {
            let outcome = (Err(failure), Err(failure));
            assert_eq!(scene.resolve(name).await, outcome, "{name}");
        }
    });
}

/// docs/lessons.md 9: each family is answered for itself.
#[test]
fn resolves_a_name_with_one_family() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        let mut scene = Scene::new(&[&server]);
        let no_data = || Err(NameFailure::NoData);
        let v4_only = (found(v4(1)), no_data());
        assert_eq!(scene.resolve("v4.example").await, v4_only);
        assert_eq!(scene.resolve("v6.example").await, (no_data(), found(V6)));
    });
}

/// docs/lessons.md 7: a server that does not answer denies nothing.
#[test]
fn silence_is_a_timeout_and_a_closed_port_a_network_failure() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        server.is_silent.set(true);
        let mut scene = Scene::new(&[&server]);
        let beginning = shell::now();
        let outcome = scene.resolve("both.example").await;
        assert_eq!(
            outcome,
            (Err(NameFailure::Timeout), Err(NameFailure::Timeout))
        );
        assert_eq!(seconds_since(beginning).round(), 6.0);

        let closed = UdpSocket::bind("127.0.0.1:0").await.expect("room");
        let address = closed.local_addr().expect("bound");
        drop(closed);
        let mut scene = Scene::with(&[], |spec| {
            let closed = address.to_string().parse().expect("a server");
            spec.upstreams = Upstreams::Given(vec![closed]);
        });
        let outcome = scene.resolve("both.example").await;
        assert_eq!(
            outcome,
            (Err(NameFailure::Network), Err(NameFailure::Network))
        );
    });
}

#[test]
fn a_failing_server_is_followed_by_the_next_and_failure_of_all_is_immediate() {
    in_virtual_time(async {
        let (silent, good) = (NameServer::start().await, NameServer::start().await);
        silent.is_silent.set(true);
        let beginning = shell::now();
        let mut scene = Scene::new(&[&good, &good]);
        let outcome = scene.resolve("broken.example").await;
        assert_eq!(outcome.0, Err(NameFailure::ServerFailure));
        assert_eq!(
            good.count("broken.example"),
            4,
            "each family at each server"
        );
        assert!(seconds_since(beginning) < 0.5);
        let mut scene = Scene::new(&[&silent, &good]);
        assert_eq!(scene.resolve("v4.example").await.0, found(v4(1)));
        assert_eq!(seconds_since(beginning).round(), 1.0);
    });
}

#[test]
fn concurrent_lookups_of_a_name_share_one_query() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        server.delay.set(Duration::from_millis(100));
        let mut scene = Scene::new(&[&server]);
        scene.ask("both.example", 1, false);
        scene.ask("both.example", 2, true);
        let both = (found(v4(1)), found(V6));
        assert_eq!(scene.both("both.example").await, both);
        scene.ask("v4.example", 1, false);
        let next = scene.both("v4.example").await;
        assert_eq!(next.0, found(v4(1)), "one answer for one asker");
        assert_eq!(server.count("both.example"), 2, "one for each family");
    });
}

#[test]
fn new_servers_answer_lookups_under_way() {
    in_virtual_time(async {
        let former = NameServer::start().await;
        let other = NameServer::start_at("127.0.0.1:0", 2).await;
        let suffix = NameServer::start_at("127.0.0.1:0", 3).await;
        let mut scene = Scene::new(&[&former]);
        assert_eq!(scene.resolve("both.example").await.0, found(v4(1)));
        former.is_silent.set(true);
        scene.ask("v4.example", 1, false);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let servers = config_of(&[&other], &[("corp.example", &suffix)]);
        tell_addr(&scene.actor, use_dns(&servers));
        let answer = scene.both("v4.example").await;
        assert_eq!(answer.0, found(v4(2)), "asked before, answered now");
        assert_eq!(scene.resolve("both.example").await.0, found(v4(2)));
        let corp = scene.resolve("both.corp.example").await;
        assert_eq!(corp.0, found(v4(3)));
        assert_eq!(former.count("both.example"), 2, "not asked again");
    });
}

/// Answers of previous servers go to the askers, and are not cached.
#[test]
fn a_late_answer_of_previous_servers_counts() {
    in_virtual_time(async {
        let former = NameServer::start().await;
        let other = NameServer::start_at("127.0.0.1:0", 2).await;
        other.is_silent.set(true);
        former.delay.set(Duration::from_millis(500));
        let mut scene = Scene::new(&[&former]);
        scene.ask("both.example", 1, false);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let servers = config_of(&[&other], &[]);
        tell_addr(&scene.actor, use_dns(&servers));
        assert_eq!(scene.both("both.example").await.0, found(v4(1)));
        other.is_silent.set(false);
        assert_eq!(scene.resolve("both.example").await.0, found(v4(2)));
    });
}

#[test]
fn new_limits_apply_to_the_next_lookup() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        let mut scene = Scene::new(&[&server]);
        let limits = DnsConfig {
            max_ttl: Duration::from_secs(10),
            ..config()
        };
        tell_addr(&scene.actor, use_dns(&limits));
        let _ = scene.resolve("both.example").await;
        tokio::time::advance(Duration::from_secs(11)).await;
        let _ = scene.resolve("both.example").await;
        assert_eq!(server.count("both.example"), 4);
    });
}

fn config_of(servers: &[&Rc<NameServer>], suffixes: &[(&str, &Rc<NameServer>)]) -> DnsConfig {
    let suffix = |(domain, server): &(&str, &Rc<NameServer>)| {
        let suffix = format!("{domain}={}", server.url());
        suffix.parse().expect("a suffix")
    };
    let servers = servers.iter().map(|server| server.url());
    DnsConfig {
        servers: servers.map(|url| url.parse().expect("a server")).collect(),
        suffixes: suffixes.iter().map(suffix).collect(),
        ..config()
    }
}

/// The settings with another `[dns]`.
fn use_dns(dns: &DnsConfig) -> UseSettings {
    let before = settings("");
    let mut after = LiveSettings::clone(&before);
    after.config.dns = dns.clone();
    UseSettings {
        before,
        after: Arc::new(after),
    }
}

#[test]
fn settings_that_do_not_concern_name_servers_keep_the_cache() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        let mut scene = Scene::new(&[&server]);
        let _ = scene.resolve("both.example").await;
        tell_addr(&scene.actor, use_settings("[limits]\nflows = 2000\n"));
        let _ = scene.resolve("both.example").await;
        assert_eq!(server.count("both.example"), 2, "once for each family");
    });
}

/// docs/lessons.md 22: answers are cached by their TTL.
#[test]
fn answers_are_cached_for_their_ttl_and_a_refresh_bypasses_the_cache() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        let mut scene = Scene::new(&[&server]);
        let _ = scene.resolve("both.example").await;
        tokio::time::advance(Duration::from_secs(55)).await;
        let _ = scene.resolve("both.example").await;
        assert_eq!(server.count("both.example"), 2);
        let _ = scene.refresh("both.example").await;
        assert_eq!(server.count("both.example"), 4);
        tokio::time::advance(Duration::from_secs(61)).await;
        let _ = scene.resolve("both.example").await;
        assert_eq!(server.count("both.example"), 6);
    });
}

#[test]
fn counts_lookups_by_outcome_and_cache_hits_separately() {
    in_virtual_time(async {
        let metrics = Arc::new(Metrics::default());
        let server = NameServer::start().await;
        let mut scene = Scene::with(&[&server], |spec| spec.metrics = Arc::clone(&metrics));
        for name in ["v4.example", "v4.example", "missing.example"] {
            let _outcomes = scene.resolve(name).await;
        }
        server.is_silent.set(true);
        let _outcomes = scene.resolve("both.example").await;
        let page = page(&metrics);
        let number = |what: &str, result: &str| {
            page.value(&format!("postern_dns_{what}{{result=\"{result}\"}}"))
        };
        for (result, count) in [
            ("found", 1.0),
            ("no_address", 1.0),
            ("no_name", 2.0),
            ("timeout", 2.0),
            ("server_failure", 0.0),
            ("network", 0.0),
        ] {
            assert_eq!(number("lookups_total", result), count, "{result}");
            assert_eq!(number("lookup_seconds_count", result), count, "{result}");
        }
        assert_eq!(number("lookups_total", "quota"), 0.0);
        assert_eq!(page.value("postern_dns_cache_hits_total"), 2.0);
        assert_eq!(number("lookup_seconds_sum", "timeout").round(), 12.0);
    });
}

/// docs/lessons.md 22: each client has a quota.
#[test]
fn a_client_over_its_quota_affects_only_itself() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        server.is_silent.set(true);
        let mut scene = Scene::with(&[&server], |spec| {
            spec.lookups.per_client = 1;
            spec.lookups.queued_per_client = 1;
        });
        for name in ["a.example", "b.example", "c.example"] {
            scene.ask(name, 1, false);
        }
        let quota = || Err(NameFailure::Quota);
        assert_eq!(scene.both("c.example").await, (quota(), quota()));
        scene.ask("d.example", 2, false);
        for _ in 0..4 {
            let NameAnswered(answer) = scene.answers.next_within(PATIENCE).await;
            assert!(["a.example", "d.example"].contains(&answer.name.as_str()));
            assert_eq!(answer.outcome, Err(NameFailure::Timeout));
        }
        assert!(server.count("d.example") > 0);
    });
}

/// docs/lessons.md 21: resolv.conf may be missing at boot.
#[test]
fn follows_a_resolv_conf_that_appears_and_changes() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        let port = server.address.port();
        let other = NameServer::start_at(&format!("127.0.0.2:{port}"), 2).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (path, target) = (
            folder.path().join("resolv.conf"),
            folder.path().join("real"),
        );
        symlink(&target, &path).expect("linked");
        let mut scene = Scene::with(&[], |spec| {
            spec.upstreams = Upstreams::File {
                resolv_conf: path,
                port,
            };
        });
        let network = (Err(NameFailure::Network), Err(NameFailure::Network));
        assert_eq!(scene.resolve("both.example").await, network);
        std::fs::write(&target, "").expect("written");
        until_failures_are_forgotten().await;
        assert_eq!(scene.resolve("both.example").await, network);
        std::fs::write(&target, "search lab.example\nnameserver 127.0.0.1\n").expect("written");
        until_failures_are_forgotten().await;
        assert_eq!(scene.resolve("both.example").await.0, found(v4(1)));
        std::fs::write(&target, "nameserver 127.0.0.2\n").expect("written");
        assert_eq!(scene.resolve("both.example").await.0, found(v4(1)), "kept");
        until_files_are_read().await;
        assert_eq!(scene.resolve("both.example").await.0, found(v4(2)));
        assert!(
            other
                .asked
                .borrow()
                .iter()
                .all(|(name, _)| name == "both.example.")
        );
    });
}

/// In virtual time; the files are read every two seconds.
async fn until_files_are_read() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

async fn until_failures_are_forgotten() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[test]
fn a_server_that_fails_fast_is_not_asked_again_immediately() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        let mut scene = Scene::new(&[&server]);
        for _ in 0..10 {
            let outcome = scene.refresh("broken.example").await;
            assert_eq!(outcome.0, Err(NameFailure::ServerFailure));
        }
        assert_eq!(server.count("broken.example"), 2);
        until_failures_are_forgotten().await;
        let _ = scene.resolve("broken.example").await;
        assert_eq!(server.count("broken.example"), 4);
    });
}

#[test]
fn a_silent_server_costs_one_socket_per_query() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        server.is_silent.set(true);
        let mut scene = Scene::new(&[&server]);
        let _ = scene.resolve("both.example").await;
        assert_eq!(server.count("both.example"), 12, "every second");
        assert_eq!(server.sources.borrow().len(), 2, "one for each family");
    });
}

#[test]
fn forged_answers_do_not_end_a_query() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        server.is_forged.set(true);
        let mut scene = Scene::new(&[&server]);
        let both = (found(v4(1)), found(V6));
        assert_eq!(scene.resolve("both.example").await, both);
        assert_eq!(server.count("both.example"), 2, "asked once");
        server.is_forged.set(false);
        server.misquotes.set(true);
        let timeout = (Err(NameFailure::Timeout), Err(NameFailure::Timeout));
        assert_eq!(scene.resolve("v4.example").await, timeout);
    });
}

#[test]
fn retries_without_edns_at_a_server_that_lacks_it() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        server.is_old.set(true);
        let mut scene = Scene::new(&[&server]);
        let both = (found(v4(1)), found(V6));
        assert_eq!(scene.resolve("both.example").await, both);
        assert_eq!(server.count("both.example"), 4);
    });
}

#[test]
fn a_slow_server_still_answers() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        server.delay.set(Duration::from_secs(2));
        let mut scene = Scene::new(&[&server]);
        let beginning = shell::now();
        assert_eq!(scene.resolve("both.example").await.0, found(v4(1)));
        assert_eq!(seconds_since(beginning).round(), 2.0);
    });
}

#[test]
fn notices_a_server_that_comes_back_within_a_second() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        server.is_silent.set(true);
        let revived = Rc::clone(&server);
        actix_rt::spawn(async move {
            tokio::time::sleep(Duration::from_millis(3_300)).await;
            revived.is_silent.set(false);
        });
        let mut scene = Scene::new(&[&server]);
        let beginning = shell::now();
        assert_eq!(scene.resolve("both.example").await.0, found(v4(1)));
        assert!(seconds_since(beginning) < 4.4);
    });
}

#[test]
fn the_longest_matching_suffix_selects_the_servers() {
    in_virtual_time(async {
        let usual = NameServer::start().await;
        let corp = NameServer::start_at("127.0.0.1:0", 2).await;
        let deep = NameServer::start_at("127.0.0.1:0", 3).await;
        let mut scene = Scene::with(&[&usual], |spec| {
            let suffixes = [("corp.example", &corp), ("deep.corp.example", &deep)];
            let suffix = |(domain, server): (&str, &Rc<NameServer>)| {
                let text = format!("{domain}={}", server.url());
                text.parse().expect("a suffix")
            };
            spec.suffixes = suffixes.into_iter().map(suffix).collect();
        });
        for (name, last) in [
            ("v4.example", 1),
            ("v4.notcorp.example", 1),
            ("corp.example", 2),
            ("v4.corp.example", 2),
            ("v4.deep.corp.example", 3),
            // An alias is resolved at the servers of its target.
            ("alias.example", 2),
        ] {
            assert_eq!(scene.resolve(name).await.0, found(v4(last)), "{name}");
        }
        assert_eq!(usual.count("both.corp.example"), 0);
    });
}

#[test]
fn the_hosts_file_has_precedence_and_is_watched() {
    in_virtual_time(async {
        let server = NameServer::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let hosts = folder.path().join("hosts");
        std::fs::write(&hosts, "10.0.0.1 both.example\n").expect("written");
        let path = hosts.clone();
        let mut scene = Scene::with(&[&server], |spec| spec.hosts = path);
        let here = (found([10, 0, 0, 1]), Err(NameFailure::NoData));
        assert_eq!(scene.resolve("both.example").await, here);
        assert_eq!(server.count("both.example"), 0);
        std::fs::write(&hosts, "").expect("written");
        until_files_are_read().await;
        assert_eq!(scene.resolve("both.example").await.0, found(v4(1)));
    });
}
