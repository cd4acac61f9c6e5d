//! Tests of the whole loader, over real files.

mod changes;

use super::keys::{self, KEYS};
use super::problem::{ConfigError, Place};
use super::schema::{self, Change, Presence};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The file that users start from.
const REFERENCE: &str = include_str!("../../../config/gateway.toml");

const MINIMAL: &str = "[portal]\nurl = \"wss://portal.example.com\"\ntoken_file = \"token\"\n";

struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new(toml: impl AsRef<[u8]>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("gateway.toml"), toml).expect("writable");
        fs::write(directory.path().join("token"), " .file\ntoken \n").expect("writable");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn load(&self, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let environment = Environment::new(variables.iter().copied());
        load(&self.path("gateway.toml"), &environment)
    }

    /// Each problem in one line, with the directory cut off.
    fn problems(&self, variables: &[(&str, &str)]) -> Vec<String> {
        let error = self.load(variables).expect_err("must be refused");
        let directory = format!("{}/", self.directory.path().display());
        let shown = error.to_string().replace(&directory, "");
        shown.lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_reference_file_sets_every_key_to_its_default() {
    let keys = |toml: &str| {
        let document: toml::Table = toml.parse().expect("TOML");
        let mut keys = BTreeMap::new();
        for (section, table) in document {
            for (name, value) in table.as_table().expect("a section") {
                keys.insert(format!("{section}.{name}"), value.to_string());
            }
        }
        keys
    };
    let active = keys(REFERENCE);
    // `# key = value` at the start of a line is a key that is not set; prose never looks like that.
    let uncommented: String = REFERENCE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_assignment(rest) => format!("{rest}\n"),
            Some(_) | None => format!("{line}\n"),
        })
        .collect();
    let mut documented = keys(&uncommented);
    for key in KEYS {
        let written = documented.remove(key.path);
        match key.presence {
            Presence::Default(default) => {
                assert_eq!(
                    active.get(key.path).map(String::as_str),
                    Some(default),
                    "{}",
                    key.path
                );
            }
            Presence::Required => assert!(active.contains_key(key.path), "{}", key.path),
            Presence::Optional(_) => {
                assert!(!active.contains_key(key.path), "{}", key.path);
                assert_eq!(written.as_deref(), Some(key.example()), "{}", key.path);
            }
            Presence::EnvironmentOnly => {
                assert_eq!(written, None, "{}", key.path);
                assert!(REFERENCE.contains(&key.variable()), "{}", key.path);
            }
        }
    }
    assert_eq!(
        documented,
        BTreeMap::new(),
        "keys that the table does not know"
    );
}

/// The paragraph of comments above each key of the reference file.
fn paragraphs() -> BTreeMap<String, String> {
    let mut paragraphs = BTreeMap::new();
    let (mut section, mut paragraph) = ("", String::new());
    for line in REFERENCE.lines() {
        let uncommented = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if line.is_empty() {
            paragraph.clear();
        } else if is_assignment(uncommented) && !section.is_empty() {
            let name = uncommented.split(" = ").next().expect("an assignment");
            paragraphs.insert(format!("{section}.{name}"), paragraph.clone());
        } else {
            paragraph += uncommented;
            paragraph += " ";
        }
    }
    paragraphs
}

/// The paragraph of comments above a key says what a change of it takes.
#[test]
fn the_reference_file_marks_the_keys_that_need_a_restart() {
    let marked = paragraphs().into_iter();
    let marked = marked.map(|(key, paragraph)| (key, paragraph.contains("(restart)")));
    let in_file = KEYS
        .iter()
        .filter(|key| key.presence != Presence::EnvironmentOnly);
    let expected = in_file.map(|key| (key.path.to_owned(), key.change == Change::Restart));
    assert_eq!(marked.collect::<BTreeMap<_, _>>(), expected.collect());
}

#[test]
fn the_reference_file_says_the_unit_and_the_range_of_each_key() {
    let paragraphs = paragraphs();
    for key in KEYS {
        let paragraph = paragraphs.get(key.path).map(|it| it.to_lowercase());
        let is_said = |word: &str| paragraph.as_ref().is_some_and(|it| it.contains(word));
        let mut unit = key.unit.split_ascii_whitespace();
        assert_eq!(unit.find(|word| !is_said(word)), None, "{}", key.path);
        let whole: Option<_> = Some(0..=65_535);
        if let Some(range) = key.range.as_ref().filter(|_| key.range != whole) {
            let range = format!("{} to {}", range.start(), range.end());
            assert!(is_said(&range), "{}: {range}", key.path);
        }
    }
}

fn is_assignment(text: &str) -> bool {
    let name = text.split(" = ").next().unwrap_or_default();
    text.contains(" = ")
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// Defaults and examples must themselves pass the checks that they explain.
#[test]
fn defaults_and_examples_of_the_table_are_valid() {
    for key in KEYS
        .iter()
        .filter(|key| key.presence != Presence::EnvironmentOnly)
    {
        let (section, name) = key.parts();
        let mut values = vec![key.example()];
        if let Presence::Default(default) = key.presence {
            values.push(default);
        }
        for value in values {
            let fixture = Fixture::new(format!("[{section}]\n{name} = {value}\n"));
            let variables = [
                ("POSTERN__PORTAL__TOKEN", "t"),
                ("POSTERN__PORTAL__URL", "ws://h:1"),
            ];
            let variables = &variables[..if key.path == "portal.url" { 1 } else { 2 }];
            let loaded = fixture.load(variables);
            assert!(loaded.is_ok(), "{} = {value}: {:?}", key.path, loaded.err());
        }
    }
}

#[test]
fn the_reference_file_loads_to_the_documented_defaults() {
    let fixture = Fixture::new(REFERENCE);
    let config = fixture
        .load(&[("POSTERN__PORTAL__TOKEN", "t")])
        .expect("valid")
        .config;
    assert_eq!(config.portal.url.as_str(), "wss://portal.example.com/");
    assert_eq!(config.portal.generation, Generation::Auto);
    assert_eq!(config.portal.max_outage, Duration::from_secs(24 * 3600));
    assert_eq!(config.portal.id, None);
    assert_eq!(config.network.udp_port, 52625);
    assert_eq!(config.network.receive_buffer_bytes, 16 << 20);
    assert_eq!(config.network.exclude_interfaces.len(), 4);
    assert_eq!(config.tunnel.interface.as_str(), "postern0");
    assert!(config.tunnel.masquerade && config.tunnel.forwarding);
    assert_eq!(config.limits.clients, 10_000);
    assert_eq!(config.limits.flows, 262_144);
    assert_eq!(config.limits.flows_per_client, 16_384);
    assert_eq!(
        (config.dns.servers.len(), config.dns.suffixes.len()),
        (0, 0)
    );
    assert_eq!(config.dns.max_ttl, Duration::from_secs(3600));
    assert_eq!(config.dns.last_known_good, Duration::from_secs(24 * 3600));
    assert!(!config.dns.nat64);
    assert_eq!((config.state.enabled, config.state.handover), (true, false));
    let file = PathBuf::from("/run/postern/gateway.state");
    assert_eq!(config.state.file, file);
    assert_eq!(config.state.max_age, Duration::from_secs(300));
    assert_eq!(config.log, LogConfig::default());
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.log.filter.as_str(), "info");
}

#[test]
fn relative_paths_in_the_file_are_relative_to_the_file() {
    let fixture = Fixture::new(format!("{MINIMAL}id_file = \"state/id\"\n"));
    let config = fixture.load(&[]).expect("valid").config;
    assert_eq!(config.portal.token.expose(), ".filetoken");
    assert_eq!(config.portal.id_file, fixture.path("state/id"));
}

#[test]
fn the_state_is_known_without_a_token_or_a_portal() {
    let fixture = Fixture::new("[state]\nfile = \"gateway.state\"\nmax_age = \"1s\"\n");
    let state = |variables: &[(&'static str, &'static str)]| {
        let environment = Environment::new(variables.iter().copied());
        load_state(&fixture.path("gateway.toml"), &environment)
    };
    let read = state(&[("POSTERN__STATE__HANDOVER", "true")]).expect("valid");
    assert_eq!(read.file, fixture.path("gateway.state"));
    assert_eq!((read.enabled, read.handover), (true, true));
    assert_eq!(read.max_age, Duration::from_secs(1));
    let refused = state(&[("POSTERN__STATE__MAX_AGE", "10ms")]).expect_err("too short");
    assert!(refused.to_string().contains("shorter than a second"));
}

#[test]
fn name_servers_are_typed_or_refused_with_their_place() {
    let toml = |dns: &str| format!("{MINIMAL}[dns]\n{dns}");
    let good = "servers = [\"10.0.0.53\", \"tls://[fd00::53]#dns.corp.example\"]\n\
                suffixes = [\"corp.example=tcp://10.1.0.53\"]\nca_file = \"ca.pem\"\n";
    let fixture = Fixture::new(toml(good));
    let dns = fixture.load(&[]).expect("valid").config.dns;
    assert_eq!(
        dns.servers[1].to_string(),
        "tls://[fd00::53]:853#dns.corp.example"
    );
    assert_eq!(dns.suffixes[0].domain.as_str(), "corp.example");
    assert_eq!(dns.ca_file, Some(fixture.path("ca.pem")));
    let bad = "servers = [\"dns.example\"]\nsuffixes = [\"10.1.0.53\"]\n\
               min_ttl = \"2m\"\nmax_ttl = \"1m\"\nserver = 1\n";
    let expected = [
        "gateway.toml:5:12: dns.servers: found \"dns.example\" (no IP address; the name of a server cannot be \
         looked up), expected a list; each item: an IP address, or udp://, tcp://, tls:// or \
         https:// and one; #NAME at the end names the certificate of the last two; for example \
         servers = [\"10.0.0.53\", \"tls://10.0.0.54#dns.corp.example\"]",
        "gateway.toml:6:13: dns.suffixes: found \"10.1.0.53\" (the = between domain and server is missing), \
         expected a list; each item: a domain, = and the address of a server for it; for example \
         suffixes = [\"corp.example=10.1.0.53\"]",
        "gateway.toml:9:1: unknown key \"dns.server\"; did you mean \"dns.servers\"?",
        "gateway.toml:8:1: dns.min_ttl = \"2m\" is longer than dns.max_ttl = \"1m\"; raise dns.max_ttl or lower \
         dns.min_ttl",
    ];
    assert_eq!(Fixture::new(toml(bad)).problems(&[]), expected);
    let long = toml("min_ttl = \"2h\"\n");
    let problems = Fixture::new(long).problems(&[]);
    assert!(
        problems[0].starts_with("gateway.toml:5:1: dns.min_ttl"),
        "{problems:?}"
    );
}

/// docs/lessons.md 34: other gateways take typos in the configuration silently.
#[test]
fn every_problem_is_reported_with_its_place_and_a_suggestion() {
    let fixture = Fixture::new(
        "prtal.url = \"wss://portal.example.com\"\n\
         [network]\n\
         udp_prot = 1\n\
         udp_port = 70000\n\
         stun_servers = [\"192.0.2.1:3478\", \"192.0.2.2\", 7]\n\
         interfaces = \"eth0\"\n\
         [portal]\n\
         token_file = \"token\"\n\
         max_outage = 3600\n\
         generation = \"v3\"\n\
         id.nested = 3\n\
         [[limits]]\n\
         clients = 1\n\
         [tunel]\n\
         [log]\n\
         filter = \"inof\"\n",
    );
    let expected = [
        "gateway.toml:1:1: unknown key \"prtal.url\"; did you mean \"portal.url\"?",
        "gateway.toml:3:1: unknown key \"network.udp_prot\"; did you mean \"network.udp_port\"?",
        "gateway.toml:4:12: network.udp_port: found the number 70000, expected a whole number from 0 to 65535; \
         for example udp_port = 52625",
        "gateway.toml:5:35: network.stun_servers: found \"192.0.2.2\" (the port is missing), expected a list; \
         each item: an IP address and a port; for example stun_servers = [\"192.0.2.1:3478\", \"[2001:db8::1]:3478\"]",
        "gateway.toml:5:48: network.stun_servers: found the number 7, expected a list; \
         each item: an IP address and a port; for example stun_servers = [\"192.0.2.1:3478\", \"[2001:db8::1]:3478\"]",
        "gateway.toml:6:14: network.interfaces: found the text \"eth0\", expected a list; each item: an interface \
         name or a pattern with * and ?; for example interfaces = [\"eth0\", \"wlan*\"]",
        "gateway.toml:9:14: portal.max_outage: found the number 3600, expected a duration with a unit \
         (s, m, h, days), at least 1s; for example max_outage = \"24h\"",
        "gateway.toml:10:14: portal.generation: found \"v3\", expected one of \"auto\", \"v2\", \"v1\"; \
         for example generation = \"auto\"",
        "gateway.toml:11:1: portal.id: found a table, expected a text that is not empty; \
         for example id = \"edge-gateway-1\"",
        "gateway.toml:12:3: \"limits\" is a section, found a list of tables; write [limits] and its keys below",
        "gateway.toml:14:2: unknown section \"tunel\"; did you mean \"tunnel\"?",
        "gateway.toml:16:10: log.filter: found \"inof\" (\"inof\" is neither a level nor target=level), expected \
         levels (off, error, warn, info, debug, trace) and target=level, separated by commas; \
         for example filter = \"info,postern::actors=debug\"",
        "POSTERN__LOG__FORMAT: log.format: found \"xml\", expected one of \"text\", \"json\"; \
         for example format = \"text\"",
        "POSTERN__NETWORK__UPD_PORT: unknown variable; did you mean \"POSTERN__NETWORK__UDP_PORT\"?",
    ];
    let variables = [
        ("POSTERN__NETWORK__UPD_PORT", "1"),
        ("POSTERN__LOG__FORMAT", "xml"),
    ];
    assert_eq!(fixture.problems(&variables), expected);
}

#[test]
fn a_token_in_the_file_is_refused_without_being_shown() {
    let fixture = Fixture::new("[portal]\nurl = \"ws://h:1\"\n  token = \"s3cr3t\"\n");
    let problems = fixture.problems(&[]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("gateway.toml:3:3: portal.token must not be in this file;"));
    assert!(problems[0].contains("token_file") && !problems[0].contains("s3cr3t"));
}

#[test]
fn a_password_in_the_address_is_refused_without_being_shown() {
    let fixture = Fixture::new("[portal]\nurl = \"ws://me:s3cr3t@h:1\"\ntoken_file = \"token\"\n");
    let problems = fixture.problems(&[]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(!problems[0].contains("s3cr3t"), "{problems:?}");
}

#[test]
fn text_that_is_not_toml_is_reported_with_its_place_only() {
    let fixture = Fixture::new("[portal]\nurl = wss://portal.example.com\n");
    let problems = fixture.problems(&[]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("gateway.toml:2:"), "{problems:?}");
    assert!(problems[0].contains("not valid TOML"), "{problems:?}");
}

#[test]
fn a_missing_key_is_explained() {
    let fixture = Fixture::new("[portal]\ntoken_file = \"token\"\n");
    let expected = "gateway.toml: portal.url is missing: Base address of the portal's websocket. \
         Write url = \"wss://portal.example.com\" under [portal], or set POSTERN__PORTAL__URL";
    assert_eq!(fixture.problems(&[]), [expected]);
}

#[test]
fn the_environment_beats_the_file_and_lists_are_separated_by_commas() {
    let fixture = Fixture::new(format!("{MINIMAL}[network]\nudp_port = 1\n"));
    let loaded = fixture.load(&[
        ("POSTERN__NETWORK__UDP_PORT", "2"),
        (
            "POSTERN__NETWORK__STUN_SERVERS",
            "192.0.2.1:3478, [2001:db8::1]:3478",
        ),
        ("POSTERN__NETWORK__EXCLUDE_INTERFACES", ""),
        ("POSTERN__TUNNEL__MASQUERADE", "false"),
    ]);
    let network = loaded
        .as_ref()
        .map(|loaded| loaded.config.network.clone())
        .expect("valid");
    assert_eq!(network.udp_port, 2);
    assert_eq!(network.stun_servers.len(), 2);
    assert_eq!(network.exclude_interfaces, []);
    let loaded = loaded.expect("valid");
    assert!(!loaded.config.tunnel.masquerade);
    let shown = loaded.effective.to_string();
    let line = shown
        .lines()
        .find(|line| line.starts_with("network.udp_port"));
    assert!(
        line.is_some_and(|line| line.ends_with("# env POSTERN__NETWORK__UDP_PORT (restart)")),
        "{shown}"
    );
}

#[test]
fn rust_log_counts_between_our_variable_and_the_file() {
    let fixture = Fixture::new(format!("{MINIMAL}[log]\nfilter = \"warn\"\n"));
    let filter = |variables: &[(&str, &str)]| -> String {
        let log = fixture.load(variables).expect("valid").config.log;
        log.filter.as_str().to_owned()
    };
    assert_eq!(filter(&[]), "warn");
    assert_eq!(filter(&[("RUST_LOG", "")]), "warn");
    assert_eq!(filter(&[("RUST_LOG", "debug")]), "debug");
    assert_eq!(
        filter(&[("RUST_LOG", "debug"), ("POSTERN__LOG__FILTER", "trace")]),
        "trace"
    );
}

#[test]
fn exactly_one_source_of_the_token_counts() {
    let fixture = Fixture::new(MINIMAL);
    let credentials = fixture.path("credentials");
    fs::create_dir(&credentials).expect("writable");
    fs::write(credentials.join("POSTERN_TOKEN"), ".credential").expect("writable");
    fs::write(fixture.path("other"), ".other").expect("writable");
    let credentials = credentials.display().to_string();
    let other = fixture.path("other").display().to_string();
    let token = |fixture: &Fixture, variables: &[(&str, &str)]| {
        let config = fixture.load(variables).expect("valid").config;
        config.portal.token.expose().to_owned()
    };
    let systemd = ("CREDENTIALS_DIRECTORY", credentials.as_str());
    let file = ("POSTERN__PORTAL__TOKEN_FILE", other.as_str());
    let variable = ("POSTERN__PORTAL__TOKEN", ".variable");
    assert_eq!(token(&fixture, &[systemd, file, variable]), ".variable");
    assert_eq!(token(&fixture, &[systemd, file]), ".other");
    assert_eq!(token(&fixture, &[systemd]), ".filetoken");
    let without = Fixture::new("[portal]\nurl = \"ws://h:1\"\n");
    assert_eq!(token(&without, &[systemd]), ".credential");
}

#[test]
fn a_source_of_the_token_that_does_not_work_is_not_passed_over() {
    let fixture = Fixture::new(MINIMAL);
    let empty = fixture.problems(&[("POSTERN__PORTAL__TOKEN", " ")]);
    assert_eq!(
        empty,
        ["POSTERN__PORTAL__TOKEN: is empty; set it to the token, or unset it"]
    );
    fs::write(fixture.path("token"), "\n").expect("writable");
    let empty = fixture.problems(&[]);
    assert!(
        empty[0].starts_with("gateway.toml:3:1: portal.token_file \"token\" is empty; put"),
        "{empty:?}"
    );
    fs::remove_file(fixture.path("token")).expect("removable");
    let missing = fixture.problems(&[]);
    assert!(missing[0].contains("does not exist"), "{missing:?}");
    fs::create_dir(fixture.path("token")).expect("writable");
    let directory = fixture.problems(&[]);
    assert!(
        directory[0].contains("is not a regular file"),
        "{directory:?}"
    );
    let none = Fixture::new("[portal]\nurl = \"ws://h:1\"\n").problems(&[]);
    assert!(
        none[0].contains("there is no token") && none[0].contains("LoadCredential="),
        "{none:?}"
    );
}

#[test]
fn a_variable_with_one_underscore_is_pointed_out() {
    let fixture = Fixture::new(MINIMAL);
    let variables = [
        ("POSTERN_PORTAL_URL", "ws://h:1"),
        ("POSTERN_SERVICE_HOST", "192.0.2.1"),
    ];
    let warnings = fixture.load(&variables).expect("valid").warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("POSTERN__PORTAL__URL"), "{warnings:?}");
}

#[test]
fn files_that_are_no_configuration_are_refused_in_one_line() {
    let fixture = Fixture::new([0xff, 0xfe, 0x00]);
    assert!(fixture.problems(&[])[0].contains("is not UTF-8 text"));
    fs::remove_file(fixture.path("gateway.toml")).expect("removable");
    assert!(fixture.problems(&[])[0].starts_with("gateway.toml: does not exist; name a"));
    fs::create_dir(fixture.path("gateway.toml")).expect("writable");
    assert!(fixture.problems(&[])[0].starts_with("gateway.toml: cannot be read"));
}

#[test]
fn what_check_shows_is_toml_and_hides_the_token() {
    let fixture = Fixture::new(MINIMAL);
    let shown = fixture.load(&[]).expect("valid").effective.to_string();
    assert!(!shown.contains("filetoken"), "{shown}");
    let document: toml::Table = shown.parse().expect("TOML");
    assert_eq!(document["network"]["udp_port"].as_integer(), Some(52625));
    for key in KEYS {
        assert!(shown.contains(key.path), "{} is not shown", key.path);
    }
}

/// TOML that is nearly a configuration: known and unknown sections and keys, any kind of value.
fn nearly_a_configuration() -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = KEYS.iter().map(|key| key.parts().1).chain(["x"]).collect();
    let sections: Vec<&'static str> = keys::sections().into_iter().chain(["y"]).collect();
    let value = prop_oneof![
        Just("[]".to_owned()),
        Just("{ a = 1 }".to_owned()),
        Just("1979-05-27".to_owned()),
        Just("nan".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<bool>().prop_map(|flag| flag.to_string()),
        "[ -~]{0,20}".prop_map(|text| format!("{text:?}")),
        "[a-z*?:.0-9]{0,20}".prop_map(|text| format!("[{text:?}, 1]")),
    ];
    let entry = (prop::sample::select(names), value);
    let section = (
        prop::sample::select(sections),
        prop::collection::vec(entry, 0..4),
    );
    prop::collection::vec(section, 0..4).prop_map(|sections| {
        let mut toml = String::new();
        for (section, entries) in sections {
            toml += &format!("[{section}]\n");
            for (name, value) in entries {
                toml += &format!("{name} = {value}\n");
            }
        }
        toml
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic_the_loader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Fixture::new(bytes).load(&[]);
    }

    #[test]
    fn arbitrary_text_never_panics_the_loader(text in "[a-z\\[\\]{}=.,\"'# \n\u{e9}0-9_-]{0,120}") {
        let _ = Fixture::new(text).load(&[]);
    }

    /// A configuration is either typed or refused with positions inside the file; the table of keys
    /// and the types never disagree, which would show as a problem of the whole file.
    #[test]
    fn near_misses_are_typed_or_refused_with_a_position(toml in nearly_a_configuration()) {
        let fixture = Fixture::new(&toml);
        let lines = toml.lines().count().max(1);
        let variables = [("POSTERN__PORTAL__TOKEN", "t"), ("POSTERN__PORTAL__URL", "ws://h:1")];
        if let Err(error) = fixture.load(&variables) {
            for problem in error.problems {
                let Place::File { line, column, .. } = problem.place else {
                    return Err(TestCaseError::fail(problem.to_string()));
                };
                prop_assert!(line <= lines && column >= 1, "{}:{} {}", line, column, toml);
            }
        }
    }

    #[test]
    fn arbitrary_variables_never_panic_the_loader(
        key in prop::sample::select(KEYS.iter().map(schema::Key::variable).collect::<Vec<_>>()),
        // No value of an environment holds a zero byte.
        value in prop::collection::vec(1u8..=255, 0..40),
    ) {
        use std::os::unix::ffi::OsStringExt;
        let fixture = Fixture::new(MINIMAL);
        let value = std::ffi::OsString::from_vec(value);
        let _ = load(&fixture.path("gateway.toml"), &Environment::new([(key, value)]));
    }
}
