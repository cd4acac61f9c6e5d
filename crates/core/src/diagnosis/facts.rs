//! What is known, as it was told by those who know it.

use super::JournalEntry;
use crate::connection::ConnectionFacts;
use crate::grant::TunnelAddresses;
use crate::ids::{ClientId, UnixTime};
use crate::ledger::Grant;
use crate::nat_table::NatFacts;
use crate::target::Target;
use std::time::Duration;

/// Everything that [`diagnose`](super::diagnose) judges by.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The client, as it was asked for.
    pub asked: String,
    /// What the client wants to reach.
    pub target: Target,
    /// Who is meant.
    pub client: Subject,
    /// About the gateway as a whole.
    pub gateway: GatewayFacts,
    /// By the wall clock.
    pub unix_now: UnixTime,
}

/// The client that is meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// Nobody is called like that.
    Unknown {
        /// Who is called almost like that.
        nearest: Option<ClientId>,
        /// How many clients the gateway serves.
        served: usize,
    },
    /// Several are.
    Ambiguous(Vec<ClientId>),
    /// This one.
    Client(Box<ClientFacts>),
}

/// A client that is, or was lately, served.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientFacts {
    /// Which.
    pub id: ClientId,
    /// Its tunnel addresses.
    pub tunnel: Option<TunnelAddresses>,
    /// For how long it is not served, because its connection died too often.
    pub cut_off_for: Option<Duration>,
    /// What its connection says.
    pub connection: Response<ConnectionFacts>,
    /// What the NAT says.
    pub nat: Response<NatFacts>,
    /// What the ledger grants it.
    pub grants: Vec<Grant>,
    /// What it was granted before, the latest first.
    pub ended: Vec<JournalEntry>,
}

/// What became of a question to an actor.
#[derive(Clone, Debug, PartialEq)]
pub enum Response<T> {
    /// It answered.
    Answer(T),
    /// It did not answer in time.
    Timeout,
    /// It died, or hangs and is being ended, and has no successor yet.
    Restarting,
    /// There is none.
    Absent,
}

impl<T> Response<T> {
    /// The answer, if there is one.
    pub fn answer(&self) -> Option<&T> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Timeout | Self::Restarting | Self::Absent => None,
        }
    }
}

/// What is not about the client, and may matter to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayFacts {
    /// Whether it refuses new connections and will end.
    pub is_draining: bool,
    /// For how long the portal has been away, if it is.
    pub portal_away: Option<Duration>,
}
