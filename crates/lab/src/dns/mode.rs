//! The modes of the name server and their spelling.

use serde::Deserialize;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The treatment of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Mode {
    /// Answered immediately.
    #[default]
    Healthy,
    /// Answered after this delay, at most [`SLOW_MAX`].
    Slow(Duration),
    Silent,
    /// Answered with SERVFAIL.
    Servfail,
    /// Answered with REFUSED.
    Refused,
}

/// The slowest answer: no resolver waits longer.
pub const SLOW_MAX: Duration = Duration::from_secs(60);

/// The text is no [`Mode`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a mode: healthy, \"slow 250ms\" (up to 60s), silent, servfail or refused")]
pub struct InvalidMode;

impl FromStr for Mode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        match text.split_once(' ').unwrap_or((text, "")) {
            ("healthy", "") => Ok(Self::Healthy),
            ("slow", delay) => match humantime::parse_duration(delay) {
                Ok(delay) if delay <= SLOW_MAX => Ok(Self::Slow(delay)),
                Ok(_) | Err(_) => Err(InvalidMode),
            },
            ("silent", "") => Ok(Self::Silent),
            ("servfail", "") => Ok(Self::Servfail),
            ("refused", "") => Ok(Self::Refused),
            _ => Err(InvalidMode),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => f.write_str("healthy"),
            Self::Slow(delay) => write!(f, "slow {}", humantime::format_duration(*delay)),
            Self::Silent => f.write_str("silent"),
            Self::Servfail => f.write_str("servfail"),
            Self::Refused => f.write_str("refused"),
        }
    }
}

impl TryFrom<String> for Mode {
    type Error = InvalidMode;

    fn try_from(text: String) -> Result<Self, InvalidMode> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_they_are_read() {
        for mode in [
            Mode::Healthy,
            Mode::Slow(Duration::from_millis(250)),
            Mode::Silent,
            Mode::Servfail,
            Mode::Refused,
        ] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
    }

    #[test]
    fn other_words_are_no_mode() {
        for text in ["", "slow", "slow x", "slow 61s", "silent 2s", "Healthy"] {
            assert_eq!(text.parse::<Mode>(), Err(InvalidMode), "{text}");
        }
    }
}
