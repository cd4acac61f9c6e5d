//! What time it is, for those who are told.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment in both of the clocks that the handshake needs.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For deadlines.
    pub instant: Instant,
    /// Since 1970, for the handshake's timestamp.
    pub unix: Duration,
}

impl Moment {
    /// Now.
    #[must_use]
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
