//! The types of values: how each is read from TOML or the environment, and what it expects.
//!
//! The one place that checks a value. The loader reads every value of every source by these, to
//! report all mistakes at once; serde then fills the typed configuration by the same code.

use super::secret::Secret;
use super::toml_value::described;
use config::{Value, ValueKind};
use serde::{Deserialize, Deserializer};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// A type that a key can have: a [`Scalar`], an `Option` of one, or a list.
pub(super) trait Setting: Sized {
    /// The facts about the type.
    const KIND: Kind;

    /// Reads the value that won; `None` where no source sets the key.
    fn read(value: Option<&Value>) -> Result<Self, Refusal>;
}

/// The facts about a [`Setting`], for the table of keys.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Whether it is a list; in the environment its items are separated by commas.
    pub is_list: bool,
    /// Whether relative paths are relative to the file that names them.
    pub(super) is_path: bool,
    /// What is expected, in words.
    pub(super) expects: &'static str,
    /// Checks a value, or one item of a list.
    pub(super) check: fn(&ValueKind) -> Result<(), Refusal>,
    /// What a text in the environment stands for, still unchecked.
    pub(super) value_of: fn(&str) -> ValueKind,
}

/// A type of single values.
pub(super) trait Scalar: Sized {
    /// What is expected, in words. The range of an integer is said by its key.
    const EXPECTS: &'static str;
    /// Whether it names a file.
    const IS_PATH: bool = false;

    fn from_text(_text: &str) -> Result<Self, Refusal> {
        Err(Refusal::Plain)
    }

    /// Reads a value; only flags and integers are other than text.
    fn from_value(value: &ValueKind) -> Result<Self, Refusal> {
        let ValueKind::String(text) = value else {
            return Err(Refusal::Plain);
        };
        if text.contains('\0') {
            return Err("a zero byte".to_owned().into());
        }
        Self::from_text(text)
    }

    /// The value that a text in the environment stands for.
    fn value_of(text: &str) -> ValueKind {
        text.into()
    }
}

/// Why a value is refused, and whether the message may repeat it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The value says it all.
    #[default]
    Plain,
    /// The value is repeated, with this reason.
    Because(String),
    /// The value may hold a password: only this is said.
    Hidden(&'static str),
}

impl From<String> for Refusal {
    fn from(because: String) -> Self {
        Self::Because(because)
    }
}

impl Refusal {
    /// What was found, in words.
    pub(super) fn found(&self, value: &ValueKind) -> String {
        match self {
            Self::Plain => described(value),
            Self::Because(reason) => format!("{} ({reason})", described(value)),
            Self::Hidden(found) => (*found).to_owned(),
        }
    }
}

impl Kind {
    const fn of<T: Scalar>(is_list: bool) -> Self {
        Self {
            is_list,
            is_path: T::IS_PATH,
            expects: T::EXPECTS,
            check: |value| T::from_value(value).map(drop),
            value_of: T::value_of,
        }
    }
}

impl<T: Scalar> Setting for T {
    const KIND: Kind = Kind::of::<T>(false);

    fn read(value: Option<&Value>) -> Result<Self, Refusal> {
        let value = value.ok_or(Refusal::Hidden("nothing"))?;
        Self::from_value(&value.kind)
    }
}

impl<T: Scalar> Setting for Option<T> {
    const KIND: Kind = Kind::of::<T>(false);

    fn read(value: Option<&Value>) -> Result<Self, Refusal> {
        value.map(|value| T::from_value(&value.kind)).transpose()
    }
}

impl<T: Scalar> Setting for Vec<T> {
    const KIND: Kind = Kind::of::<T>(true);

    fn read(value: Option<&Value>) -> Result<Self, Refusal> {
        let Some(ValueKind::Array(items)) = value.map(|value| &value.kind) else {
            return Err(Refusal::Plain);
        };
        items.iter().map(|item| T::from_value(&item.kind)).collect()
    }
}

/// The secret is never among the merged values: `token.rs` finds it.
impl Setting for Secret {
    const KIND: Kind = Kind {
        expects: "nothing here",
        check: |_| Err(Refusal::Hidden("a secret in the file")),
        ..Kind::of::<String>(false)
    };

    fn read(_: Option<&Value>) -> Result<Self, Refusal> {
        Ok(Self::default())
    }
}

/// How serde reads every field of the typed configuration.
pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Setting,
    D: Deserializer<'de>,
{
    let value = Option::<Value>::deserialize(deserializer)?;
    T::read(value.as_ref()).map_err(|refusal| {
        let found = refusal.found(&value.unwrap_or_default().kind);
        serde::de::Error::custom(format!("found {found}, expected {}", T::KIND.expects))
    })
}

impl Scalar for bool {
    const EXPECTS: &'static str = "true or false";

    fn from_value(value: &ValueKind) -> Result<Self, Refusal> {
        let ValueKind::Boolean(flag) = value else {
            return Err(Refusal::Plain);
        };
        Ok(*flag)
    }

    fn value_of(text: &str) -> ValueKind {
        text.parse()
            .map_or_else(|_| text.into(), ValueKind::Boolean)
    }
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Scalar for $integer {
            const EXPECTS: &'static str = "a whole number";

            fn from_value(value: &ValueKind) -> Result<Self, Refusal> {
                let ValueKind::I64(number) = value else {
                    return Err(Refusal::Plain);
                };
                Self::try_from(*number).map_err(|_| Refusal::Plain)
            }

            fn value_of(text: &str) -> ValueKind {
                text.parse().map_or_else(|_| text.into(), ValueKind::I64)
            }
        }
    )*};
}

integers!(u8, u16, u32, usize);

impl Scalar for String {
    const EXPECTS: &'static str = "a text that is not empty";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        if text.trim().is_empty() {
            return Err(Refusal::Plain);
        }
        Ok(text.to_owned())
    }
}

impl Scalar for PathBuf {
    const EXPECTS: &'static str = "the path of a file";
    const IS_PATH: bool = true;

    fn from_text(text: &str) -> Result<Self, Refusal> {
        String::from_text(text).map(Self::from)
    }
}

/// A number with a unit, as `humantime` reads it.
impl Scalar for Duration {
    const EXPECTS: &'static str = "a duration with a unit (s, m, h, days), at least 1s";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
        if duration < Self::from_secs(1) {
            return Err("shorter than a second".to_owned().into());
        }
        if duration > DURATION_MAX {
            return Err("longer than ten years".to_owned().into());
        }
        Ok(duration)
    }
}

/// The portal's address, without user and password.
impl Scalar for Url {
    const EXPECTS: &'static str = "a ws:// or wss:// address with a host";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let url = Self::parse(text).map_err(|error| error.to_string())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::Hidden(
                "an address with a user or password (the token has its own key: portal.token_file)",
            ));
        }
        if !matches!(url.scheme(), "ws" | "wss" | "http" | "https") {
            return Err(format!("scheme {:?}", url.scheme()).into());
        }
        Ok(url)
    }
}

impl Scalar for SocketAddr {
    const EXPECTS: &'static str = "an IP address and a port";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        let address: Self = text.parse().map_err(|_| {
            if text.parse::<IpAddr>().is_ok() {
                "the port is missing".to_owned()
            } else {
                "names are not looked up here".to_owned()
            }
        })?;
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err("nobody can be reached there".to_owned().into());
        }
        Ok(address)
    }
}

/// Generation of the portal protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Version 2 first, then version 1.
    Auto,
    /// Only `/gateway/v2/websocket`.
    V2,
    /// Only `/gateway/websocket`.
    V1,
}

impl Scalar for Generation {
    const EXPECTS: &'static str = "one of \"auto\", \"v2\", \"v1\"";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        match text {
            "auto" => Ok(Self::Auto),
            "v2" => Ok(Self::V2),
            "v1" => Ok(Self::V1),
            _ => Err(Refusal::Plain),
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines of text, for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Scalar for LogFormat {
    const EXPECTS: &'static str = "one of \"text\", \"json\"";

    fn from_text(text: &str) -> Result<Self, Refusal> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Refusal::Plain),
        }
    }
}

/// Longer waits are mistakes, and would overflow deadlines.
const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
