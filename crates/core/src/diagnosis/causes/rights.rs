//! What can be the matter with what a client may reach.

use crate::diagnosis::Seconds;
use serde::{Deserialize, Serialize};

/// The client may not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum RightsCause {
    /// Nothing grants the target to the client.
    NotAuthorized {
        /// The name or address.
        place: String,
        /// Whether it is a name.
        is_name: bool,
        /// Some of what it holds instead.
        holds: Vec<String>,
    },
    /// The authorization has run out.
    Expired {
        /// Of which resource.
        resource: String,
        /// When.
        at: String,
        /// How long ago.
        ago: Seconds,
    },
    /// The authorization was taken away.
    Revoked {
        /// Of which resource.
        resource: String,
        /// When.
        at: String,
        /// How long ago.
        ago: Seconds,
    },
    /// The resources that cover the target do not permit that service.
    Filtered {
        /// The service.
        asked: String,
        /// The name or address.
        place: String,
        /// Each with what it permits.
        resources: Vec<Permits>,
    },
    /// An Internet resource is held, and the address is private.
    NotInternet {
        /// The Internet resource.
        resource: String,
        /// The address.
        place: String,
    },
    /// The address is one of clients and gateways.
    TunnelRange {
        /// The address.
        place: String,
    },
    /// The address is a group's.
    Group {
        /// The address.
        place: String,
    },
    /// The address is a proxy IP that stands for no name of this client.
    NoName {
        /// The address.
        place: String,
    },
}

/// What a resource permits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permits {
    /// Which.
    pub resource: String,
    /// As in `tcp 80, tcp 443, icmp`.
    pub permits: String,
}

impl RightsCause {
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::NotAuthorized { place, holds, .. } if holds.is_empty() => {
                format!("Nothing authorizes the client for {place}; it holds nothing at all here.")
            }
            Self::NotAuthorized { place, holds, .. } => {
                let holds = holds.join(", ");
                format!("Nothing authorizes the client for {place}; it holds {holds}.")
            }
            Self::Expired { resource, at, ago } => {
                format!("The authorization for {resource} expired {ago} ago, at {at}.")
            }
            Self::Revoked { resource, at, ago } => {
                format!("The authorization for {resource} was revoked {ago} ago, at {at}.")
            }
            Self::Filtered {
                asked,
                place,
                resources,
            } => {
                let each = |it: &Permits| format!("{} permits {}", it.resource, it.permits);
                let resources: Vec<_> = resources.iter().map(each).collect();
                let resources = resources.join(", and ");
                format!("{asked} of {place} is filtered out: {resources}.")
            }
            Self::NotInternet { resource, place } => format!(
                "{place} is private, and the client holds {resource}, beside which no private \
                 network is reached."
            ),
            Self::TunnelRange { place } => format!(
                "{place} is in the range of the clients' and gateways' own addresses, to which \
                 nothing is forwarded."
            ),
            Self::Group { place } => {
                format!("{place} is a multicast or broadcast address, which is not forwarded.")
            }
            Self::NoName { place } => {
                format!("{place} stands in for a name, but for none that this client uses now.")
            }
        }
    }

    pub(super) fn remedy(&self) -> String {
        match self {
            Self::NotAuthorized { is_name: true, .. } => {
                "Try it at the client first: it is authorized when it first uses the name. If it \
                 stays like this, give it a policy in the portal for a DNS resource that covers \
                 the name. A network that contains its address is not enough."
                    .into()
            }
            Self::NotAuthorized { is_name: false, .. } => {
                "Try it at the client first: it is authorized when it first uses the resource. If \
                 it stays like this, give it a policy in the portal for a resource that covers \
                 the address."
                    .into()
            }
            Self::Expired { .. } => {
                "Have the client's user sign in again, or give the policy a longer time in the \
                 portal."
                    .into()
            }
            Self::Revoked { .. } => {
                "If that was not meant, restore the policy in the portal; the client asks again \
                 by itself."
                    .into()
            }
            Self::Filtered { .. } => {
                "Use what is permitted, or permit it in the resource's traffic filters in the \
                 portal."
                    .into()
            }
            Self::NotInternet { .. } => {
                "Give private networks and the Internet to a client by different sites, or take \
                 the Internet resource away."
                    .into()
            }
            Self::TunnelRange { .. } => {
                "Ask for the resource's own name or address: clients are not reached through a \
                 gateway."
                    .into()
            }
            Self::Group { .. } => "Ask for the address of one host.".into(),
            Self::NoName { .. } => {
                "The application keeps an address from before the client started anew: have it \
                 look the name up again, or restart it."
                    .into()
            }
        }
    }
}
