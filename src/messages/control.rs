//! Messages of the control path: what one of them makes superfluous while it waits for room in a
//! mailbox.

use super::connection::ConnectionCommand;
use super::dns::ServeNames;
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
