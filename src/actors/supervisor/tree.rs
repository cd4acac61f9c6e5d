//! The shared children: starting them, and introducing them to each other.

use super::SupervisorActor;
use super::links::{DnsLinks, NatTableLinks, PortalLinks, TunLinks, UdpLinks};
use super::spawner::{ActorHandle, Started};
use crate::actors::nat_table::NatSnapshot;
use crate::messages::connection::ConnectionCommand;
use crate::messages::dns::ServeNames;
use crate::messages::nat_table::{NatTableSetup, RouteClient};
use crate::messages::operator::OperatorLinks;
use crate::messages::supervisor::{Child, InstanceId};
use crate::messages::tun::TunSetup;
use crate::shell;
use crate::supervision::{DeathNotice, Ping};
use actix::prelude::*;
use postern_core::grant::TunnelAddresses;
use postern_core::nat_table::RestoredName;
use postern_core::supervision::{FRONT, Place};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) struct Tree {
    pub(super) shards: Vec<Shard>,
    pub(super) dns: Option<DnsLinks>,
    pub(super) portal: Option<PortalLinks>,
    pub(super) handles: BTreeMap<Child, ActorHandle>,
}

/// The shared children of a shard.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) tun: Option<TunLinks>,
    pub(super) nat_table: Option<NatTableLinks>,
    pub(super) udp: Option<UdpLinks>,
}

impl Tree {
    pub(super) fn new(shards: u8) -> Self {
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            dns: None,
            portal: None,
            handles: BTreeMap::new(),
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

    pub(super) fn pings(&self, child: Child) -> Option<Recipient<Ping>> {
        Some(self.handles.get(&child)?.pings.clone())
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
        let stuck = self.handles.keys().filter(|child| match child {
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
        });
        stuck.copied().collect()
    }
}

impl SupervisorActor {
    /// Starts or restarts a shared child, and introduces it to the actors that send to it and that
    /// it sends to.
    pub(super) fn start_child(
        &mut self,
        child: Child,
        instance: InstanceId,
        ctx: &mut Context<Self>,
    ) {
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
        self.tree.handles.insert(child, handle);
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
        self.tell_those(&successor, |on| on == shard);
        self.tree.shard_mut(shard).nat_table = Some(links);
        handle
    }

    fn start_udp(&mut self, shard: u8, notice: DeathNotice) -> ActorHandle {
        let Started { links, handle } = self.spec.spawner.udp(shard, notice);
        let inputs = &links.inputs;
        let successor = ConnectionCommand::UseUdp(inputs.clone());
        self.tell_those(&successor, |on| on == shard);
        if shard == FRONT {
            let successor = ConnectionCommand::UseFront(inputs.clone());
            self.tell_those(&successor, |on| on != shard);
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
        self.tell_all(&successor);
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
        self.tell_all(&ConnectionCommand::PortalRestarted);
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
        let shard_of = |id| Some(self.supervision.client(id)?.index.shard());
        let may_come = |id| shard_of(id).is_none_or(|on| on == shard);
        let with_pins = ledger.clients().filter(|(_, it)| !it.pins.is_empty());
        let with_pins = with_pins.filter(|(id, _)| may_come(*id));
        let pins = with_pins.map(|(id, record)| (id, record.pins.clone()));
        let had_table = self.tree.handles.contains_key(&Child::NatTable(shard));
        let routes = self.supervision.clients().map(|(id, client)| RouteClient {
            client: id,
            tunnel: client.tunnel,
            shard: client.index.shard(),
        });
        NatSnapshot {
            is_successor: had_table || ledger.clients().len() > 0,
            names: names.collect(),
            pins: pins.collect(),
            routes: routes.filter(|route| route.shard != shard).collect(),
        }
    }
}
