//! Counters and labels of peers for metrics. Decides nothing.

/// Handshake messages by outcome, since the counts were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeCounts {
    /// Initiations of clients that were answered, including rekeys.
    pub answered: u64,
    /// Initiations of the gateway that clients answered.
    pub confirmed: u64,
    /// Initiations and responses that were refused: addressed to an unknown peer, from an unknown
    /// initiator, forged or old.
    pub rejected: u64,
}

/// The kind of the client's ICE candidate on a path (RFC 8445, 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// An address of one of the client's interfaces.
    Host,
    /// The client's address as a STUN server saw it.
    ServerReflexive,
    /// The client's address as only the gateway saw it.
    PeerReflexive,
    /// An address of a relay that the client uses.
    Relayed,
}

impl PathKind {
    /// All variants, in order, for counters and metrics.
    pub const ALL: [Self; 4] = [
        Self::Host,
        Self::ServerReflexive,
        Self::PeerReflexive,
        Self::Relayed,
    ];

    /// The kind's value in the labels of the metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "server_reflexive",
            Self::PeerReflexive => "peer_reflexive",
            Self::Relayed => "relayed",
        }
    }
}
