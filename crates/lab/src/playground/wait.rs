//! Waits for a condition with a deadline, which an interrupt ends early.
//!
//! Every wait names its condition, and the error of a timeout contains that name.

use anyhow::{Context, Result, bail, ensure};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Interval between two checks of a condition: short against every figure that the lab prints, long
/// enough to leave the processor to the programs under test.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Ends every wait that shares it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Interrupt {
    shared: Arc<(Mutex<bool>, Condvar)>,
}

/// A wait ended before its condition was met.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("interrupted")]
pub struct Interrupted;

impl Interrupt {
    /// Ends all present and future waits.
    pub fn trigger(&self) {
        let (flag, changed) = &*self.shared;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    pub fn is_triggered(&self) -> bool {
        let (flag, _) = &*self.shared;
        *flag.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until the interrupt is triggered.
    pub fn wait(&self) {
        while !self.is_triggered() {
            self.wait_at_most(Duration::from_secs(3600));
        }
    }

    /// Blocks for `limit`, or until the interrupt is triggered.
    fn wait_at_most(&self, limit: Duration) {
        let (flag, changed) = &*self.shared;
        let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
        let _triggered = changed
            .wait_timeout_while(guard, limit, |triggered| !*triggered)
            .unwrap_or_else(PoisonError::into_inner);
    }

    /// Lets `span` pass, for an outage that other programs have to survive; [`Interrupted`] when
    /// triggered meanwhile.
    pub fn pass(&self, span: Duration) -> Result<()> {
        self.wait_at_most(span);
        ensure!(!self.is_triggered(), Interrupted);
        Ok(())
    }

    /// Polls `probe`, at least once, until it returns a value, at most for `limit`. The error of a
    /// timeout contains `what`; [`Interrupted`] when triggered meanwhile.
    pub fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        self.until_ok(what, limit, || Ok(probe()))
    }

    /// As [`Self::until`], for a probe that can detect that waiting is useless.
    pub fn until_ok<T>(
        &self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            ensure!(!self.is_triggered(), Interrupted);
            if let Some(seen) = probe()? {
                return Ok(seen);
            }
            if Instant::now() >= deadline {
                bail!("waited {} s in vain for {what}", limit.as_secs_f32());
            }
            self.wait_at_most(POLL_INTERVAL);
        }
    }
}

/// Runs blocking `work` until it ends; SIGTERM, SIGHUP and SIGINT end its waits.
pub async fn run_interruptibly(
    work: impl FnOnce(&Interrupt) -> Result<()> + Send + 'static,
) -> Result<()> {
    let interrupt = Interrupt::default();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut ctrl_c = signal(SignalKind::interrupt())?;
    let working = {
        let interrupt = interrupt.clone();
        tokio::task::spawn_blocking(move || work(&interrupt))
    };
    let on_signal = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
            _ = ctrl_c.recv() => {}
        }
        interrupt.trigger();
    });
    let result = working.await;
    on_signal.abort();
    result.context("the run panicked")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_holds_needs_no_wait() {
        let seen = Interrupt::default().until("nothing", Duration::ZERO, || Some(7));
        assert_eq!(seen.expect("holds"), 7);
    }

    #[test]
    fn a_condition_that_never_holds_is_named() {
        let waited: Result<()> =
            Interrupt::default().until("the moon", Duration::from_millis(20), || None);
        let error = waited.expect_err("never holds").to_string();
        assert!(error.contains("the moon"), "{error}");
    }

    #[test]
    fn a_trigger_ends_present_and_future_waits() {
        let interrupt = Interrupt::default();
        let other = interrupt.clone();
        let mut polls = 0;
        let waited: Result<()> = interrupt.until("the moon", Duration::from_secs(60), || {
            polls += 1;
            other.trigger();
            None
        });
        let error = waited.expect_err("interrupted");
        assert_eq!(error.downcast_ref(), Some(&Interrupted));
        assert_eq!(polls, 1);
        interrupt.wait();
        assert!(interrupt.is_triggered());
    }

    #[test]
    fn an_error_of_the_probe_ends_the_wait() {
        let waited: Result<()> =
            Interrupt::default()
                .until_ok("the moon", Duration::from_secs(60), || bail!("it burst"));
        assert_eq!(waited.expect_err("failed").to_string(), "it burst");
    }
}
