//! Current time for the floor, whose sessions and links take it as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A time on both clocks that the handshake needs.
#[derive(Clone, Copy, Debug)]
pub struct Timestamp {
    /// Monotonic time for deadlines.
    pub instant: Instant,
    /// Time since 1970, for the handshake's timestamp.
    pub unix: Duration,
}

impl Timestamp {
    pub fn now() -> Self {
        Self {
            instant: tokio::time::Instant::now().into_std(),
            unix: unix(),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the programs of the lab have a clock of their own"
)]
fn unix() -> Duration {
    // A clock before 1970 is as wrong as 1970.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
