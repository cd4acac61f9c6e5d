//! Limits a client's announcements: each costs the NAT, the resolver and the tunnel work that costs
//! the client nothing.

use std::time::{Duration, Instant};

/// A token bucket for announcements.
#[derive(Debug, Default)]
pub(super) struct AnnouncementBudget {
    spent: u32,
    /// When the first of the spent tokens began to refill.
    since: Option<Instant>,
}

impl AnnouncementBudget {
    /// Whether one more announcement is accepted. A client without a token gets no answer and
    /// announces again after 2 s.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if let Some(since) = self.since {
            let elapsed = now.saturating_duration_since(since);
            let back = elapsed.as_nanos() / INTERVAL.as_nanos();
            let back = u32::try_from(back).unwrap_or(u32::MAX).min(self.spent);
            self.spent -= back;
            self.since = (self.spent > 0).then(|| since + INTERVAL * back);
        }
        if self.spent >= BURST {
            return false;
        }
        self.since.get_or_insert(now);
        self.spent += 1;
        true
    }
}

/// A web page needs some dozens of names at once, each for A and AAAA.
const BURST: u32 = 256;
/// 64 announcements a second in the long run.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / 64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::beginning;

    #[test]
    fn accepts_a_burst_and_then_a_constant_rate() {
        let (mut budget, start) = (AnnouncementBudget::default(), beginning());
        let mut granted = |at: Duration| (0..1000).filter(|_| budget.take(start + at)).count();
        assert_eq!(granted(Duration::ZERO), 256);
        assert_eq!(granted(Duration::ZERO), 0);
        assert_eq!(granted(Duration::from_secs(1)), 64);
        assert_eq!(granted(Duration::from_millis(1010)), 0);
        assert_eq!(granted(Duration::from_millis(1016)), 1);
        assert_eq!(granted(Duration::from_secs(3600)), 256);
    }
}
