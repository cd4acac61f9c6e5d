//! Readiness of the gateway for clients, derived from plain facts, with reasons in words.
//!
//! There are three answers, not two (docs/lessons.md 31): *ready*; *degraded*, which serves its
//! present clients despite a problem; *not ready*. The caller collects the facts.

use std::fmt;

/// State of the connection to the portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortalState {
    /// The portal has not accepted this gateway yet.
    NeverJoined,
    /// The gateway is connected and joined.
    Joined,
    /// The gateway was joined and lost the connection.
    Away,
}

/// Whether the name servers answer questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResolverState {
    /// No question has been asked yet.
    #[default]
    Unproven,
    /// The last question was answered, positively or negatively.
    Answering,
    /// The last question remained unanswered.
    Silent,
}

/// The facts from which readiness is derived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthFacts {
    /// Names of actors that do not answer, as in log lines.
    pub silent: Vec<&'static str>,
    /// State of the connection to the portal.
    pub portal: PortalState,
    /// Whether the tunnel interface has its addresses and routes.
    pub is_interface_up: bool,
    /// Whether the name servers answer.
    pub resolver: ResolverState,
    /// Number of clients served now.
    pub clients: usize,
    /// Whether new clients are refused because the gateway will stop.
    pub is_draining: bool,
    /// Whether the gateway is stopping.
    pub is_stopping: bool,
}

/// A condition that impairs the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The process is stopping.
    Stopping,
    /// New clients are refused.
    Draining,
    /// An actor does not answer; it is replaced within seconds.
    ActorSilent(&'static str),
    /// Clients cannot be admitted before the portal was joined.
    PortalNeverJoined,
    /// Connected clients are served, new ones cannot be admitted.
    PortalAway,
    /// Packets cannot reach resources.
    InterfaceDown,
    /// No name server has answered yet.
    ResolverUnproven,
    /// The name servers no longer answer.
    ResolverSilent,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str("the gateway is stopping"),
            Self::Draining => f.write_str("draining: new clients are refused"),
            Self::ActorSilent(actor) => {
                write!(f, "the actor {actor} does not answer; it is being replaced")
            }
            Self::PortalNeverJoined => f.write_str(
                "the portal has not been joined yet; see the log, portal.url and the token",
            ),
            Self::PortalAway => f.write_str(
                "the portal is away: connected clients are served, new ones cannot be admitted",
            ),
            Self::InterfaceDown => f.write_str(
                "the tunnel interface has no addresses yet: they come with the first join",
            ),
            Self::ResolverUnproven => {
                f.write_str("no name server has answered yet; see dns.servers or /etc/resolv.conf")
            }
            Self::ResolverSilent => f.write_str(
                "no name server answers: names keep their last addresses, new names cannot be \
                 looked up; see dns.servers or /etc/resolv.conf",
            ),
        }
    }
}

/// The readiness, with all reasons against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// No trouble is present.
    Ready,
    /// Clients are served in spite of these troubles.
    Degraded(Vec<Trouble>),
    /// Clients should not be sent to this gateway.
    NotReady(Vec<Trouble>),
}

impl Readiness {
    /// The readiness as one word, for probes and reports.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded(_) => "degraded",
            Self::NotReady(_) => "not_ready",
        }
    }

    /// The reasons; empty when ready.
    #[must_use]
    pub fn troubles(&self) -> &[Trouble] {
        match self {
            Self::Ready => &[],
            Self::Degraded(troubles) | Self::NotReady(troubles) => troubles,
        }
    }
}

impl HealthFacts {
    /// Derives the readiness. A portal outage alone makes a gateway degraded, not unready, while it
    /// serves clients (docs/lessons.md 24).
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let troubles = self.troubles();
        let is_served = |trouble: &Trouble| *trouble == Trouble::PortalAway && self.clients > 0;
        if troubles.is_empty() {
            Readiness::Ready
        } else if troubles.iter().all(is_served) {
            Readiness::Degraded(troubles)
        } else {
            Readiness::NotReady(troubles)
        }
    }

    /// All troubles, the most fundamental first.
    fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let mut note = |is_so: bool, trouble: Trouble| {
            if is_so {
                troubles.push(trouble);
            }
        };
        note(self.is_stopping, Trouble::Stopping);
        note(self.is_draining && !self.is_stopping, Trouble::Draining);
        for actor in &self.silent {
            note(true, Trouble::ActorSilent(actor));
        }
        match self.portal {
            PortalState::Joined => {}
            PortalState::NeverJoined => note(true, Trouble::PortalNeverJoined),
            PortalState::Away => note(true, Trouble::PortalAway),
        }
        note(!self.is_interface_up, Trouble::InterfaceDown);
        match self.resolver {
            ResolverState::Answering => {}
            ResolverState::Unproven => note(true, Trouble::ResolverUnproven),
            ResolverState::Silent => note(true, Trouble::ResolverSilent),
        }
        troubles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> HealthFacts {
        HealthFacts {
            silent: Vec::new(),
            portal: PortalState::Joined,
            is_interface_up: true,
            resolver: ResolverState::Answering,
            clients: 1,
            is_draining: false,
            is_stopping: false,
        }
    }

    #[test]
    fn a_gateway_without_trouble_is_ready() {
        assert_eq!(well().readiness(), Readiness::Ready);
        let alone = HealthFacts {
            clients: 0,
            ..well()
        };
        assert_eq!(alone.readiness(), Readiness::Ready);
    }

    /// docs/lessons.md 31: every single trouble is visible.
    #[test]
    fn each_trouble_alone_makes_it_not_ready() {
        let cases = [
            (
                HealthFacts {
                    is_stopping: true,
                    ..well()
                },
                Trouble::Stopping,
            ),
            (
                HealthFacts {
                    is_draining: true,
                    ..well()
                },
                Trouble::Draining,
            ),
            (
                HealthFacts {
                    silent: vec!["dns"],
                    ..well()
                },
                Trouble::ActorSilent("dns"),
            ),
            (
                HealthFacts {
                    portal: PortalState::NeverJoined,
                    ..well()
                },
                Trouble::PortalNeverJoined,
            ),
            (
                HealthFacts {
                    is_interface_up: false,
                    ..well()
                },
                Trouble::InterfaceDown,
            ),
            (
                HealthFacts {
                    resolver: ResolverState::Unproven,
                    ..well()
                },
                Trouble::ResolverUnproven,
            ),
            (
                HealthFacts {
                    resolver: ResolverState::Silent,
                    ..well()
                },
                Trouble::ResolverSilent,
            ),
        ];
        for (facts, trouble) in cases {
            assert_eq!(facts.readiness(), Readiness::NotReady(vec![trouble]));
        }
    }

    /// docs/lessons.md 24: the data plane outlives the portal.
    #[test]
    fn without_the_portal_it_is_degraded_while_it_serves_clients() {
        let away = HealthFacts {
            portal: PortalState::Away,
            ..well()
        };
        assert_eq!(
            away.readiness(),
            Readiness::Degraded(vec![Trouble::PortalAway])
        );
        let alone = HealthFacts {
            clients: 0,
            ..away.clone()
        };
        assert_eq!(
            alone.readiness(),
            Readiness::NotReady(vec![Trouble::PortalAway])
        );
        let worse = HealthFacts {
            resolver: ResolverState::Silent,
            ..away
        };
        let both = vec![Trouble::PortalAway, Trouble::ResolverSilent];
        assert_eq!(worse.readiness(), Readiness::NotReady(both));
    }
}
