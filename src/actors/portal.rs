//! PortalActor: the connection to the portal.
//!
//! Owns: the websocket, the protocol core (which decides everything). Receives: `PortalCommand`,
//! `UseSettings`. Emits: `PortalNews` to the supervisor; while the supervisor's mailbox is full,
//! news waits, and beyond its limit the actor joins again, for a fresh `init`. When its own mailbox
//! is full: acknowledgements and candidates wait at the supervisor; if the portal does not take
//! frames in time, the socket is closed. On death: rebuilt; it joins again, and the portal's `init`
//! is compared with the ledger.

mod link;

use crate::config::UseSettings;
use crate::faults;
use crate::messages::portal::PortalCommand;
use crate::messages::supervisor::PortalNews;
use crate::metrics::{Joined, Metrics};
use crate::post::{FOR_SUPERVISOR, Post};
use crate::shell::{Driven, Posting, Retry, Wakeup, arm, now, resend_later, unix_now};
use crate::supervision::{DeathNotice, supervised};
use actix::prelude::*;
use link::{Incoming, OpenError, Socket, Writer};
use postern_core::command::ClientCommand;
use postern_core::portal::{
    Anomaly, ConnectRequest, Generation, PortalConfig, PortalEvent, PortalProtocol,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

pub struct PortalActor {
    protocol: PortalProtocol,
    news: Post<PortalNews>,
    retry: Retry,
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
    /// Reports to the supervisor.
    pub news: Recipient<PortalNews>,
    pub metrics: Arc<Metrics>,
    pub death: DeathNotice,
}

enum SocketState {
    Down,
    Opening(SpawnHandle),
    Up { reader: SpawnHandle, writer: Writer },
}

impl PortalActor {
    /// Messages of the supervisor: acknowledgements and candidates of all clients.
    pub const MAILBOX: usize = 1024;

    pub fn new(spec: PortalSpec) -> Self {
        Self {
            protocol: PortalProtocol::new(spec.config, spec.seed, now()),
            news: Post::new(spec.news, FOR_SUPERVISOR),
            retry: Retry::default(),
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

impl Posting for PortalActor {
    fn retry(&mut self) -> &mut Retry {
        &mut self.retry
    }

    fn is_waiting(&self) -> bool {
        self.news.is_waiting()
    }

    /// A supervisor that has missed something learns all that is valid from the next `init`.
    fn resend(&mut self, ctx: &mut Context<Self>) {
        self.news.resend();
        if !self.news.take_overflow() {
            return;
        }
        if let SocketState::Up { .. } = self.socket {
            warn!("the supervisor does not keep up with the portal: joining again");
            self.hang_up(ctx);
            self.protocol.handle_closed("joining again", now());
            self.drive(ctx);
        } else {
            self.news.tell(PortalNews::Left);
        }
    }
}

impl Handler<PortalCommand> for PortalActor {
    type Result = ActorResponse<Self, ()>;

    fn handle(&mut self, command: PortalCommand, ctx: &mut Context<Self>) -> Self::Result {
        match command {
            PortalCommand::Acknowledge { reply_ref } => {
                let kept = self.protocol.accept(&reply_ref);
                debug!(milestone = "authorization_created", kept, "acknowledged");
            }
            PortalCommand::SignalCandidates { client, candidates } => {
                self.protocol.add_candidates(client, candidates);
            }
            PortalCommand::RequestRelays => self.protocol.report_no_relays(),
            PortalCommand::Leave => return ActorResponse::r#async(self.leave(ctx)),
        }
        self.drive(ctx);
        ActorResponse::reply(())
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
        resend_later(self, ctx);
    }

    fn leave(&mut self, ctx: &mut Context<Self>) -> impl ActorFuture<Self, Output = ()> + use<> {
        let closing = self.hang_up(ctx);
        self.protocol.leave(now());
        self.drive(ctx);
        let closed = async move {
            if let Some(closing) = closing {
                let _ = tokio::time::timeout(LEAVE_TIMEOUT, closing).await;
            }
        };
        closed.into_actor(self).map(|(), _, ctx| ctx.stop())
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
                self.news.tell(PortalNews::Refused { reason });
            }
            PortalEvent::Initialized(init) => {
                debug!(
                    milestone = "initialized",
                    relays = init.relays.len(),
                    authorizations = init.authorizations.len(),
                    "initialized"
                );
                self.news.tell(PortalNews::Initialized(init));
            }
            PortalEvent::RelaysChanged {
                disconnected,
                connected,
            } => self.news.tell(PortalNews::RelaysChanged {
                disconnected,
                connected,
            }),
            PortalEvent::Client(command) => {
                log_request(&command);
                self.news.tell(PortalNews::Client(command));
            }
        }
    }

    fn note_joined(&mut self, generation: Generation) {
        self.joined = Some(self.metrics.join());
        info!(milestone = "joined", %generation, "joined the portal");
        self.news.tell(PortalNews::Joined);
    }

    fn note_left(&mut self, reason: &str) {
        self.joined = None;
        info!(milestone = "left", reason, "left the portal");
        self.news.tell(PortalNews::Left);
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

/// Logs what a client waits for.
fn log_request(command: &ClientCommand) {
    if let ClientCommand::Authorize(request) = command {
        debug!(milestone = "authorization_requested", client = %request.client.id,
            resource = %request.resource.id, "asked to admit a client");
    } else if let ClientCommand::Allow(request) = command {
        debug!(client = %request.client, resource = %request.resource.id,
            "asked to admit a client to more");
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
