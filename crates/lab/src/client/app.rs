//! The application loop of the client: the portal, the interface, the connections, the DNS stubs
//! and signals.
//!
//! Leaves the decisions about packets to `router`. Records the milestones of every grant.

mod generation0;
mod naming;

use super::clock::{millis_since, now};
use super::config::Config;
use super::connection::{ConnectionEvent, EventKind, Keys};
use super::data_plane::DataPlane;
use super::gateways::Gateways;
use super::generation0::Transports;
use super::portal::{self, PortalEvent, PortalHandle};
use super::router::OutboundAction;
use super::stub::{Stub, StubEvent};
use super::timeline::{Milestone, Timeline};
use super::tunnel::Tunnel;
use super::vocabulary::{Domain, GatewayId, ResourceId, TunnelAddresses};
use super::wire::generation0::Question;
use super::wire::{AuthorizationCreated, Generation, Init, Outgoing, Push};
use super::wireguard::{BUFFER_BYTES, Identity};
use super::{ice, inspect};
use crate::control_socket::ControlSocket;
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tun_rs::AsyncDevice;
use url::Url;

/// The reference client.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Append each milestone as a JSON line to this file.
    #[arg(long, value_name = "FILE")]
    pub timeline: Option<PathBuf>,
    /// Answer questions about names on this UNIX socket, one JSON line each.
    #[arg(long, value_name = "FILE")]
    pub control: Option<PathBuf>,
    /// Use this portal instead of the configured one.
    #[arg(long, value_name = "URL")]
    pub portal_url: Option<Url>,
    /// Create this interface instead of the configured one.
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// One line with the remedy: wrong configuration, missing privileges, or a final refusal by the
/// portal. An unreachable portal is no error.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut config = Config::read(&args.config)?;
    if let Some(url) = args.portal_url {
        config.portal.url = url.as_str().parse()?;
    }
    if let Some(interface) = args.interface {
        config.tunnel.interface = interface.parse()?;
    }
    let base = args.config.parent().unwrap_or(Path::new("."));
    let token = config.portal.token(base)?;
    let timeline = Timeline::open(args.timeline.as_deref()).context("cannot open the timeline")?;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).context("the system has no randomness")?;
    let identity = Identity::from_secret(secret);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let tunnel_interface = config.tunnel.interface.0;
    let tunnel = Tunnel::create(&tunnel_interface).await?;
    let (portal_sender, portal_events) = mpsc::unbounded_channel();
    let generation = config.portal.generation;
    let settings = portal::Settings {
        id: config.portal.id.unwrap_or(config.portal.name.clone()),
        url: config.portal.url.0,
        token,
        name: config.portal.name,
        generation,
        public_key: identity.public_key(),
    };
    let ice = ice::Settings {
        check_interval: config.ice.check_interval,
        interfaces: config.ice.interfaces,
        tunnel_interface,
        stun_servers: Vec::new(),
        include_loopback: false,
    };
    let (connection_sender, connection_events) = mpsc::unbounded_channel();
    let data_plane = Arc::new(DataPlane::new(tunnel.device()));
    let routes = data_plane.routes.clone();
    let (stubs, stub_events) = naming::start_stubs(&routes, config.dns.upstream).await;
    let control = args.control.as_deref().map(ControlSocket::bind);
    let control = control.transpose()?;
    let app = App {
        _stubs: stubs,
        stub_events,
        tunnel,
        portal: portal::spawn(settings, portal_sender),
        timeline,
        gateways: Gateways::new(identity, ice, Arc::clone(&data_plane), connection_sender),
        data_plane,
        generation,
        transports: Transports::default(),
        own_addresses: None,
    };
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = inspect::serve(control, routes) => {}
        }
    };
    app.run(portal_events, connection_events, stop).await
}

struct App {
    _stubs: Vec<Stub>,
    stub_events: mpsc::Receiver<StubEvent>,
    tunnel: Tunnel,
    portal: PortalHandle,
    timeline: Timeline,
    data_plane: Arc<DataPlane>,
    gateways: Gateways,
    generation: Generation,
    transports: Transports,
    own_addresses: Option<TunnelAddresses>,
}

impl App {
    async fn run(
        mut self,
        mut portal: mpsc::UnboundedReceiver<PortalEvent>,
        mut connections: mpsc::UnboundedReceiver<ConnectionEvent>,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let device = self.tunnel.device();
        let mut packet = vec![0; BUFFER_BYTES];
        let mut report = tokio::time::interval(REPORT_INTERVAL);
        tokio::pin!(stop);
        let outcome = loop {
            tokio::select! {
                received = device.recv(&mut packet) => match received {
                    Ok(len) => self.handle_burst(&device, &mut packet, len).await,
                    Err(error) => break Err(error).context("the interface is gone"),
                },
                Some(event) = connections.recv() => self.handle_connection_event(event).await,
                Some(event) = self.stub_events.recv() => self.handle_stub_event(event).await,
                event = portal.recv() => match event {
                    Some(PortalEvent::Refused(reason)) => {
                        break Err(anyhow::anyhow!("the portal refuses us: {reason}"));
                    }
                    Some(event) => self.handle_portal_event(event).await,
                    None => break Err(anyhow::anyhow!("the portal's task died")),
                },
                _ = report.tick() => self.data_plane.counters.report(),
                () = &mut stop => break Ok(()),
            }
        };
        self.leave().await;
        outcome
    }

    /// Says goodbye to all gateways, then to the portal. Dropping `self` removes the interface.
    async fn leave(self) {
        for gateway in self.gateways.ids() {
            self.record_goodbye(gateway, "sent");
        }
        self.gateways.leave_all().await;
        self.portal.close().await;
    }

    async fn handle_burst(&mut self, device: &AsyncDevice, packet: &mut [u8], len: usize) {
        let mut len = len;
        for _ in 0..BURST {
            self.handle_packet(&packet[..len]).await;
            match device.try_recv(packet) {
                Ok(next) => len = next,
                Err(_) => return,
            }
        }
        self.handle_packet(&packet[..len]).await;
    }

    async fn handle_packet(&mut self, packet: &[u8]) {
        let (action, announcement) = {
            let mut router = self.data_plane.router();
            let action = router.handle_outbound(packet, now());
            (action, router.names.poll_announcement())
        };
        if let Some(announcement) = announcement {
            self.announce(announcement).await;
        }
        match action {
            OutboundAction::Forward(gateway) => self.gateways.send(gateway, packet).await,
            OutboundAction::RequestAccess(resource) => self.request_access(resource),
            OutboundAction::Held => {}
            OutboundAction::Drop(reason) => self.data_plane.counters.count_drop(reason),
        }
    }

    fn request_access(&self, resource_id: ResourceId) {
        let (connected_gateway_ids, first_packet_at) = {
            let router = self.data_plane.router();
            (
                router.connected_gateways(resource_id),
                router.first_packet_at(resource_id),
            )
        };
        self.portal.send(match self.generation {
            Generation::V0 => Outgoing::Ask(Question::Prepare {
                resource_id,
                connected_gateway_ids,
            }),
            Generation::V1 | Generation::V2 => Outgoing::RequestAuthorization {
                resource_id,
                connected_gateway_ids,
            },
        });
        self.record(Milestone {
            milestone: "authorization_requested",
            resource: Some(resource_id),
            since_first_packet_ms: first_packet_at.map(millis_since),
            ..Milestone::default()
        });
    }

    async fn handle_portal_event(&mut self, event: PortalEvent) {
        match event {
            PortalEvent::Joined => self.record(Milestone {
                milestone: "joined",
                ..Milestone::default()
            }),
            PortalEvent::Lost(reason) => tracing::warn!(reason, "no portal; trying again"),
            // The loop ends on it before this call.
            PortalEvent::Refused(_) => {}
            PortalEvent::Push(push) => self.handle_push(push).await,
            PortalEvent::Answered(question, outcome) => {
                self.handle_answer(question, outcome).await;
            }
        }
    }

    async fn handle_push(&mut self, push: Push) {
        match push {
            Push::Init(init) => self.handle_init(init).await,
            Push::ConfigChanged(own) => {
                self.own_addresses = Some(own);
                self.configure().await;
            }
            Push::AuthorizationCreated(grant) => self.handle_grant(*grant, None).await,
            Push::AuthorizationFailed(failed) => {
                self.handle_refusal(failed.resource_id, failed.reason);
            }
            Push::Candidates(new) => {
                self.gateways.add_candidates(new.gateway_id, new.candidates);
            }
            Push::CandidatesInvalidated(gone) => {
                // The library cannot remove a candidate; unanswered checks end its pair.
                tracing::debug!(gateway_id = %gone.gateway_id, "the gateway withdrew candidates");
            }
            Push::ResourceUpserted(resource) => {
                let idle = self.data_plane.router().upsert_resource(resource);
                self.handle_resources_changed(idle).await;
            }
            Push::ResourceDeleted(resource) => {
                let idle = self.data_plane.router().remove_resource(resource);
                self.handle_resources_changed(idle).await;
            }
            Push::RelaysPresence(presence) => self.gateways.change_relays(presence),
            // The channel turns it into a refusal.
            Push::Disconnect(_) => {}
        }
    }

    async fn handle_init(&mut self, init: Init) {
        self.own_addresses = Some(init.interface);
        self.gateways.set_relays(init.relays);
        let idle = self.data_plane.router().replace_resources(init.resources);
        self.handle_resources_changed(idle).await;
    }

    async fn handle_resources_changed(&mut self, idle: impl IntoIterator<Item = GatewayId>) {
        for gateway in idle {
            if self.gateways.leave(gateway) {
                self.record_goodbye(gateway, "no resource left");
            }
        }
        self.configure().await;
    }

    async fn configure(&mut self) {
        let Some(own) = self.own_addresses else {
            return;
        };
        let networks = {
            let mut router = self.data_plane.router();
            router.set_own_addresses(own);
            router.networks()
        };
        if let Err(error) = self.tunnel.configure(own, networks).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "some of the interface's configuration is missing"
            );
        }
    }

    /// `announced`: the name that the gateway learned from the request (generation 0).
    async fn handle_grant(&mut self, grant: AuthorizationCreated, announced: Option<Domain>) {
        let (resource, gateway) = (grant.resource_id, grant.gateway_id);
        if grant.use_iceless {
            tracing::error!("the portal chose a protocol that we said we do not speak");
            self.data_plane.router().handle_refused(resource);
            return;
        }
        let addresses = TunnelAddresses {
            ipv4: grant.gateway_ipv4,
            ipv6: grant.gateway_ipv6,
        };
        let released = self
            .data_plane
            .router()
            .handle_granted(resource, gateway, addresses);
        if let Some(domain) = announced {
            self.confirm_name(gateway, resource, domain).await;
        }
        let Some(released) = released else {
            tracing::debug!(%resource, "ignoring a grant that we did not ask for");
            return;
        };
        self.record(Milestone {
            milestone: "authorization_created",
            resource: Some(resource),
            gateway: Some(gateway),
            since_first_packet_ms: Some(millis_since(released.first_packet_at)),
            ..Milestone::default()
        });
        let keys = Keys {
            public_key: grant.gateway_public_key,
            preshared_key: grant.preshared_key,
            local_ice: grant.client_ice_credentials,
            remote_ice: grant.gateway_ice_credentials,
        };
        self.gateways
            .open_or_keep(gateway, keys, released.first_packet_at);
        self.data_plane.routes.granted.notify_waiters();
        for packet in released.held {
            self.handle_packet(&packet).await;
        }
    }

    fn handle_refusal(&self, resource: ResourceId, reason: String) {
        self.data_plane.router().handle_refused(resource);
        self.record(Milestone {
            milestone: "authorization_failed",
            resource: Some(resource),
            reason: Some(reason),
            ..Milestone::default()
        });
    }

    async fn handle_connection_event(&mut self, event: ConnectionEvent) {
        let Some(times) = self.gateways.current(&event) else {
            return;
        };
        let ConnectionEvent { gateway, kind, .. } = event;
        let mut milestone = Milestone {
            gateway: Some(gateway),
            ms: Some(millis_since(times.opened_at)),
            since_first_packet_ms: Some(millis_since(times.first_packet_at)),
            ..Milestone::default()
        };
        match kind {
            EventKind::Candidates(candidates) => {
                self.portal.send(Outgoing::NewCandidates {
                    gateway_id: gateway,
                    candidates,
                });
                return;
            }
            EventKind::PathNominated(local, remote) => {
                milestone.milestone = "path_nominated";
                milestone.local = Some(local);
                milestone.remote = Some(remote);
            }
            EventKind::HandshakeCompleted => milestone.milestone = "handshake_completed",
            EventKind::FirstPacket => milestone.milestone = "first_packet_received",
            EventKind::DomainStatus(status) => {
                if !self.settle_name(gateway, status).await {
                    tracing::debug!(%gateway, "ignoring the status of a name that was not announced");
                }
                return;
            }
            EventKind::Goodbye => {
                milestone.milestone = "goodbye";
                milestone.reason = Some("received".into());
                self.forget(gateway);
            }
            EventKind::Lost(reason) => {
                milestone.milestone = "connection_lost";
                milestone.reason = Some(reason.into());
                self.forget(gateway);
            }
        }
        self.record(milestone);
    }

    fn forget(&mut self, gateway: GatewayId) {
        self.gateways.forget(gateway);
        self.data_plane.router().forget_gateway(gateway);
    }

    fn record_goodbye(&self, gateway: GatewayId, reason: &str) {
        self.record(Milestone {
            milestone: "goodbye",
            gateway: Some(gateway),
            reason: Some(reason.to_owned()),
            ..Milestone::default()
        });
    }

    fn record(&self, milestone: Milestone) {
        self.timeline.record(&milestone);
    }
}

/// Packets handled before other events get their turn.
const BURST: usize = 64;
/// Pause between two reports of the counters.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
