//! `client.toml`: read and checked; a mistake is refused with file, line and column.

use super::addresses::{DNS_PORT, is_sentinel};
use super::wire::Generation;
use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use url::Url;

/// All sections of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub portal: PortalConfig,
    #[serde(default)]
    pub tunnel: TunnelConfig,
    #[serde(default)]
    pub ice: IceConfig,
    #[serde(default)]
    pub dns: DnsConfig,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortalConfig {
    #[serde(deserialize_with = "parsed")]
    pub url: PortalUrl,
    /// The token itself; excludes `token_file`.
    token: Option<Token>,
    /// A file with the token, relative to the configuration file.
    token_file: Option<PathBuf>,
    /// Name that the portal shows.
    pub name: String,
    /// Stable identity; the name by default.
    pub id: Option<String>,
    #[serde(default)]
    pub generation: Generation,
}

/// A portal's base URL: `ws`, `wss`, `http` or `https`, with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalUrl(pub Url);

impl FromStr for PortalUrl {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let url = Url::parse(text).context("portal.url")?;
        let scheme = url.scheme();
        ensure!(
            matches!(scheme, "ws" | "wss" | "http" | "https"),
            "portal.url: scheme is {scheme:?}, must be ws, wss, http or https"
        );
        ensure!(url.has_host(), "portal.url: there is no host in it");
        Ok(Self(url))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TunnelConfig {
    /// Name of the interface to create.
    #[serde(deserialize_with = "parsed")]
    pub interface: InterfaceName,
}

impl Default for TunnelConfig {
    fn default() -> Self {
        Self {
            interface: InterfaceName("pclient0".into()),
        }
    }
}

/// A name that the kernel accepts for an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(pub String);

impl FromStr for InterfaceName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let is_visible = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        ensure!(
            // IFNAMSIZ is 16 with the terminating zero byte.
            (1..=15).contains(&text.len()) && text.bytes().all(is_visible),
            "tunnel.interface: {text:?} is no interface name (1 to 15 visible characters)"
        );
        Ok(Self(text.to_owned()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IceConfig {
    /// Pause between two rounds of checks while connecting.
    #[serde(rename = "check_interval_ms", deserialize_with = "check_interval")]
    pub check_interval: Duration,
    /// Interfaces to use; a `*` at the end matches any rest; empty means all.
    pub interfaces: Vec<String>,
}

impl Default for IceConfig {
    fn default() -> Self {
        Self {
            check_interval: Duration::from_millis(20),
            interfaces: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DnsConfig {
    /// Servers for names outside all resources, asked in this order. Without any, the client
    /// refuses queries for such names.
    #[serde(deserialize_with = "upstream")]
    pub upstream: Vec<SocketAddr>,
}

fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = anyhow::Error>,
{
    let text = String::deserialize(deserializer)?;
    let refused = |error| D::Error::custom(format_args!("{error:#}"));
    text.parse().map_err(refused)
}

fn check_interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    match u64::deserialize(deserializer)? {
        ms @ 5..=1000 => Ok(Duration::from_millis(ms)),
        ms => Err(D::Error::custom(format_args!(
            "ice.check_interval_ms: {ms} is not between 5 and 1000"
        ))),
    }
}

/// Reads addresses with or without a port.
fn upstream<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    let server = |text: String| {
        let with_port = text.parse::<SocketAddr>();
        let server = with_port.or_else(|_| text.parse::<IpAddr>().map(|ip| (ip, DNS_PORT).into()));
        let server = server.map_err(D::Error::custom)?;
        if is_sentinel(server.ip()) {
            return Err(D::Error::custom(format_args!(
                "dns.upstream: {server} is this client itself"
            )));
        }
        Ok(server)
    };
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.into_iter().map(server).collect()
}

/// The portal's token. `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// For the one header that carries it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Config {
    /// # Errors
    /// Names the file, the place and the remedy.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(toml::from_str(text)?)
    }
}

impl PortalConfig {
    /// The token without white space, from the configuration or its file. Relative paths start at
    /// `base`.
    ///
    /// # Errors
    /// When the configuration has neither or both, or the file is unreadable or empty.
    pub fn token(&self, base: &Path) -> anyhow::Result<Token> {
        let text = match (&self.token, &self.token_file) {
            (Some(token), None) => token.0.clone(),
            (None, Some(path)) => {
                let path = base.join(path);
                std::fs::read_to_string(&path)
                    .with_context(|| format!("portal.token_file: cannot read {}", path.display()))?
            }
            (Some(_), Some(_)) => bail!("portal: give token or token_file, not both"),
            (None, None) => bail!("portal: token or token_file is missing"),
        };
        let token: String = text.split_whitespace().collect();
        ensure!(!token.is_empty(), "portal: the token is empty");
        Ok(Token(token))
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
    fn fills_in_defaults() {
        let config = Config::parse(MINIMAL).expect("valid");
        assert_eq!(config.tunnel.interface.0, "pclient0");
        assert_eq!(config.ice.check_interval, Duration::from_millis(20));
        assert_eq!(config.portal.generation, Generation::V2);
    }

    #[test]
    fn accepts_the_shipped_file() {
        let text = include_str!("../../../../config/client.toml");
        Config::parse(text).expect("valid");
    }

    #[test]
    fn refuses_unknown_keys_with_their_line() {
        let message = refusal(&format!("{MINIMAL}[ice]\ncheck_intervall_ms = 20\n"));
        assert!(message.contains("line 6"), "{message}");
        assert!(message.contains("check_intervall_ms"), "{message}");
        assert!(message.contains("check_interval_ms"), "{message}");
    }

    #[test]
    fn refuses_wrong_values_with_their_key_and_line() {
        let message = refusal(&MINIMAL.replace("ws://", "ftp://"));
        assert!(message.contains("portal.url"), "{message}");
        assert!(message.contains("line 2"), "{message}");
        let message = refusal(&format!(
            "{MINIMAL}[tunnel]\ninterface = \"much-too-long-name\"\n"
        ));
        assert!(message.contains("tunnel.interface"), "{message}");
        assert!(message.contains("line 6"), "{message}");
        let message = refusal(&format!("{MINIMAL}[ice]\ncheck_interval_ms = 0\n"));
        assert!(message.contains("ice.check_interval_ms"), "{message}");
    }

    #[test]
    fn upstream_servers_have_port_53_by_default() {
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
    fn reads_the_token_from_exactly_one_place_without_white_space() {
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
