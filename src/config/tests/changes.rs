//! What a reload takes over, key by key.

use crate::config::keys::{self, KEYS};
use crate::config::schema::Change;
use crate::config::{Changes, Environment, GatewayConfig, load};
use std::path::Path;

/// For each key a value that is not its default, as the environment has it.
const OTHER: &[(&str, &str)] = &[
    ("portal.url", "ws://other.example:1"),
    ("portal.token_file", "other"),
    ("portal.token", ".other"),
    ("portal.id", "other"),
    ("portal.id_file", "other"),
    ("portal.name", "other"),
    ("portal.generation", "v1"),
    ("portal.max_outage", "1h"),
    ("network.udp_port", "1"),
    ("network.interfaces", "eth0"),
    ("network.exclude_interfaces", ""),
    ("network.stun_servers", "192.0.2.1:3478"),
    ("network.receive_buffer_bytes", "65536"),
    ("network.send_buffer_bytes", "65536"),
    ("tunnel.interface", "other"),
    ("tunnel.shards", "2"),
    ("tunnel.masquerade", "false"),
    ("tunnel.forwarding", "false"),
    ("tunnel.egress_interfaces", "eth0"),
    ("dns.servers", "10.0.0.53"),
    ("dns.suffixes", "corp.example=10.0.0.53"),
    ("dns.ca_file", "ca.pem"),
    ("dns.min_ttl", "6s"),
    ("dns.max_ttl", "2h"),
    ("dns.nat64", "true"),
    ("dns.last_known_good", "1h"),
    ("dns.lookups_per_client", "17"),
    ("limits.clients", "1"),
    ("limits.resources_per_client", "1"),
    ("limits.handshakes_per_second", "1"),
    ("limits.flows", "1024"),
    ("limits.flows_per_client", "16"),
    ("state.enabled", "false"),
    ("state.file", "other"),
    ("state.handover", "true"),
    ("state.max_age", "1m"),
    ("admin.socket", "other"),
    ("admin.listen", ""),
    ("log.format", "json"),
    ("log.filter", "debug"),
];

fn loaded(folder: &Path, other: &[(&str, &str)]) -> GatewayConfig {
    let path = folder.join("gateway.toml");
    std::fs::write(&path, "[portal]\nurl = \"ws://h:1\"\n").expect("written");
    let variable = |(key, value): &(&str, &str)| {
        let key = keys::find(key).expect("a key");
        (key.variable(), (*value).to_owned())
    };
    let token = ("POSTERN__PORTAL__TOKEN".to_owned(), ".t".to_owned());
    let variables = std::iter::once(token).chain(other.iter().map(variable));
    let loaded = load(&path, &Environment::new(variables));
    loaded.expect("valid").config
}

/// The table says what is taken over, and the code that does it says the same: key by key.
#[test]
fn every_key_is_taken_over_or_named_as_needing_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = loaded(folder.path(), &[]);
    let others: Vec<&str> = OTHER.iter().map(|(key, _)| *key).collect();
    let all: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(others, all);
    for (key, other) in KEYS.iter().zip(OTHER) {
        let wanted = loaded(folder.path(), &[*other]);
        let changes = running.changes(&wanted);
        let mut config = running.clone();
        config.adopt(&wanted);
        match key.change {
            Change::InPlace => {
                assert_eq!(changes.in_place, [key.path]);
                assert_eq!(changes.needs_restart, [""; 0], "{}", key.path);
                assert_eq!(config, wanted, "{}", key.path);
                assert_ne!(config, running, "{}", key.path);
                assert_eq!(config.changes(&wanted), Changes::default());
            }
            Change::Restart => {
                assert_eq!(changes.needs_restart, [key.path]);
                assert_eq!(changes.in_place, [""; 0], "{}", key.path);
                assert_eq!(config, running, "{}", key.path);
                assert_eq!(config.changes(&wanted), changes, "still");
            }
        }
    }
}

#[test]
fn equal_values_are_no_change_however_they_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = loaded(folder.path(), &[]);
    for same in [("log.filter", "info"), ("dns.max_ttl", "60m")] {
        let same = loaded(folder.path(), &[same]);
        assert_eq!(running.changes(&same), Changes::default());
    }
    let wanted = [
        ("log.format", "json"),
        ("dns.servers", "10.0.0.53"),
        ("limits.flows", "1024"),
        ("dns.suffixes", "a.example=10.0.0.53"),
    ];
    let changes = running.changes(&loaded(folder.path(), &wanted));
    let in_place = ["dns.servers", "dns.suffixes", "limits.flows"];
    assert_eq!(changes.in_place, in_place);
    assert_eq!(changes.needs_restart, ["log.format"]);
}
