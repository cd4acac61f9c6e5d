//! TunActor: one queue of the TUN interface.
//!
//! Owns: the queue, the interface's addresses and routes. Receives: `InboundPackets`,
//! `ConfigureInterface`. Emits: `OutboundPackets` to the NatTableActor. When its mailbox is full:
//! packets are dropped and counted. On death: the process ends.

use crate::messages::packets::{InboundPackets, OutboundPackets};
use crate::messages::tun::ConfigureInterface;
use crate::metrics::Metrics;
use crate::shell::{DeathNotice, offer};
use crate::system::interface::Interface;
use crate::tunnel::{PacketStream, TunQueue};
use actix::prelude::*;
use postern_core::DropReason;
use postern_core::packet::PacketBatch;
use std::rc::Rc;
use std::sync::Arc;

/// See the module's documentation.
pub struct TunActor {
    queue: Rc<TunQueue>,
    interface: Interface,
    nat_table: Recipient<OutboundPackets>,
    metrics: Arc<Metrics>,
    _death: DeathNotice,
}

impl TunActor {
    /// Batches that may wait.
    pub const MAILBOX: usize = 1024;

    /// Reads from and writes to the queue; configures the interface.
    #[must_use]
    pub fn new(
        (queue, interface): (TunQueue, Interface),
        nat_table: Recipient<OutboundPackets>,
        metrics: Arc<Metrics>,
        death: DeathNotice,
    ) -> Self {
        Self {
            queue: Rc::new(queue),
            interface,
            nat_table,
            metrics,
            _death: death,
        }
    }
}

impl Actor for TunActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(Self::MAILBOX);
        ctx.add_stream(PacketStream::new(Rc::clone(&self.queue)));
    }
}

impl StreamHandler<PacketBatch> for TunActor {
    fn handle(&mut self, packets: PacketBatch, _: &mut Context<Self>) {
        offer(&self.nat_table, OutboundPackets(packets), &self.metrics);
    }
}

impl Handler<InboundPackets> for TunActor {
    type Result = ();

    fn handle(&mut self, InboundPackets(packets): InboundPackets, _: &mut Context<Self>) {
        let lost = self.queue.write(&packets);
        self.metrics.count_drops(DropReason::SendFailed, lost);
    }
}

impl Handler<ConfigureInterface> for TunActor {
    type Result = ();

    fn handle(&mut self, ConfigureInterface(tunnel): ConfigureInterface, _: &mut Context<Self>) {
        match self.interface.configure(tunnel) {
            Ok(()) => tracing::info!("tunnel interface configured"),
            Err(error) => tracing::error!(%error, "tunnel interface not configured"),
        }
    }
}
