//! The causes: what is the matter, in one sentence, and what to do about it, in another.
//!
//! A sentence is complete in itself, says what is the matter and not what goes on inside, and names
//! what the reader knows: resources, names, addresses, times. A remedy says who has to do what.

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

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It works.
    Works,
    /// Nothing is known to be wrong, but it has not been seen to work.
    Limited,
    /// It does not work.
    Broken,
}

/// What is the matter. As JSON an object with a `code`, which is unique among all causes, and what
/// belongs to it. Resources are given by their name and what they cover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cause {
    /// With the client, or the way to it.
    Client(ClientCause),
    /// With what it may reach.
    Rights(RightsCause),
    /// With the name that it uses.
    Name(NameCause),
    /// With the resource, or nothing at all.
    Resource(ResourceCause),
}

impl Cause {
    /// How bad it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::Client(cause) => cause.severity(),
            Self::Rights(_) => Severity::Broken,
            Self::Name(cause) => cause.severity(),
            Self::Resource(cause) => cause.severity(),
        }
    }

    /// What is the matter.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Client(cause) => cause.sentence(),
            Self::Rights(cause) => cause.sentence(),
            Self::Name(cause) => cause.sentence(),
            Self::Resource(cause) => cause.sentence(),
        }
    }

    /// What to do; nothing where it works.
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

/// When the DNS is asked again.
fn asked_again(next_try: Option<Seconds>) -> String {
    match next_try {
        Some(Seconds(0)) => "The DNS is asked again within a second".into(),
        Some(next_try) => format!("The DNS is asked again in {next_try}"),
        None => "The DNS is asked again with the client's next packet".into(),
    }
}
