//! TunActor: one queue of the TUN interface.
//!
//! Owns: the queue, the interface's addresses and routes. Receives: `InboundPackets`, `TunSetup`.
//! Emits: `OutboundPackets` to the NatTableActor, `HealthNews`. When its mailbox is full: packets
//! are dropped and counted, the supervisor's messages wait. When the supervisor's mailbox is full:
//! news waits. On death: rebuilt on the same device; interface, addresses and routes stay, and what
//! the kernel has queued.

use crate::faults;
use crate::link::Link;
use crate::messages::packets::{InboundPackets, OutboundPackets};
use crate::messages::supervisor::HealthNews;
use crate::messages::tun::TunSetup;
use crate::metrics::{Receiver, ShardMetrics};
use crate::post::{FOR_SUPERVISOR, Post};
use crate::shell::{Posting, Retry, resend_later};
use crate::supervision::{DeathNotice, supervised};
use crate::system::interface::Interface;
use crate::tunnel::{PacketStream, TunQueue};
use actix::prelude::*;
use postern_core::DropReason;
use postern_core::grant::TunnelAddresses;
use postern_core::packet::PacketBatch;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub struct TunSpec {
    pub queue: TunQueue,
    /// For the addresses and routes of the same device.
    pub interface: Interface,
    /// Reports to the supervisor.
    pub news: Recipient<HealthNews>,
    pub metrics: Arc<ShardMetrics>,
    pub death: DeathNotice,
}

pub struct TunActor {
    queue: Rc<TunQueue>,
    interface: Interface,
    nat_table: Link<OutboundPackets>,
    news: Post<HealthNews>,
    retry: Retry,
    metrics: Arc<ShardMetrics>,
    _death: DeathNotice,
}

impl TunActor {
    /// Batches that may wait.
    pub const MAILBOX: usize = 1024;

    pub fn new(spec: TunSpec) -> Self {
        Self {
            queue: Rc::new(spec.queue),
            interface: spec.interface,
            nat_table: Link::nowhere(Receiver::NatTable),
            news: Post::lossy(spec.news, FOR_SUPERVISOR),
            retry: Retry::default(),
            metrics: spec.metrics,
            _death: spec.death,
        }
    }
}

supervised!(TunActor, "tun");

impl Actor for TunActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        faults::on_started("tun");
        ctx.set_mailbox_capacity(Self::MAILBOX);
        ctx.add_stream(PacketStream::new(Rc::clone(&self.queue)));
    }
}

impl StreamHandler<PacketBatch> for TunActor {
    fn handle(&mut self, packets: PacketBatch, _: &mut Context<Self>) {
        self.metrics
            .count_drops(DropReason::MalformedIp, packets.refused());
        self.metrics.tun_outbound.add_packets(&packets);
        let packets = OutboundPackets::new(packets);
        self.nat_table.offer(packets, &self.metrics);
    }
}

impl Handler<InboundPackets> for TunActor {
    type Result = ();

    fn handle(&mut self, message: InboundPackets, _: &mut Context<Self>) {
        self.metrics.tun_inbound.add_packets(&message.batch);
        let lost = self.queue.write(message.batch);
        self.metrics.count_drops(DropReason::SendFailed, lost);
    }
}

impl Posting for TunActor {
    fn retry(&mut self) -> &mut Retry {
        &mut self.retry
    }

    fn is_waiting(&self) -> bool {
        self.news.is_waiting()
    }

    fn resend(&mut self, _: &mut Context<Self>) {
        self.news.resend();
    }
}

impl Handler<TunSetup> for TunActor {
    type Result = ();

    fn handle(&mut self, setup: TunSetup, ctx: &mut Context<Self>) {
        match setup {
            TunSetup::Configure(tunnel) => self.configure(tunnel, 1, ctx),
            TunSetup::UseOutbound(nat_table) => self.nat_table.lead_to(nat_table, &self.metrics),
        }
    }
}

impl TunActor {
    /// Tries several times, because an obstacle may be about to disappear; after that the gateway
    /// cannot serve.
    fn configure(&mut self, tunnel: TunnelAddresses, attempt: u32, ctx: &mut Context<Self>) {
        match self.interface.configure(tunnel) {
            Ok(()) => {
                tracing::info!("tunnel interface configured");
                self.news.tell(HealthNews::InterfaceConfigured);
            }
            Err(error) if attempt < ATTEMPTS => {
                tracing::warn!(%error, attempt, "tunnel interface not configured");
                ctx.run_later(BETWEEN_ATTEMPTS, move |actor, ctx| {
                    actor.configure(tunnel, attempt + 1, ctx);
                });
            }
            Err(error) => {
                let reason = error.to_string();
                self.news.tell(HealthNews::InterfaceFailed { reason });
            }
        }
        resend_later(self, ctx);
    }
}

/// As many as Firezone's gateway makes (docs/protocol.md 2.2).
const ATTEMPTS: u32 = 3;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);
