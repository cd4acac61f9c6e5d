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
        matches!(
            (&self.fact, &earlier.fact),
            (
                ConnectionFact::Authorizations(..),
                ConnectionFact::Authorizations(..)
            ) | (ConnectionFact::PathInUse(_), ConnectionFact::PathInUse(_))
                | (ConnectionFact::Closed, ConnectionFact::Closed)
                | (
                    ConnectionFact::SessionEstablished,
                    ConnectionFact::SessionEstablished
                )
        )
    }
}

impl Control for NatTableChanged {
    fn replaces(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::NameLearned(now), Self::NameLearned(before)) => {
                (&now.name, now.family) == (&before.name, before.family)
            }
            (Self::PinsChanged(now, _), Self::PinsChanged(before, _)) => now == before,
            _ => false,
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
    use postern_core::authorizations::Authorizations;
    use postern_core::ids::ClientId;
    use uuid::Uuid;

    fn news(fact: ConnectionFact) -> ConnectionNews {
        ConnectionNews {
            client: ClientId(Uuid::nil()),
            instance: InstanceId(1),
            opened: 0,
            fact,
        }
    }

    #[test]
    fn the_latest_authorizations_and_pins_replace_earlier_ones() {
        let published = |number| {
            let authorizations = Authorizations::default();
            news(ConnectionFact::Authorizations(number, authorizations))
        };
        assert!(published(2).replaces(&published(1)));
        let pins = |client| NatTableChanged::PinsChanged(ClientId(Uuid::from_u128(client)), vec![]);
        assert!(pins(1).replaces(&pins(1)));
        assert!(!pins(1).replaces(&pins(2)));
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
}
