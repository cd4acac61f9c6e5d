//! `client.toml`: read, checked, refused with file, line and column where it is wrong.

use super::stub;
use super::wire::Generation;
use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::Url;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where access is asked for.
    pub portal: PortalConfig,
    /// The interface that applications see.
    #[serde(default)]
    pub tunnel: TunnelConfig,
    /// How paths are found.
    #[serde(default)]
    pub ice: IceConfig,
    /// What becomes of questions for names.
    #[serde(default)]
    pub dns: DnsConfig,
}

/// `[portal]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortalConfig {
    /// `ws://`, `wss://`, `http://` or `https://`.
    #[serde(deserialize_with = "parsed")]
    pub url: Url,
    /// The token itself; or else `token_file`.
    #[serde(default)]
    token: Option<Token>,
    /// A file with the token, relative to the configuration file.
    #[serde(default)]
    token_file: Option<PathBuf>,
    /// Display name.
    pub name: String,
    /// Stable identity; the name when absent.
    #[serde(default)]
    pub id: Option<String>,
    /// Which generation of the protocol to speak.
    #[serde(default = "generation_2")]
    pub generation: Generation,
}

fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn generation_2() -> Generation {
    Generation::V2
}

/// `[tunnel]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TunnelConfig {
    /// Name of the interface to create.
    pub interface: String,
}

impl Default for TunnelConfig {
    fn default() -> Self {
        Self {
            interface: "pclient0".into(),
        }
    }
}

/// `[ice]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IceConfig {
    /// Milliseconds between two rounds of checks while connecting.
    pub check_interval_ms: u64,
    /// Interfaces to use; a `*` at the end matches any rest; empty means all.
    pub interfaces: Vec<String>,
}

impl Default for IceConfig {
    fn default() -> Self {
        Self {
            check_interval_ms: 20,
            interfaces: Vec::new(),
        }
    }
}

impl IceConfig {
    /// The pause between two rounds of checks.
    #[must_use]
    pub fn check_interval(&self) -> Duration {
        Duration::from_millis(self.check_interval_ms)
    }
}

/// `[dns]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsConfig {
    /// Servers for names that are no resource's, asked in this order; none refuses such questions.
    #[serde(deserialize_with = "servers")]
    pub upstream: Vec<SocketAddr>,
}

/// Addresses, with a port or without.
fn servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let server = |text: &String| {
        let with_port = text.parse::<SocketAddr>();
        with_port.or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, stub::PORT).into()))
    };
    let servers: Result<Vec<SocketAddr>, _> = texts.iter().map(server).collect();
    servers.map_err(serde::de::Error::custom)
}

/// A secret. Never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// For the one header that carries it. All white space is gone.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn cleaned(text: &str) -> Self {
        Self(text.split_whitespace().collect())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// One line that names the file and what to change.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// Checks values that types cannot; also called after command-line overrides.
    ///
    /// # Errors
    /// One line that names the key.
    pub fn check(&self) -> anyhow::Result<()> {
        let scheme = self.portal.url.scheme();
        ensure!(
            matches!(scheme, "ws" | "wss" | "http" | "https"),
            "portal.url: scheme is {scheme:?}, must be ws, wss, http or https"
        );
        ensure!(
            self.portal.url.has_host(),
            "portal.url: there is no host in it"
        );
        let interface = &self.tunnel.interface;
        // IFNAMSIZ is 16 with the terminating zero byte.
        ensure!(
            !interface.is_empty()
                && interface.len() <= 15
                && interface.bytes().all(|b| b.is_ascii_graphic() && b != b'/'),
            "tunnel.interface: {interface:?} is no interface name (1 to 15 visible characters)"
        );
        let interval = self.ice.check_interval_ms;
        ensure!(
            (5..=1000).contains(&interval),
            "ice.check_interval_ms: {interval} is not between 5 and 1000"
        );
        for server in &self.dns.upstream {
            ensure!(
                !stub::is_sentinel(server.ip()),
                "dns.upstream: {server} is this client itself"
            );
        }
        Ok(())
    }
}

impl PortalConfig {
    /// The token, from the configuration or its file. Relative paths start at `base`.
    ///
    /// # Errors
    /// When neither or both are given, or the file is unreadable or empty.
    pub fn token(&self, base: &Path) -> anyhow::Result<Token> {
        let token = match (&self.token, &self.token_file) {
            (Some(token), None) => Token::cleaned(token.reveal()),
            (None, Some(path)) => {
                let path = base.join(path);
                let text = std::fs::read_to_string(&path).with_context(|| {
                    format!("portal.token_file: cannot read {}", path.display())
                })?;
                Token::cleaned(&text)
            }
            (Some(_), Some(_)) => bail!("portal: give token or token_file, not both"),
            (None, None) => bail!("portal: token or token_file is missing"),
        };
        ensure!(!token.reveal().is_empty(), "portal: the token is empty");
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        "[portal]\nurl = \"ws://203.0.113.1:8081\"\ntoken = \"t\"\nname = \"a\"\n";

    fn refusal(text: &str) -> String {
        format!("{:#}", Config::parse(text).expect_err("refused"))
    }

    #[test]
    fn defaults_are_filled_in() {
        let config = Config::parse(MINIMAL).expect("valid");
        assert_eq!(config.tunnel.interface, "pclient0");
        assert_eq!(config.ice.check_interval(), Duration::from_millis(20));
        assert_eq!(config.portal.generation, Generation::V2);
    }

    #[test]
    fn the_shipped_file_is_valid() {
        let text = include_str!("../../../../config/client.toml");
        Config::parse(text).expect("valid");
    }

    #[test]
    fn unknown_keys_are_refused_with_their_place() {
        let message = refusal(&format!("{MINIMAL}[ice]\ncheck_intervall_ms = 20\n"));
        assert!(message.contains("line 6"), "{message}");
        assert!(message.contains("check_intervall_ms"), "{message}");
        assert!(message.contains("check_interval_ms"), "{message}");
    }

    #[test]
    fn wrong_values_are_refused_by_key() {
        let message = refusal(&MINIMAL.replace("ws://", "ftp://"));
        assert!(message.contains("portal.url"), "{message}");
        let message = refusal(&format!(
            "{MINIMAL}[tunnel]\ninterface = \"much-too-long-name\"\n"
        ));
        assert!(message.contains("tunnel.interface"), "{message}");
        let message = refusal(&format!("{MINIMAL}[ice]\ncheck_interval_ms = 0\n"));
        assert!(message.contains("ice.check_interval_ms"), "{message}");
    }

    #[test]
    fn upstream_servers_have_port_53_unless_they_say_otherwise() {
        let upstream = |list: &str| format!("{MINIMAL}[dns]\nupstream = {list}\n");
        let config = Config::parse(&upstream(
            r#"["192.0.2.53", "192.0.2.54:5353", "2001:db8::53"]"#,
        ));
        let servers = config.expect("valid").dns.upstream;
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(
            servers,
            ["192.0.2.53:53", "192.0.2.54:5353", "[2001:db8::53]:53"]
        );
        let message = refusal(&upstream(r#"["resolver"]"#));
        assert!(message.contains("line 6"), "{message}");
        let message = refusal(&upstream(r#"["100.100.111.7"]"#));
        assert!(message.contains("dns.upstream"), "{message}");
    }

    #[test]
    fn the_token_comes_from_exactly_one_place_without_white_space() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("tok"), " se cret\n").expect("written");
        let from_file = MINIMAL.replace("token = \"t\"", "token_file = \"tok\"");
        let config = Config::parse(&from_file).expect("valid");
        let token = config.portal.token(dir.path()).expect("readable");
        assert_eq!(token.reveal(), "secret");
        assert_eq!(format!("{token:?}"), "Token(…)");

        let both = format!("{from_file}token = \"t\"\n");
        let config = Config::parse(&both).expect("valid");
        assert!(config.portal.token(dir.path()).is_err());
    }
}
