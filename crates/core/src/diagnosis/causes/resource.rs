//! Causes that concern a resource, and success.

use super::{Severity, count, next_lookup};
use crate::diagnosis::Seconds;
use crate::replies::RefusalKind;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Packets pass the gateway, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum ResourceCause {
    /// The target answers the client.
    Works {
        /// Time since the last reply.
        ago: Seconds,
        /// The address that answered, if the client uses a name.
        by: Option<IpAddr>,
    },
    /// The client has sent nothing to the target.
    NothingSent {
        /// The name or address of the target.
        place: String,
    },
    /// Too few packets to decide.
    Awaited {
        /// The addresses that should answer.
        by: String,
        /// Number of unanswered packets.
        packets: u32,
        /// Time since the first of them.
        since: Seconds,
    },
    /// The target does not answer.
    Unanswered {
        /// The addresses that should answer.
        by: String,
        /// Number of unanswered packets.
        packets: u32,
        /// Time since the first of them.
        since: Seconds,
        /// Time since the last answer before them.
        replied: Option<Seconds>,
        /// Time until the next lookup for better addresses; `None` without a lookup.
        next_try: Option<Seconds>,
    },
    /// The target refuses the client's packets.
    Refused {
        /// The addresses that refuse.
        by: String,
        /// The kind of the refusal.
        how: RefusalKind,
        /// Time since the refusal.
        ago: Seconds,
    },
    /// The client is at its limit of flows, or the table is full.
    FlowTableFull {
        /// Number of flows of the client.
        flows: usize,
        /// Limit of the client's flows.
        limit: u32,
    },
    /// No port was free for another flow.
    PortsExhausted {
        /// Time since it was refused.
        ago: Seconds,
    },
}

impl ResourceCause {
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::Works { .. } => Severity::Works,
            Self::NothingSent { .. } | Self::Awaited { .. } => Severity::Limited,
            Self::Unanswered { .. }
            | Self::Refused { .. }
            | Self::FlowTableFull { .. }
            | Self::PortsExhausted { .. } => Severity::Broken,
        }
    }

    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Works { ago, by: Some(by) } => {
                format!("It works: the last reply came {ago} ago, from {by}.")
            }
            Self::Works { ago, by: None } => format!("It works: the last reply came {ago} ago."),
            Self::NothingSent { place } => format!(
                "Nothing stands in the way, but the client has sent nothing to {place} that the \
                 gateway remembers."
            ),
            Self::Awaited { by, packets, since } => {
                let packets = count(*packets as usize, "packet");
                format!("{packets} went to {by} since {since} ago; a reply is still to come.")
            }
            Self::Unanswered {
                by,
                packets,
                since,
                replied,
                ..
            } => {
                let packets = count(*packets as usize, "packet");
                let before = match replied {
                    Some(replied) => format!("; the last reply came {replied} ago"),
                    None => String::new(),
                };
                format!("Nobody answers: {packets} went to {by} in the last {since}{before}.")
            }
            Self::Refused { by, how, ago } => match how {
                RefusalKind::Reset => format!("{by} refused the connection {ago} ago (TCP reset)."),
                RefusalKind::PortUnreachable => {
                    format!("{by} said {ago} ago that nobody listens there (ICMP).")
                }
                RefusalKind::AddressUnreachable => {
                    format!("The network said {ago} ago that {by} cannot be reached (ICMP).")
                }
                RefusalKind::Other => {
                    format!("The network refused a packet to {by} {ago} ago (ICMP).")
                }
            },
            Self::FlowTableFull { flows, limit } => format!(
                "No room for another flow: the client has {flows} of at most {limit}, all of them \
                 in use."
            ),
            Self::PortsExhausted { ago } => {
                format!("No port was free for another flow of the client {ago} ago.")
            }
        }
    }

    pub(super) fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Works { .. } => return None,
            Self::NothingSent { .. } => {
                "Try it at the client and ask again. If it stays like this, the client's packets \
                 do not enter the tunnel: look at its routes, its firewall, and other VPNs."
                    .into()
            }
            Self::Awaited { .. } => "Ask again in a few seconds.".into(),
            Self::Unanswered { next_try, .. } => {
                let elsewhere = match next_try {
                    Some(_) => format!(" {} for another address.", next_lookup(*next_try)),
                    None => String::new(),
                };
                format!(
                    "See that the host runs, that its firewall lets the gateway in, and that it \
                     has a route back to the gateway. A service that never answers, such as \
                     syslog, is well.{elsewhere}"
                )
            }
            Self::Refused { how, .. } => match how {
                RefusalKind::Reset | RefusalKind::PortUnreachable => {
                    "Start the service there, or ask for the port that it listens on.".into()
                }
                RefusalKind::AddressUnreachable => {
                    "See that the host is up, and that the gateway has a route to it.".into()
                }
                RefusalKind::Other => {
                    "Look for a firewall between the gateway and the host.".into()
                }
            },
            Self::FlowTableFull { flows, limit } if *flows >= *limit as usize => {
                "Raise limits.flows_per_client, or see what at the client opens so many \
                 connections."
                    .into()
            }
            Self::FlowTableFull { .. } => {
                "The table of all clients is full: raise limits.flows, or add a gateway.".into()
            }
            Self::PortsExhausted { .. } => {
                "See what at the client opens so many connections to one address.".into()
            }
        })
    }
}
