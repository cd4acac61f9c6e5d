//! The `Retry-After` header: a number of seconds or a date (RFC 9110, 10.2.3 and 5.6.7).
//!
//! Reads the three date forms that the RFC requires of every recipient, and ignores any other
//! value. The result lies between [`FLOOR`] and [`CEILING`].

use crate::ids::UnixTime;
use std::time::Duration;

/// The wait that the portal requests; `None` for an unreadable value.
pub(super) fn parse(value: &str, unix_now: UnixTime) -> Option<Duration> {
    let value = value.trim();
    let seconds = if value.bytes().all(|b| b.is_ascii_digit()) && !value.is_empty() {
        value.parse().unwrap_or(u64::MAX)
    } else {
        http_date(value)?.saturating_sub(unix_now.0)
    };
    Some(Duration::from_secs(seconds).clamp(FLOOR, CEILING))
}

/// Seconds since 1970 of an HTTP date in any of the three forms.
fn http_date(value: &str) -> Option<u64> {
    let date = httpdate::parse_http_date(value).ok()?;
    let epoch = httpdate::parse_http_date("Thu, 01 Jan 1970 00:00:00 GMT").ok()?;
    Some(date.duration_since(epoch).ok()?.as_secs())
}

/// The shortest wait, also for a portal that requests none: its mistake must not cause a flood.
const FLOOR: Duration = Duration::from_millis(250);

/// The longest wait: a mistake of the portal must not outlast its repair by days.
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
