//! Causes that concern a client or its transport.

use super::{Severity, count};
use crate::diagnosis::Seconds;
use serde::{Deserialize, Serialize};

/// The client is unknown, gone or out of reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum ClientCause {
    /// No client matches the text.
    NoSuchClient {
        /// The client as the user wrote it.
        asked: String,
        /// The client with the most similar id.
        nearest: Option<String>,
        /// Number of clients that the gateway serves.
        served: usize,
    },
    /// The ids of several clients begin with the text.
    AmbiguousClient {
        /// The client as the user wrote it.
        asked: String,
        /// Some of the matching ids.
        matches: Vec<String>,
        /// Number of matching ids.
        all: usize,
    },
    /// The client's connection crashed too often.
    CutOff {
        /// How long the client stays cut off.
        rest: Seconds,
    },
    /// The client is no longer connected.
    ClientLeft {
        /// The authorization that ended last.
        last: String,
        /// Time since that authorization ended.
        ago: Seconds,
    },
    /// The client's connection crashed, or is not yet taken over from a former process.
    Rebuilding,
    /// The client has authorizations but no transport.
    NoTransport {
        /// Time since the last transport was lost.
        lost: Option<Seconds>,
    },
    /// Client and gateway have found no path.
    NoPath {
        /// Whether any address of the client is known.
        has_candidates: bool,
        /// How long both have tried.
        waiting: Seconds,
    },
    /// There is a path, but no WireGuard handshake.
    NoHandshake {
        /// The client's address on the path.
        remote: String,
        /// How long both have tried.
        waiting: Seconds,
    },
    /// The client is not heard any more.
    ClientSilent {
        /// Time since the client was last heard.
        heard: Seconds,
        /// Whether its session is still valid.
        has_session: bool,
    },
    /// A part of the gateway does not answer.
    PartSilent {
        /// The part that does not answer.
        part: String,
    },
}

impl ClientCause {
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::ClientSilent { has_session, .. } if *has_session => Severity::Limited,
            Self::NoSuchClient { .. }
            | Self::AmbiguousClient { .. }
            | Self::CutOff { .. }
            | Self::ClientLeft { .. }
            | Self::Rebuilding
            | Self::NoTransport { .. }
            | Self::NoPath { .. }
            | Self::NoHandshake { .. }
            | Self::ClientSilent { .. }
            | Self::PartSilent { .. } => Severity::Broken,
        }
    }

    pub(super) fn sentence(&self) -> String {
        match self {
            Self::NoSuchClient { asked, served, .. } => {
                let clients = count(*served, "client");
                format!("No client {asked:?} is known here; this gateway serves {clients}.")
            }
            Self::AmbiguousClient {
                asked,
                matches,
                all,
            } => {
                let matches = matches.join(", ");
                format!("The ids of {all} clients begin with {asked:?}, among them {matches}.")
            }
            Self::CutOff { rest } => {
                format!("The client is cut off for {rest} more: its connection died too often.")
            }
            Self::ClientLeft { last, ago } => format!(
                "The client is not connected here any more: it was last served {ago} ago, and \
                 held {last}."
            ),
            Self::Rebuilding => {
                "The client's connection is being built anew after a failure or a restart.".into()
            }
            Self::NoTransport { lost: Some(lost) } => {
                format!("The way to the client was lost {lost} ago.")
            }
            Self::NoTransport { lost: None } => {
                "The client may be served, but has not begun to connect.".into()
            }
            Self::NoPath {
                has_candidates: true,
                waiting,
            } => format!(
                "Client and gateway know each other's addresses, but for {waiting} no way between \
                 them has worked."
            ),
            Self::NoPath {
                has_candidates: false,
                waiting,
            } => format!(
                "The client wants to connect, but for {waiting} none of its addresses has been \
                 heard of."
            ),
            Self::NoHandshake { remote, waiting } => format!(
                "The client can be reached at {remote}, but for {waiting} no WireGuard handshake \
                 has come through."
            ),
            Self::ClientSilent { heard, .. } => {
                format!("Nothing has been heard from the client for {heard}.")
            }
            Self::PartSilent { part } => {
                format!("A part of the gateway, the {part}, did not answer in time.")
            }
        }
    }

    pub(super) fn remedy(&self) -> String {
        match self {
            Self::NoSuchClient {
                nearest: Some(nearest),
                ..
            } => format!("Did you mean {nearest}?"),
            Self::NoSuchClient { nearest: None, .. } => {
                "Give the client's id as the portal shows it, the beginning of it, or its tunnel \
                 address. If that is right, the portal has not sent the client to this gateway: \
                 see there whether the client is signed in, and which gateway serves its resource."
                    .into()
            }
            Self::AmbiguousClient { .. } => "Give more of the id.".into(),
            Self::CutOff { .. } => {
                "It will be served again by itself. The log says \"actor died\" with the place in \
                 the code: please report it, this is a bug."
                    .into()
            }
            Self::ClientLeft { .. } => {
                "Have the client connect again. If it does and still is not seen here, the portal \
                 leads it to another gateway."
                    .into()
            }
            Self::Rebuilding => {
                "Ask again in a few seconds; if it stays like this, the log says why.".into()
            }
            Self::NoTransport { lost: Some(_) } => {
                "See that the client is running and online: it connects again by itself as soon \
                 as it sends something."
                    .into()
            }
            Self::NoTransport { lost: None } => {
                "Have the client open the resource: it connects when it first sends something."
                    .into()
            }
            Self::NoPath {
                has_candidates: true,
                ..
            } => {
                "Let UDP through between the two: open the gateway's UDP port (network.udp_port), \
                 or have the portal name a relay that both can reach."
                    .into()
            }
            Self::NoPath {
                has_candidates: false,
                ..
            } => "See that the client is online, and that the portal passes its candidates on to \
                 this gateway."
                .into(),
            Self::NoHandshake { .. } => {
                "The keys of client and gateway may not match: have the client sign in again. If \
                 that does not help, see whether something on the way lets only small packets \
                 through."
                    .into()
            }
            Self::ClientSilent { .. } => {
                "See that the client is running and online; a client that sleeps connects again \
                 when it wakes."
                    .into()
            }
            Self::PartSilent { .. } => {
                "It is overloaded, or is being replaced: ask again in a few seconds. If it stays \
                 like this, see postern status and the log."
                    .into()
            }
        }
    }
}
