//! How the name server behaves, in a word or two.

use serde::{Deserialize, Deserializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What becomes of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is answered at once.
    #[default]
    Healthy,
    /// It is answered this much later, at most [`SLOW_MAX`].
    Slow(Duration),
    /// It is swallowed.
    Silent,
    /// It is answered with SERVFAIL.
    Servfail,
    /// It is answered with REFUSED.
    Refused,
}

/// The slowest answer: nobody waits longer.
pub const SLOW_MAX: Duration = Duration::from_secs(60);

/// The words are none of [`Mode`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a mode: healthy, \"slow 250ms\" (up to 60s), silent, servfail or refused")]
pub struct NotAMode;

impl FromStr for Mode {
    type Err = NotAMode;

    fn from_str(text: &str) -> Result<Self, NotAMode> {
        match text.split_once(' ') {
            Some(("slow", delay)) => {
                let delay = humantime::parse_duration(delay).map_err(|_| NotAMode)?;
                (delay <= SLOW_MAX)
                    .then_some(Self::Slow(delay))
                    .ok_or(NotAMode)
            }
            Some(_) => Err(NotAMode),
            None => match text {
                "healthy" => Ok(Self::Healthy),
                "silent" => Ok(Self::Silent),
                "servfail" => Ok(Self::Servfail),
                "refused" => Ok(Self::Refused),
                _ => Err(NotAMode),
            },
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

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
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
            assert_eq!(text.parse::<Mode>(), Err(NotAMode), "{text}");
        }
    }
}
