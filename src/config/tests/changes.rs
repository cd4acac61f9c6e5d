//! What a reload takes over, key by key.

use crate::config::keys::{self, KEYS};
use crate::config::problem::ConfigError;
use crate::config::schema::{Change, Key};
use crate::config::{Changes, Environment, GatewayConfig, load};
use std::path::Path;

fn load_with(folder: &Path, other: &[(&str, &str)]) -> Result<GatewayConfig, ConfigError> {
    let path = folder.join("gateway.toml");
    std::fs::write(&path, "[portal]\nurl = \"ws://h:1\"\n").expect("written");
    let variable = |(key, value): &(&str, &str)| {
        let key = keys::find(key).expect("a key");
        (key.variable(), (*value).to_owned())
    };
    let token = ("POSTERN__PORTAL__TOKEN".to_owned(), ".t".to_owned());
    let variables = std::iter::once(token).chain(other.iter().map(variable));
    load(&path, &Environment::new(variables)).map(|loaded| loaded.config)
}

fn loaded(folder: &Path, other: &[(&str, &str)]) -> GatewayConfig {
    load_with(folder, other).expect("valid")
}

/// The configuration with another value of a key: its example, or the first value that it takes.
fn changed(folder: &Path, key: &Key, running: &GatewayConfig) -> GatewayConfig {
    let example = key.example().trim_start_matches('[').trim_end_matches(']');
    let example = example.replace('"', "");
    let least = key.range.as_ref().map(|range| range.start().to_string());
    let values = [example, least.unwrap_or_default(), "other".to_owned()].into_iter();
    let words = ["v1", "json", "true", "false", "7s", ""].map(str::to_owned);
    let configs = values.chain(words);
    let configs = configs.flat_map(|value| load_with(folder, &[(key.path, &value)]));
    let mut others = configs.filter(|config| config != running);
    others.next().expect("a value that is not the default")
}

/// The list says what is taken over, and the code that does it says the same: key by key.
#[test]
fn every_key_is_taken_over_or_named_as_needing_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let running = loaded(folder.path(), &[]);
    for key in KEYS {
        let wanted = changed(folder.path(), key, &running);
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
