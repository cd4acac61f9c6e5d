//! Messages of the control path: what one of them makes superfluous while it waits for room in a
//! mailbox.

use super::connection::ConnectionCommand;
use super::dns::{ResolveName, ServeNames};
use super::nat_table::{NatTableCommand, NatTableSetup};
use super::portal::PortalCommand;
use super::supervisor::{ConnectionFact, ConnectionNews, HealthNews, NatTableChanged, PortalNews};
use super::tun::TunSetup;
use super::udp::{UdpCommand, UdpSetup};
use actix::Message;

/// A message that may wait for room in its receiver's mailbox.
pub trait Control: Message<Result = ()> + Send + 'static {
    /// Whether `earlier`, which still waits, says nothing beside this message.
    fn replaces(&self, _earlier: &Self) -> bool {
        false
    }
}

impl Control for ConnectionCommand {}
impl Control for NatTableCommand {}
impl Control for NatTableSetup {}
impl Control for PortalCommand {}
impl Control for PortalNews {}
impl Control for ResolveName {}
impl Control for TunSetup {}
impl Control for UdpCommand {}

impl Control for ServeNames {
    fn replaces(&self, _: &Self) -> bool {
        true
    }
}

impl Control for UdpSetup {
    fn replaces(&self, earlier: &Self) -> bool {
        matches!((self, earlier), (Self::UseRelays(_), Self::UseRelays(_)))
    }
}

impl Control for ConnectionNews {
    fn replaces(&self, earlier: &Self) -> bool {
        match (&self.fact, &earlier.fact) {
            (ConnectionFact::NameAnnounced(now), ConnectionFact::NameAnnounced(before)) => {
                now.resource == before.resource && now.announced.domain == before.announced.domain
            }
            (ConnectionFact::PathInUse(_), ConnectionFact::PathInUse(_))
            | (ConnectionFact::Closed, ConnectionFact::Closed)
            | (ConnectionFact::SessionEstablished, ConnectionFact::SessionEstablished) => true,
            _ => false,
        }
    }
}

impl Control for NatTableChanged {
    fn replaces(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::NameLearned(now), Self::NameLearned(before)) => {
                (&now.name, now.family) == (&before.name, before.family)
            }
            _ => {
                let pin = self.pin();
                pin.is_some() && pin == earlier.pin()
            }
        }
    }
}

impl Control for HealthNews {
    fn replaces(&self, earlier: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::supervisor::InstanceId;
    use postern_core::grant::AnnouncedName;
    use postern_core::ids::{ClientId, ResourceId};
    use postern_core::ledger::RecordedName;
    use postern_core::nat_table::flows::FlowProtocol;
    use uuid::Uuid;

    fn news(fact: ConnectionFact) -> ConnectionNews {
        ConnectionNews {
            client: ClientId(Uuid::nil()),
            instance: InstanceId(1),
            opened: 0,
            fact,
        }
    }

    fn named(domain: &str) -> ConnectionNews {
        news(ConnectionFact::NameAnnounced(RecordedName {
            resource: ResourceId(Uuid::nil()),
            announced: AnnouncedName {
                domain: domain.into(),
                proxy_ips: Vec::new(),
            },
            in_tunnel: true,
        }))
    }

    #[test]
    fn news_replaces_news_of_the_same_name_only() {
        assert!(named("a.example").replaces(&named("a.example")));
        assert!(!named("a.example").replaces(&named("b.example")));
    }

    /// Acknowledgements answer requests: each one counts.
    #[test]
    fn acknowledgements_and_candidates_are_never_replaced() {
        let reply_ref = "ref-1".to_owned();
        for fact in [
            ConnectionFact::Accepted { reply_ref },
            ConnectionFact::CandidatesGathered(Vec::new()),
            ConnectionFact::TransportLost,
        ] {
            assert!(!news(fact.clone()).replaces(&news(fact)));
        }
    }

    #[test]
    fn the_end_of_a_pin_replaces_it_and_no_other() {
        let unpinned = |port| {
            let key = (FlowProtocol::Udp, port, [100, 96, 0, 1].into());
            NatTableChanged::FlowUnpinned(ClientId(Uuid::nil()), key)
        };
        assert!(unpinned(1).replaces(&unpinned(1)));
        assert!(!unpinned(1).replaces(&unpinned(2)));
    }
}
