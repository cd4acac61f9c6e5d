//! What differs between two configurations, and what becomes of it while the gateway runs.
//!
//! Pure: compares what was loaded and says who has to be told. Who tells them is
//! [`crate::reload`].

use super::keys::KEYS;
use super::schema::{Change, Raw};
use super::secret::Secret;
use super::settings::Settings;
use super::types::GatewayConfig;
use std::collections::{BTreeMap, BTreeSet};

/// The value of every key, to be compared with that of another load. The secret among them is
/// compared and never shown.
#[derive(Clone, Debug)]
pub struct Values {
    raw: BTreeMap<&'static str, Option<Raw>>,
    token: Secret,
}

/// Keys with another value, in the order of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Taken over while the gateway runs.
    pub in_place: Vec<&'static str>,
    /// The gateway keeps what it had until it is started anew.
    pub needs_restart: Vec<&'static str>,
}

/// What is to be done about keys that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Other name servers are asked, or trusted by other certificates.
    NameServers,
    /// Answers of name servers are judged otherwise.
    Lookups,
    /// Names and flows are kept otherwise.
    NatTable,
    /// More or fewer clients and resources are admitted.
    Clients,
    /// More or fewer handshakes are answered.
    Handshakes,
    /// Other addresses are offered, or other servers asked for them.
    Addresses,
    /// The portal may be away for longer, or not so long.
    Outage,
    /// The gateway ends in another way.
    Farewell,
    /// Other events are logged.
    LogFilter,
    /// Nothing now: the next process reads it.
    NextProcess,
}

impl Step {
    /// What a change of this key takes; `None` if it takes a restart.
    #[must_use]
    pub fn for_key(path: &str) -> Option<Self> {
        Some(match path {
            "dns.servers" | "dns.suffixes" | "dns.ca_file" => Self::NameServers,
            "dns.min_ttl" | "dns.max_ttl" | "dns.nat64" | "dns.lookups_per_client" => Self::Lookups,
            "dns.last_known_good" | "limits.flows" | "limits.flows_per_client" => Self::NatTable,
            "limits.clients" | "limits.resources_per_client" => Self::Clients,
            "limits.handshakes_per_second" => Self::Handshakes,
            "network.interfaces" | "network.exclude_interfaces" | "network.stun_servers" => {
                Self::Addresses
            }
            "portal.max_outage" => Self::Outage,
            "state.handover" => Self::Farewell,
            "state.max_age" => Self::NextProcess,
            "log.filter" => Self::LogFilter,
            _ => return None,
        })
    }
}

impl Values {
    pub(super) fn new(settings: &Settings, token: Secret) -> Self {
        let all = settings.all.iter();
        Self {
            raw: all
                .map(|setting| (setting.key.path, setting.raw.clone()))
                .collect(),
            token,
        }
    }

    /// What a reload of `wanted` changes about these.
    #[must_use]
    pub fn changes(&self, wanted: &Self) -> Changes {
        let mut changes = Changes::default();
        for key in KEYS {
            let is_token = key.path == TOKEN && self.token.expose() != wanted.token.expose();
            if is_token || self.raw.get(key.path) != wanted.raw.get(key.path) {
                match key.change {
                    Change::InPlace => changes.in_place.push(key.path),
                    Change::Restart => changes.needs_restart.push(key.path),
                }
            }
        }
        changes
    }

    /// Takes over what can be taken over; the rest stays as it is, and differs from `wanted` the
    /// next time as well.
    pub fn adopt(&mut self, wanted: &Self) {
        for key in KEYS.iter().filter(|key| key.change == Change::InPlace) {
            let value = wanted.raw.get(key.path).cloned();
            self.raw.insert(key.path, value.flatten());
        }
    }
}

impl Changes {
    /// The content of a file that the configuration names has changed, though its name has not.
    pub fn add_in_place(&mut self, path: &'static str) {
        if !self.in_place.contains(&path) {
            self.in_place.push(path);
        }
    }

    /// Everything that there is to do, once.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let steps = self.in_place.iter().filter_map(|path| Step::for_key(path));
        steps.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl GatewayConfig {
    /// Takes over what can be taken over while the gateway runs.
    pub fn adopt(&mut self, wanted: &Self) {
        self.portal.max_outage = wanted.portal.max_outage;
        let (network, other) = (&mut self.network, &wanted.network);
        network.interfaces.clone_from(&other.interfaces);
        let excluded = &mut network.exclude_interfaces;
        excluded.clone_from(&other.exclude_interfaces);
        network.stun_servers.clone_from(&other.stun_servers);
        self.dns.clone_from(&wanted.dns);
        self.limits = wanted.limits;
        self.state.handover = wanted.state.handover;
        self.state.max_age = wanted.state.max_age;
        self.log.filter.clone_from(&wanted.log.filter);
    }
}

/// The only key whose value is not among the raw ones.
const TOKEN: &str = "portal.token";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Loaded, load};
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

    fn loaded(folder: &Path, other: &[(&str, &str)]) -> Loaded {
        let path = folder.join("gateway.toml");
        std::fs::write(&path, "[portal]\nurl = \"ws://h:1\"\n").expect("written");
        let variable = |(key, value): &(&str, &str)| {
            let key = crate::config::keys::find(key).expect("a key");
            (key.variable(), (*value).to_owned())
        };
        let token = ("POSTERN__PORTAL__TOKEN".to_owned(), ".t".to_owned());
        let variables = std::iter::once(token).chain(other.iter().map(variable));
        load(&path, &Environment::new(variables)).expect("valid")
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
            let changes = running.values.changes(&wanted.values);
            let mut config = running.config.clone();
            config.adopt(&wanted.config);
            let mut values = running.values.clone();
            values.adopt(&wanted.values);
            let shown = |config: &GatewayConfig| format!("{config:?}");
            match key.change {
                Change::InPlace => {
                    assert_eq!(changes.in_place, [key.path]);
                    assert_eq!(changes.needs_restart, [""; 0], "{}", key.path);
                    assert_eq!(shown(&config), shown(&wanted.config), "{}", key.path);
                    assert_ne!(shown(&config), shown(&running.config), "{}", key.path);
                    assert_eq!(values.changes(&wanted.values), Changes::default());
                    assert_eq!(changes.steps().len(), 1, "{}", key.path);
                }
                Change::Restart => {
                    assert_eq!(changes.needs_restart, [key.path]);
                    assert_eq!(changes.in_place, [""; 0], "{}", key.path);
                    assert_eq!(shown(&config), shown(&running.config), "{}", key.path);
                    assert_eq!(values.changes(&wanted.values), changes, "still");
                    assert_eq!(Step::for_key(key.path), None);
                }
            }
        }
    }

    #[test]
    fn what_is_the_same_is_no_change_and_several_keys_may_take_one_step() {
        let folder = tempfile::tempdir().expect("a folder");
        let running = loaded(folder.path(), &[]);
        let same = loaded(folder.path(), &[("log.filter", "info")]);
        assert_eq!(running.values.changes(&same.values), Changes::default());
        let wanted = [
            ("log.format", "json"),
            ("dns.servers", "10.0.0.53"),
            ("limits.flows", "1024"),
            ("dns.suffixes", "a.example=10.0.0.53"),
        ];
        let mut changes = running
            .values
            .changes(&loaded(folder.path(), &wanted).values);
        let in_place = ["dns.servers", "dns.suffixes", "limits.flows"];
        assert_eq!(changes.in_place, in_place);
        assert_eq!(changes.needs_restart, ["log.format"]);
        changes.add_in_place("dns.ca_file");
        assert_eq!(changes.steps(), [Step::NameServers, Step::NatTable]);
    }
}
