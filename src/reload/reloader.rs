//! Compares what the configuration says now with the settings of the running gateway.

use super::check::check;
use crate::config::{self, Changes, Environment, LiveSettings, Loaded, Sources, UseSettings};
use crate::messages::reload::ReloadOutcome;
use std::path::PathBuf;
use std::sync::Arc;

/// Reads the configuration again on demand. Logs nothing and sends nothing.
pub struct Reloader {
    path: PathBuf,
    environment: Environment,
    /// The settings that the gateway runs with.
    settings: Arc<LiveSettings>,
    /// The sources as read last, accepted or not.
    read: Sources,
    /// The sources as found meanwhile, perhaps half written.
    found: Option<Sources>,
}

/// The result of one attempt.
pub(crate) struct Reloaded {
    pub(crate) outcome: ReloadOutcome,
    /// For the actors, if anything changes in place.
    pub(crate) settings: Option<UseSettings>,
    /// Things that look like mistakes, to be shown once.
    pub(crate) warnings: Vec<String>,
}

/// Whether there is something to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The files are as they were read.
    Same,
    /// Something has changed just now: look again shortly.
    Changing,
    /// Something has changed, and then did not for a while.
    Changed,
}

impl Reloader {
    /// For a gateway that runs with `settings`, made of what was loaded from `path` and
    /// `environment`.
    #[must_use]
    pub fn new(
        path: PathBuf,
        environment: Environment,
        settings: Arc<LiveSettings>,
        sources: Sources,
    ) -> Self {
        Self {
            path,
            environment,
            settings,
            read: sources,
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
            let wanted = check(loaded.config.clone()).map_err(|problem| vec![problem])?;
            Ok((loaded, wanted))
        });
        match checked {
            Ok((loaded, wanted)) => self.take_over(&before, loaded, wanted),
            Err(problems) => Reloaded {
                outcome: ReloadOutcome::Refused { problems },
                settings: None,
                warnings: Vec::new(),
            },
        }
    }

    fn take_over(&mut self, before: &Sources, loaded: Loaded, wanted: LiveSettings) -> Reloaded {
        let Changes {
            mut in_place,
            needs_restart,
        } = self.settings.config.changes(&wanted.config);
        // Other certificates may stand in a file of the same name.
        let ca_file = &wanted.config.dns.ca_file;
        let has_other_content = |file| loaded.sources.differs_in(before, file);
        let has_other_trust = in_place.contains(&CA_FILE);
        if !has_other_trust && ca_file.as_deref().is_some_and(has_other_content) {
            in_place.push(CA_FILE);
        }
        self.read = loaded.sources;
        let settings = (!in_place.is_empty()).then(|| {
            let mut after = LiveSettings::clone(&self.settings);
            after.config.adopt(&wanted.config);
            if in_place.contains(&CA_FILE) {
                after.dns_trust = wanted.dns_trust;
            }
            let after = Arc::new(after);
            let before = std::mem::replace(&mut self.settings, Arc::clone(&after));
            UseSettings { before, after }
        });
        let outcome = if in_place.is_empty() && needs_restart.is_empty() {
            ReloadOutcome::Unchanged
        } else {
            ReloadOutcome::Applied {
                changed: in_place,
                needs_restart,
            }
        };
        Reloaded {
            outcome,
            settings,
            warnings: loaded.warnings,
        }
    }
}

/// The key that also changes when the content of its file does.
const CA_FILE: &str = "dns.ca_file";
