//! Causes that concern the authorizations of a client.

use crate::diagnosis::Seconds;
use serde::{Deserialize, Serialize};

/// The client may not reach the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum RightsCause {
    /// No grant of the client covers the target.
    NotAuthorized {
        /// The name or address of the target.
        place: String,
        /// Whether the target is a name.
        is_name: bool,
        /// Some of the resources it holds.
        holds: Vec<String>,
    },
    /// The authorization has expired.
    Expired {
        /// The resource of the authorization.
        resource: String,
        /// The date of the expiry.
        at: String,
        /// Time since the expiry.
        ago: Seconds,
    },
    /// The portal revoked the authorization.
    Revoked {
        /// The resource of the authorization.
        resource: String,
        /// The date of the revocation.
        at: String,
        /// Time since the revocation.
        ago: Seconds,
    },
    /// The filters of the covering resources forbid the service.
    Filtered {
        /// The service of the target.
        asked: String,
        /// The name or address of the target.
        place: String,
        /// The covering resources and their permitted services.
        resources: Vec<Permits>,
    },
    /// The client holds an Internet resource, and the address is private.
    NotInternet {
        /// The Internet resource of the client.
        resource: String,
        /// The address of the target.
        place: String,
    },
    /// The address belongs to a client or a gateway.
    TunnelRange {
        /// The address of the target.
        place: String,
    },
    /// The address is a multicast or broadcast address.
    Group {
        /// The address of the target.
        place: String,
    },
    /// The address is a proxy IP without a name of this client.
    NoName {
        /// The address of the target.
        place: String,
    },
}

/// The services that a resource permits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permits {
    /// The name and address of the resource.
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
