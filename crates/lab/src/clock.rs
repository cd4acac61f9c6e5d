//! The lab's only access to the clocks: monotonic and wall-clock time, read together.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct ClockReading {
    /// Monotonic, for deadlines and measurements.
    pub instant: Instant,
    /// UNIX seconds, for dates on the wire.
    pub unix: u64,
}

impl ClockReading {
    /// Reads both clocks. The monotonic one follows tokio's paused time in tests.
    #[must_use]
    pub fn now() -> Self {
        Self {
            instant: tokio::time::Instant::now().into_std(),
            unix: unix_now(),
        }
    }
}

/// Seconds since 1970-01-01T00:00:00Z.
#[must_use]
pub fn unix_now() -> u64 {
    since_epoch().as_secs()
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[must_use]
pub fn unix_ms() -> f64 {
    since_epoch().as_secs_f64() * 1000.0
}

#[expect(
    clippy::disallowed_methods,
    reason = "the lab's only access to the wall clock"
)]
fn since_epoch() -> Duration {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.unwrap_or_default()
}

/// `unix` as RFC 3339 with whole seconds; dates beyond the calendar become its end.
#[must_use]
pub fn rfc3339(unix: u64) -> String {
    /// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
    const END_OF_CALENDAR: u64 = 253_402_300_799;
    let time = UNIX_EPOCH + Duration::from_secs(unix.min(END_OF_CALENDAR));
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(2_145_916_800), "2038-01-01T00:00:00Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
