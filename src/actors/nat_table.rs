//! NatTableActor: between the connections of a shard and its TUN queue.
//!
//! Owns: the [`NatTable`] core. Receives: `InboundPackets`, `OutboundPackets`, `AttachClient`,
//! `DetachClient`, `AssignProxyIps`. Emits: `InboundPackets` to the TunActor, `OutboundPackets` to
//! connections. When its mailbox is full: packets are dropped and counted. On death: the process
//! ends.

use crate::messages::nat_table::{AssignProxyIps, AttachClient, DetachClient};
use crate::messages::packets::{InboundPackets, OutboundPackets};
use crate::metrics::Metrics;
use crate::shell::{DeathNotice, offer};
use actix::prelude::*;
use postern_core::ids::ClientId;
use postern_core::nat_table::NatTable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// See the module's documentation.
pub struct NatTableActor {
    core: NatTable,
    connections: BTreeMap<ClientId, AttachClient>,
    tun: Recipient<InboundPackets>,
    metrics: Arc<Metrics>,
    _death: DeathNotice,
}

impl NatTableActor {
    /// Batches that may wait, from all connections of the shard together.
    pub const MAILBOX: usize = 1024;

    /// Sends what is inbound to `tun`.
    #[must_use]
    pub fn new(tun: Recipient<InboundPackets>, metrics: Arc<Metrics>, death: DeathNotice) -> Self {
        Self {
            core: NatTable::default(),
            connections: BTreeMap::new(),
            tun,
            metrics,
            _death: death,
        }
    }
}

impl Actor for NatTableActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(Self::MAILBOX);
    }
}

impl Handler<AttachClient> for NatTableActor {
    type Result = ();

    fn handle(&mut self, message: AttachClient, _: &mut Context<Self>) {
        if let Some(former) = self.connections.get(&message.client) {
            self.core.detach(former.client, former.tunnel);
        }
        self.core.attach(message.client, message.tunnel);
        self.connections.insert(message.client, message);
    }
}

impl Handler<DetachClient> for NatTableActor {
    type Result = ();

    fn handle(&mut self, message: DetachClient, _: &mut Context<Self>) {
        let current = self.connections.get(&message.client);
        if current.is_some_and(|route| route.index == message.index)
            && let Some(route) = self.connections.remove(&message.client)
        {
            self.core.detach(route.client, route.tunnel);
        }
    }
}

impl Handler<AssignProxyIps> for NatTableActor {
    type Result = ();

    fn handle(&mut self, message: AssignProxyIps, _: &mut Context<Self>) {
        tracing::debug!(
            client = %message.client,
            resource = %message.resource,
            proxy_ips = message.announced.proxy_ips.len(),
            "names are not translated by this version"
        );
    }
}

impl Handler<InboundPackets> for NatTableActor {
    type Result = ();

    fn handle(&mut self, packets: InboundPackets, _: &mut Context<Self>) {
        offer(&self.tun, packets, &self.metrics);
    }
}

impl Handler<OutboundPackets> for NatTableActor {
    type Result = ();

    fn handle(&mut self, OutboundPackets(batch): OutboundPackets, _: &mut Context<Self>) {
        for (client, packets) in self.core.handle_outbound(batch) {
            if let Some(route) = self.connections.get(&client) {
                offer(&route.connection, OutboundPackets(packets), &self.metrics);
            }
        }
        self.metrics.add_drops(&self.core.take_drops());
    }
}
