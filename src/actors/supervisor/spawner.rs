//! The supervisor's view of the code that owns threads, sockets and devices: it starts children.

use super::links::{DnsLinks, NatTableLinks, PortalLinks, TunLinks, UdpLinks};
use crate::actors::connection::{ConnectionActor, ConnectionSpec};
use crate::actors::nat_table::NatSnapshot;
use crate::config::LiveSettings;
use crate::faults::Fault;
use crate::messages::operator::OperatorLinks;
use crate::messages::supervisor::{HealthNews, InstanceId, NatTableChanged, PortalNews};
use crate::supervision::{DeathNotice, Ping};
use actix::prelude::*;
use futures_util::future::AbortHandle;
pub use postern_core::supervision::Place;
use std::sync::Arc;

/// A started child. Messages to it wait in its mailbox until its thread has built it.
pub struct Started<L> {
    pub links: L,
    pub handle: ActorHandle,
}

/// The supervisor's access to a child of any kind.
pub struct ActorHandle {
    pub pings: Recipient<Ping>,
    pub faults: Recipient<Fault>,
    /// Makes the actor's thread drop it at the next poll.
    pub abort: AbortHandle,
}

impl ActorHandle {
    pub fn of<A>(addr: &Addr<A>, abort: AbortHandle) -> Self
    where
        A: Actor<Context = Context<A>> + Handler<Ping> + Handler<Fault>,
    {
        Self {
            pings: addr.clone().recipient(),
            faults: addr.clone().recipient(),
            abort,
        }
    }
}

/// Starts children. If a child cannot be built, its death notice reports it as dead.
pub trait Spawner {
    /// On the TUN queue of a shard, which all instances share.
    fn tun(&self, shard: u8, death: DeathNotice, news: Recipient<HealthNews>) -> Started<TunLinks>;

    fn nat_table(
        &self,
        shard: u8,
        death: DeathNotice,
        snapshot: NatSnapshot,
        changed: Recipient<NatTableChanged>,
    ) -> Started<NatTableLinks>;

    /// On the sockets of a shard, which all instances share.
    fn udp(&self, shard: u8, death: DeathNotice) -> Started<UdpLinks>;

    fn dns(&self, death: DeathNotice, news: Recipient<HealthNews>) -> Started<DnsLinks>;

    fn portal(&self, death: DeathNotice, news: Recipient<PortalNews>) -> Started<PortalLinks>;

    /// On the listeners, which all instances share.
    fn admin(&self, death: DeathNotice, supervisor: OperatorLinks) -> ActorHandle;

    /// On the thread of the shard in the connection's index.
    fn connection(&self, spec: ConnectionSpec) -> (Addr<ConnectionActor>, AbortHandle);

    /// Starts actors with these settings from now on.
    fn take_over(&mut self, settings: &Arc<LiveSettings>);

    /// The instance that a thread runs now, or in which it is stuck.
    fn busy_with(&self, place: Place) -> Option<InstanceId>;

    /// Abandons a stuck thread and starts later actors on a new one. The actors on the old thread
    /// die if it ever polls them again.
    fn replace_thread(&mut self, place: Place);
}
