//! Whether the gateway is ready for clients, judged from plain facts and told in words.
//!
//! Three answers, not two (docs/lessons.md 31): *ready*; *degraded*, which serves the clients that
//! it has and lacks something all the same; *not ready*. Refuses to find facts out: whoever asks
//! brings them.

use std::fmt;

/// How the portal is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortalState {
    /// It has not let this gateway in yet.
    NeverJoined,
    /// It has.
    Joined,
    /// It had, and is away.
    Away,
}

/// Whether name servers answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResolverState {
    /// Nobody was asked yet.
    #[default]
    Unproven,
    /// The last question was answered, whatever the answer.
    Answering,
    /// The last question was answered by nobody.
    Silent,
}

/// What is known when somebody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthFacts {
    /// Actors that do not answer, as log lines name them.
    pub silent: Vec<&'static str>,
    /// How the portal is reached.
    pub portal: PortalState,
    /// Whether the tunnel interface has its addresses and routes.
    pub is_interface_up: bool,
    /// Whether name servers answer.
    pub resolver: ResolverState,
    /// Clients that are served.
    pub clients: usize,
    /// Whether new clients are refused because the gateway is about to end.
    pub is_draining: bool,
    /// Whether the gateway is ending.
    pub is_stopping: bool,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The process is ending.
    Stopping,
    /// New clients are refused.
    Draining,
    /// An actor does not answer; it is replaced within seconds.
    ActorSilent(&'static str),
    /// Nobody can be admitted before the portal was joined.
    PortalNeverJoined,
    /// Who is connected is served, nobody else can be admitted.
    PortalAway,
    /// Packets cannot reach resources.
    InterfaceDown,
    /// No name server has answered yet.
    ResolverUnproven,
    /// No name server answers any more.
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

/// The answer, with every reason for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// All is well.
    Ready,
    /// Clients are served, and something is missing.
    Degraded(Vec<Trouble>),
    /// No client should be sent here.
    NotReady(Vec<Trouble>),
}

impl Readiness {
    /// One word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded(_) => "degraded",
            Self::NotReady(_) => "not_ready",
        }
    }

    /// The reasons; none when all is well.
    #[must_use]
    pub fn troubles(&self) -> &[Trouble] {
        match self {
            Self::Ready => &[],
            Self::Degraded(troubles) | Self::NotReady(troubles) => troubles,
        }
    }
}

impl HealthFacts {
    /// Judges them. A portal outage alone leaves a gateway ready, if degraded, for as long as it
    /// serves somebody (docs/lessons.md 24).
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

    /// The most fundamental first.
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
    fn a_gateway_that_lacks_nothing_is_ready() {
        assert_eq!(well().readiness(), Readiness::Ready);
        let alone = HealthFacts {
            clients: 0,
            ..well()
        };
        assert_eq!(alone.readiness(), Readiness::Ready);
    }

    /// docs/lessons.md 31: every single trouble shows.
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
    fn without_its_portal_it_is_degraded_while_it_serves_somebody() {
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
