//! Where children are made: what the supervisor asks of those who know threads, sockets and
//! devices.

use super::links::{DnsLinks, NatTableLinks, PortalLinks, TunLinks, UdpLinks};
use crate::actors::connection::{ConnectionActor, ConnectionSpec};
use crate::actors::nat_table::NatSnapshot;
use crate::actors::portal::PortalOutputs;
use crate::actors::tun::TunOutputs;
use crate::faults::Fault;
use crate::messages::operator::OperatorLinks;
use crate::messages::supervisor::{Child, InstanceId, NatTableChanged, ResolverStateChanged};
use crate::reload::LiveSettings;
use crate::supervision::{DeathNotice, Ping};
use actix::prelude::*;
use futures_util::future::AbortHandle;

/// A child that runs, or will in a moment: messages to it wait in its mailbox.
pub struct Started<L> {
    /// How others reach it.
    pub links: L,
    /// How the supervisor holds it.
    pub handle: ActorHandle,
}

/// What the supervisor does to a child, whatever its kind.
pub struct ActorHandle {
    /// Whether it still answers.
    pub pings: Recipient<Ping>,
    /// For chaos runs.
    pub faults: Recipient<Fault>,
    /// Drops the actor as soon as its thread comes round to it.
    pub abort: AbortHandle,
}

impl ActorHandle {
    /// Of an actor that was launched.
    #[must_use]
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

/// The threads besides the supervisor's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Portal and names: what may take its time.
    Control,
    /// Everything that the packets of some clients meet.
    Shard(u8),
    /// Who answers the operator, whatever the others are stuck in.
    Admin,
}

impl Place {
    /// Where a child lives.
    #[must_use]
    pub fn of(child: Child) -> Self {
        match child {
            Child::Portal | Child::Dns => Self::Control,
            Child::Admin => Self::Admin,
            Child::NatTable(shard) | Child::Tun(shard) | Child::Udp(shard) => Self::Shard(shard),
            Child::Connection(_, index) => Self::Shard(index.shard()),
        }
    }
}

/// Makes children, as often as it takes. A child that cannot be made has died: its notice says so.
pub trait Spawner {
    /// On the queue of a shard, which all its lives share.
    fn tun(&self, shard: u8, death: DeathNotice, outputs: TunOutputs) -> Started<TunLinks>;

    /// With what its predecessor left behind.
    fn nat_table(
        &self,
        shard: u8,
        death: DeathNotice,
        snapshot: NatSnapshot,
        news: Recipient<NatTableChanged>,
    ) -> Started<NatTableLinks>;

    /// On the sockets of a shard, which all its lives share.
    fn udp(&self, shard: u8, death: DeathNotice) -> Started<UdpLinks>;

    /// With an empty cache.
    fn dns(&self, death: DeathNotice, state: Recipient<ResolverStateChanged>) -> Started<DnsLinks>;

    /// Which joins at once.
    fn portal(&self, death: DeathNotice, outputs: PortalOutputs) -> Started<PortalLinks>;

    /// On the listeners that all its lives share.
    fn admin(&self, death: DeathNotice, supervisor: OperatorLinks) -> ActorHandle;

    /// On the thread of the shard that its index names.
    fn connection(&self, spec: ConnectionSpec) -> (Addr<ConnectionActor>, AbortHandle);

    /// Makes whoever is made from now on with these settings.
    fn take_over(&mut self, settings: &LiveSettings);

    /// Whose code a thread runs at this moment, or for ever.
    fn busy_with(&self, place: Place) -> Option<InstanceId>;

    /// Gives up a thread that is stuck; who is made from now on lives on another. Those who lived
    /// on it die when it comes round to them, if ever.
    fn replace_thread(&mut self, place: Place);
}
