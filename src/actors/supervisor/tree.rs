//! The shared children: starting them, and introducing them to each other.

use super::SupervisorActor;
use super::links::{DnsLinks, NatTableLinks, PortalLinks, TunLinks, UdpLinks};
use super::spawner::{ActorHandle, Place, Started};
use crate::actors::nat_table::NatSnapshot;
use crate::messages::connection::ConnectionCommand;
use crate::messages::dns::ServeNames;
use crate::messages::nat_table::NatTableSetup;
use crate::messages::operator::OperatorLinks;
use crate::messages::supervisor::{Child, InstanceId};
use crate::messages::tun::TunSetup;
use crate::shell;
use crate::supervision::DeathNotice;
use actix::prelude::*;
use futures_util::future::AbortHandle;
use postern_core::grant::TunnelAddresses;
use postern_core::nat_table::RestoredName;
use postern_core::supervision::{RestartPolicy, Restarts, WatchPace};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(super) struct Tree {
    pub(super) shards: Vec<Shard>,
    pub(super) dns: Option<DnsLinks>,
    pub(super) portal: Option<PortalLinks>,
    pub(super) children: BTreeMap<Child, ChildEntry>,
    restarts: BTreeMap<Child, Restarts>,
}

/// The shared children of a shard.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) tun: Option<TunLinks>,
    pub(super) nat_table: Option<NatTableLinks>,
    pub(super) udp: Option<UdpLinks>,
}

pub(super) struct ChildEntry {
    pub(super) instance: Instance,
    pub(super) handle: ActorHandle,
}

/// The present instance of a child: of a shared one or of a client's connection.
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) abort: AbortHandle,
    pub(super) state: ChildState,
    /// When it or its predecessor died; cleared when the present instance has shown that it works.
    pub(super) died_at: Option<Instant>,
}

impl Instance {
    pub(super) fn new(id: InstanceId, abort: AbortHandle) -> Self {
        Self {
            id,
            abort,
            state: ChildState::Running,
            died_at: None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.state == ChildState::Running
    }

    /// Returns whether the watchdog had ended it.
    pub(super) fn note_death(&mut self, now: Instant) -> bool {
        self.died_at.get_or_insert(now);
        std::mem::replace(&mut self.state, ChildState::Dead) == ChildState::Hung
    }
}

/// The supervisor's knowledge of a child. Messages are sent only to running ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChildState {
    Running,
    /// Ended by the watchdog; its thread may not have dropped it yet.
    Hung,
    Dead,
}

impl Tree {
    pub(super) fn new(shards: u8) -> Self {
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            dns: None,
            portal: None,
            children: BTreeMap::new(),
            restarts: BTreeMap::new(),
        }
    }

    /// # Panics
    /// If the gateway has no such shard: clients and children only get shards that exist.
    pub(super) fn shard(&self, number: u8) -> &Shard {
        &self.shards[usize::from(number)]
    }

    fn shard_mut(&mut self, number: u8) -> &mut Shard {
        &mut self.shards[usize::from(number)]
    }

    /// The shard that receives what names no other, and learns our addresses.
    pub(super) fn front(&self) -> &Shard {
        self.shard(FRONT)
    }

    /// The NatTableActors of all other shards, where they run.
    pub(super) fn siblings(&self, shard: u8) -> impl Iterator<Item = (u8, &NatTableLinks)> {
        let all = (0..).zip(&self.shards);
        let others = all.filter(move |(number, _)| *number != shard);
        others.filter_map(|(number, other)| Some((number, other.nat_table.as_ref()?)))
    }

    pub(super) fn restarts(&mut self, child: Child) -> &mut Restarts {
        let fresh = || Restarts::new(RestartPolicy::SHARED);
        self.restarts.entry(child).or_insert_with(fresh)
    }

    /// Forgets how to reach the children on this thread.
    pub(super) fn forget(&mut self, place: Place) {
        match place {
            Place::Control => (self.dns, self.portal) = (None, None),
            Place::Shard(number) => *self.shard_mut(number) = Shard::default(),
            Place::Admin => {}
        }
    }

    /// Sends again what waits. Returns the children that have taken nothing for too long.
    pub(super) fn resend(&self) -> Vec<Child> {
        let stuck = self.children.iter().filter(|(child, entry)| {
            let is_stuck = match child {
                Child::Portal => self.portal.as_ref().is_some_and(PortalLinks::resend),
                Child::Dns => self.dns.as_ref().is_some_and(DnsLinks::resend),
                Child::NatTable(shard) => {
                    let links = self.shard(*shard).nat_table.as_ref();
                    links.is_some_and(NatTableLinks::resend)
                }
                Child::Tun(shard) => {
                    let links = self.shard(*shard).tun.as_ref();
                    links.is_some_and(TunLinks::resend)
                }
                Child::Udp(shard) => {
                    let links = self.shard(*shard).udp.as_ref();
                    links.is_some_and(UdpLinks::resend)
                }
                Child::Admin | Child::Connection(..) => false,
            };
            is_stuck && entry.instance.is_running()
        });
        stuck.map(|(child, _)| *child).collect()
    }

    /// The shared children of a thread, in the order in which they are started.
    pub(super) fn at(place: Place) -> Vec<Child> {
        match place {
            Place::Control => vec![Child::Dns, Child::Portal],
            Place::Shard(number) => {
                vec![
                    Child::Tun(number),
                    Child::NatTable(number),
                    Child::Udp(number),
                ]
            }
            Place::Admin => vec![Child::Admin],
        }
    }
}

impl SupervisorActor {
    /// Starts or restarts a shared child, and introduces it to the actors that send to it and that
    /// it sends to.
    pub(super) fn start_child(&mut self, child: Child, ctx: &mut Context<Self>) {
        let instance = self.next_instance();
        let notice = DeathNotice::new(child, instance, ctx.address().recipient());
        let handle = match child {
            Child::Tun(shard) => self.start_tun(shard, notice, ctx),
            Child::NatTable(shard) => self.start_nat_table(shard, notice, ctx),
            Child::Udp(shard) => self.start_udp(shard, notice),
            Child::Dns => self.start_dns(notice, ctx),
            Child::Portal => self.start_portal(notice, ctx),
            Child::Admin => self.start_admin(notice, ctx),
            Child::Connection(..) => return,
        };
        let former = self.tree.children.remove(&child);
        let mut instance = Instance::new(instance, handle.abort.clone());
        instance.died_at = former.and_then(|it| it.instance.died_at);
        let entry = ChildEntry { instance, handle };
        self.tree.children.insert(child, entry);
        self.watchdog.watch(child, SHARED_PACE, shell::now());
        self.ping(child, ctx);
        self.watch(ctx);
    }

    pub(super) fn next_instance(&mut self) -> InstanceId {
        self.last_instance.0 += 1;
        self.last_instance
    }

    /// Distributes the gateway's own tunnel addresses.
    pub(super) fn configure(&self, tunnel: TunnelAddresses) {
        if let Some(tun) = &self.tree.front().tun {
            tun.setup.tell(TunSetup::Configure(tunnel));
        }
        if let Some(dns) = &self.tree.dns {
            dns.serve.tell(ServeNames(tunnel));
        }
    }

    fn start_tun(
        &mut self,
        shard: u8,
        notice: DeathNotice,
        ctx: &mut Context<Self>,
    ) -> ActorHandle {
        let spawner = &self.spec.spawner;
        let news = ctx.address().recipient();
        let Started { links, handle } = spawner.tun(shard, notice, news);
        if let Some(nat_table) = &self.tree.shard(shard).nat_table {
            let outbound = nat_table.outbound.clone();
            links.setup.tell(TunSetup::UseOutbound(outbound));
            let packets = links.packets.clone();
            nat_table.setup.tell(NatTableSetup::UseTun(packets));
        }
        // Its predecessor may have died while it configured the interface.
        if shard == FRONT
            && let Some(tunnel) = self.spec.ledger.gateway()
        {
            links.setup.tell(TunSetup::Configure(tunnel));
        }
        self.tree.shard_mut(shard).tun = Some(links);
        handle
    }

    fn start_nat_table(
        &mut self,
        shard: u8,
        notice: DeathNotice,
        ctx: &mut Context<Self>,
    ) -> ActorHandle {
        let snapshot = self.nat_snapshot(shard);
        let changed = ctx.address().recipient();
        let spawner = &self.spec.spawner;
        let Started { links, handle } = spawner.nat_table(shard, notice, snapshot, changed);
        if let Some(tun) = &self.tree.shard(shard).tun {
            let packets = tun.packets.clone();
            links.setup.tell(NatTableSetup::UseTun(packets));
            let outbound = links.outbound.clone();
            tun.setup.tell(TunSetup::UseOutbound(outbound));
        }
        if let Some(dns) = &self.tree.dns {
            let resolve = dns.resolve.clone();
            links.setup.tell(NatTableSetup::UseDns(resolve));
        }
        for (number, sibling) in self.tree.siblings(shard) {
            let strays = links.strays.clone();
            sibling
                .setup
                .tell(NatTableSetup::UseSibling { shard, strays });
            let strays = sibling.strays.clone();
            let shard = number;
            links
                .setup
                .tell(NatTableSetup::UseSibling { shard, strays });
        }
        let successor = ConnectionCommand::UseNatTable(links.inputs.clone());
        self.clients.tell_those(&successor, |on| on == shard);
        self.tree.shard_mut(shard).nat_table = Some(links);
        handle
    }

    fn start_udp(&mut self, shard: u8, notice: DeathNotice) -> ActorHandle {
        let Started { links, handle } = self.spec.spawner.udp(shard, notice);
        let inputs = &links.inputs;
        let successor = ConnectionCommand::UseUdp(inputs.clone());
        self.clients.tell_those(&successor, |on| on == shard);
        if shard == FRONT {
            let successor = ConnectionCommand::UseFront(inputs.clone());
            self.clients.tell_those(&successor, |on| on != shard);
        }
        self.tree.shard_mut(shard).udp = Some(links);
        if shard == FRONT && !self.relays.is_empty() {
            self.tell_relays();
        }
        handle
    }

    fn start_dns(&mut self, notice: DeathNotice, ctx: &mut Context<Self>) -> ActorHandle {
        let news = ctx.address().recipient();
        let Started { links, handle } = self.spec.spawner.dns(notice, news);
        for nat_table in self
            .tree
            .shards
            .iter()
            .filter_map(|it| it.nat_table.as_ref())
        {
            let resolve = links.resolve.clone();
            nat_table.setup.tell(NatTableSetup::UseDns(resolve));
        }
        let successor = ConnectionCommand::UseDns(links.resolve.clone());
        self.clients.tell_all(&successor);
        if let Some(tunnel) = self.spec.ledger.gateway() {
            links.serve.tell(ServeNames(tunnel));
        }
        self.tree.dns = Some(links);
        handle
    }

    fn start_portal(&mut self, notice: DeathNotice, ctx: &mut Context<Self>) -> ActorHandle {
        self.health_state.note_portal_death();
        let news = ctx.address().recipient();
        let Started { links, handle } = self.spec.spawner.portal(notice, news);
        self.tree.portal = Some(links);
        self.clients.tell_all(&ConnectionCommand::PortalRestarted);
        handle
    }

    fn start_admin(&mut self, notice: DeathNotice, ctx: &mut Context<Self>) -> ActorHandle {
        let links = OperatorLinks::from(&ctx.address());
        self.spec.spawner.admin(notice, links)
    }

    fn nat_snapshot(&self, shard: u8) -> NatSnapshot {
        let (ledger, now) = (&self.spec.ledger, shell::unix_now());
        let names = ledger.known_names().map(|known| RestoredName {
            name: known.name.clone(),
            family: known.family,
            ips: known.ips.clone(),
            age: Duration::from_secs(now.0.saturating_sub(known.resolved_at.0)),
        });
        // A client without a shard may be put on this one.
        let may_come = |id| self.clients.shard_of(id).is_none_or(|on| on == shard);
        let with_pins = ledger.clients().filter(|(_, it)| !it.pins.is_empty());
        let with_pins = with_pins.filter(|(id, _)| may_come(*id));
        let pins = with_pins.map(|(id, record)| (id, record.pins.clone()));
        let had_table = self.tree.children.contains_key(&Child::NatTable(shard));
        NatSnapshot {
            is_successor: had_table || ledger.clients().len() > 0,
            names: names.collect(),
            pins: pins.collect(),
            routes: self.clients.routes(shard).collect(),
        }
    }
}

/// The shard that receives what names no other.
pub(super) const FRONT: u8 = 0;
/// A shared child that does not answer is replaced within three seconds.
const SHARED_PACE: WatchPace = WatchPace {
    interval: Duration::from_secs(1),
    timeout: Duration::from_millis(1500),
};
