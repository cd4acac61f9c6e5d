//! The text forms of durations, dates, resources and filters.

use crate::grant::{Filter, Resource, ResourceKind};
use crate::ids::UnixTime;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, SystemTime};

/// A duration in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub u64);

impl From<Duration> for Seconds {
    fn from(span: Duration) -> Self {
        Self(span.as_secs())
    }
}

impl fmt::Display for Seconds {
    /// Writes the two largest units: `2 min 5 s`; in the alternate form, for tables, `2m 5s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(s) = *self;
        let (space, min) = if f.alternate() {
            ("", "m")
        } else {
            (" ", "min")
        };
        let (large, unit, small, small_unit) = match s {
            0..60 => (s, "s", 0, ""),
            60..3600 => (s / 60, min, s % 60, "s"),
            3600..86_400 => (s / 3600, "h", s % 3600 / 60, min),
            86_400.. => (s / 86_400, "d", s % 86_400 / 3600, "h"),
        };
        write!(f, "{large}{space}{unit}")?;
        match small {
            0 => Ok(()),
            _ => write!(f, " {small}{space}{small_unit}"),
        }
    }
}

/// A date as `2026-09-21 14:13:20 UTC`. Dates after the year 9999 are shown as its last second.
pub(super) fn date(at: UnixTime) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(at.0.min(END_OF_YEAR_9999));
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.replace('T', " ").replace('Z', " UTC")
}

/// The last date that RFC 3339 can write.
const END_OF_YEAR_9999: u64 = 253_402_300_799;

/// A resource with its name and address: `"Wiki" (10.20.0.0/16)`.
pub(super) fn title(resource: &Resource) -> String {
    let covers = match &resource.kind {
        ResourceKind::Cidr(network) => network.to_string(),
        ResourceKind::Dns(pattern) => pattern.clone(),
        ResourceKind::Internet => "the Internet".into(),
    };
    match resource.name.as_str() {
        "" => covers,
        name => format!("\"{name}\" ({covers})"),
    }
}

/// The permitted services: `tcp 80, tcp 8000-8999, icmp`.
pub(super) fn permitted(filters: &[Filter]) -> String {
    if filters.is_empty() {
        return "everything".into();
    }
    let ports = |kind: &str, first: u16, last: u16| match (first, last) {
        (0, u16::MAX) => format!("all {kind}"),
        _ if first == last => format!("{kind} {first}"),
        _ => format!("{kind} {first}-{last}"),
    };
    let all = filters.iter().map(|filter| match filter {
        Filter::Tcp(range) => ports("tcp", *range.start(), *range.end()),
        Filter::Udp(range) => ports("udp", *range.start(), *range.end()),
        Filter::Icmp => "icmp".into(),
    });
    all.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_durations_in_their_two_largest_units() {
        for (seconds, said, short) in [
            (0, "0 s", "0s"),
            (59, "59 s", "59s"),
            (60, "1 min", "1m"),
            (125, "2 min 5 s", "2m 5s"),
            (3600, "1 h", "1h"),
            (7_260, "2 h 1 min", "2h 1m"),
            (90_000, "1 d 1 h", "1d 1h"),
        ] {
            assert_eq!(Seconds(seconds).to_string(), said);
            assert_eq!(format!("{:#}", Seconds(seconds)), short);
        }
    }

    #[test]
    fn writes_dates_of_the_calendar() {
        for (seconds, said) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_827_696, "2000-02-29 12:34:56 UTC"),
            (1_790_000_000, "2026-09-21 14:13:20 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(UnixTime(seconds)), said);
        }
        assert_eq!(date(UnixTime(u64::MAX)), "9999-12-31 23:59:59 UTC");
    }

    #[test]
    fn writes_filters_as_people_do() {
        let filters = [
            Filter::Tcp(80..=80),
            Filter::Tcp(8000..=8999),
            Filter::Udp(0..=65535),
            Filter::Icmp,
        ];
        assert_eq!(permitted(&filters), "tcp 80, tcp 8000-8999, all udp, icmp");
        assert_eq!(permitted(&[]), "everything");
    }
}
