//! ConnectionActor: one client.
//!
//! Owns: the [`Connection`] core. Receives: `ConnectionCommand`, `ConnectionUpdate`,
//! `InboundDatagrams`, `OutboundPackets`, questions of an operator. Emits: `InboundPackets`,
//! `OutboundDatagrams`, `NatTableCommand`, `UdpCommand`, `ResolveName`, `ConnectionNews`. When its
//! mailbox is full: the data path drops and counts, the UdpActor repeats its addresses, a status
//! of a name is lost until the client announces the name again, and commands wait at the
//! supervisor, which ends a connection that takes none. When the mailbox of another is full: news
//! waits; the NAT or the sockets are told all again once they have room, and packets for the NAT
//! are dropped until then; a question that only warms the DNS cache is dropped. On death: rebuilt
//! from its client's record; it starts a handshake itself.

use crate::faults;
use crate::link::{GuardedLink, Link};
use crate::messages::connection::{ConnectionCommand, DescribeConnection};
use crate::messages::diagnosis::{AccessFacts, ExplainAccess};
use crate::messages::dns::ResolveName;
use crate::messages::nat_table::{AttachClient, NatTableCommand, NatTableInputs};
use crate::messages::packets::{
    InboundDatagrams, InboundPackets, OutboundDatagrams, OutboundPackets,
};
use crate::messages::presence::Presence;
use crate::messages::supervisor::{ConnectionFact, ConnectionNews};
use crate::messages::udp::{AttachPeer, UdpCommand, UdpInputs};
use crate::messages::updates::ConnectionUpdate;
use crate::metrics::{Receiver, ShardMetrics};
use crate::post::{FOR_SUPERVISOR, Post, offer};
use crate::shell::{self, Driven, Posting, Retry, Wakeup, arm, resend_later};
use crate::supervision::{DeathNotice, supervised};
use actix::prelude::*;
use postern_core::authorizations::Authorizations;
use postern_core::connection::{Connection, ConnectionConfig, ConnectionEvent};
use postern_core::ids::{ClientId, PublicKey};
use postern_core::ledger::ClientRecord;
use postern_core::names::DomainName;
use postern_core::packet::{DatagramBatch, Path};
use postern_core::peer::Demux;
use std::sync::Arc;

/// Receivers of a connection's messages.
#[derive(Clone)]
pub struct ConnectionOutputs {
    pub nat_table: NatTableInputs,
    pub udp: UdpInputs,
    /// The UdpActor of shard 0, which receives what names no shard; `None` on shard 0 itself.
    pub front: Option<UdpInputs>,
    /// Warms the DnsActor's cache.
    pub resolve: Recipient<ResolveName>,
    /// Reports to the supervisor.
    pub news: Recipient<ConnectionNews>,
}

pub struct ConnectionSpec {
    pub client: ClientId,
    pub config: ConnectionConfig,
    pub outputs: ConnectionOutputs,
    /// The client's record if this instance replaces another.
    pub record: Option<Arc<ClientRecord>>,
    /// The number of the last command of the portal that `record` includes.
    pub included: u64,
    pub metrics: Arc<ShardMetrics>,
    pub death: DeathNotice,
}

pub struct ConnectionActor {
    client: ClientId,
    config: ConnectionConfig,
    core: Connection,
    nat_table: GuardedLink<NatTableCommand, InboundPackets>,
    udp: Post<UdpCommand>,
    /// To shard 0, on other shards.
    front: Option<Post<UdpCommand>>,
    resolve: Recipient<ResolveName>,
    news: Post<ConnectionNews>,
    retry: Retry,
    datagrams: Link<OutboundDatagrams>,
    /// To shard 0: STUN requests, because their answers arrive there.
    requests: Option<Link<OutboundDatagrams>>,
    metrics: Arc<ShardMetrics>,
    session: Option<Presence>,
    path: Option<Presence>,
    opened: u64,
    /// The number of the last command of the portal that the core has handled.
    included: u64,
    wakeup: Wakeup,
    death: DeathNotice,
}

impl ConnectionActor {
    /// Batches. At 64 packets each, more than any client's bandwidth-delay product.
    pub const MAILBOX: usize = 256;

    pub fn new(spec: ConnectionSpec) -> Self {
        let config = spec.config.clone();
        let core = match spec.record {
            Some(record) => Connection::restore(config, &record, shell::unix_now(), shell::now()),
            None => Connection::new(config),
        };
        let ConnectionOutputs {
            nat_table,
            udp,
            front,
            resolve,
            news,
        } = spec.outputs;
        let requests = front.as_ref().map(|front| front.datagrams.clone());
        Self {
            client: spec.client,
            core,
            config: spec.config,
            datagrams: Link::new(Receiver::Udp, udp.datagrams),
            requests: requests.map(|requests| Link::new(Receiver::Udp, requests)),
            nat_table: GuardedLink::new(Receiver::NatTable, nat_table.commands, nat_table.packets),
            udp: Post::new(udp.commands, 0),
            front: front.map(|front| Post::new(front.commands, 0)),
            resolve,
            news: Post::lossy(news, FOR_SUPERVISOR),
            retry: Retry::default(),
            metrics: spec.metrics,
            session: None,
            path: None,
            opened: 0,
            included: spec.included,
            wakeup: Wakeup::default(),
            death: spec.death,
        }
    }
}

supervised!(ConnectionActor, "connection");

impl Actor for ConnectionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        faults::on_started("connection");
        ctx.set_mailbox_capacity(Self::MAILBOX);
        self.attach_client(ctx);
        self.drive(ctx);
    }
}

impl Driven for ConnectionActor {
    fn wakeup(&mut self) -> &mut Wakeup {
        &mut self.wakeup
    }

    fn on_deadline(&mut self, ctx: &mut Context<Self>) {
        self.core.handle_timeout(shell::now());
        self.drive(ctx);
    }
}

impl Posting for ConnectionActor {
    fn retry(&mut self) -> &mut Retry {
        &mut self.retry
    }

    fn is_waiting(&self) -> bool {
        let mut udps = self.front.iter().chain([&self.udp]);
        self.nat_table.commands.is_waiting() || self.news.is_waiting() || udps.any(Post::is_waiting)
    }

    /// An actor that has missed a command is told all again: what is attached, and which names.
    fn resend(&mut self, ctx: &mut Context<Self>) {
        self.news.resend();
        if self.nat_table.commands.take_overflow() {
            self.publish_client(ctx);
        }
        let missed = self.udp.take_overflow();
        if self.front.as_ref().is_some_and(Post::take_overflow) || missed {
            self.publish_peer();
        }
        self.drive(ctx);
    }
}

impl Handler<ConnectionCommand> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, command: ConnectionCommand, ctx: &mut Context<Self>) {
        match command {
            ConnectionCommand::Client(number, command) => {
                self.opened += u64::from(command.is_grant());
                self.core
                    .handle_command(command, shell::unix_now(), shell::now());
                self.included = number;
                self.handle_events(ctx);
                // Also if nothing changed: the ledger keeps the command until then.
                let changed = self.core.take_authorizations();
                self.publish(changed.unwrap_or_else(|| self.core.authorizations().clone()));
            }
            ConnectionCommand::LimitResources(limit) => {
                self.config.max_resources = limit;
                self.core.limit_resources(limit);
            }
            ConnectionCommand::UseNatTable(nat_table) => self.use_nat_table(nat_table, ctx),
            ConnectionCommand::UseUdp(udp) => self.use_udp(udp, ctx),
            ConnectionCommand::UseFront(front) => self.use_front(front, ctx),
            ConnectionCommand::UseDns(resolve) => self.resolve = resolve,
            ConnectionCommand::PortalRestarted => self.core.handle_portal_restarted(shell::now()),
            ConnectionCommand::Close => self.core.close(shell::now()),
            ConnectionCommand::Stop => return self.stop(ctx),
        }
        self.drive(ctx);
    }
}

impl Handler<ConnectionUpdate> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, update: ConnectionUpdate, ctx: &mut Context<Self>) {
        let now = shell::now();
        match update {
            ConnectionUpdate::LocalAddresses(it) => self.core.handle_local_addresses(it, now),
            ConnectionUpdate::DomainStatus(status) => self.core.handle_domain_status(&status, now),
        }
        self.drive(ctx);
    }
}

impl Handler<DescribeConnection> for ConnectionActor {
    type Result = MessageResult<DescribeConnection>;

    fn handle(&mut self, _: DescribeConnection, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.core.stats(shell::now()))
    }
}

impl Handler<ExplainAccess> for ConnectionActor {
    type Result = AccessFacts;

    fn handle(
        &mut self,
        ExplainAccess(target): ExplainAccess,
        _: &mut Context<Self>,
    ) -> AccessFacts {
        AccessFacts(self.core.explain(&target, shell::now()))
    }
}

impl Handler<InboundDatagrams> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, message: InboundDatagrams, ctx: &mut Context<Self>) {
        faults::on_packets(self.client);
        self.core.handle_datagrams(&message.batch, shell::now());
        self.drive(ctx);
    }
}

impl Handler<OutboundPackets> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, message: OutboundPackets, ctx: &mut Context<Self>) {
        self.core.handle_packets(message.batch, shell::now());
        self.drive(ctx);
    }
}

impl ConnectionActor {
    /// Drains the core, then re-arms the timer. Called after every mutation of `core`. Events come
    /// first: the acknowledgement must not wait for anything.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        self.handle_events(ctx);
        if let Some(authorizations) = self.core.take_authorizations() {
            self.publish(authorizations);
        }
        while let Some(packets) = self.core.poll_inbound() {
            self.nat_table
                .offer(InboundPackets::new(packets), &self.metrics);
        }
        while let Some(batch) = self.core.poll_transmit() {
            self.send(batch);
        }
        self.metrics.add_drops(&self.core.take_drops());
        self.metrics.add_handshakes(self.core.take_handshakes());
        let has_session = self.core.has_session();
        if has_session != self.session.is_some() {
            self.session = has_session.then(|| self.metrics.sessions.enter());
        }
        let deadline = self.core.poll_timeout();
        arm(self, deadline, ctx);
        resend_later(self, ctx);
    }

    /// The NAT gets all names in one message, which a mailbox has room for where it has for any.
    fn handle_events(&mut self, ctx: &mut Context<Self>) {
        let mut meanings = Vec::new();
        while let Some(event) = self.core.poll_event() {
            if let ConnectionEvent::NameChanged(meaning) = event {
                meanings.push(meaning);
            } else {
                self.handle_event(event, ctx);
            }
        }
        if !meanings.is_empty() {
            let client = self.client;
            let names = NatTableCommand::Names { client, meanings };
            self.nat_table.commands.tell(names);
        }
    }

    fn use_nat_table(&mut self, nat_table: NatTableInputs, ctx: &mut Context<Self>) {
        self.nat_table.commands = Post::new(nat_table.commands, 0);
        self.publish_client(ctx);
        self.drive(ctx);
        self.nat_table.lead_to(nat_table.packets, &self.metrics);
    }

    fn use_udp(&mut self, udp: UdpInputs, ctx: &mut Context<Self>) {
        self.udp = Post::new(udp.commands, 0);
        self.core.handle_udp_restarted();
        self.drive(ctx);
        self.datagrams.lead_to(udp.datagrams, &self.metrics);
    }

    fn use_front(&mut self, front: UdpInputs, ctx: &mut Context<Self>) {
        self.front = Some(Post::new(front.commands, 0));
        self.core.handle_udp_restarted();
        self.drive(ctx);
        let fresh = || Link::nowhere(Receiver::Udp);
        let requests = self.requests.get_or_insert_with(fresh);
        requests.lead_to(front.datagrams, &self.metrics);
    }

    /// Tells the NAT all that it has to know of the client.
    fn publish_client(&mut self, ctx: &mut Context<Self>) {
        self.attach_client(ctx);
        self.core.handle_nat_table_restarted();
    }

    /// Tells the UdpActors all that they have to know of the client's peer.
    fn publish_peer(&mut self) {
        match self.core.has_transport() {
            true => self.core.handle_udp_restarted(),
            false => self.detach_peer(),
        }
    }

    /// The supervisor detaches the client from actors that are full.
    fn stop(&mut self, ctx: &mut Context<Self>) {
        let (client, index) = (self.client, self.config.index);
        self.detach_peer();
        let detach = NatTableCommand::Detach { client, index };
        self.nat_table.commands.tell(detach);
        ctx.stop();
    }

    fn handle_event(&mut self, event: ConnectionEvent, ctx: &mut Context<Self>) {
        let client = self.client;
        match event {
            ConnectionEvent::Accepted { reply_ref } => {
                self.metrics.accepted.add(1);
                self.report(ConnectionFact::Accepted { reply_ref });
            }
            ConnectionEvent::Refused(error) => {
                self.metrics.refused.add(1);
                tracing::warn!(%client, %error, "authorization not applied");
            }
            ConnectionEvent::PeerAttached {
                public_key,
                stun_username,
            } => self.attach_peer(public_key, stun_username, ctx),
            ConnectionEvent::PeerDetached => {
                self.path = None;
                self.detach_peer();
                self.report(ConnectionFact::TransportLost);
                tracing::info!(%client, "connection down");
            }
            ConnectionEvent::CandidatesGathered(candidates) => {
                self.report(ConnectionFact::CandidatesGathered(candidates));
            }
            ConnectionEvent::CandidatesSkipped(count) => {
                tracing::debug!(%client, count, "candidates that do not parse");
            }
            ConnectionEvent::PathNominated(path) => self.note_path(path),
            ConnectionEvent::PathInUse(path) => self.report(ConnectionFact::PathInUse(path)),
            ConnectionEvent::SessionEstablished => {
                self.metrics.sessions_begun.add(1);
                self.report(ConnectionFact::SessionEstablished);
                tracing::info!(%client, milestone = "session_established", "connection up");
            }
            ConnectionEvent::Expired(resource) => {
                tracing::info!(%client, %resource, "authorization expired");
            }
            ConnectionEvent::NameExpected(name) => self.expect_name(name),
            // Sent together with those beside it.
            ConnectionEvent::NameChanged(_) => {}
            ConnectionEvent::Closed => self.report(ConnectionFact::Closed),
        }
    }

    fn attach_client(&self, ctx: &mut Context<Self>) {
        let attach = AttachClient {
            client: self.client,
            index: self.config.index,
            tunnel: self.config.client,
            known: self.core.names().cloned().collect(),
            connection: ctx.address().recipient(),
            names: ctx.address().recipient(),
        };
        self.nat_table
            .commands
            .tell(NatTableCommand::Attach(attach));
    }

    fn publish(&self, authorizations: Authorizations) {
        self.report(ConnectionFact::Authorizations(
            self.included,
            authorizations,
        ));
    }

    fn report(&self, fact: ConnectionFact) {
        self.news.tell(ConnectionNews {
            client: self.client,
            instance: self.death.instance(),
            opened: self.opened,
            fact,
        });
    }

    /// Warms the cache, so that the answer is there before the tunnel.
    fn expect_name(&self, name: DomainName) {
        let question = ResolveName {
            name,
            client: self.client,
            refresh: false,
            reply_to: None,
        };
        offer(&self.resolve, question);
    }

    fn attach_peer(
        &mut self,
        public_key: PublicKey,
        stun_username: String,
        ctx: &mut Context<Self>,
    ) {
        self.path = None;
        let attach = AttachPeer {
            index: self.config.index,
            public_key,
            stun_username,
            connection: ctx.address().recipient(),
            addresses: Some(ctx.address().recipient()),
        };
        if let Some(front) = &self.front {
            front.tell(UdpCommand::Attach(attach.clone()));
            let addresses = None;
            let attach = AttachPeer {
                addresses,
                ..attach
            };
            self.udp.tell(UdpCommand::Attach(attach));
        } else {
            self.udp.tell(UdpCommand::Attach(attach));
        }
    }

    fn detach_peer(&self) {
        for udp in self.front.iter().chain([&self.udp]) {
            udp.tell(UdpCommand::Detach(self.config.index));
        }
    }

    fn send(&mut self, batch: DatagramBatch) {
        let link = match &mut self.requests {
            Some(requests) if Demux::is_stun_request(&batch) => requests,
            Some(_) | None => &mut self.datagrams,
        };
        let datagrams = OutboundDatagrams::new(self.config.index, batch);
        link.offer(datagrams, &self.metrics);
    }

    fn note_path(&mut self, path: Path) {
        let client = self.client;
        let kind = self.core.path_kind();
        self.path = kind.map(|kind| self.metrics.enter_path(kind));
        tracing::info!(%client, "path nominated");
        tracing::debug!(
            %client,
            milestone = "path_nominated",
            local = %path.local,
            remote = %path.remote,
            "path"
        );
    }
}
