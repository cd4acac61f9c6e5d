//! The output of a diagnosis: the verdict, its steps, and the remedy.

use super::{Cause, Severity};
use serde::{Deserialize, Serialize};

/// The verdict about one client and one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The client: its id if known, else as the user wrote it.
    pub client: String,
    /// The target as the user wrote it.
    pub target: String,
    /// The severity of the cause.
    pub severity: Severity,
    /// The cause, for programs.
    pub cause: Cause,
    /// The cause, in one sentence.
    pub verdict: String,
    /// The remedy, unless it works.
    pub remedy: Option<String>,
    /// All steps, passed or not.
    pub steps: Vec<Step>,
    /// Further facts that the reader should know.
    pub notes: Vec<String>,
}

/// One condition for packets to pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The condition that was checked.
    pub name: StepName,
    /// The result of the check.
    pub state: StepState,
    /// The reason, in few words; empty if it was not checked.
    pub text: String,
}

/// The conditions, in the order in which a packet meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// The client is known to the gateway.
    Client,
    /// The client has a session.
    Session,
    /// The client may reach the target.
    Authorization,
    /// The filters permit the service.
    Filter,
    /// The client has announced the name.
    Name,
    /// The name has addresses.
    Addresses,
    /// There is room for a flow.
    Flow,
    /// The target answers packets of the client.
    Reply,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// The condition is known to hold.
    Passed,
    /// The condition is not confirmed.
    Open,
    /// The condition does not hold.
    Failed,
    /// The condition does not apply here.
    NotNeeded,
    /// The condition could not be checked.
    Unknown,
}
