//! What is told: the verdict, how far the packets would come, and what to do.

use super::{Cause, Severity};
use serde::{Deserialize, Serialize};

/// One verdict about one client and one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The client: its id where it is known, else as asked for.
    pub client: String,
    /// As asked for.
    pub target: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is the matter, for programs.
    pub cause: Cause,
    /// What is the matter, in one sentence.
    pub verdict: String,
    /// What to do, unless it works.
    pub remedy: Option<String>,
    /// How far it came.
    pub steps: Vec<Step>,
    /// What else the reader should know.
    pub notes: Vec<String>,
}

/// One of the things that have to be right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub name: StepName,
    /// How it is.
    pub state: StepState,
    /// Why, in few words; empty if nobody looked.
    pub text: String,
}

/// What has to be right, in the order in which a packet meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// The client is known.
    Client,
    /// It has a session.
    Session,
    /// It may reach the target.
    Authorization,
    /// By that protocol, at that port.
    Filter,
    /// It has announced the name.
    Name,
    /// The name has addresses.
    Addresses,
    /// There is room for a flow.
    Flow,
    /// Somebody answers.
    Reply,
}

/// How a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Right.
    Passed,
    /// Not seen to be right.
    Open,
    /// Wrong.
    Failed,
    /// Nothing depends on it here.
    NotNeeded,
    /// Nobody could look.
    Unknown,
}
