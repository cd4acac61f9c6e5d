//! UdpActor: the shared sockets of a shard.
//!
//! The UdpActor of shard 0 also receives datagrams that name no shard, learns our addresses, and
//! knows the peers of all shards: it sends their datagrams straight to their connections, on
//! whichever thread these run.
//!
//! Owns: the v4 and v6 socket, the [`Demux`] and [`AddressGatherer`] cores. Receives:
//! `OutboundDatagrams`, `UdpCommand`, `UdpSetup`, `UseSettings`. Emits: `InboundDatagrams` and
//! `ConnectionUpdate` to each connection. When its mailbox is full: datagrams are dropped and
//! counted, a connection attaches its peer again, the supervisor's messages wait. When a
//! connection's mailbox is full: datagrams are dropped and counted, and it gets the addresses of
//! the time when it has room. On death: rebuilt on the same sockets, so that datagrams in the
//! kernel's queue are not lost; connections attach again.

use crate::config::{GatewayConfig, LiveSettings, UseSettings};
use crate::faults;
use crate::link::Link;
use crate::messages::packets::{InboundDatagrams, OutboundDatagrams};
use crate::messages::udp::{AttachPeer, ListAddresses, UdpCommand, UdpSetup};
use crate::messages::updates::ConnectionUpdate;
use crate::metrics::{Receiver, ShardMetrics};
use crate::shell::{self, Driven, Posting, Retry, Wakeup, arm, resend_later};
use crate::sockets::{BoundSockets, SendQueue, UdpPorts};
use crate::supervision::{DeathNotice, supervised};
use crate::system::interfaces;
use actix::prelude::*;
use postern_core::DropReason;
use postern_core::grant::Relay;
use postern_core::packet::DatagramBatch;
use postern_core::peer::{AddressGatherer, Demux, DemuxConfig, GatewayKeys, GathererConfig};
use postern_core::peer::{PeerIndex, Routed};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub struct UdpSpec {
    pub shard: u8,
    pub ports: UdpPorts,
    pub demux: Demux,
    pub gatherer: AddressGatherer,
    /// STUN servers from the configuration, asked besides the portal's relays; for shard 0.
    pub stun_servers: Vec<SocketAddr>,
    /// Called at the start and every few seconds.
    pub list_addresses: ListAddresses,
    pub metrics: Arc<ShardMetrics>,
    #[expect(dead_code, reason = "its drop notifies the supervisor")]
    pub death: DeathNotice,
}

impl UdpSpec {
    /// For the sockets of a shard, with these settings.
    ///
    /// # Errors
    ///
    /// When a socket cannot be registered, or the kernel has no randomness to give.
    pub fn new(
        sockets: BoundSockets,
        (shard, keys): (u8, GatewayKeys),
        settings: &LiveSettings,
        (metrics, death): (Arc<ShardMetrics>, DeathNotice),
    ) -> io::Result<Self> {
        let config = &settings.config;
        let gatherer = GathererConfig {
            port: sockets.port(),
            max_servers: MAX_STUN_SERVERS,
        };
        let demux = DemuxConfig {
            keys,
            handshakes_per_second: config.limits.handshakes_per_second.into(),
            max_transactions: MAX_STUN_TRANSACTIONS,
        };
        Ok(Self {
            shard,
            ports: UdpPorts::new(sockets)?,
            demux: Demux::new(demux, shell::now()),
            gatherer: AddressGatherer::new(gatherer, shell::random_bytes()?),
            stun_servers: stun_servers(config, shard),
            list_addresses: list_addresses(config),
            metrics,
            death,
        })
    }
}

/// The servers that a shard asks: the sockets of shard 0 get the answers.
#[must_use]
pub fn stun_servers(config: &GatewayConfig, shard: u8) -> Vec<SocketAddr> {
    match shard {
        0 => config.network.stun_servers.clone(),
        _ => Vec::new(),
    }
}

/// A list that cannot be read changes nothing: the next attempt is seconds away.
fn list_addresses(config: &GatewayConfig) -> ListAddresses {
    let (network, tunnel) = (config.network.clone(), config.tunnel.interface.clone());
    Arc::new(move || -> Option<Vec<IpAddr>> {
        interfaces::host_addresses(&network, &tunnel)
            .inspect_err(|error| tracing::warn!(%error, "the interfaces cannot be listed"))
            .ok()
    })
}

pub struct UdpActor {
    spec: UdpSpec,
    peers: BTreeMap<PeerIndex, PeerLinks>,
    /// Peers with connections that had no room for our addresses.
    uninformed: BTreeSet<PeerIndex>,
    retry: Retry,
    /// Relays of the portal, asked as STUN servers.
    relays: Vec<SocketAddr>,
    queue: SendQueue,
    awaits_room: bool,
    wakeup: Wakeup,
}

struct PeerLinks {
    connection: Link<InboundDatagrams>,
    addresses: Option<Recipient<ConnectionUpdate>>,
}

impl UdpActor {
    /// Batches, from all connections of the shard together.
    pub const MAILBOX: usize = 1024;

    pub fn new(spec: UdpSpec) -> Self {
        Self {
            spec,
            peers: BTreeMap::new(),
            uninformed: BTreeSet::new(),
            retry: Retry::default(),
            relays: Vec::new(),
            queue: SendQueue::default(),
            awaits_room: false,
            wakeup: Wakeup::default(),
        }
    }
}

supervised!(UdpActor, "udp");

impl Actor for UdpActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        faults::on_started("udp");
        ctx.set_mailbox_capacity(Self::MAILBOX);
        for receiver in self.spec.ports.receivers() {
            ctx.add_stream(receiver);
        }
        self.list_addresses();
        ctx.run_interval(LIST_ADDRESSES_EVERY, |actor, ctx| {
            actor.list_addresses();
            actor.drive(ctx);
        });
        self.ask_servers();
        self.drive(ctx);
    }
}

impl Driven for UdpActor {
    fn wakeup(&mut self) -> &mut Wakeup {
        &mut self.wakeup
    }

    fn on_deadline(&mut self, ctx: &mut Context<Self>) {
        let now = shell::now();
        self.spec.demux.handle_timeout(now);
        self.spec.gatherer.handle_timeout(now);
        self.drive(ctx);
    }
}

impl StreamHandler<Vec<DatagramBatch>> for UdpActor {
    fn handle(&mut self, batches: Vec<DatagramBatch>, ctx: &mut Context<Self>) {
        for batch in batches {
            self.spec.metrics.udp_received.add_datagrams(&batch);
            for routed in self.spec.demux.route(batch) {
                self.deliver(routed);
            }
        }
        self.drive(ctx);
    }
}

impl Handler<OutboundDatagrams> for UdpActor {
    type Result = ();

    fn handle(&mut self, message: OutboundDatagrams, ctx: &mut Context<Self>) {
        let OutboundDatagrams { from, batch, .. } = message;
        self.spec.demux.note_sent(from, &batch, shell::now());
        self.send(batch);
        self.drive(ctx);
    }
}

impl Posting for UdpActor {
    fn retry(&mut self) -> &mut Retry {
        &mut self.retry
    }

    fn is_waiting(&self) -> bool {
        !self.uninformed.is_empty()
    }

    fn resend(&mut self, _: &mut Context<Self>) {
        for index in std::mem::take(&mut self.uninformed) {
            self.inform(index);
        }
    }
}

impl Handler<UdpCommand> for UdpActor {
    type Result = ();

    fn handle(&mut self, command: UdpCommand, ctx: &mut Context<Self>) {
        match command {
            UdpCommand::Attach(peer) => self.attach(peer),
            UdpCommand::Detach(index) => self.detach(index),
        }
        resend_later(self, ctx);
    }
}

impl Handler<UdpSetup> for UdpActor {
    type Result = ActorResponse<Self, ()>;

    fn handle(&mut self, setup: UdpSetup, ctx: &mut Context<Self>) -> Self::Result {
        match setup {
            UdpSetup::UseRelays(relays) => self.use_relays(&relays, ctx),
            UdpSetup::Flush => {
                let flushed = self.flush().into_actor(self);
                return ActorResponse::r#async(flushed);
            }
        }
        ActorResponse::reply(())
    }
}

impl Handler<UseSettings> for UdpActor {
    type Result = ();

    fn handle(&mut self, UseSettings { before, after }: UseSettings, ctx: &mut Context<Self>) {
        let per_second = after.config.limits.handshakes_per_second;
        if per_second != before.config.limits.handshakes_per_second {
            self.spec.demux.limit_handshakes(per_second.into());
        }
        if after.config.network != before.config.network {
            self.spec.list_addresses = list_addresses(&after.config);
            self.spec.stun_servers = stun_servers(&after.config, self.spec.shard);
            self.list_addresses();
            self.ask_servers();
        }
        self.drive(ctx);
    }
}

impl UdpActor {
    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(request) = self.spec.gatherer.poll_transmit() {
            self.send(request);
        }
        if self.spec.gatherer.poll_change().is_some() {
            for index in self.peers.keys().copied().collect::<Vec<_>>() {
                self.inform(index);
            }
        }
        let handshakes = self.spec.demux.take_handshakes();
        self.spec.metrics.add_handshakes(handshakes);
        self.spec.metrics.add_drops(&self.spec.demux.take_drops());
        self.await_room(ctx);
        let deadlines = [
            self.spec.demux.poll_timeout(),
            self.spec.gatherer.poll_timeout(),
        ];
        arm(self, deadlines.into_iter().flatten().min(), ctx);
        resend_later(self, ctx);
    }

    fn attach(&mut self, peer: AttachPeer) {
        let index = peer.index;
        self.spec
            .demux
            .attach(index, peer.public_key, &peer.stun_username);
        let connection = match self.peers.remove(&index) {
            // Batches that a dead connection did not receive are for its successor.
            Some(mut former) => {
                former
                    .connection
                    .lead_to(peer.connection, &self.spec.metrics);
                former.connection
            }
            None => Link::new(Receiver::Connection, peer.connection),
        };
        let links = PeerLinks {
            connection,
            addresses: peer.addresses,
        };
        self.peers.insert(index, links);
        self.inform(index);
    }

    fn detach(&mut self, index: PeerIndex) {
        self.spec.demux.detach(index);
        self.peers.remove(&index);
        self.uninformed.remove(&index);
    }

    /// Tells a connection our present addresses, or does so later.
    fn inform(&mut self, index: PeerIndex) {
        let peer = self.peers.get(&index);
        if let Some(addresses) = peer.and_then(|peer| peer.addresses.as_ref()) {
            let current = self.spec.gatherer.current().clone();
            let told = addresses.try_send(ConnectionUpdate::LocalAddresses(current));
            if let Err(SendError::Full(_)) = told {
                self.uninformed.insert(index);
            }
        }
    }

    fn use_relays(&mut self, relays: &[Relay], ctx: &mut Context<Self>) {
        self.relays = relays.iter().map(|relay| relay.addr).collect();
        self.ask_servers();
        self.drive(ctx);
    }

    /// Ends when the kernel has taken everything.
    fn flush(&mut self) -> impl Future<Output = ()> + use<> {
        let mut queue = std::mem::take(&mut self.queue);
        let ports = self.spec.ports.clone();
        let metrics = Arc::clone(&self.spec.metrics);
        async move {
            while let Some(port) = queue.blocked_port(&ports) {
                // The event loop cannot report room any more.
                if port.writable().await.is_err() {
                    return;
                }
                metrics.count_drops(DropReason::SendFailed, queue.flush(&ports));
            }
        }
    }

    fn deliver(&mut self, routed: Routed) {
        match routed {
            Routed::Peer(index, batch) => {
                if let Some(peer) = self.peers.get_mut(&index) {
                    if index.shard() != self.spec.shard {
                        self.spec.metrics.handed_over.udp.add_batch(batch.len());
                    }
                    let datagrams = InboundDatagrams::new(batch);
                    peer.connection.offer(datagrams, &self.spec.metrics);
                }
            }
            Routed::Reply(reply) => self.send(reply),
            Routed::StunResponse(path, datagram) => {
                let now = shell::now();
                if !self.spec.gatherer.handle_response(path, &datagram, now) {
                    self.spec.metrics.count_drops(DropReason::StunRejected, 1);
                }
            }
        }
    }

    /// If the source address is no longer ours, the kernel chooses one by route. It would refuse
    /// the old one, and quinn-udp would then disable offloads permanently.
    fn send(&mut self, mut batch: DatagramBatch) {
        if !self.spec.gatherer.is_local(batch.path.local.ip()) {
            batch.unpin_source();
        }
        self.spec.metrics.udp_sent.add_datagrams(&batch);
        let lost = self.queue.send(&self.spec.ports, batch);
        self.spec.metrics.count_drops(DropReason::SendFailed, lost);
    }

    fn await_room(&mut self, ctx: &mut Context<Self>) {
        if self.awaits_room {
            return;
        }
        if let Some(port) = self.queue.blocked_port(&self.spec.ports).cloned() {
            self.awaits_room = true;
            let room = async move { port.writable().await }.into_actor(self);
            ctx.spawn(room.map(|room, actor: &mut Self, ctx| match room {
                Ok(()) => actor.use_room(ctx),
                // Without a notification, try again after a pause.
                Err(_) => {
                    ctx.run_later(RETRY_PAUSE, Self::use_room);
                }
            }));
        }
    }

    /// The send buffer has room again.
    fn use_room(&mut self, ctx: &mut Context<Self>) {
        self.awaits_room = false;
        let lost = self.queue.flush(&self.spec.ports);
        self.spec.metrics.count_drops(DropReason::SendFailed, lost);
        self.drive(ctx);
    }

    fn ask_servers(&mut self) {
        let mut servers = self.spec.stun_servers.clone();
        servers.extend(&self.relays);
        self.spec.gatherer.handle_servers(&servers, shell::now());
    }

    fn list_addresses(&mut self) {
        if let Some(addresses) = (self.spec.list_addresses)() {
            self.spec.gatherer.handle_interfaces(&addresses);
        }
    }
}

/// About as long as a full send buffer takes to empty.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// A portal hands out two relays with two addresses each; the rest is for configured servers.
const MAX_STUN_SERVERS: usize = 16;
/// Outstanding requests of a full gateway: each client has a few candidate pairs under check.
const MAX_STUN_TRANSACTIONS: usize = 65_536;
/// A new address is of use soon enough; listing costs some 50 µs.
const LIST_ADDRESSES_EVERY: Duration = Duration::from_secs(5);
