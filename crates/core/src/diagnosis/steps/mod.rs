//! From the facts to the verdict: each step is checked on its own, and the first that fails is the
//! reason. Later steps are shown as far as they are known.

mod client;
mod name;
mod reply;
mod rights;

use super::report::{Report, Step, StepName, StepState};
use super::{Cause, ClientCause, ClientFacts, Facts, ResourceCause, Seconds, Severity, Subject};

/// The outcome of a step.
#[derive(Debug)]
enum Outcome {
    /// Passed, with a few words.
    Passed(String),
    /// Failed, or not confirmed.
    Failed(Cause),
    /// Not applicable here, with the reason.
    NotNeeded(String),
    /// Could not be checked.
    Unknown,
}

impl From<ClientCause> for Outcome {
    fn from(cause: ClientCause) -> Self {
        Self::Failed(cause.into())
    }
}

/// Derives the verdict from the facts.
#[must_use]
pub fn diagnose(facts: &Facts) -> Report {
    match &facts.client {
        Subject::Unknown { nearest, served } => {
            let cause = ClientCause::NoSuchClient {
                asked: facts.asked.clone(),
                nearest: nearest.map(|id| id.to_string()),
                served: *served,
            };
            unknown_client(facts, cause.into())
        }
        Subject::Ambiguous(ids) => {
            let some = ids.iter().take(SHOWN).map(ToString::to_string);
            let cause = ClientCause::AmbiguousClient {
                asked: facts.asked.clone(),
                matches: some.collect(),
                all: ids.len(),
            };
            unknown_client(facts, cause.into())
        }
        Subject::Client(client) => examine(facts, client),
    }
}

fn unknown_client(facts: &Facts, cause: Cause) -> Report {
    let client = facts.asked.clone();
    let mut log = StepLog::default();
    log.add(StepName::Client, Outcome::Failed(cause));
    log.report(client, facts)
}

fn examine(facts: &Facts, client: &ClientFacts) -> Report {
    let mut log = StepLog::default();
    let case = Case { facts, client };
    log.add(StepName::Client, case.client());
    log.add(StepName::Session, case.session());
    log.add(StepName::Authorization, case.authorization());
    log.add(StepName::Filter, case.filter());
    log.add(StepName::Name, case.name());
    log.add(StepName::Addresses, case.addresses());
    log.add(StepName::Flow, case.flow());
    log.add(StepName::Reply, case.reply());
    log.notes = case.notes();
    log.report(client.id.to_string(), facts)
}

/// One client and one target; its steps are in the submodules.
struct Case<'a> {
    facts: &'a Facts,
    client: &'a ClientFacts,
}

/// The steps that have been checked.
#[derive(Default)]
struct StepLog {
    steps: Vec<Step>,
    /// The first that did not pass.
    cause: Option<Cause>,
    /// The success of the last step.
    success: Option<Cause>,
    notes: Vec<String>,
}

impl StepLog {
    fn add(&mut self, name: StepName, outcome: Outcome) {
        let (state, text) = match outcome {
            Outcome::Passed(text) => (StepState::Passed, text),
            Outcome::NotNeeded(text) => (StepState::NotNeeded, text),
            Outcome::Unknown => (StepState::Unknown, String::new()),
            Outcome::Failed(cause) => self.fail(cause),
        };
        self.steps.push(Step { name, state, text });
    }

    fn fail(&mut self, cause: Cause) -> (StepState, String) {
        let text = cause.sentence();
        match cause.severity() {
            Severity::Works => {
                self.success = Some(cause);
                (StepState::Passed, text)
            }
            // The reason for this step is an earlier step.
            Severity::Limited | Severity::Broken if self.is_broken() => (StepState::Open, text),
            Severity::Limited => {
                self.cause.get_or_insert(cause);
                (StepState::Open, text)
            }
            Severity::Broken => {
                self.cause = Some(cause);
                (StepState::Failed, text)
            }
        }
    }

    fn is_broken(&self) -> bool {
        let severity = self.cause.as_ref().map(Cause::severity);
        severity == Some(Severity::Broken)
    }

    fn report(self, client: String, facts: &Facts) -> Report {
        // A reply counts more than a doubtful step.
        let cause = match (self.cause, self.success) {
            (Some(cause), Some(success)) if cause.severity() == Severity::Limited => success,
            (Some(cause), _) | (None, Some(cause)) => cause,
            (None, None) => ResourceCause::NothingSent {
                place: facts.target.host.to_string(),
            }
            .into(),
        };
        Report {
            client,
            target: facts.target.to_string(),
            severity: cause.severity(),
            verdict: cause.sentence(),
            remedy: cause.remedy(),
            cause,
            steps: self.steps,
            notes: self.notes,
        }
    }
}

impl Case<'_> {
    fn notes(&self) -> Vec<String> {
        let gateway = &self.facts.gateway;
        let draining = gateway
            .is_draining
            .then(|| "The gateway is draining: it takes no new clients, and will end.".to_owned());
        let portal = gateway.portal_away.map(|away| {
            let away = Seconds::from(away);
            format!(
                "The portal has been away for {away}: what was granted stays, and nothing new is \
                 granted."
            )
        });
        let mut notes: Vec<_> = draining.into_iter().chain(portal).collect();
        notes.extend(self.filter_notes());
        notes.extend(self.name_notes());
        notes
    }
}

/// Maximum length of lists in texts.
const SHOWN: usize = 5;
