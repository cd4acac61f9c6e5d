//! Good files are read exactly; bad ones are refused with the right position.

use super::*;
use crate::portal::derive::uuid_of;
use postern_core::portal::wire::PortRange;

/// A file with every kind of entry; tests replace single lines.
const GOOD: &str = r#"listen = ["203.0.113.1:8081"]

[[relays]]
addr = ["203.0.113.1:3478", "[2001:db8::1]:3478"]
secret = "stamp-secret-1"

[[sites]]
name = "lab"

[[gateways]]
name = "gw"
token = "gw-token"
site = "lab"
ipv4 = "100.64.0.1"
ipv6 = "fd00:2021:1111::1"

[[clients]]
name = "alice-laptop"
token = "alice-token"
ipv4 = "100.64.1.2"
ipv6 = "fd00:2021:1111::102"

[[resources]]
name = "web"
type = "cidr"
address = "10.20.0.0/24"
site = "lab"
filters = ["tcp/80", "tcp/8000-8100", "udp/53", "icmp"]

[[resources]]
name = "corp"
type = "dns"
address = "*.corp.example"
site = "lab"

[[resources]]
name = "everything"
type = "internet"
site = "lab"

[[policies]]
client = "*"
resource = "web"
expires_in = "8h"

[[policies]]
client = "alice-laptop"
resource = "web"
expires_in = "30min"

[[policies]]
client = "alice-laptop"
resource = "corp"
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("."))
}

fn error(text: &str) -> String {
    parse(text).expect_err("refused").to_string()
}

/// The good file with one line replaced.
fn with(line: &str, replacement: &str) -> String {
    assert!(GOOD.contains(line), "{line}");
    GOOD.replacen(line, replacement, 1)
}

#[test]
fn a_good_file_is_read_exactly() {
    let config = parse(GOOD).expect("good");
    assert_eq!(config.account, "lab");
    assert!(config.service.takeover);
    let gateway = &config.gateways[&uuid_of("gateway", "gw")];
    assert_eq!(gateway.token, "gw-token");
    assert_eq!(
        gateway.site.as_ref().map(|site| site.id),
        Some(uuid_of("site", "lab"))
    );
    let web = &config.resources[&uuid_of("resource", "web")];
    let ports = |port_range_start, port_range_end| PortRange {
        port_range_start,
        port_range_end,
    };
    assert_eq!(
        web.filters,
        [
            Filter::Tcp(ports(80, 80)),
            Filter::Tcp(ports(8000, 8100)),
            Filter::Udp(ports(53, 53)),
            Filter::Icmp
        ]
    );
    assert_eq!(config.relays[0].addresses.len(), 2);
}

#[test]
fn a_clients_own_policy_wins_over_the_one_for_all() {
    let config = parse(GOOD).expect("good");
    let web = uuid_of("resource", "web");
    let lifetime = |client| {
        config
            .policy(client, web)
            .and_then(|policy| policy.expires_in)
    };
    let alice = uuid_of("client", "alice-laptop");
    assert_eq!(lifetime(alice), Some(Duration::from_secs(1800)));
    assert_eq!(lifetime(Uuid::nil()), Some(Duration::from_secs(8 * 3600)));
    let visible: Vec<_> = config.visible_to(alice).map(|(_, it)| &it.name).collect();
    assert_eq!(visible.len(), 2);
    assert!(!visible.contains(&&"everything".to_owned()));
}

/// docs/lessons.md 34: an unknown key is a mistake and not ignored.
#[test]
fn an_unknown_key_is_refused_with_its_position() {
    let message = error(&with("site = \"lab\"\nipv4", "sight = \"lab\"\nipv4"));
    assert!(
        message.starts_with("13:1: unknown field `sight`"),
        "{message}"
    );
    let message = error(&format!("lisen = []\n{GOOD}"));
    assert!(
        message.starts_with("1:1: unknown field `lisen`, expected one of `account`, `listen`"),
        "{message}"
    );
    assert!(message.ends_with("; did you mean `listen`?"), "{message}");
}

#[test]
fn a_syntax_error_is_refused_with_its_position() {
    let message = error(&with("token = \"gw-token\"", "token = gw-token"));
    assert!(message.starts_with("12:"), "{message}");
}

#[test]
fn unknown_names_are_refused_with_the_known_ones() {
    let message = error(&with("site = \"lab\"\nipv4", "site = \"lob\"\nipv4"));
    assert_eq!(message, "13:8: there is no site \"lob\"; known: lab");
    let message = error(&with("resource = \"corp\"", "resource = \"crop\""));
    assert!(
        message.contains("known: corp, everything, web"),
        "{message}"
    );
}

#[test]
fn mistakes_of_meaning_are_refused() {
    let cases = [
        (
            "ipv4 = \"100.64.1.2\"",
            "ipv4 = \"10.0.0.2\"",
            "tunnel addresses lie in",
        ),
        (
            "ipv4 = \"100.64.1.2\"",
            "ipv4 = \"100.96.0.1\"",
            "tunnel addresses lie in",
        ),
        (
            "ipv4 = \"100.64.1.2\"",
            "ipv4 = \"100.64.0.1\"",
            "another device has the address",
        ),
        (
            "ipv4 = \"100.64.1.2\"",
            "ipv4 = \"100.64.1.2/32\"",
            "without prefix",
        ),
        ("10.20.0.0/24", "10.20.0.5/24", "10.20.0.0/24 is meant?"),
        ("*.corp.example", "corp..example", "a name or a pattern"),
        (
            "\"cidr\"",
            "\"cider\"",
            "unknown variant `cider`, expected one of `cidr`, `dns`, `internet`",
        ),
        ("address = \"10.20.0.0/24\"\n", "", "needs an address"),
        ("\"tcp/80\"", "\"tcp/90-80\"", "ports are written"),
        ("\"tcp/80\"", "\"tcp/70000\"", "ports are written"),
        ("\"icmp\"", "\"icmp/8\"", "a filter is"),
        ("\"icmp\"", "\"sctp\"", "a filter is"),
        ("\"8h\"", "\"8 parsecs\"", "a duration such as"),
        ("\"8h\"", "\"0s\"", "a second at least"),
        (
            "client = \"*\"",
            "client = \"alice-laptop\"",
            "already a policy",
        ),
        (
            "token = \"gw-token\"",
            "token = \" \"",
            "the token is empty",
        ),
        ("token = \"gw-token\"\n", "", "needs token or token_file"),
        ("203.0.113.1:8081", "203.0.113.1", "is not an address"),
        ("[\"203.0.113.1:8081\"]", "[]", "listen is missing"),
        ("secret = \"stamp-secret-1\"\n", "", "needs secret_file"),
        (
            "name = \"corp\"",
            "name = \"web\"",
            "two resources with this name",
        ),
        ("site = \"lab\"\nipv4", "ipv4", "needs a site"),
        (
            "token = \"alice-token\"",
            "token = \"alice-token\"\nsite = \"lab\"",
            "a client has no site",
        ),
    ];
    for (line, replacement, expected) in cases {
        let message = error(&with(line, replacement));
        assert!(message.contains(expected), "{replacement}: {message}");
    }
}

#[test]
fn a_mistake_in_a_list_has_the_position_of_its_element() {
    let message = error(&with("\"tcp/8000-8100\"", "\"tcp/8100-8000\""));
    assert!(message.starts_with("28:22: ports are written"), "{message}");
    let message = error(&with("ipv4 = \"100.64.1.2\"", "ipv4 = \"100.64.0.1\""));
    assert!(message.starts_with("20:8: another device"), "{message}");
}

#[test]
fn tokens_and_secrets_are_read_from_files_beside_the_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("gw.token"), " to ken\n").expect("written");
    let text = with("token = \"gw-token\"", "token_file = \"gw.token\"").replace(
        "secret = \"stamp-secret-1\"",
        "secret_file = \"relay.secret\"",
    );
    let config = Config::parse(&text, dir.path()).expect("good");
    assert_eq!(config.gateways[&uuid_of("gateway", "gw")].token, "token");
    let secret = std::fs::read_to_string(dir.path().join("relay.secret")).expect("made");
    assert_eq!(config.relays[0].secret, secret.trim());

    let missing = with("token = \"gw-token\"", "token_file = \"none.token\"");
    let message = Config::parse(&missing, dir.path())
        .expect_err("refused")
        .to_string();
    assert!(message.starts_with("12:14: cannot read"), "{message}");
}

#[test]
fn the_documented_example_is_good() {
    let text = include_str!("../../../../../config/portal.toml");
    let dir = tempfile::tempdir().expect("a directory");
    for name in ["gw.token", "alice.token"] {
        std::fs::write(dir.path().join(name), name).expect("written");
    }
    let config = Config::parse(text, dir.path()).expect("good");
    assert!(!config.gateways.is_empty() && !config.clients.is_empty());
    assert!(!config.resources.is_empty() && !config.policies.is_empty());
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let shown = format!("{:?}", parse(GOOD).expect("good"));
    for secret in ["gw-token", "alice-token", "stamp-secret-1"] {
        assert!(!shown.contains(secret));
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in ".{0,300}") {
        let _ = parse(&text);
    }

    #[test]
    fn a_cut_or_damaged_file_never_panics(at in 0..GOOD.len(), byte in 0_u8..128) {
        let mut bytes = GOOD.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = parse(&String::from_utf8(bytes).expect("ASCII"));
        let _ = parse(&GOOD[..at]);
    }
}
