//! What a key of the configuration is: its type, its range, and the words for both.
//!
//! The keys themselves are in [`super::keys`].

use super::dns::{DnsServer, DnsSuffix};
use super::values::{InterfaceName, InterfacePattern};
use crate::logging;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use url::Url;

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// `section.key`.
    pub path: &'static str,
    /// Its type and range.
    pub kind: Kind,
    /// What happens when it is not set.
    pub presence: Presence,
    /// The unit of its value; empty where the type says it all.
    pub unit: &'static str,
    /// A value as it is written in TOML.
    pub example: &'static str,
    /// What it means, in one line.
    pub doc: &'static str,
    /// What it takes to change it while the gateway runs.
    pub change: Change,
}

impl Key {
    /// The environment variable that overrides it.
    #[must_use]
    pub fn variable(&self) -> String {
        let name = self.path.replace('.', "__").to_ascii_uppercase();
        format!("{VARIABLE_PREFIX}{name}")
    }

    /// Section and name.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &'static str) {
        self.path.split_once('.').expect("every path has a section")
    }
}

/// What it takes to change a key while the gateway runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A reload takes the new value over.
    InPlace,
    /// A reload names it and keeps the old value.
    Restart,
}

/// What happens when a key is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has this value, written as in TOML.
    Default(&'static str),
    /// The gateway does not start.
    Required,
    /// This, in words, happens.
    Optional(&'static str),
    /// It is never in the file, only in the environment.
    EnvironmentOnly,
}

/// The shape of a value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A single value.
    One(Scalar),
    /// A list of values; in the environment separated by commas.
    List(Scalar),
}

/// A single value and its range.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    /// `ws://` or `wss://` (also written `http://`, `https://`), without user and password.
    PortalUrl,
    /// Any text but the empty one.
    Text,
    /// A path of a file.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A number with a unit, at least one second.
    Duration,
    /// A whole number in this range.
    Integer {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// `true` or `false`.
    Flag,
    /// See [`InterfaceName`].
    InterfaceName,
    /// See [`InterfacePattern`].
    InterfacePattern,
    /// An [`InterfacePattern`] that nftables understands.
    EgressPattern,
    /// `ip:port`.
    SocketAddress,
    /// See [`DnsServer`].
    DnsServer,
    /// See [`DnsSuffix`].
    DnsSuffix,
    /// Log directives.
    LogFilter,
    /// Not for files.
    Secret,
}

/// A value as it was written, in TOML or in the environment.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// `true`, `false`.
    Flag(bool),
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// Something that no key takes; in words, with the article.
    Other(String),
}

impl fmt::Display for Raw {
    /// As in TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{}", toml_edit::Value::from(text.as_str())),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{item}")?;
                }
                f.write_str("]")
            }
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl Raw {
    /// With the name of its type, and cut to a readable length.
    fn described(&self) -> String {
        match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Integer(number) => format!("the number {number}"),
            Self::Text(text) if text.is_empty() => "an empty text".to_owned(),
            Self::Text(text) if text.chars().count() > SHOWN_CHARS_MAX => {
                let start: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                format!("{start:?}…")
            }
            Self::Text(text) => format!("{text:?}"),
            Self::List(_) => "a list".to_owned(),
            Self::Other(what) => what.clone(),
        }
    }
}

impl Kind {
    /// The type of a single value, or of one item of a list.
    #[must_use]
    pub fn scalar(&self) -> Scalar {
        match self {
            Self::One(scalar) | Self::List(scalar) => *scalar,
        }
    }

    /// What the key wants, in words.
    #[must_use]
    pub fn expects(&self) -> String {
        match self {
            Self::One(scalar) => scalar.expects(),
            Self::List(scalar) => format!("a list; each item: {}", scalar.expects()),
        }
    }

    /// Reads the text of an environment variable as this kind; the result still has to be checked.
    pub(super) fn read_text(&self, text: &str) -> Raw {
        match self {
            Self::One(scalar) => scalar.read_text(text),
            Self::List(scalar) => Raw::List(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| scalar.read_text(item))
                    .collect(),
            ),
        }
    }
}

impl Scalar {
    fn read_text(self, text: &str) -> Raw {
        let read = match self {
            Self::Flag => text.parse().ok().map(Raw::Flag),
            Self::Integer { .. } => text.parse().ok().map(Raw::Integer),
            Self::PortalUrl
            | Self::Text
            | Self::Path
            | Self::Choice(_)
            | Self::Duration
            | Self::InterfaceName
            | Self::InterfacePattern
            | Self::EgressPattern
            | Self::SocketAddress
            | Self::DnsServer
            | Self::DnsSuffix
            | Self::LogFilter
            | Self::Secret => None,
        };
        read.unwrap_or_else(|| Raw::Text(text.to_owned()))
    }

    /// Checks one value. The error says what was found (and why that will not do), never more of it
    /// than may be shown.
    pub(super) fn check(self, raw: &Raw) -> Result<(), String> {
        let because = match (self, raw) {
            (Self::Flag, Raw::Flag(_)) => return Ok(()),
            (Self::Integer { min, max }, Raw::Integer(number)) => {
                if (min..=max).contains(number) {
                    return Ok(());
                }
                String::new()
            }
            (_, Raw::Text(text)) => match self.check_text(text) {
                Ok(()) => return Ok(()),
                Err(Refusal::Hidden(found)) => return Err(found),
                Err(Refusal::Shown(because)) => because,
            },
            (_, _) => String::new(),
        };
        let found = raw.described();
        Err(if because.is_empty() {
            found
        } else {
            format!("{found} ({because})")
        })
    }

    fn check_text(self, text: &str) -> Result<(), Refusal> {
        let shown = |because: String| Refusal::Shown(because);
        if text.contains('\0') {
            return Err(shown("a zero byte".to_owned()));
        }
        match self {
            Self::PortalUrl => check_url(text),
            Self::Text | Self::Path if text.trim().is_empty() => Err(shown(String::new())),
            Self::Text | Self::Path => Ok(()),
            Self::Choice(words) if words.contains(&text) => Ok(()),
            Self::Choice(_) | Self::Flag | Self::Integer { .. } => Err(shown(String::new())),
            Self::Duration => parse_duration(text).map(|_| ()).map_err(shown),
            Self::InterfaceName => {
                let name = InterfaceName::try_from(text.to_owned());
                name.map(|_| ()).map_err(shown)
            }
            Self::InterfacePattern => parse_pattern(text).map(|_| ()).map_err(shown),
            Self::EgressPattern => {
                let pattern = parse_pattern(text).map_err(shown)?;
                let understood = pattern.is_prefix();
                understood.then_some(()).ok_or_else(|| {
                    shown("nftables takes one * at the end, and no other wildcard".to_owned())
                })
            }
            Self::SocketAddress => check_socket_address(text).map_err(shown),
            Self::DnsServer => text.parse::<DnsServer>().map(|_| ()).map_err(shown),
            Self::DnsSuffix => text.parse::<DnsSuffix>().map(|_| ()).map_err(shown),
            Self::LogFilter => logging::check_filter(text).map_err(shown),
            Self::Secret => Err(Refusal::Hidden("a secret in the file".to_owned())),
        }
    }

    /// What it wants, in words.
    #[must_use]
    pub fn expects(self) -> String {
        match self {
            Self::PortalUrl => "a ws:// or wss:// address with a host".to_owned(),
            Self::Text => "a text that is not empty".to_owned(),
            Self::Path => "the path of a file".to_owned(),
            Self::Choice(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Self::Duration => "a duration with a unit (s, m, h, days), at least 1s".to_owned(),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Flag => "true or false".to_owned(),
            Self::InterfaceName => {
                "an interface name of at most 15 letters, digits, _, - or .".to_owned()
            }
            Self::InterfacePattern => "an interface name or a pattern with * and ?".to_owned(),
            Self::EgressPattern => "an interface name, or the start of one and *".to_owned(),
            Self::SocketAddress => "an IP address and a port".to_owned(),
            Self::DnsServer => "an IP address, or udp://, tcp://, tls:// or https:// and one; \
                 #NAME at the end names the certificate of the last two"
                .to_owned(),
            Self::DnsSuffix => "a domain, = and the address of a server for it".to_owned(),
            Self::LogFilter => "levels (off, error, warn, info, debug, trace) and target=level, \
                 separated by commas"
                .to_owned(),
            Self::Secret => "nothing here".to_owned(),
        }
    }
}

/// Why a text is refused, and whether it may be repeated in the message.
enum Refusal {
    /// The text is repeated, with this reason (which may be empty).
    Shown(String),
    /// It may hold a password: only this is said.
    Hidden(String),
}

fn check_url(text: &str) -> Result<(), Refusal> {
    let url = Url::parse(text).map_err(|error| Refusal::Shown(error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Refusal::Hidden(
            "an address with a user or password (the token has its own key: portal.token_file)"
                .to_owned(),
        ));
    }
    if !matches!(url.scheme(), "ws" | "wss" | "http" | "https") {
        return Err(Refusal::Shown(format!("scheme {:?}", url.scheme())));
    }
    Ok(())
}

fn check_socket_address(text: &str) -> Result<(), String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        if text.parse::<std::net::IpAddr>().is_ok() {
            "the port is missing".to_owned()
        } else {
            "names are not looked up here".to_owned()
        }
    })?;
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err("nobody can be reached there".to_owned());
    }
    Ok(())
}

fn parse_pattern(text: &str) -> Result<InterfacePattern, String> {
    InterfacePattern::try_from(text.to_owned())
}

/// Reads a duration as it is written in the configuration.
///
/// # Errors
///
/// Why it is none, in words.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < Duration::from_secs(1) {
        return Err("shorter than a second".to_owned());
    }
    if duration > DURATION_MAX {
        return Err("longer than ten years".to_owned());
    }
    Ok(duration)
}

/// Whether a key takes files, whose relative paths are relative to the file that names them.
pub(super) fn is_path(key: &Key) -> bool {
    matches!(key.kind.scalar(), Scalar::Path)
}

/// What every override's name starts with.
pub const VARIABLE_PREFIX: &str = "POSTERN__";

/// Longest part of a wrong value that a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

/// Longer waits are mistakes, and would overflow deadlines.
const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
