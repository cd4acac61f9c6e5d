//! The monotonic clock of the client's tasks; the cores receive its value as `now`.

use std::time::{Duration, Instant};

/// Tokio's clock, so that tests can pause it.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub fn millis_since(at: Instant) -> f64 {
    millis(now().saturating_duration_since(at))
}

/// A duration in milliseconds, to the microsecond.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
