//! Where a supervisor's children are made in tests: shared ones are probes, connections are real.
//! Everybody lives on the test's own thread.

use crate::probe::{Break, Inbox, Probe, Tray};
use actix::prelude::*;
use futures_util::future::{AbortHandle, Abortable};
use postern::actors::connection::{ConnectionActor, ConnectionSpec};
use postern::actors::nat_table::NatSnapshot;
use postern::actors::portal::PortalOutputs;
use postern::actors::supervisor::links::{
    DnsLinks, NatTableLinks, PortalLinks, TunLinks, UdpLinks,
};
use postern::actors::supervisor::spawner::{ActorHandle, Place, Spawner, Started};
use postern::actors::tun::TunOutputs;
use postern::messages::operator::OperatorLinks;
use postern::messages::supervisor::{Child, InstanceId, NatTableChanged, ResolverStateChanged};
use postern::reload::LiveSettings;
use postern::shell::tell_addr;
use postern::supervision::{DeathNotice, RunningInstance, launch};
use postern_core::ids::ClientId;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// No test wants more.
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

/// What the test sees and steers of the [`Spawner`] that it gave away.
#[derive(Clone)]
pub(crate) struct SpawnerDesk(Rc<RefCell<Desk>>);

struct Desk {
    trays: Trays,
    /// Everybody who was started, in order.
    started: Vec<Child>,
    replaced: Vec<Place>,
    probes: BTreeMap<Child, (Addr<Probe>, AbortHandle)>,
    connections: BTreeMap<ClientId, (Addr<ConnectionActor>, AbortHandle)>,
    lives: BTreeMap<ClientId, InstanceId>,
    /// Where their connections live.
    places: BTreeMap<ClientId, Place>,
    /// What each NatTableActor was given.
    snapshots: Vec<NatSnapshot>,
    /// Who comes to life dead.
    stillborn: BTreeSet<Child>,
    /// Clients whose connections are never polled.
    stuck: BTreeSet<ClientId>,
    /// Those who lived on a thread that was given up.
    former: Vec<AbortHandle>,
    /// Whether ending a child has no effect, as on a thread that is stuck.
    is_thread_stuck: bool,
    /// Whose code the threads run, as they say.
    busy: Option<InstanceId>,
    portal: Option<PortalOutputs>,
    tun: Option<TunOutputs>,
    resolver: Option<Recipient<ResolverStateChanged>>,
    operator: Option<OperatorLinks>,
    /// What it was told last to make actors with.
    settings: Option<LiveSettings>,
}

/// Where all lives of each shared child put what they are told.
pub(crate) struct Trays {
    shards: [ShardTrays; SHARDS_MAX],
    pub(crate) dns: Tray,
    pub(crate) portal: Tray,
    pub(crate) admin: Tray,
    /// Who is asked for relays.
    pub(crate) asked: Tray,
    /// Who is told of resources that are gone.
    pub(crate) released: Tray,
}

struct ShardTrays {
    tun: Tray,
    nat_table: Tray,
    udp: Tray,
    introduced: Tray,
}

impl SpawnerDesk {
    pub(crate) fn new(trays: Trays) -> Self {
        Self(Rc::new(RefCell::new(Desk {
            trays,
            started: Vec::new(),
            replaced: Vec::new(),
            probes: BTreeMap::new(),
            connections: BTreeMap::new(),
            lives: BTreeMap::new(),
            places: BTreeMap::new(),
            snapshots: Vec::new(),
            stillborn: BTreeSet::new(),
            stuck: BTreeSet::new(),
            former: Vec::new(),
            is_thread_stuck: false,
            busy: None,
            portal: None,
            tun: None,
            resolver: None,
            operator: None,
            settings: None,
        })))
    }

    /// For the supervisor.
    pub(crate) fn spawner(&self) -> Box<dyn Spawner> {
        Box::new(FakeNursery(self.clone()))
    }

    /// Who was started since this was asked last, in order.
    pub(crate) fn started(&self) -> Vec<Child> {
        std::mem::take(&mut self.0.borrow_mut().started)
    }

    /// Which threads were given up.
    pub(crate) fn replaced(&self) -> Vec<Place> {
        self.0.borrow().replaced.clone()
    }

    /// What the last NatTableActor was given.
    pub(crate) fn snapshot(&self) -> NatSnapshot {
        self.0
            .borrow_mut()
            .snapshots
            .pop()
            .expect("one was started")
    }

    /// Where the last PortalActor's messages would go.
    pub(crate) fn portal(&self) -> PortalOutputs {
        self.0.borrow().portal.clone().expect("one was started")
    }

    /// Where the last TunActor's news would go.
    pub(crate) fn tun(&self) -> TunOutputs {
        self.0.borrow().tun.clone().expect("one was started")
    }

    /// Where the last DnsActor's news would go.
    pub(crate) fn resolver(&self) -> Recipient<ResolverStateChanged> {
        self.0.borrow().resolver.clone().expect("one was started")
    }

    /// What the last AdminActor would ask.
    pub(crate) fn operator(&self) -> OperatorLinks {
        self.0.borrow().operator.clone().expect("one was started")
    }

    /// What whoever is made from now on is made with; `None` if nothing else was said.
    pub(crate) fn settings(&self) -> Option<LiveSettings> {
        self.0.borrow().settings.clone()
    }

    /// The probe in its present instance.
    pub(crate) fn probe(&self, child: Child) -> Addr<Probe> {
        self.0.borrow().probes[&child].0.clone()
    }

    /// Has a shared child come to an end.
    pub(crate) fn break_child(&self, child: Child, how: Break) {
        tell_addr(&self.probe(child), how);
    }

    /// Which life a connection is in.
    pub(crate) fn instance(&self, client: ClientId) -> InstanceId {
        self.0.borrow().lives[&client]
    }

    /// The connection in its present instance.
    pub(crate) fn connection(&self, client: ClientId) -> Addr<ConnectionActor> {
        self.0.borrow().connections[&client].0.clone()
    }

    /// Ends a connection from outside: it is dropped, and with it its notice.
    pub(crate) fn kill_connection(&self, client: ClientId) {
        self.0.borrow().connections[&client].1.abort();
    }

    /// From now on, this child cannot be built; or can again.
    pub(crate) fn set_stillborn(&self, child: Child, is_so: bool) {
        set(&mut self.0.borrow_mut().stillborn, child, is_so);
    }

    /// From now on, connections of this client do not answer; or do again.
    pub(crate) fn set_stuck(&self, client: ClientId, is_so: bool) {
        set(&mut self.0.borrow_mut().stuck, client, is_so);
    }

    /// The thread that was given up comes round to those who lived on it.
    pub(crate) fn thread_comes_round(&self) {
        for former in self.0.borrow_mut().former.drain(..) {
            former.abort();
        }
    }

    /// The threads run this life's code, for ever.
    pub(crate) fn set_busy_with(&self, instance: InstanceId) {
        self.0.borrow_mut().busy = Some(instance);
    }

    /// Whoever is started from now on lives on when it is ended, until a thread is replaced.
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

struct FakeNursery(SpawnerDesk);

impl FakeNursery {
    fn launch(
        &self,
        death: DeathNotice,
        child: Child,
        tray: impl Fn(&Trays) -> &Tray,
    ) -> (Addr<Probe>, ActorHandle) {
        let shard = child.shard().unwrap_or(0);
        let mut desk = self.0.0.borrow_mut();
        desk.started.push(child);
        let launched = if desk.stillborn.contains(&child) {
            drop(death);
            let unborn = Context::<Probe>::new();
            (unborn.address(), AbortHandle::new_pair().0)
        } else {
            let introduced = &desk.trays.shards[usize::from(shard)].introduced;
            Probe::launch(tray(&desk.trays), introduced, death)
        };
        desk.probes.insert(child, launched.clone());
        let (addr, abort) = launched;
        // The abort of a thread that is stuck is not heard.
        let abort = match desk.is_thread_stuck {
            true => AbortHandle::new_pair().0,
            false => abort,
        };
        let handle = ActorHandle::of(&addr, abort);
        (addr, handle)
    }
}

impl Spawner for FakeNursery {
    fn tun(&self, shard: u8, death: DeathNotice, outputs: TunOutputs) -> Started<TunLinks> {
        let child = Child::Tun(shard);
        let (addr, handle) = self.launch(death, child, |trays| &trays.of(shard).tun);
        self.0.0.borrow_mut().tun = Some(outputs);
        let links = TunLinks::to(&addr);
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
        let (addr, handle) = self.launch(death, child, |trays| &trays.of(shard).nat_table);
        self.0.0.borrow_mut().snapshots.push(snapshot);
        let mut links = NatTableLinks::to(&addr);
        links.inputs.release = self.0.0.borrow().trays.released.probe().recipient();
        Started { links, handle }
    }

    fn udp(&self, shard: u8, death: DeathNotice) -> Started<UdpLinks> {
        let child = Child::Udp(shard);
        let (addr, handle) = self.launch(death, child, |trays| &trays.of(shard).udp);
        let links = UdpLinks::to(&addr);
        Started { links, handle }
    }

    fn dns(&self, death: DeathNotice, state: Recipient<ResolverStateChanged>) -> Started<DnsLinks> {
        let (addr, handle) = self.launch(death, Child::Dns, |trays| &trays.dns);
        self.0.0.borrow_mut().resolver = Some(state);
        let links = DnsLinks::to(&addr);
        Started { links, handle }
    }

    fn portal(&self, death: DeathNotice, outputs: PortalOutputs) -> Started<PortalLinks> {
        let (addr, handle) = self.launch(death, Child::Portal, |trays| &trays.portal);
        let mut desk = self.0.0.borrow_mut();
        desk.portal = Some(outputs);
        let mut links = PortalLinks::to(&addr);
        links.request_relays = desk.trays.asked.probe().recipient();
        Started { links, handle }
    }

    fn admin(&self, death: DeathNotice, links: OperatorLinks) -> ActorHandle {
        let (_, handle) = self.launch(death, Child::Admin, |trays| &trays.admin);
        self.0.0.borrow_mut().operator = Some(links);
        handle
    }

    fn connection(&self, spec: ConnectionSpec) -> (Addr<ConnectionActor>, AbortHandle) {
        let mut desk = self.0.0.borrow_mut();
        let client = spec.client;
        let child = Child::Connection(client, spec.config.index);
        desk.started.push(child);
        desk.places.insert(client, Place::of(child));
        desk.lives.insert(client, spec.death.instance());
        let launched = if desk.stuck.contains(&client) {
            stuck_connection(spec)
        } else {
            let mailbox = ConnectionActor::MAILBOX;
            let busy = (&RunningInstance::default(), spec.death.instance());
            launch(&Arbiter::current(), busy, mailbox, |_| {
                Ok(ConnectionActor::new(spec))
            })
        };
        desk.connections.insert(client, launched.clone());
        let (addr, abort) = launched;
        match desk.is_thread_stuck {
            true => (addr, AbortHandle::new_pair().0),
            false => (addr, abort),
        }
    }

    fn take_over(&mut self, settings: &LiveSettings) {
        self.0.0.borrow_mut().settings = Some(settings.clone());
    }

    fn busy_with(&self, _: Place) -> Option<InstanceId> {
        self.0.0.borrow().busy
    }

    fn replace_thread(&mut self, place: Place) {
        let mut desk = self.0.0.borrow_mut();
        desk.replaced.push(place);
        desk.is_thread_stuck = false;
        let desk = &mut *desk;
        for (child, (_, abort)) in &desk.probes {
            if Place::of(*child) == place {
                desk.former.push(abort.clone());
            }
        }
        let all = desk.connections.iter();
        let there = all.filter(|(client, _)| desk.places[client] == place);
        desk.former
            .extend(there.map(|(_, (_, abort))| abort.clone()));
    }
}

/// An actor that is there and does not get round to anything.
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

/// An inbox for each shared child, and their trays. What belongs to shard 0 can be named without
/// it.
pub(crate) struct Inboxes {
    first: ShardInboxes,
    /// Shard 1, where a test wants two.
    pub(crate) second: ShardInboxes,
    pub(crate) dns: Inbox,
    pub(crate) portal: Inbox,
    pub(crate) asked: Inbox,
}

/// Of one shard.
pub(crate) struct ShardInboxes {
    pub(crate) tun: Inbox,
    pub(crate) nat_table: Inbox,
    pub(crate) udp: Inbox,
    /// To whom tun and nat_table are introduced.
    pub(crate) introduced: Inbox,
}

impl Trays {
    fn of(&self, shard: u8) -> &ShardTrays {
        &self.shards[usize::from(shard)]
    }
}

impl ShardInboxes {
    fn new() -> (ShardTrays, Self) {
        let [tun, nat_table, udp, introduced] = std::array::from_fn(|_| Inbox::new());
        let trays = ShardTrays {
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
        (trays, inboxes)
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
    pub(crate) fn new() -> (Trays, Self) {
        let (first, second) = (ShardInboxes::new(), ShardInboxes::new());
        let [dns, portal, admin, asked, released] = std::array::from_fn(|_| Inbox::new());
        let trays = Trays {
            shards: [first.0, second.0],
            dns: dns.0,
            portal: portal.0,
            admin: admin.0,
            asked: asked.0,
            released: released.0,
        };
        let inboxes = Self {
            first: first.1,
            second: second.1,
            dns: dns.1,
            portal: portal.1,
            asked: asked.1,
        };
        (trays, inboxes)
    }

    /// Forgets all that was told so far, once everybody is idle.
    pub(crate) async fn clear(&mut self) {
        self.tun.drain().await;
        self.forget();
    }

    /// Forgets all that was told so far.
    pub(crate) fn forget(&mut self) {
        self.first.forget();
        self.second.forget();
        for inbox in [&mut self.dns, &mut self.portal, &mut self.asked] {
            inbox.forget();
        }
    }
}
