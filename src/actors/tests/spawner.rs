//! The [`Spawner`] of tests: shared children are probes, connections are real, and all run on the
//! test's own thread.

use super::probe::{Break, Inbox, InboxSender, Probe};
use super::tell_addr;
use crate::actors::connection::{ConnectionActor, ConnectionSpec};
use crate::actors::nat_table::NatSnapshot;
use crate::actors::supervisor::links::{DnsLinks, NatTableLinks, PortalLinks, TunLinks, UdpLinks};
use crate::actors::supervisor::spawner::{ActorHandle, Place, Spawner, Started};
use crate::config::LiveSettings;
use crate::messages::operator::OperatorLinks;
use crate::messages::supervisor::{Child, HealthNews, InstanceId, NatTableChanged, PortalNews};
use crate::supervision::{DeathNotice, RunningInstance, launch};
use actix::prelude::*;
use futures_util::future::{AbortHandle, Abortable};
use postern_core::ids::ClientId;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;

const SHARDS_MAX: usize = 2;

/// The shared children of a gateway with one shard, in the order in which they are started.
pub(crate) const SHARED: [Child; 6] = [
    Child::Admin,
    Child::Tun(0),
    Child::NatTable(0),
    Child::Udp(0),
    Child::Dns,
    Child::Portal,
];

/// The test's handle on the [`Spawner`] that it passed to the supervisor.
#[derive(Clone)]
pub(crate) struct SpawnerHandle(Rc<RefCell<SpawnerState>>);

struct SpawnerState {
    senders: Senders,
    /// All started children, in order.
    started: Vec<Child>,
    replaced: Vec<Place>,
    probes: BTreeMap<Child, (Addr<Probe>, AbortHandle)>,
    connections: BTreeMap<ClientId, (Addr<ConnectionActor>, AbortHandle)>,
    instances: BTreeMap<ClientId, InstanceId>,
    /// The thread of each connection.
    places: BTreeMap<ClientId, Place>,
    /// The snapshot of each started NatTableActor.
    snapshots: Vec<NatSnapshot>,
    /// Children that fail to build.
    unbuildable: BTreeSet<Child>,
    /// Clients with connections that are never polled.
    stuck: BTreeSet<ClientId>,
    /// Actors on abandoned threads.
    former: Vec<AbortHandle>,
    /// Whether aborts have no effect, as on a stuck thread.
    is_thread_stuck: bool,
    /// The instance that the threads report as running.
    busy: Option<InstanceId>,
    portal: Option<Recipient<PortalNews>>,
    health: Option<Recipient<HealthNews>>,
    operator: Option<OperatorLinks>,
    /// The last settings of `take_over`.
    settings: Option<Arc<LiveSettings>>,
}

/// The inbox senders of each shared child, shared by its instances.
pub(crate) struct Senders {
    shards: [ShardSenders; SHARDS_MAX],
    pub(crate) dns: InboxSender,
    pub(crate) portal: InboxSender,
    pub(crate) admin: InboxSender,
    /// Receives requests for relays.
    pub(crate) asked: InboxSender,
}

struct ShardSenders {
    tun: InboxSender,
    nat_table: InboxSender,
    udp: InboxSender,
    introduced: InboxSender,
}

impl SpawnerHandle {
    pub(crate) fn new(senders: Senders) -> Self {
        Self(Rc::new(RefCell::new(SpawnerState {
            senders,
            started: Vec::new(),
            replaced: Vec::new(),
            probes: BTreeMap::new(),
            connections: BTreeMap::new(),
            instances: BTreeMap::new(),
            places: BTreeMap::new(),
            snapshots: Vec::new(),
            unbuildable: BTreeSet::new(),
            stuck: BTreeSet::new(),
            former: Vec::new(),
            is_thread_stuck: false,
            busy: None,
            portal: None,
            health: None,
            operator: None,
            settings: None,
        })))
    }

    pub(crate) fn spawner(&self) -> Box<dyn Spawner> {
        Box::new(FakeNursery(self.clone()))
    }

    /// Children started since the last call, in order.
    pub(crate) fn started(&self) -> Vec<Child> {
        std::mem::take(&mut self.0.borrow_mut().started)
    }

    /// Threads that were replaced.
    pub(crate) fn replaced(&self) -> Vec<Place> {
        self.0.borrow().replaced.clone()
    }

    /// The snapshot of the last NatTableActor.
    pub(crate) fn snapshot(&self) -> NatSnapshot {
        self.0
            .borrow_mut()
            .snapshots
            .pop()
            .expect("one was started")
    }

    /// Receiver of the last PortalActor's news.
    pub(crate) fn portal(&self) -> Recipient<PortalNews> {
        self.0.borrow().portal.clone().expect("one was started")
    }

    /// Receiver of the news of the last TunActor or DnsActor.
    pub(crate) fn health(&self) -> Recipient<HealthNews> {
        self.0.borrow().health.clone().expect("one was started")
    }

    /// The supervisor as the last AdminActor reaches it.
    pub(crate) fn operator(&self) -> OperatorLinks {
        self.0.borrow().operator.clone().expect("one was started")
    }

    /// The settings for new actors; `None` before the first reload.
    pub(crate) fn settings(&self) -> Option<Arc<LiveSettings>> {
        self.0.borrow().settings.clone()
    }

    /// The probe in its present instance.
    pub(crate) fn probe(&self, child: Child) -> Addr<Probe> {
        self.0.borrow().probes[&child].0.clone()
    }

    /// Breaks a shared child.
    pub(crate) fn break_child(&self, child: Child, how: Break) {
        tell_addr(&self.probe(child), how);
    }

    /// The present instance of a connection.
    pub(crate) fn instance(&self, client: ClientId) -> InstanceId {
        self.0.borrow().instances[&client]
    }

    /// The connection in its present instance.
    pub(crate) fn connection(&self, client: ClientId) -> Addr<ConnectionActor> {
        self.0.borrow().connections[&client].0.clone()
    }

    /// Aborts a connection: it is dropped, and with it its death notice.
    pub(crate) fn kill_connection(&self, client: ClientId) {
        self.0.borrow().connections[&client].1.abort();
    }

    /// Makes building this child fail, or succeed again.
    pub(crate) fn set_unbuildable(&self, child: Child, is_so: bool) {
        set(&mut self.0.borrow_mut().unbuildable, child, is_so);
    }

    /// Makes connections of this client hang, or answer again.
    pub(crate) fn set_stuck(&self, client: ClientId, is_so: bool) {
        set(&mut self.0.borrow_mut().stuck, client, is_so);
    }

    /// An abandoned thread polls its actors again.
    pub(crate) fn thread_comes_round(&self) {
        for former in self.0.borrow_mut().former.drain(..) {
            former.abort();
        }
    }

    /// The threads are stuck in this instance.
    pub(crate) fn set_busy_with(&self, instance: InstanceId) {
        self.0.borrow_mut().busy = Some(instance);
    }

    /// Aborts of actors started from now on have no effect, until a thread is replaced.
    pub(crate) fn set_thread_stuck(&self) {
        self.0.borrow_mut().is_thread_stuck = true;
    }
}

fn set<T: Ord>(all: &mut BTreeSet<T>, one: T, is_in: bool) {
    if is_in {
        all.insert(one);
    } else {
        all.remove(&one);
    }
}

struct FakeNursery(SpawnerHandle);

impl FakeNursery {
    fn launch(
        &self,
        death: DeathNotice,
        child: Child,
        sender: impl Fn(&Senders) -> &InboxSender,
    ) -> (Addr<Probe>, ActorHandle) {
        let shard = child.shard().unwrap_or(0);
        let mut state = self.0.0.borrow_mut();
        state.started.push(child);
        let launched = if state.unbuildable.contains(&child) {
            drop(death);
            let unborn = Context::<Probe>::new();
            (unborn.address(), AbortHandle::new_pair().0)
        } else {
            let introduced = match child == Child::Portal {
                true => &state.senders.asked,
                false => &state.senders.shards[usize::from(shard)].introduced,
            };
            Probe::launch(sender(&state.senders), introduced, death)
        };
        state.probes.insert(child, launched.clone());
        let (addr, abort) = launched;
        // An abort on a stuck thread has no effect.
        let abort = match state.is_thread_stuck {
            true => AbortHandle::new_pair().0,
            false => abort,
        };
        let handle = ActorHandle::of(&addr, abort);
        (addr, handle)
    }
}

impl Spawner for FakeNursery {
    fn tun(&self, shard: u8, death: DeathNotice, news: Recipient<HealthNews>) -> Started<TunLinks> {
        let child = Child::Tun(shard);
        let (addr, handle) = self.launch(death, child, |senders| &senders.of(shard).tun);
        self.0.0.borrow_mut().health = Some(news);
        let links = TunLinks::from(&addr);
        Started { links, handle }
    }

    fn nat_table(
        &self,
        shard: u8,
        death: DeathNotice,
        snapshot: NatSnapshot,
        _: Recipient<NatTableChanged>,
    ) -> Started<NatTableLinks> {
        let child = Child::NatTable(shard);
        let (addr, handle) = self.launch(death, child, |senders| &senders.of(shard).nat_table);
        self.0.0.borrow_mut().snapshots.push(snapshot);
        let links = NatTableLinks::from(&addr);
        Started { links, handle }
    }

    fn udp(&self, shard: u8, death: DeathNotice) -> Started<UdpLinks> {
        let child = Child::Udp(shard);
        let (addr, handle) = self.launch(death, child, |senders| &senders.of(shard).udp);
        let links = UdpLinks::from(&addr);
        Started { links, handle }
    }

    fn dns(&self, death: DeathNotice, news: Recipient<HealthNews>) -> Started<DnsLinks> {
        let (addr, handle) = self.launch(death, Child::Dns, |senders| &senders.dns);
        self.0.0.borrow_mut().health = Some(news);
        let links = DnsLinks::from(&addr);
        Started { links, handle }
    }

    fn portal(&self, death: DeathNotice, news: Recipient<PortalNews>) -> Started<PortalLinks> {
        let (addr, handle) = self.launch(death, Child::Portal, |senders| &senders.portal);
        self.0.0.borrow_mut().portal = Some(news);
        let links = PortalLinks::from(&addr);
        Started { links, handle }
    }

    fn admin(&self, death: DeathNotice, links: OperatorLinks) -> ActorHandle {
        let (_, handle) = self.launch(death, Child::Admin, |senders| &senders.admin);
        self.0.0.borrow_mut().operator = Some(links);
        handle
    }

    fn connection(&self, spec: ConnectionSpec) -> (Addr<ConnectionActor>, AbortHandle) {
        let mut state = self.0.0.borrow_mut();
        let client = spec.client;
        let child = Child::Connection(client, spec.config.index);
        state.started.push(child);
        state.places.insert(client, Place::of(child));
        state.instances.insert(client, spec.death.instance());
        let launched = if state.stuck.contains(&client) {
            stuck_connection(spec)
        } else {
            let mailbox = ConnectionActor::MAILBOX;
            let busy = (&RunningInstance::default(), spec.death.instance());
            launch(&Arbiter::current(), busy, mailbox, |_| {
                Ok(ConnectionActor::new(spec))
            })
        };
        state.connections.insert(client, launched.clone());
        let (addr, abort) = launched;
        match state.is_thread_stuck {
            true => (addr, AbortHandle::new_pair().0),
            false => (addr, abort),
        }
    }

    fn take_over(&mut self, settings: &Arc<LiveSettings>) {
        self.0.0.borrow_mut().settings = Some(Arc::clone(settings));
    }

    fn busy_with(&self, _: Place) -> Option<InstanceId> {
        self.0.0.borrow().busy
    }

    fn replace_thread(&mut self, place: Place) {
        let mut state = self.0.0.borrow_mut();
        state.replaced.push(place);
        state.is_thread_stuck = false;
        let state = &mut *state;
        for (child, (_, abort)) in &state.probes {
            if Place::of(*child) == place {
                state.former.push(abort.clone());
            }
        }
        let all = state.connections.iter();
        let there = all.filter(|(client, _)| state.places[client] == place);
        state
            .former
            .extend(there.map(|(_, (_, abort))| abort.clone()));
    }
}

/// An actor that is never polled.
fn stuck_connection(spec: ConnectionSpec) -> (Addr<ConnectionActor>, AbortHandle) {
    let context = Context::<ConnectionActor>::new();
    let address = context.address();
    let (abort, registration) = AbortHandle::new_pair();
    let instance = async move {
        let _held = (context, spec);
        std::future::pending::<()>().await;
    };
    actix_rt::spawn(Abortable::new(instance, registration));
    (address, abort)
}

/// An inbox for each shared child, and their senders. Those of shard 0 can be named without the
/// shard.
pub(crate) struct Inboxes {
    first: ShardInboxes,
    /// Shard 1, for tests with two.
    pub(crate) second: ShardInboxes,
    pub(crate) dns: Inbox,
    pub(crate) portal: Inbox,
    pub(crate) asked: Inbox,
}

pub(crate) struct ShardInboxes {
    pub(crate) tun: Inbox,
    pub(crate) nat_table: Inbox,
    pub(crate) udp: Inbox,
    /// Introductions of tun and nat_table.
    pub(crate) introduced: Inbox,
}

impl Senders {
    fn of(&self, shard: u8) -> &ShardSenders {
        &self.shards[usize::from(shard)]
    }
}

impl ShardInboxes {
    fn new() -> (ShardSenders, Self) {
        let [tun, nat_table, udp, introduced] = std::array::from_fn(|_| Inbox::new());
        let senders = ShardSenders {
            tun: tun.0,
            nat_table: nat_table.0,
            udp: udp.0,
            introduced: introduced.0,
        };
        let inboxes = Self {
            tun: tun.1,
            nat_table: nat_table.1,
            udp: udp.1,
            introduced: introduced.1,
        };
        (senders, inboxes)
    }

    fn forget(&mut self) {
        let all = [
            &mut self.tun,
            &mut self.nat_table,
            &mut self.udp,
            &mut self.introduced,
        ];
        for inbox in all {
            inbox.forget();
        }
    }
}

impl Deref for Inboxes {
    type Target = ShardInboxes;

    fn deref(&self) -> &ShardInboxes {
        &self.first
    }
}

impl DerefMut for Inboxes {
    fn deref_mut(&mut self) -> &mut ShardInboxes {
        &mut self.first
    }
}

impl Inboxes {
    pub(crate) fn new() -> (Senders, Self) {
        let (first, second) = (ShardInboxes::new(), ShardInboxes::new());
        let [dns, portal, admin, asked] = std::array::from_fn(|_| Inbox::new());
        let senders = Senders {
            shards: [first.0, second.0],
            dns: dns.0,
            portal: portal.0,
            admin: admin.0,
            asked: asked.0,
        };
        let inboxes = Self {
            first: first.1,
            second: second.1,
            dns: dns.1,
            portal: portal.1,
            asked: asked.1,
        };
        (senders, inboxes)
    }

    /// Discards all messages so far, once all actors are idle.
    pub(crate) async fn clear(&mut self) {
        self.tun.drain().await;
        self.forget();
    }

    /// Discards all messages so far.
    pub(crate) fn forget(&mut self) {
        self.first.forget();
        self.second.forget();
        for inbox in [&mut self.dns, &mut self.portal, &mut self.asked] {
            inbox.forget();
        }
    }
}
