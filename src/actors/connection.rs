//! ConnectionActor: one client.
//!
//! Owns: the [`Connection`] core. Receives: the portal's commands for this client,
//! `InboundDatagrams`, `OutboundPackets`. Emits: `InboundPackets`, `OutboundDatagrams`, what the
//! portal must hear, attachments. When its mailbox is full: senders of the data path drop and
//! count; commands wait. On death: its client has to ask for access again.

use crate::messages::connection::{
    AddCandidates, AllowAccess, CloseConnection, DomainStatusChanged, LocalAddressesChanged,
    OpenConnection, ReconcileAuthorizations, RemoveCandidates, RevokeAccess, SetExpiry,
    StopConnection, UpdateResource,
};
use crate::messages::dns::ResolveName;
use crate::messages::nat_table::{AssignProxyIps, AttachClient, DetachClient, ReleaseResource};
use crate::messages::packets::{
    InboundDatagrams, InboundPackets, OutboundDatagrams, OutboundPackets,
};
use crate::messages::portal::{CandidatesGathered, ConnectionAccepted};
use crate::messages::supervisor::ConnectionClosed;
use crate::messages::udp::{AttachPeer, DetachPeer};
use crate::metrics::Metrics;
use crate::shell::{self, DeathNotice, Driven, Wakeup, arm, offer, tell};
use actix::prelude::*;
use postern_core::connection::{Connection, ConnectionConfig, ConnectionEvent};
use postern_core::ids::{ClientId, PublicKey};
use postern_core::names::DomainName;
use postern_core::packet::Path;
use std::sync::Arc;

/// Whom a connection talks to.
#[derive(Clone)]
pub struct ConnectionOutlets {
    /// Packets towards resources.
    pub nat_table: Recipient<InboundPackets>,
    /// Routes for packets from resources.
    pub attach_client: Recipient<AttachClient>,
    /// And their end.
    pub detach_client: Recipient<DetachClient>,
    /// Proxy IPs of names.
    pub assign_proxy_ips: Recipient<AssignProxyIps>,
    /// And their end.
    pub release_resource: Recipient<ReleaseResource>,
    /// Names that will soon be asked for.
    pub resolve: Recipient<ResolveName>,
    /// Datagrams to the client.
    pub udp: Recipient<OutboundDatagrams>,
    /// How the client's datagrams are found.
    pub attach_peer: Recipient<AttachPeer>,
    /// And no longer.
    pub detach_peer: Recipient<DetachPeer>,
    /// Acknowledgements.
    pub accepted: Recipient<ConnectionAccepted>,
    /// Our candidates.
    pub gathered: Recipient<CandidatesGathered>,
}

/// Everything a ConnectionActor is built from.
pub struct ConnectionSpec {
    /// Whose.
    pub client: ClientId,
    /// For the core.
    pub config: ConnectionConfig,
    /// Whom to talk to.
    pub outlets: ConnectionOutlets,
    /// Who is told that nothing is left to serve.
    pub closed: Recipient<ConnectionClosed>,
    /// Shared counters.
    pub metrics: Arc<Metrics>,
    /// Held until the end.
    pub death: DeathNotice,
}

/// See the module's documentation.
pub struct ConnectionActor {
    client: ClientId,
    config: ConnectionConfig,
    core: Connection,
    outlets: ConnectionOutlets,
    closed: Recipient<ConnectionClosed>,
    metrics: Arc<Metrics>,
    opened: u64,
    wakeup: Wakeup,
    _death: DeathNotice,
}

impl ConnectionActor {
    /// Batches that may wait: at 64 packets each more than any client's bandwidth-delay product.
    pub const MAILBOX: usize = 256;

    /// With a fresh core.
    #[must_use]
    pub fn new(spec: ConnectionSpec) -> Self {
        Self {
            client: spec.client,
            core: Connection::new(spec.config.clone()),
            config: spec.config,
            outlets: spec.outlets,
            closed: spec.closed,
            metrics: spec.metrics,
            opened: 0,
            wakeup: Wakeup::default(),
            _death: spec.death,
        }
    }
}

impl Actor for ConnectionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(Self::MAILBOX);
        tell(
            &self.outlets.attach_client,
            AttachClient {
                client: self.client,
                index: self.config.index,
                tunnel: self.config.client,
                connection: ctx.address().recipient(),
                names: ctx.address().recipient(),
            },
        );
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        let (client, index) = (self.client, self.config.index);
        tell(&self.outlets.detach_peer, DetachPeer { index });
        tell(&self.outlets.detach_client, DetachClient { client, index });
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
        ctx.stop();
    }
}

impl Handler<InboundDatagrams> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, InboundDatagrams(batch): InboundDatagrams, ctx: &mut Context<Self>) {
        self.core.handle_datagrams(&batch, shell::now());
        self.drive(ctx);
    }
}

impl Handler<OutboundPackets> for ConnectionActor {
    type Result = ();

    fn handle(&mut self, OutboundPackets(batch): OutboundPackets, ctx: &mut Context<Self>) {
        self.core.handle_packets(batch, shell::now());
        self.drive(ctx);
    }
}

impl ConnectionActor {
    /// Drains the core, then asks for the next wake-up. Called after every mutation of `core`.
    /// Events come first: the acknowledgement must not wait for anything.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(event) = self.core.poll_event() {
            self.handle_event(event, ctx);
        }
        while let Some(packets) = self.core.poll_inbound() {
            let packets = InboundPackets(packets);
            offer(&self.outlets.nat_table, packets, &self.metrics);
        }
        while let Some(batch) = self.core.poll_transmit() {
            let from = self.config.index;
            let datagrams = OutboundDatagrams { from, batch };
            offer(&self.outlets.udp, datagrams, &self.metrics);
        }
        self.metrics.add_drops(&self.core.take_drops());
        let deadline = self.core.poll_timeout();
        arm(self, deadline, ctx);
    }

    fn handle_event(&mut self, event: ConnectionEvent, ctx: &mut Context<Self>) {
        let client = self.client;
        match event {
            ConnectionEvent::Accepted { reply_ref } => {
                tell(&self.outlets.accepted, ConnectionAccepted { reply_ref });
            }
            ConnectionEvent::Refused(error) => {
                tracing::warn!(%client, %error, "authorization not applied");
            }
            ConnectionEvent::PeerAttached {
                public_key,
                stun_username,
            } => self.attach_peer(public_key, stun_username, ctx),
            ConnectionEvent::PeerDetached => {
                tell(
                    &self.outlets.detach_peer,
                    DetachPeer {
                        index: self.config.index,
                    },
                );
                tracing::info!(%client, "connection down");
            }
            ConnectionEvent::CandidatesGathered(candidates) => {
                tell(
                    &self.outlets.gathered,
                    CandidatesGathered { client, candidates },
                );
            }
            ConnectionEvent::PathNominated(path) => self.log_path(path),
            ConnectionEvent::PathInUse(_) => {}
            ConnectionEvent::SessionEstablished => {
                tracing::info!(%client, milestone = "session_established", "connection up");
            }
            ConnectionEvent::Expired(resource) => {
                tracing::info!(%client, %resource, "authorization expired");
            }
            ConnectionEvent::NameExpected(name) => self.expect_name(name),
            ConnectionEvent::ProxyIpsAssigned {
                resource,
                announced,
                name,
                in_tunnel,
            } => {
                let assign = AssignProxyIps {
                    client,
                    resource,
                    announced,
                    name,
                    in_tunnel,
                };
                tell(&self.outlets.assign_proxy_ips, assign);
            }
            ConnectionEvent::ResourceReleased(resource) => {
                let release = ReleaseResource { client, resource };
                tell(&self.outlets.release_resource, release);
            }
            ConnectionEvent::Closed => {
                let (index, opened) = (self.config.index, self.opened);
                tell(
                    &self.closed,
                    ConnectionClosed {
                        client,
                        index,
                        opened,
                    },
                );
            }
        }
    }

    /// So that the answer is there before the tunnel is.
    fn expect_name(&self, name: DomainName) {
        let question = ResolveName {
            name,
            client: self.client,
            refresh: false,
            reply_to: None,
        };
        tell(&self.outlets.resolve, question);
    }

    fn attach_peer(&self, public_key: PublicKey, stun_username: String, ctx: &mut Context<Self>) {
        let attach = AttachPeer {
            index: self.config.index,
            public_key,
            stun_username,
            connection: ctx.address().recipient(),
            addresses: ctx.address().recipient(),
        };
        tell(&self.outlets.attach_peer, attach);
    }

    fn log_path(&self, path: Path) {
        let client = self.client;
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
