//! What is counted about peers for whoever watches the gateway. Decides nothing.

/// What became of handshake messages since somebody asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeCounts {
    /// Initiations of clients that were answered, renewals of sessions included.
    pub answered: u64,
    /// Initiations of ours that clients answered.
    pub confirmed: u64,
    /// Initiations and responses that were refused: for nobody here, by nobody known, forged or
    /// old.
    pub rejected: u64,
}

/// How the client's end of a path came to be known: the kind of its ICE candidate (RFC 8445,
/// section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// An address of the client's own.
    Host,
    /// One that a STUN server saw it under.
    ServerReflexive,
    /// One that only we saw it under.
    PeerReflexive,
    /// A relay's.
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

    /// What metrics call it.
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
