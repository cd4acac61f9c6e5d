//! Decides when the configuration is read again, and passes the result on.

use super::reloader::{Look, Reloaded, Reloader};
use crate::config::UseSettings;
use crate::logging;
use crate::messages::reload::{ReloadNews, ReloadOutcome, ReloadReport};
use crate::shell::unix_now;
use actix::prelude::*;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// The receivers of an attempt and its result.
pub struct ReloadLinks {
    pub news: Recipient<ReloadNews>,
    /// Receives new settings, between the begin and the end.
    pub settings: Recipient<UseSettings>,
    /// Whether SIGTERM leaves the clients to the next process (`state.handover`).
    pub hands_over: Arc<AtomicBool>,
}

/// Reads the configuration again whenever it changes and on each message of `asked`, on a thread of
/// its own, until the sender of `asked` is gone.
///
/// # Errors
///
/// When no thread can be started.
pub fn watch(mut reloader: Reloader, asked: Receiver<()>, links: ReloadLinks) -> io::Result<()> {
    let name = "reloader".to_owned();
    let outbox = Builder::new_current_thread().build()?;
    let watch = move || {
        let mut patience = LOOK_EVERY;
        loop {
            let is_due = match asked.recv_timeout(patience) {
                Ok(()) => Look::Changed,
                Err(RecvTimeoutError::Timeout) => reloader.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            patience = match is_due {
                Look::Same | Look::Changed => LOOK_EVERY,
                Look::Changing => SETTLES,
            };
            if is_due == Look::Changed {
                links.reload(&mut reloader, &outbox);
            }
        }
    };
    std::thread::Builder::new().name(name).spawn(watch)?;
    Ok(())
}

impl ReloadLinks {
    fn reload(&self, reloader: &mut Reloader, outbox: &Runtime) {
        outbox.block_on(send(&self.news, ReloadNews::Began));
        let Reloaded {
            outcome,
            settings,
            warnings,
        } = reloader.reload();
        if let Some(settings) = settings {
            self.take_over(&settings);
            outbox.block_on(send(&self.settings, settings));
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        log(&outcome);
        let at = unix_now();
        let done = ReloadNews::Done(ReloadReport { at, outcome });
        outbox.block_on(send(&self.news, done));
    }

    fn take_over(&self, settings: &UseSettings) {
        let (before, after) = (&settings.before.config, &settings.after.config);
        self.hands_over
            .store(after.state.handover, Ordering::Relaxed);
        if before.log.filter != after.log.filter
            && let Err(error) = logging::use_filter(&after.log.filter)
        {
            tracing::error!(error, "log.filter cannot be taken over");
        }
    }
}

/// Waits for room: the thread has nothing else to do.
async fn send<M>(to: &Recipient<M>, message: M)
where
    M: Message<Result = ()> + Send + 'static,
{
    // A supervisor that has died ends the process.
    let _ = to.send(message).await;
}

fn log(outcome: &ReloadOutcome) {
    match outcome {
        ReloadOutcome::Applied {
            changed,
            needs_restart,
        } => {
            let keys = changed.join(", ");
            tracing::info!(keys, "the configuration was read again");
            if !needs_restart.is_empty() {
                let keys = needs_restart.join(", ");
                tracing::warn!(
                    keys,
                    "these keep their values until the gateway is restarted"
                );
            }
        }
        ReloadOutcome::Unchanged => {
            tracing::info!("the configuration was read again: nothing has changed");
        }
        ReloadOutcome::Refused { problems } => {
            for problem in problems {
                tracing::error!(problem, "the configuration is wrong: the former one stays");
            }
        }
    }
}

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a file that has changed must stay the same.
const SETTLES: Duration = Duration::from_millis(250);
