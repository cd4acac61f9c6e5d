//! How spans, dates and filters are said to people.

use crate::grant::{Filter, Resource, ResourceKind};
use crate::ids::UnixTime;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A span in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub u64);

impl From<Duration> for Seconds {
    fn from(span: Duration) -> Self {
        Self(span.as_secs())
    }
}

impl fmt::Display for Seconds {
    /// The two largest units: `2 min 5 s`; in the alternate form, for tables, `2m 5s`.
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

/// A date as people write it: `2026-09-21 14:13:20 UTC`.
pub(super) fn date(at: UnixTime) -> String {
    let (days, seconds) = (at.0 / 86_400, at.0 % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of the Gregorian calendar, by counting: years of 365 or 366 days, then
/// months.
fn civil(mut days: u64) -> (u64, u64, u64) {
    // Whole cycles of 400 years first, so that a date far away costs no more than one at hand.
    let mut year = 1970 + days / DAYS_OF_400_YEARS * 400;
    days %= DAYS_OF_400_YEARS;
    while days >= days_of_year(year) {
        days -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_of_month(year, month) {
        days -= days_of_month(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

fn days_of_year(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const DAYS_OF_400_YEARS: u64 = 146_097;

/// A resource by its name and what it covers: `"Wiki" (10.20.0.0/16)`.
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

/// What filters permit: `tcp 80, tcp 8000-8999, icmp`.
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
    fn spans_are_said_in_their_two_largest_units() {
        for (seconds, said) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (125, "2 min 5 s"),
            (3600, "1 h"),
            (7_260, "2 h 1 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(Seconds(seconds).to_string(), said);
        }
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (seconds, said) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_827_696, "2000-02-29 12:34:56 UTC"),
            (1_790_000_000, "2026-09-21 14:13:20 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(date(UnixTime(seconds)), said);
        }
        assert!(date(UnixTime(u64::MAX)).ends_with(" UTC"));
    }

    #[test]
    fn filters_are_said_as_people_write_them() {
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
