//! The causes: each with a sentence that names it, and a sentence with its remedy.
//!
//! A sentence is complete, describes the problem and not the internals, and uses the reader's
//! terms: resources, names, addresses, times. A remedy says who has to do what.

mod client;
mod name;
mod resource;
mod rights;

pub use client::ClientCause;
pub use name::{DnsFailure, NameCause};
pub use resource::ResourceCause;
pub use rights::{Permits, RightsCause};

use super::Seconds;
use serde::{Deserialize, Serialize};

/// The severity of a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The target answers the client.
    Works,
    /// No problem is known, but it is not confirmed to work.
    Limited,
    /// The target does not work.
    Broken,
}

/// The cause of a verdict. As JSON an object with a `code`, which is unique among all causes, and
/// its fields. Resources are given by their name and address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cause {
    /// A cause that concerns the client or its transport.
    Client(ClientCause),
    /// A cause that concerns its authorizations.
    Rights(RightsCause),
    /// A cause that concerns the name of the target.
    Name(NameCause),
    /// A cause that concerns the resource, or success.
    Resource(ResourceCause),
}

impl Cause {
    /// The severity of this cause.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::Client(cause) => cause.severity(),
            Self::Rights(_) => Severity::Broken,
            Self::Name(cause) => cause.severity(),
            Self::Resource(cause) => cause.severity(),
        }
    }

    /// One sentence that names the cause.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Client(cause) => cause.sentence(),
            Self::Rights(cause) => cause.sentence(),
            Self::Name(cause) => cause.sentence(),
            Self::Resource(cause) => cause.sentence(),
        }
    }

    /// One or more sentences with the remedy; `None` if it works.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Client(cause) => Some(cause.remedy()),
            Self::Rights(cause) => Some(cause.remedy()),
            Self::Name(cause) => Some(cause.remedy()),
            Self::Resource(cause) => cause.remedy(),
        }
    }
}

impl From<ClientCause> for Cause {
    fn from(cause: ClientCause) -> Self {
        Self::Client(cause)
    }
}

impl From<RightsCause> for Cause {
    fn from(cause: RightsCause) -> Self {
        Self::Rights(cause)
    }
}

impl From<NameCause> for Cause {
    fn from(cause: NameCause) -> Self {
        Self::Name(cause)
    }
}

impl From<ResourceCause> for Cause {
    fn from(cause: ResourceCause) -> Self {
        Self::Resource(cause)
    }
}

/// `1 packet`, `2 packets`.
fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// The sentence about the next lookup.
fn next_lookup(next_try: Option<Seconds>) -> String {
    match next_try {
        Some(Seconds(0)) => "The DNS is asked again within a second".into(),
        Some(next_try) => format!("The DNS is asked again in {next_try}"),
        None => "The DNS is asked again with the client's next packet".into(),
    }
}
