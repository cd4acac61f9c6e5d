//! ConnectionActor: one client.
//!
//! Owns: the [`Connection`] core. Receives: the portal's commands for this client,
//! `InboundDatagrams`, `OutboundPackets`, the addresses of restarted actors, `LimitResources`,
//! questions of an operator. Emits: `InboundPackets`, `OutboundDatagrams`, acknowledgements and
//! candidates for the portal, attachments, `ConnectionChanged`. When its mailbox is full: senders
//! of the data path drop and count; commands wait. On death: rebuilt from its client's record; it
//! starts a handshake itself.

use crate::faults;
use crate::link::Link;
use crate::messages::connection::{
    AddCandidates, AllowAccess, CloseConnection, CommandsRecorded, DescribeConnection,
    DomainStatusChanged, LimitResources, LocalAddressesChanged, OpenConnection,
    ReconcileAuthorizations, RemoveCandidates, RevokeAccess, SetExpiry, StopConnection,
    UpdateResource,
};
use crate::messages::diagnosis::{AccessFacts, ExplainAccess};
use crate::messages::dns::ResolveName;
use crate::messages::nat_table::{AttachClient, DetachClient, NameChanged};
use crate::messages::packets::{
    InboundDatagrams, InboundPackets, OutboundDatagrams, OutboundPackets,
};
use crate::messages::portal::{CandidatesGathered, ConnectionAccepted};
use crate::messages::presence::Presence;
use crate::messages::successors::{
    NatTableInputs, PortalRestarted, UdpInputs, UseDns, UseFront, UseNatTable, UseUdp,
};
use crate::messages::supervisor::{ConnectionChanged, ConnectionClosed, ConnectionFact};
use crate::messages::udp::{AttachPeer, DetachPeer};
use crate::metrics::{Receiver, ShardMetrics};
use crate::shell::{self, Driven, Wakeup, arm, tell};
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
    /// Our candidates, to the supervisor: behind the acknowledgement, which goes the same way.
    pub gathered: Recipient<CandidatesGathered>,
    pub accepted: Recipient<ConnectionAccepted>,
    pub changed: Recipient<ConnectionChanged>,
    pub closed: Recipient<ConnectionClosed>,
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
    outputs: ConnectionOutputs,
    packets: Link<InboundPackets>,
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
        let front = spec.outputs.front.as_ref();
        let requests = front.map(|front| Link::new(Receiver::Udp, front.datagrams.clone()));
        Self {
            client: spec.client,
            core,
            requests,
            config: spec.config,
            packets: Link::new(Receiver::NatTable, spec.outputs.nat_table.packets.clone()),
            datagrams: Link::new(Receiver::Udp, spec.outputs.udp.datagrams.clone()),
            outputs: spec.outputs,
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

impl Handler<OpenConnection> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, OpenConnection(request): OpenConnection, ctx: &mut Context<Self>) {
        self.opened += 1;
        self.core
            .handle_authorization(*request, shell::unix_now(), shell::now());
        self.drive(ctx);
    }
}

impl Handler<AllowAccess> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, AllowAccess(request): AllowAccess, ctx: &mut Context<Self>) {
        self.opened += 1;
        self.core
            .handle_access(*request, shell::unix_now(), shell::now());
        self.drive(ctx);
    }
}

impl Handler<AddCandidates> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, message: AddCandidates, ctx: &mut Context<Self>) {
        let odd = self
            .core
            .add_remote_candidates(&message.candidates, shell::now());
        self.report_odd_candidates(odd);
        self.drive(ctx);
    }
}

impl Handler<RemoveCandidates> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, message: RemoveCandidates, ctx: &mut Context<Self>) {
        let odd = self
            .core
            .remove_remote_candidates(&message.candidates, shell::now());
        self.report_odd_candidates(odd);
        self.drive(ctx);
    }
}

impl Handler<RevokeAccess> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, message: RevokeAccess, ctx: &mut Context<Self>) {
        self.core.handle_revocation(message.resource, shell::now());
        self.drive(ctx);
    }
}

impl Handler<CommandsRecorded> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, CommandsRecorded(number): CommandsRecorded, _: &mut Context<Self>) {
        self.included = number;
        self.publish(self.core.authorizations().clone());
    }
}

impl Handler<LimitResources> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, LimitResources(limit): LimitResources, _: &mut Context<Self>) {
        self.config.max_resources = limit;
        self.core.limit_resources(limit);
    }
}

impl Handler<UpdateResource> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, UpdateResource(resource): UpdateResource, ctx: &mut Context<Self>) {
        self.core.handle_resource_update(&resource);
        self.drive(ctx);
    }
}

impl Handler<SetExpiry> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, SetExpiry(entry): SetExpiry, ctx: &mut Context<Self>) {
        self.core
            .handle_expiry(entry, shell::unix_now(), shell::now());
        self.drive(ctx);
    }
}

impl Handler<ReconcileAuthorizations> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, message: ReconcileAuthorizations, ctx: &mut Context<Self>) {
        self.core.handle_reconciliation(
            message.gateway,
            &message.authorizations,
            shell::unix_now(),
            shell::now(),
        );
        self.drive(ctx);
    }
}

impl Handler<LocalAddressesChanged> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, message: LocalAddressesChanged, ctx: &mut Context<Self>) {
        self.core.handle_local_addresses(message.0, shell::now());
        self.drive(ctx);
    }
}

impl Handler<DomainStatusChanged> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, message: DomainStatusChanged, ctx: &mut Context<Self>) {
        self.core.handle_domain_status(&message.0, shell::now());
        self.drive(ctx);
    }
}

impl Handler<CloseConnection> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, _: CloseConnection, ctx: &mut Context<Self>) {
        self.core.close(shell::now());
        self.drive(ctx);
    }
}

impl Handler<StopConnection> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, _: StopConnection, ctx: &mut Context<Self>) {
        let (client, index) = (self.client, self.config.index);
        self.detach_peer();
        let detach = DetachClient { client, index };
        tell(&self.outputs.nat_table.detach, detach);
        ctx.stop();
    }
}

impl Handler<DescribeConnection> for ConnectionActor {
    type Result = MessageResult<DescribeConnection>;

    fn handle(&mut self, _: DescribeConnection, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.core.stats(shell::now()))
    }
}

impl Handler<UseNatTable> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, UseNatTable(nat_table): UseNatTable, ctx: &mut Context<Self>) {
        self.outputs.nat_table = nat_table;
        self.attach_client(ctx);
        self.core.handle_nat_table_restarted();
        self.drive(ctx);
        let packets = self.outputs.nat_table.packets.clone();
        self.packets.lead_to(packets, &self.metrics);
    }
}

impl Handler<UseUdp> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, UseUdp(udp): UseUdp, ctx: &mut Context<Self>) {
        self.outputs.udp = udp;
        self.core.handle_udp_restarted();
        self.drive(ctx);
        let datagrams = self.outputs.udp.datagrams.clone();
        self.datagrams.lead_to(datagrams, &self.metrics);
    }
}

impl Handler<UseFront> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, UseFront(front): UseFront, ctx: &mut Context<Self>) {
        let datagrams = front.datagrams.clone();
        self.outputs.front = Some(front);
        self.core.handle_udp_restarted();
        self.drive(ctx);
        let fresh = || Link::nowhere(Receiver::Udp);
        let requests = self.requests.get_or_insert_with(fresh);
        requests.lead_to(datagrams, &self.metrics);
    }
}

impl Handler<PortalRestarted> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, _: PortalRestarted, ctx: &mut Context<Self>) {
        self.core.handle_portal_restarted(shell::now());
        self.drive(ctx);
    }
}

impl Handler<UseDns> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, UseDns(resolve): UseDns, _: &mut Context<Self>) {
        self.outputs.resolve = resolve;
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
        while let Some(event) = self.core.poll_event() {
            self.handle_event(event, ctx);
        }
        if let Some(authorizations) = self.core.take_authorizations() {
            self.publish(authorizations);
        }
        while let Some(packets) = self.core.poll_inbound() {
            self.packets
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
    }

    fn handle_event(&mut self, event: ConnectionEvent, ctx: &mut Context<Self>) {
        let client = self.client;
        match event {
            ConnectionEvent::Accepted { reply_ref } => {
                self.metrics.accepted.add(1);
                let accepted = ConnectionAccepted { client, reply_ref };
                tell(&self.outputs.accepted, accepted);
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
                let gathered = CandidatesGathered { client, candidates };
                tell(&self.outputs.gathered, gathered);
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
            ConnectionEvent::NameChanged(meaning) => {
                let changed = NameChanged { client, meaning };
                tell(&self.outputs.nat_table.names, changed);
            }
            ConnectionEvent::Closed => {
                let (instance, opened) = (self.death.instance(), self.opened);
                tell(
                    &self.outputs.closed,
                    ConnectionClosed {
                        client,
                        instance,
                        opened,
                    },
                );
            }
        }
    }

    fn attach_client(&self, ctx: &mut Context<Self>) {
        let attach = AttachClient {
            client: self.client,
            index: self.config.index,
            tunnel: self.config.client,
            connection: ctx.address().recipient(),
            names: ctx.address().recipient(),
        };
        tell(&self.outputs.nat_table.attach, attach);
    }

    fn publish(&self, authorizations: Authorizations) {
        self.report(ConnectionFact::Authorizations(
            self.included,
            authorizations,
        ));
    }

    fn report(&self, fact: ConnectionFact) {
        let change = ConnectionChanged {
            client: self.client,
            instance: self.death.instance(),
            opened: self.opened,
            fact,
        };
        tell(&self.outputs.changed, change);
    }

    /// Warms the cache, so that the answer is there before the tunnel.
    fn expect_name(&self, name: DomainName) {
        let question = ResolveName {
            name,
            client: self.client,
            refresh: false,
            reply_to: None,
        };
        tell(&self.outputs.resolve, question);
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
        if let Some(front) = &self.outputs.front {
            tell(&front.attach, attach.clone());
            let addresses = None;
            let attach = AttachPeer {
                addresses,
                ..attach
            };
            tell(&self.outputs.udp.attach, attach);
        } else {
            tell(&self.outputs.udp.attach, attach);
        }
    }

    fn detach_peer(&self) {
        let index = self.config.index;
        for udp in self.outputs.front.iter().chain([&self.outputs.udp]) {
            tell(&udp.detach, DetachPeer { index });
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

    fn report_odd_candidates(&self, count: usize) {
        if count > 0 {
            tracing::debug!(client = %self.client, count, "candidates that do not parse");
        }
    }
}
