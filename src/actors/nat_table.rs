//! NatTableActor: between the connections of a shard and its TUN queue.
//!
//! Owns: the [`NatTable`] core. Receives: `InboundPackets`, `OutboundPackets`, `AttachClient`,
//! `DetachClient`, `AssignProxyIps`, `ReleaseResource`, `NameAnswered`. Emits: `InboundPackets` to
//! the TunActor, `OutboundPackets` and `DomainStatusChanged` to connections, `ResolveName`. When
//! its mailbox is full: packets are dropped and counted. On death: the process ends.

use crate::messages::connection::DomainStatusChanged;
use crate::messages::dns::{NameAnswered, ResolveName};
use crate::messages::nat_table::{AssignProxyIps, AttachClient, DetachClient, ReleaseResource};
use crate::messages::packets::{InboundPackets, OutboundPackets};
use crate::metrics::Metrics;
use crate::shell::{self, DeathNotice, Driven, Wakeup, arm, offer, tell};
use actix::prelude::*;
use postern_core::ids::ClientId;
use postern_core::nat_table::{Assignment, NatTable, NatTableConfig, NatTableEvent};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything a NatTableActor is built from.
pub struct NatTableSpec {
    /// For the core.
    pub config: NatTableConfig,
    /// For the core.
    pub seed: [u8; 32],
    /// Packets towards resources.
    pub tun: Recipient<InboundPackets>,
    /// Who looks names up.
    pub resolve: Recipient<ResolveName>,
    /// Shared counters.
    pub metrics: Arc<Metrics>,
    /// Held until the end.
    pub death: DeathNotice,
}

/// See the module's documentation.
pub struct NatTableActor {
    core: NatTable,
    connections: BTreeMap<ClientId, AttachClient>,
    tun: Recipient<InboundPackets>,
    resolve: Recipient<ResolveName>,
    metrics: Arc<Metrics>,
    wakeup: Wakeup,
    _death: DeathNotice,
}

impl NatTableActor {
    /// Batches that may wait, from all connections of the shard together.
    pub const MAILBOX: usize = 1024;

    /// With an empty core.
    #[must_use]
    pub fn new(spec: NatTableSpec) -> Self {
        Self {
            core: NatTable::new(spec.config, spec.seed, shell::now()),
            connections: BTreeMap::new(),
            tun: spec.tun,
            resolve: spec.resolve,
            metrics: spec.metrics,
            wakeup: Wakeup::default(),
            _death: spec.death,
        }
    }
}

impl Actor for NatTableActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(Self::MAILBOX);
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

impl Handler<AttachClient> for NatTableActor {
    type Result = ();

    fn handle(&mut self, message: AttachClient, _: &mut Context<Self>) {
        self.core.attach(message.client, message.tunnel);
        self.connections.insert(message.client, message);
    }
}

impl Handler<DetachClient> for NatTableActor {
    type Result = ();

    fn handle(&mut self, message: DetachClient, _: &mut Context<Self>) {
        let current = self.connections.get(&message.client);
        if current.is_some_and(|route| route.index == message.index) {
            self.connections.remove(&message.client);
            self.core.detach(message.client);
        }
    }
}

impl Handler<AssignProxyIps> for NatTableActor {
    type Result = ();

    fn handle(&mut self, message: AssignProxyIps, ctx: &mut Context<Self>) {
        let assignment = Assignment {
            resource: message.resource,
            announced: message.announced,
            name: message.name,
            in_tunnel: message.in_tunnel,
        };
        self.core
            .handle_assignment(message.client, &assignment, shell::now());
        self.drive(ctx);
    }
}

impl Handler<ReleaseResource> for NatTableActor {
    type Result = ();

    fn handle(&mut self, message: ReleaseResource, ctx: &mut Context<Self>) {
        self.core
            .handle_release(message.client, message.resource, shell::now());
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

impl Handler<InboundPackets> for NatTableActor {
    type Result = ();

    fn handle(&mut self, InboundPackets(batch): InboundPackets, ctx: &mut Context<Self>) {
        self.core.handle_inbound(batch, shell::now());
        self.drive(ctx);
    }
}

impl Handler<OutboundPackets> for NatTableActor {
    type Result = ();

    fn handle(&mut self, OutboundPackets(batch): OutboundPackets, ctx: &mut Context<Self>) {
        self.core.handle_outbound(batch, shell::now());
        self.drive(ctx);
    }
}

impl NatTableActor {
    /// Drains the core, then asks for the next wake-up. Called after every mutation of `core`.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(event) = self.core.poll_event() {
            self.handle_event(event, ctx);
        }
        while let Some(packets) = self.core.poll_inbound() {
            offer(&self.tun, InboundPackets(packets), &self.metrics);
        }
        while let Some((client, packets)) = self.core.poll_outbound() {
            if let Some(route) = self.connections.get(&client) {
                offer(&route.connection, OutboundPackets(packets), &self.metrics);
            }
        }
        self.metrics.add_drops(&self.core.take_drops());
        let deadline = self.core.poll_timeout();
        arm(self, deadline, ctx);
    }

    fn handle_event(&self, event: NatTableEvent, ctx: &mut Context<Self>) {
        match event {
            NatTableEvent::Resolve {
                client,
                name,
                refresh,
            } => tell(
                &self.resolve,
                ResolveName {
                    name,
                    client,
                    refresh,
                    reply_to: Some(ctx.address().recipient()),
                },
            ),
            NatTableEvent::NameKnown { .. }
            | NatTableEvent::FlowPinned { .. }
            | NatTableEvent::FlowUnpinned { .. } => {}
            NatTableEvent::Status { client, status } => {
                if let Some(route) = self.connections.get(&client) {
                    tell(&route.names, DomainStatusChanged(status));
                }
            }
        }
    }
}
