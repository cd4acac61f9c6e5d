//! NatTableActor: between the connections of a shard and its TUN queue.
//!
//! Owns: the [`NatTable`] core. Receives: `InboundPackets`, `OutboundPackets`, `StrayPackets`,
//! `NatTableCommand`, `NatTableSetup`, `NameAnswered`, `UseSettings`. Emits: `InboundPackets` to
//! the TunActor, `OutboundPackets` and `ConnectionUpdate` to connections, `StrayPackets` to the
//! NatTableActors of other shards, `ResolveName`, `NatTableChanged`. When its mailbox is full:
//! packets are dropped and counted, a connection attaches and announces all again, the
//! supervisor's messages wait. When the supervisor's mailbox is full: news waits, the latest
//! addresses of each name and pins of each client; when the DnsActor's is: questions wait. On
//! death: rebuilt with the known addresses of names; connections attach and announce again, the
//! next packet of a flow recreates it.

use crate::config::{LiveSettings, UseSettings};
use crate::faults;
use crate::link::Link;
use crate::messages::diagnosis::{ExplainName, NameFacts};
use crate::messages::dns::{NameAnswered, ResolveName};
use crate::messages::nat_table::{AttachClient, NatTableCommand, NatTableSetup, RouteClient};
use crate::messages::packets::{InboundPackets, OutboundPackets, StrayPackets};
use crate::messages::supervisor::NatTableChanged;
use crate::messages::updates::ConnectionUpdate;
use crate::metrics::{Receiver, ShardMetrics};
use crate::post::{FOR_SHARED, FOR_SUPERVISOR, Post, offer};
use crate::shell::{self, Driven, Posting, Retry, Wakeup, arm, resend_later};
use crate::supervision::{DeathNotice, supervised};
use actix::prelude::*;
use postern_core::domains::DomainsConfig;
use postern_core::ids::ClientId;
use postern_core::ledger::ResolvedName;
use postern_core::nat_table::flows::{FlowLimits, PinnedFlow};
use postern_core::nat_table::{NatTable, NatTableConfig, NatTableEvent, RestoredName};
use postern_core::peer::PeerIndex;
use std::collections::BTreeMap;
use std::sync::Arc;

pub struct NatTableSpec {
    pub config: NatTableConfig,
    pub seed: [u8; 32],
    pub snapshot: NatSnapshot,
    /// To the supervisor, for a successor.
    pub changed: Recipient<NatTableChanged>,
    pub metrics: Arc<ShardMetrics>,
    pub death: DeathNotice,
}

/// The settings of the core of one shard.
pub fn shard_config(settings: &LiveSettings) -> NatTableConfig {
    let (dns, limits) = (&settings.config.dns, &settings.config.limits);
    let config = NatTableConfig {
        domains: DomainsConfig {
            last_known_good: dns.last_known_good,
            ..DomainsConfig::default()
        },
        flows: FlowLimits {
            flows: limits.flows,
            flows_per_client: limits.flows_per_client,
        },
    };
    config.divided(settings.shards)
}

/// The state with which a NatTableActor begins.
#[derive(Debug, Default)]
pub struct NatSnapshot {
    /// Whether an earlier table existed, with flows that may still be in use.
    pub is_successor: bool,
    pub names: Vec<RestoredName>,
    /// Flows that the mapping rule alone would not recreate.
    pub pins: BTreeMap<ClientId, Vec<PinnedFlow>>,
    pub routes: Vec<RouteClient>,
}

pub struct NatTableActor {
    core: NatTable,
    connections: BTreeMap<ClientId, ConnectionLinks>,
    tun: Link<InboundPackets>,
    /// The NatTableActors of the other shards.
    siblings: BTreeMap<u8, Link<StrayPackets>>,
    resolve: Option<Post<ResolveName>>,
    changed: Post<NatTableChanged>,
    retry: Retry,
    /// Pinned flows of clients that have not attached again yet.
    pins: BTreeMap<ClientId, Vec<PinnedFlow>>,
    metrics: Arc<ShardMetrics>,
    wakeup: Wakeup,
    _death: DeathNotice,
}

struct ConnectionLinks {
    index: PeerIndex,
    packets: Link<OutboundPackets>,
    names: Recipient<ConnectionUpdate>,
}

impl NatTableActor {
    /// Batches, from all connections of the shard together.
    pub const MAILBOX: usize = 1024;

    pub fn new(spec: NatTableSpec) -> Self {
        let now = shell::now();
        let mut core = NatTable::new(spec.config, spec.seed, now);
        core.restore_names(spec.snapshot.names, now);
        for RouteClient {
            client,
            tunnel,
            shard,
        } in spec.snapshot.routes
        {
            core.route(client, tunnel, shard);
        }
        if spec.snapshot.is_successor {
            core.begin_recovery(now);
        }
        Self {
            core,
            connections: BTreeMap::new(),
            tun: Link::nowhere(Receiver::Tun),
            siblings: BTreeMap::new(),
            resolve: None,
            changed: Post::lossy(spec.changed, FOR_SUPERVISOR),
            retry: Retry::default(),
            pins: spec.snapshot.pins,
            metrics: spec.metrics,
            wakeup: Wakeup::default(),
            _death: spec.death,
        }
    }
}

supervised!(NatTableActor, "nat_table");

impl Actor for NatTableActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        faults::on_started("nat_table");
        ctx.set_mailbox_capacity(Self::MAILBOX);
        // The numbers of its predecessor are void.
        self.metrics.set_nat_usage(self.core.usage());
    }
}

impl Driven for NatTableActor {
    fn wakeup(&mut self) -> &mut Wakeup {
        &mut self.wakeup
    }

    fn on_deadline(&mut self, ctx: &mut Context<Self>) {
        self.core.handle_timeout(shell::now());
        self.drive(ctx);
    }
}

impl Posting for NatTableActor {
    fn retry(&mut self) -> &mut Retry {
        &mut self.retry
    }

    fn is_waiting(&self) -> bool {
        self.changed.is_waiting() || self.resolve.as_ref().is_some_and(Post::is_waiting)
    }

    fn resend(&mut self, _: &mut Context<Self>) {
        self.changed.resend();
        self.resolve.iter().for_each(Post::resend);
    }
}

impl Handler<NatTableCommand> for NatTableActor {
    type Result = ();

    fn handle(&mut self, command: NatTableCommand, ctx: &mut Context<Self>) {
        match command {
            NatTableCommand::Attach(attach) => self.attach(attach),
            NatTableCommand::Detach { client, index } => self.detach(client, index),
            NatTableCommand::Names { client, meanings } => {
                for meaning in &meanings {
                    self.core.handle_name(client, meaning, shell::now());
                }
            }
        }
        self.drive(ctx);
    }
}

impl Handler<NatTableSetup> for NatTableActor {
    type Result = ();

    fn handle(&mut self, setup: NatTableSetup, ctx: &mut Context<Self>) {
        match setup {
            NatTableSetup::Route(RouteClient {
                client,
                tunnel,
                shard,
            }) => self.core.route(client, tunnel, shard),
            NatTableSetup::Unroute(client) => self.core.unroute(client),
            NatTableSetup::UseTun(tun) => self.tun.lead_to(tun, &self.metrics),
            NatTableSetup::UseSibling { shard, strays } => {
                let sibling = self.siblings.entry(shard).or_insert_with(unknown_sibling);
                sibling.lead_to(strays, &self.metrics);
            }
            NatTableSetup::UseDns(resolve) => {
                self.resolve = Some(Post::lossy(resolve, FOR_SHARED));
                self.core.handle_resolver_restarted(shell::now());
            }
        }
        self.drive(ctx);
    }
}

impl Handler<NameAnswered> for NatTableActor {
    type Result = ();

    fn handle(&mut self, NameAnswered(answer): NameAnswered, ctx: &mut Context<Self>) {
        self.core.handle_answer(&answer, shell::now());
        self.drive(ctx);
    }
}

impl Handler<ExplainName> for NatTableActor {
    type Result = NameFacts;

    fn handle(&mut self, question: ExplainName, _: &mut Context<Self>) -> NameFacts {
        let ExplainName { client, target } = question;
        NameFacts(self.core.explain(client, &target, shell::now()))
    }
}

impl Handler<UseSettings> for NatTableActor {
    type Result = ();

    /// No flow and no address is given up for a lower limit.
    fn handle(&mut self, UseSettings { before, after }: UseSettings, _: &mut Context<Self>) {
        let config = shard_config(&after);
        if config != shard_config(&before) {
            self.core.use_config(config);
        }
    }
}

impl Handler<InboundPackets> for NatTableActor {
    type Result = ();

    fn handle(&mut self, message: InboundPackets, ctx: &mut Context<Self>) {
        self.core.handle_inbound(message.batch, shell::now());
        self.drive(ctx);
    }
}

impl Handler<OutboundPackets> for NatTableActor {
    type Result = ();

    fn handle(&mut self, message: OutboundPackets, ctx: &mut Context<Self>) {
        self.core.handle_outbound(message.batch, shell::now());
        self.drive(ctx);
    }
}

impl Handler<StrayPackets> for NatTableActor {
    type Result = ();

    fn handle(&mut self, message: StrayPackets, ctx: &mut Context<Self>) {
        self.core.handle_strays(message.batch, shell::now());
        self.drive(ctx);
    }
}

impl NatTableActor {
    /// Drains the core, then re-arms the timer. Called after every mutation of `core`.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(event) = self.core.poll_event() {
            self.handle_event(event, ctx);
        }
        while let Some(packets) = self.core.poll_inbound() {
            self.tun.offer(InboundPackets::new(packets), &self.metrics);
        }
        while let Some((client, packets)) = self.core.poll_outbound() {
            if let Some(links) = self.connections.get_mut(&client) {
                let packets = OutboundPackets::new(packets);
                links.packets.offer(packets, &self.metrics);
            }
        }
        while let Some((shard, packets)) = self.core.poll_stray() {
            self.metrics.handed_over.tun.add_batch(packets.segments());
            let sibling = self.siblings.entry(shard).or_insert_with(unknown_sibling);
            sibling.offer(StrayPackets::new(packets), &self.metrics);
        }
        self.metrics.add_drops(&self.core.take_drops());
        self.metrics.add_heals(&self.core.take_heals());
        self.metrics.set_nat_usage(self.core.usage());
        let deadline = self.core.poll_timeout();
        arm(self, deadline, ctx);
        resend_later(self, ctx);
    }

    fn attach(&mut self, attach: AttachClient) {
        let client = attach.client;
        self.core.attach(client, attach.tunnel);
        self.core.retain_names(client, &attach.known, shell::now());
        if let Some(pins) = self.pins.remove(&client) {
            self.core.restore_pins(client, pins, shell::now());
        }
        let packets = match self.connections.remove(&client) {
            // Batches that a dead connection did not receive are for its successor.
            Some(mut former) => {
                let link = &mut former.packets;
                link.lead_to(attach.connection, &self.metrics);
                former.packets
            }
            None => Link::new(Receiver::Connection, attach.connection),
        };
        let links = ConnectionLinks {
            index: attach.index,
            packets,
            names: attach.names,
        };
        self.connections.insert(client, links);
    }

    fn detach(&mut self, client: ClientId, index: PeerIndex) {
        let current = self.connections.get(&client);
        if current.is_some_and(|links| links.index == index) {
            self.connections.remove(&client);
            self.core.detach(client);
        }
    }

    fn handle_event(&self, event: NatTableEvent, ctx: &mut Context<Self>) {
        match event {
            NatTableEvent::Resolve {
                client,
                name,
                refresh,
            } => {
                // Without a resolver the core asks again later.
                if let Some(resolve) = &self.resolve {
                    let question = ResolveName {
                        name,
                        client,
                        refresh,
                        reply_to: Some(ctx.address().recipient()),
                    };
                    resolve.tell(question);
                }
            }
            NatTableEvent::NameKnown { name, family, ips } => {
                let known = ResolvedName {
                    name,
                    family,
                    ips,
                    resolved_at: shell::unix_now(),
                };
                self.changed.tell(NatTableChanged::NameLearned(known));
            }
            NatTableEvent::PinsChanged { client, pins } => {
                self.changed
                    .tell(NatTableChanged::PinsChanged(client, pins));
            }
            NatTableEvent::Status { client, status } => {
                if let Some(links) = self.connections.get(&client) {
                    // A client without an answer announces the name again.
                    offer(&links.names, ConnectionUpdate::DomainStatus(status));
                }
            }
        }
    }
}

fn unknown_sibling() -> Link<StrayPackets> {
    Link::nowhere(Receiver::NatTable)
}
