//! Waiting for a condition with a deadline, and being called off while waiting.
//!
//! Refuses to wait blindly: every wait names what it waits for, and says so when it did not come.

use anyhow::{Context, Result, bail};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// How often a condition is looked at: short against every figure that the lab prints, long enough
/// to leave the processor to the programs that are waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Calls off every wait that shares it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Interrupt {
    shared: Arc<(Mutex<bool>, Condvar)>,
}

/// Why a wait ended before its condition came about.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("interrupted")]
pub struct Interrupted;

impl Interrupt {
    /// Ends all waits, the present ones and the coming ones.
    pub fn trigger(&self) {
        let (flag, changed) = &*self.shared;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    /// Whether it was triggered.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        let (flag, _) = &*self.shared;
        *flag.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until it is triggered.
    pub fn wait(&self) {
        let (flag, changed) = &*self.shared;
        let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
        let _triggered = changed
            .wait_while(guard, |triggered| !*triggered)
            .unwrap_or_else(PoisonError::into_inner);
    }

    /// Blocks for `limit`, or until it is triggered.
    fn wait_at_most(&self, limit: Duration) {
        let (flag, changed) = &*self.shared;
        let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
        let _triggered = changed
            .wait_timeout_while(guard, limit, |triggered| !*triggered)
            .unwrap_or_else(PoisonError::into_inner);
    }

    /// Lets `span` pass, where time itself is what is waited for: an outage that others live
    /// through.
    ///
    /// # Errors
    /// [`Interrupted`] when triggered meanwhile.
    pub fn pass(&self, span: Duration) -> Result<()> {
        self.wait_at_most(span);
        match self.is_triggered() {
            true => Err(Interrupted.into()),
            false => Ok(()),
        }
    }

    /// Looks with `probe` until it sees something, at most for `limit`. Looks at least once.
    ///
    /// # Errors
    /// [`Interrupted`] when triggered meanwhile; a message with `what` when the time is over.
    pub fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        self.until_ok(what, limit, || Ok(probe()))
    }

    /// As [`Self::until`], for a probe that can see that waiting is in vain.
    ///
    /// # Errors
    /// Those of [`Self::until`], and the probe's own.
    pub fn until_ok<T>(
        &self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if self.is_triggered() {
                return Err(Interrupted.into());
            }
            if let Some(seen) = probe()? {
                return Ok(seen);
            }
            if Instant::now() >= deadline {
                bail!("waited {} s in vain for {what}", limit.as_secs_f32());
            }
            self.wait_at_most(LOOK_EVERY);
        }
    }
}

/// Runs blocking `work` until it ends; SIGTERM, SIGHUP and SIGINT call off what it waits for.
///
/// # Errors
/// Those of `work`, or that it panicked.
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
    let caller_off = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
            _ = ctrl_c.recv() => {}
        }
        interrupt.trigger();
    });
    let result = working.await;
    caller_off.abort();
    result.context("the run panicked")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_holds_is_seen_without_waiting() {
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
    fn a_trigger_ends_a_wait_at_once_and_for_good() {
        let interrupt = Interrupt::default();
        let other = interrupt.clone();
        let mut looks = 0;
        let waited: Result<()> = interrupt.until("the moon", Duration::from_secs(60), || {
            looks += 1;
            other.trigger();
            None
        });
        let error = waited.expect_err("interrupted");
        assert_eq!(error.downcast_ref(), Some(&Interrupted));
        assert_eq!(looks, 1);
        interrupt.wait();
        assert!(interrupt.is_triggered());
    }

    #[test]
    fn a_probe_may_give_up() {
        let waited: Result<()> =
            Interrupt::default()
                .until_ok("the moon", Duration::from_secs(60), || bail!("it burst"));
        assert_eq!(waited.expect_err("gave up").to_string(), "it burst");
    }
}
