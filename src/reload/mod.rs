//! The configuration while the gateway runs: read again when it changes, and on SIGHUP.
//!
//! [`Reloader`] compares and decides, on a thread of its own ([`watch`]), because a file may lie on
//! a network that takes its time. A new configuration passes the same checks as at the start
//! (docs/lessons.md 34). One that does not pass changes nothing, and the log says why: once for
//! each content that is found, and again whenever somebody asks by SIGHUP. What changed is taken
//! over where that is possible without cutting anything, and named where it takes a restart.

mod settings;
#[cfg(test)]
mod tests;
mod watch;

#[cfg(test)]
pub(crate) use settings::trust;
pub use settings::{LiveSettings, UseSettings, check};
pub use watch::{ReloadLinks, watch};

use crate::config::changes::{Changes, Step, Values};
use crate::config::{self, Environment, GatewayConfig, Loaded, Sources};
use crate::messages::reload::ReloadOutcome;
use std::path::PathBuf;

/// What is done with an attempt.
pub(crate) struct Reloaded {
    pub(crate) outcome: ReloadOutcome,
    /// For the supervisor.
    pub(crate) settings: Option<UseSettings>,
    /// The gateway ends in this way from now on.
    pub(crate) hands_over: Option<bool>,
    /// This is logged from now on.
    pub(crate) filter: Option<String>,
    /// To be shown once.
    pub(crate) warnings: Vec<String>,
}

/// See the module's documentation. Logs nothing and tells nobody.
pub struct Reloader {
    path: PathBuf,
    environment: Environment,
    /// What the gateway runs with.
    config: GatewayConfig,
    values: Values,
    /// What was read last, well or not.
    read: Sources,
    /// What was found meanwhile, and may still be being written.
    found: Option<Sources>,
}

/// Whether there is something to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// All is as it was.
    Same,
    /// Something has changed just now: look again shortly.
    Changing,
    /// Something has changed, and then did not for a while.
    Changed,
}

impl Reloader {
    /// For a gateway that runs with what was loaded from `path` and `environment`.
    #[must_use]
    pub fn new(path: PathBuf, environment: Environment, loaded: &Loaded) -> Self {
        Self {
            path,
            environment,
            config: loaded.config.clone(),
            values: loaded.values.clone(),
            read: loaded.sources.clone(),
            found: None,
        }
    }

    /// Whether a file has changed since it was read. A change counts when it is there twice in a
    /// row: half a file may be valid, and its second half would be missing.
    pub(crate) fn look(&mut self) -> Look {
        let now = self.read.look_again();
        if now == self.read {
            self.found = None;
            return Look::Same;
        }
        if self.found.as_ref() == Some(&now) {
            return Look::Changed;
        }
        self.found = Some(now);
        Look::Changing
    }

    /// Reads everything again, whether it has changed or not.
    pub(crate) fn reload(&mut self) -> Reloaded {
        let before = self.read.clone();
        self.found = None;
        self.read = before.look_again();
        let loaded = config::load(&self.path, &self.environment);
        let loaded =
            loaded.map_err(|error| error.problems.iter().map(ToString::to_string).collect());
        let checked = loaded.and_then(|loaded| {
            let dns_trust = check(&loaded.config).map_err(|problem| vec![problem])?;
            Ok((loaded, dns_trust))
        });
        match checked {
            Ok((loaded, dns_trust)) => self.take_over(&before, loaded, dns_trust),
            Err(problems) => Reloaded::nothing(ReloadOutcome::Refused { problems }),
        }
    }

    fn take_over(
        &mut self,
        before: &Sources,
        loaded: Loaded,
        dns_trust: rustls::ClientConfig,
    ) -> Reloaded {
        let mut changes = self.values.changes(&loaded.values);
        if let Some(file) = &loaded.config.dns.ca_file
            && loaded.sources.differs_in(before, file)
        {
            changes.add_in_place("dns.ca_file");
        }
        self.values.adopt(&loaded.values);
        self.config.adopt(&loaded.config);
        self.read = loaded.sources;
        let mut reloaded = Reloaded::nothing(ReloadOutcome::Unchanged);
        reloaded.warnings = loaded.warnings;
        let steps = changes.steps();
        if !steps.is_empty() {
            reloaded.settings = Some(UseSettings {
                settings: Box::new(LiveSettings::new(&self.config, dns_trust)),
                steps: steps.clone(),
            });
        }
        let state = steps
            .contains(&Step::Farewell)
            .then_some(&self.config.state);
        reloaded.hands_over = state.map(|state| state.handover);
        let log = steps.contains(&Step::LogFilter).then_some(&self.config.log);
        reloaded.filter = log.map(|log| log.filter.clone());
        if changes != Changes::default() {
            reloaded.outcome = ReloadOutcome::Applied {
                changed: changes.in_place,
                needs_restart: changes.needs_restart,
            };
        }
        reloaded
    }
}

impl Reloaded {
    fn nothing(outcome: ReloadOutcome) -> Self {
        Self {
            outcome,
            settings: None,
            hands_over: None,
            filter: None,
            warnings: Vec::new(),
        }
    }
}
