//! PortalActor: the connection to the portal.
//!
//! Owns: the websocket, the protocol core (which decides everything). Receives:
//! `ConnectionAccepted`, `CandidatesGathered`, `CandidatesInvalidated`, `RequestRelays`,
//! `UseSettings`, `LeavePortal`. Emits, to the supervisor: `OpenConnection`, `AllowAccess`,
//! `AddCandidates`, `RemoveCandidates`, `RevokeAccess`, `UpdateResource`, `SetExpiry`,
//! `GatewayInitialized`, `RelaysChanged`, `PortalRefused`, `PortalStateChanged`. When its mailbox
//! is full: senders wait; if the portal does not take frames in time, the socket is closed. On
//! death: rebuilt; it joins again, and the portal's `init` is compared with the ledger.

mod link;

use crate::config::UseSettings;
use crate::faults;
use crate::messages::connection::{
    AddCandidates, AllowAccess, OpenConnection, RemoveCandidates, RevokeAccess, SetExpiry,
    UpdateResource,
};
use crate::messages::portal::{
    CandidatesGathered, CandidatesInvalidated, ConnectionAccepted, LeavePortal, RequestRelays,
};
use crate::messages::recipients;
use crate::messages::supervisor::{
    GatewayInitialized, PortalRefused, PortalStateChanged, RelaysChanged,
};
use crate::metrics::{Joined, Metrics};
use crate::shell::{Driven, Wakeup, arm, now, tell, unix_now};
use crate::supervision::{DeathNotice, supervised};
use actix::prelude::*;
use link::{Incoming, OpenError, Socket, Writer};
use postern_core::health::PortalState;
use postern_core::portal::{
    Anomaly, ConnectRequest, Generation, PortalConfig, PortalEvent, PortalProtocol,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

pub struct PortalActor {
    protocol: PortalProtocol,
    outputs: PortalOutputs,
    socket: SocketState,
    metrics: Arc<Metrics>,
    joined: Option<Joined>,
    wakeup: Wakeup,
    _death: DeathNotice,
}

pub struct PortalSpec {
    pub config: PortalConfig,
    /// For the jitter of its backoff.
    pub seed: [u8; 32],
    pub outputs: PortalOutputs,
    pub metrics: Arc<Metrics>,
    pub death: DeathNotice,
}

recipients! {
    /// Receivers of a PortalActor's messages: the supervisor, or its stand-in in a test.
    pub struct PortalOutputs {
        open: OpenConnection,
        allow: AllowAccess,
        add_candidates: AddCandidates,
        remove_candidates: RemoveCandidates,
        revoke: RevokeAccess,
        update: UpdateResource,
        expiry: SetExpiry,
        initialized: GatewayInitialized,
        relays: RelaysChanged,
        refused: PortalRefused,
        state: PortalStateChanged,
    }
}

enum SocketState {
    Down,
    Opening(SpawnHandle),
    Up { reader: SpawnHandle, writer: Writer },
}

impl PortalActor {
    pub const MAILBOX: usize = 64;

    pub fn new(spec: PortalSpec) -> Self {
        Self {
            protocol: PortalProtocol::new(spec.config, spec.seed, now()),
            outputs: spec.outputs,
            socket: SocketState::Down,
            metrics: spec.metrics,
            joined: None,
            wakeup: Wakeup::default(),
            _death: spec.death,
        }
    }
}

supervised!(PortalActor, "portal");

impl Actor for PortalActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        faults::on_started("portal");
        self.on_deadline(ctx);
    }
}

impl Driven for PortalActor {
    fn wakeup(&mut self) -> &mut Wakeup {
        &mut self.wakeup
    }

    fn on_deadline(&mut self, ctx: &mut Context<Self>) {
        self.protocol.handle_timeout(now());
        self.drive(ctx);
    }
}

impl Handler<ConnectionAccepted> for PortalActor {
    type Result = ();

    fn handle(&mut self, message: ConnectionAccepted, ctx: &mut Context<Self>) {
        let kept = self.protocol.accept(&message.reply_ref);
        self.drive(ctx);
        debug!(milestone = "authorization_created", kept, "acknowledged");
    }
}

impl Handler<CandidatesGathered> for PortalActor {
    type Result = ();

    fn handle(&mut self, message: CandidatesGathered, ctx: &mut Context<Self>) {
        let CandidatesGathered { client, candidates } = message;
        self.protocol.add_candidates(client, candidates);
        self.drive(ctx);
    }
}

impl Handler<CandidatesInvalidated> for PortalActor {
    type Result = ();

    fn handle(&mut self, message: CandidatesInvalidated, ctx: &mut Context<Self>) {
        let CandidatesInvalidated { client, candidates } = message;
        self.protocol.remove_candidates(client, candidates);
        self.drive(ctx);
    }
}

impl Handler<RequestRelays> for PortalActor {
    type Result = ();

    fn handle(&mut self, _: RequestRelays, ctx: &mut Context<Self>) {
        self.protocol.report_no_relays();
        self.drive(ctx);
    }
}

impl Handler<UseSettings> for PortalActor {
    type Result = ();

    fn handle(&mut self, UseSettings { before, after }: UseSettings, ctx: &mut Context<Self>) {
        let max_outage = after.config.portal.max_outage;
        if max_outage != before.config.portal.max_outage {
            self.protocol.tolerate_outage(max_outage, now());
            self.drive(ctx);
        }
    }
}

impl Handler<LeavePortal> for PortalActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: LeavePortal, ctx: &mut Context<Self>) -> Self::Result {
        let closing = self.hang_up(ctx);
        self.protocol.leave(now());
        self.drive(ctx);
        let closed = async move {
            if let Some(closing) = closing {
                let _ = tokio::time::timeout(LEAVE_TIMEOUT, closing).await;
            }
        };
        Box::pin(closed.into_actor(self).map(|(), _, ctx| ctx.stop()))
    }
}

impl StreamHandler<Incoming> for PortalActor {
    fn handle(&mut self, item: Incoming, ctx: &mut Context<Self>) {
        match item {
            Incoming::Text(text) => self.protocol.handle_text(&text, now()),
            Incoming::Binary => self.protocol.handle_binary(now()),
            Incoming::Closed(reason) => {
                self.hang_up(ctx);
                self.protocol.handle_closed(&reason, now());
            }
        }
        self.drive(ctx);
    }

    /// The actor continues: the last item has reported the end of the stream.
    fn finished(&mut self, _: &mut Context<Self>) {}
}

impl PortalActor {
    /// Drains the protocol, then re-arms the timer. Called after every mutation of it.
    fn drive(&mut self, ctx: &mut Context<Self>) {
        loop {
            while let Some(frame) = self.protocol.poll_transmit() {
                self.write(frame, ctx);
            }
            let Some(event) = self.protocol.poll_event() else {
                break;
            };
            self.perform(event, ctx);
        }
        arm(self, self.protocol.poll_timeout(), ctx);
    }

    fn write(&mut self, frame: String, ctx: &mut Context<Self>) {
        let taken = matches!(&self.socket, SocketState::Up { writer, .. } if writer.send(frame));
        if !taken {
            self.hang_up(ctx);
            let reason = "the portal takes no more frames";
            self.protocol.handle_closed(reason, now());
        }
    }

    fn perform(&mut self, event: PortalEvent, ctx: &mut Context<Self>) {
        let to = &self.outputs;
        match event {
            PortalEvent::Connect(request) => self.open(request, ctx),
            PortalEvent::Disconnect => drop(self.hang_up(ctx)),
            PortalEvent::Joined { generation } => self.note_joined(generation),
            PortalEvent::Left { reason } => self.note_left(&reason),
            PortalEvent::Retrying {
                reason,
                after,
                is_new,
            } => {
                self.joined = None;
                self.metrics.portal.count_failure();
                log_retry(&reason, after, is_new);
            }
            PortalEvent::Anomaly(anomaly) => log_anomaly(&anomaly),
            PortalEvent::Fatal { reason } => {
                self.joined = None;
                // The supervisor logs the reason, once.
                tell(&to.refused, PortalRefused { reason });
            }
            PortalEvent::Initialized(init) => {
                debug!(
                    milestone = "initialized",
                    relays = init.relays.len(),
                    authorizations = init.authorizations.len(),
                    "initialized"
                );
                tell(&to.initialized, GatewayInitialized(init));
            }
            PortalEvent::AuthorizationRequested(request) => {
                debug!(milestone = "authorization_requested", client = %request.client.id,
                    resource = %request.resource.id, "asked to admit a client");
                tell(&to.open, OpenConnection(request));
            }
            PortalEvent::AccessRequested(request) => {
                debug!(client = %request.client, resource = %request.resource.id,
                    "asked to admit a client to more");
                tell(&to.allow, AllowAccess(request));
            }
            PortalEvent::CandidatesAdded { client, candidates } => {
                tell(&to.add_candidates, AddCandidates { client, candidates });
            }
            PortalEvent::CandidatesRemoved { client, candidates } => {
                tell(
                    &to.remove_candidates,
                    RemoveCandidates { client, candidates },
                );
            }
            PortalEvent::AccessRejected { client, resource } => {
                tell(&to.revoke, RevokeAccess { client, resource });
            }
            PortalEvent::ResourceUpdated(resource) => tell(&to.update, UpdateResource(resource)),
            PortalEvent::ExpirySet(entry) => tell(&to.expiry, SetExpiry(entry)),
            PortalEvent::RelaysChanged {
                disconnected,
                connected,
            } => tell(
                &to.relays,
                RelaysChanged {
                    disconnected,
                    connected,
                },
            ),
        }
    }

    fn note_joined(&mut self, generation: Generation) {
        self.joined = Some(self.metrics.join());
        info!(milestone = "joined", %generation, "joined the portal");
        let state = PortalStateChanged(PortalState::Joined);
        tell(&self.outputs.state, state);
    }

    fn note_left(&mut self, reason: &str) {
        self.joined = None;
        info!(milestone = "left", reason, "left the portal");
        let state = PortalStateChanged(PortalState::Away);
        tell(&self.outputs.state, state);
    }

    fn open(&mut self, request: ConnectRequest, ctx: &mut Context<Self>) {
        debug!(url = request.url, "connecting to the portal");
        let generation = request.generation;
        let opened = link::open(request).into_actor(self);
        let handle = ctx.spawn(opened.map(move |outcome, actor, ctx| {
            actor.opened(generation, outcome, ctx);
        }));
        self.socket = SocketState::Opening(handle);
    }

    fn opened(
        &mut self,
        generation: Generation,
        outcome: Result<Socket, OpenError>,
        ctx: &mut Context<Self>,
    ) {
        self.socket = SocketState::Down;
        match outcome {
            Ok(socket) => {
                let (incoming, writer) = link::split(socket);
                let reader = Self::add_stream(incoming, ctx);
                self.socket = SocketState::Up { reader, writer };
                self.protocol.handle_connected(generation, now());
            }
            Err(OpenError::Refused(failure)) => {
                self.protocol
                    .handle_upgrade_failed(&failure, now(), unix_now());
            }
            Err(OpenError::Unreachable(reason)) => {
                self.protocol.handle_connect_error(&reason, now());
            }
        }
        self.drive(ctx);
    }

    /// Closes the websocket or the attempt; the returned task ends when the close frame is out.
    fn hang_up(&mut self, ctx: &mut Context<Self>) -> Option<JoinHandle<()>> {
        match std::mem::replace(&mut self.socket, SocketState::Down) {
            SocketState::Down => None,
            SocketState::Opening(handle) => {
                ctx.cancel_future(handle);
                None
            }
            SocketState::Up { reader, writer } => {
                ctx.cancel_future(reader);
                Some(writer.close())
            }
        }
    }
}

/// Warns at the first failure of an outage only.
fn log_retry(reason: &str, after: Duration, is_new: bool) {
    let after_ms = after.as_millis();
    if is_new {
        warn!(reason, after_ms, "the portal is away, trying again");
    } else {
        debug!(reason, after_ms, "the portal is away, trying again");
    }
}

/// The core emits each kind once.
fn log_anomaly(anomaly: &Anomaly) {
    let Anomaly {
        kind,
        about,
        detail,
    } = anomaly;
    warn!(
        ?kind,
        about, detail, "the portal said what we cannot use; told once"
    );
}

/// A stopping gateway waits at most this long for its close frame to leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
