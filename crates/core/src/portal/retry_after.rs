//! The `Retry-After` header: a number of seconds or a date (RFC 9110, sections 10.2.3 and 5.6.7).
//!
//! Reads the three forms of a date that the RFC makes every recipient read. A value that is none of
//! these is no value. The result is bounded on both sides: see [`FLOOR`] and [`CEILING`].

use crate::ids::UnixTime;
use std::time::Duration;

/// What the portal asks us to wait, or `None` when it cannot be read.
pub(super) fn parse(value: &str, unix_now: UnixTime) -> Option<Duration> {
    let value = value.trim();
    let seconds = if value.bytes().all(|b| b.is_ascii_digit()) && !value.is_empty() {
        value.parse().unwrap_or(u64::MAX)
    } else {
        http_date(value)?.saturating_sub(unix_now.0)
    };
    Some(Duration::from_secs(seconds).clamp(FLOOR, CEILING))
}

/// Seconds since 1970 of a date in any of the three forms.
fn http_date(value: &str) -> Option<u64> {
    let tokens: Vec<&str> = value
        .split([' ', ',', '-'])
        .filter(|token| !token.is_empty())
        .collect();
    // Sun, 06 Nov 1994 08:49:37 GMT | Sunday, 06-Nov-94 08:49:37 GMT | Sun Nov  6 08:49:37 1994
    let (day, month, year, time) = match tokens[..] {
        [_, day, month, year, time, "GMT"] => (day, month, year, time),
        [_, month, day, time, year] => (day, month, year, time),
        _ => return None,
    };
    let month = 1 + MONTHS.iter().position(|name| *name == month)?;
    let year = match (number(year)?, year.len()) {
        // Two digits (RFC 850): no portal was asked before 1970.
        (short, 2) if short < 70 => 2000 + short,
        (short, 2) => 1900 + short,
        (full, _) => full,
    };
    let mut parts = time.split(':').map(number);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let day = number(day)?;
    let valid = (1970..10_000).contains(&year)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && parts.next().is_none();
    valid.then(|| {
        days_since_1970(year, month as u64, day) * 86_400 + hour * 3_600 + minute * 60 + second
    })
}

/// A number of at most four digits.
fn number(text: &str) -> Option<u64> {
    let plain = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Days of the Gregorian calendar before this one, counted in years that begin in March: the leap
/// day is then the last of its year, and the months' lengths follow one formula.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400;
    days + (153 * month + 2) / 5 + day - 1 - DAYS_TO_1970
}

/// Days from the first of March of the year 0 to 1970-01-01.
const DAYS_TO_1970: u64 = 719_468;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A portal that says "now" is still given a moment, so that its mistake does not become a flood.
const FLOOR: Duration = Duration::from_millis(250);

/// No portal can send us away for longer: a mistake there must not outlast its repair by days.
const CEILING: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn seconds_are_taken_as_they_are() {
        assert_eq!(parse("1", UnixTime(0)), Some(Duration::from_secs(1)));
        assert_eq!(parse(" 120 ", UnixTime(0)), Some(Duration::from_secs(120)));
    }

    #[test]
    fn the_three_forms_of_a_date_mean_the_same() {
        for form in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(http_date(form), Some(784_111_777), "{form}");
        }
    }

    #[test]
    fn leap_days_are_counted() {
        assert_eq!(
            http_date("Thu, 29 Feb 2024 00:00:00 GMT"),
            Some(1_709_164_800)
        );
        assert_eq!(
            http_date("Fri, 01 Mar 2024 00:00:00 GMT"),
            Some(1_709_251_200)
        );
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    }

    #[test]
    fn absurd_values_are_bounded_and_unreadable_ones_ignored() {
        assert_eq!(parse("0", UnixTime(0)), Some(FLOOR));
        assert_eq!(parse("99999999999999999999999", UnixTime(0)), Some(CEILING));
        let past = parse("Sun, 06 Nov 1994 08:49:37 GMT", UnixTime(2_000_000_000));
        assert_eq!(past, Some(FLOOR));
        for text in ["", "-1", "soon", "1.5", "Sun, 06 Foo 1994 08:49:37 GMT"] {
            assert_eq!(parse(text, UnixTime(0)), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String, now: u64) {
            let _ = parse(&text, UnixTime(now));
        }

        #[test]
        fn no_near_date_panics(
            text in "[A-Z][a-z]{2},? [0-9]{0,5}[ -](Jan|Feb|Dec)[ -][0-9]{0,5} [0-9:]{0,9} (GMT)?",
        ) {
            let _ = http_date(&text);
        }
    }
}
