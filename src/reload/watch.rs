//! When the configuration is read again, and who is told what came of it.

use super::{Look, Reloaded, Reloader, UseSettings};
use crate::logging;
use crate::messages::reload::{ConfigurationReloaded, ReloadBegan, ReloadOutcome, ReloadReport};
use crate::shell::{tell, unix_now};
use actix::prelude::*;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Who is told.
pub struct ReloadLinks {
    /// Before.
    pub began: Recipient<ReloadBegan>,
    /// What is taken over.
    pub settings: Recipient<UseSettings>,
    /// After.
    pub reloaded: Recipient<ConfigurationReloaded>,
    /// Whether a gateway that is told to stop leaves its clients to the next process.
    pub hands_over: Arc<AtomicBool>,
}

/// Reads the configuration again whenever it changes and whenever `asked` says so, on a thread of
/// its own, until nobody can ask any more.
///
/// # Errors
/// When no thread can be started.
pub fn watch(mut reloader: Reloader, asked: Receiver<()>, links: ReloadLinks) -> io::Result<()> {
    let name = "reloader".to_owned();
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
                links.reload(&mut reloader);
            }
        }
    };
    std::thread::Builder::new().name(name).spawn(watch)?;
    Ok(())
}

impl ReloadLinks {
    fn reload(&self, reloader: &mut Reloader) {
        tell(&self.began, ReloadBegan);
        let Reloaded {
            outcome,
            settings,
            hands_over,
            filter,
            warnings,
        } = reloader.reload();
        if let Some(settings) = settings {
            tell(&self.settings, settings);
        }
        if let Some(hands_over) = hands_over {
            self.hands_over.store(hands_over, Ordering::Relaxed);
        }
        if let Some(filter) = filter
            && let Err(error) = logging::use_filter(&filter)
        {
            tracing::error!(error, "log.filter cannot be taken over");
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        log(&outcome);
        let at = unix_now();
        tell(
            &self.reloaded,
            ConfigurationReloaded(ReloadReport { at, outcome }),
        );
    }
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

/// How often it is looked whether something has changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a file that has changed must stay as it is.
const SETTLES: Duration = Duration::from_millis(250);
