//! The wiring of the client: one loop over the portal, the interface, the connections, questions
//! for names and signals.
//!
//! Decides nothing about packets; see `router`. Everything that is known about a grant's history,
//! for the timeline, is kept here.

mod generation0;
mod naming;

use super::Shared;
use super::config::Config;
use super::connection::{ConnectionEvent, Keys, News};
use super::gateways::Gateways;
use super::generation0::Transports;
use super::ice;
use super::inspect::Inspector;
use super::names::Domain;
use super::portal::{self, PortalEvent, PortalHandle};
use super::router::Route;
use super::stub::{Asked, Stub};
use super::timeline::{Milestone, Timeline, millis};
use super::tunnel::Tunnel;
use super::wire::generation0::Question;
use super::wire::{
    AuthorizationCreated, GatewayCandidates, GatewayId, Generation, IceCredentials, Init,
    Interface, Outgoing, Push, ResourceId,
};
use super::wireguard::{BUFFER_BYTES, Identity, PeerKeys};
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
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
/// One line with the remedy: wrong configuration, missing privileges, or a portal that refuses us
/// for good. An unreachable portal is no error.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut config = Config::read(&args.config)?;
    if let Some(url) = args.portal_url {
        config.portal.url = url;
    }
    if let Some(interface) = args.interface {
        config.tunnel.interface = interface;
    }
    config.check()?;
    let base = args.config.parent().unwrap_or(Path::new("."));
    let token = config.portal.token(base)?;
    let timeline = Timeline::open(args.timeline.as_deref()).context("cannot open the timeline")?;
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).context("the system has no randomness")?;
    let identity = Identity::from_secret(secret);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let tunnel = Tunnel::create(&config.tunnel.interface).await?;
    let (portal_sender, portal_events) = mpsc::unbounded_channel();
    let generation = config.portal.generation;
    let settings = portal::Settings {
        id: config.portal.id.unwrap_or(config.portal.name.clone()),
        url: config.portal.url,
        token,
        name: config.portal.name,
        generation,
        public_key: identity.public_key(),
    };
    let ice = ice::Settings {
        check_interval: config.ice.check_interval(),
        interfaces: config.ice.interfaces,
        tunnel_interface: config.tunnel.interface,
        stun_servers: Vec::new(),
        include_loopback: false,
    };
    let (connection_sender, connection_events) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::new(tunnel.device()));
    let (stubs, asked) = naming::start_stubs(&shared.routes, config.dns.upstream).await;
    let inspector = args
        .control
        .map(|path| Inspector::start(&path, shared.routes.clone()))
        .transpose()?;
    let app = App {
        _stubs: stubs,
        _inspector: inspector,
        asked,
        tunnel,
        portal: portal::spawn(settings, portal_sender),
        timeline,
        gateways: Gateways::new(identity, ice, Arc::clone(&shared), connection_sender),
        shared,
        generation,
        transports: Transports::default(),
        own: None,
    };
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    app.run(portal_events, connection_events, stop).await
}

struct App {
    _stubs: Vec<Stub>,
    _inspector: Option<Inspector>,
    asked: mpsc::Receiver<Asked>,
    tunnel: Tunnel,
    portal: PortalHandle,
    timeline: Timeline,
    shared: Arc<Shared>,
    gateways: Gateways,
    generation: Generation,
    transports: Transports,
    own: Option<Interface>,
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
                    Ok(len) => self.take_burst(&device, &mut packet, len).await,
                    Err(error) => break Err(error).context("the interface is gone"),
                },
                event = connections.recv() => if let Some(event) = event {
                    self.handle_connection_event(event).await;
                },
                Some(asked) = self.asked.recv() => self.handle_asked(asked).await,
                event = portal.recv() => match event {
                    Some(PortalEvent::Refused(reason)) => {
                        break Err(anyhow::anyhow!("the portal refuses us: {reason}"));
                    }
                    Some(event) => self.handle_portal_event(event).await,
                    None => break Err(anyhow::anyhow!("the portal's task died")),
                },
                _ = report.tick() => self.shared.counters.report(),
                () = &mut stop => break Ok(()),
            }
        };
        self.leave().await;
        outcome
    }

    /// Goodbye to all gateways, then to the portal. The interface goes with `self`.
    async fn leave(self) {
        for gateway in self.gateways.ids() {
            self.record(goodbye(gateway, "sent"));
        }
        self.gateways.leave_all().await;
        self.portal.close().await;
    }

    async fn take_burst(&mut self, device: &AsyncDevice, packet: &mut [u8], len: usize) {
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
        let (route, announcement) = {
            let mut router = self.shared.router();
            let route = router.handle_outbound(packet, now());
            (route, router.poll_announcement())
        };
        if let Some(announcement) = announcement {
            self.announce(announcement).await;
        }
        match route {
            Route::Forward(gateway) => self.gateways.send(gateway, packet).await,
            Route::Ask(resource) => self.ask(resource),
            Route::Held => {}
            Route::Drop(reason) => self.shared.counters.count_drop(reason),
        }
    }

    fn ask(&self, resource_id: ResourceId) {
        let (connected_gateway_ids, first_packet_at) = {
            let router = self.shared.router();
            (
                router.connected_gateways(resource_id),
                router.first_packet_at(resource_id),
            )
        };
        self.portal.send(match self.generation {
            Generation::V0 => Outgoing::Ask(Question::Prepare {
                resource: resource_id,
                connected: connected_gateway_ids,
            }),
            Generation::V1 | Generation::V2 => Outgoing::RequestAuthorization {
                resource_id,
                connected_gateway_ids,
            },
        });
        self.record(Milestone {
            milestone: "authorization_requested",
            resource: Some(resource_id),
            since_first_packet_ms: first_packet_at.map(since),
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
            // The loop ends on it before it comes here.
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
            Push::ConfigChanged(interface) => {
                self.own = Some(interface);
                self.configure().await;
            }
            Push::AuthorizationCreated(grant) => self.handle_grant(*grant, None).await,
            Push::AuthorizationFailed(failed) => {
                self.shared.router().handle_refused(failed.resource_id);
                self.record(Milestone {
                    milestone: "authorization_failed",
                    resource: Some(failed.resource_id),
                    reason: Some(failed.reason),
                    ..Milestone::default()
                });
            }
            Push::Candidates(GatewayCandidates {
                gateway_id,
                candidates,
            }) => self.gateways.add_candidates(gateway_id, candidates),
            Push::CandidatesInvalidated(GatewayCandidates { gateway_id, .. }) => {
                // The library cannot forget one; its checks go unanswered and it is given up.
                tracing::debug!(%gateway_id, "the gateway withdrew candidates");
            }
            Push::ResourceUpserted(resource) => {
                let idle = self.shared.router().upsert_resource(resource);
                self.resources_changed(idle).await;
            }
            Push::ResourceDeleted(resource) => {
                let idle = self.shared.router().remove_resource(resource);
                self.resources_changed(idle).await;
            }
            Push::RelaysPresence(presence) => self.gateways.change_relays(presence),
            // The channel turns it into a refusal.
            Push::Disconnect(_) => {}
        }
    }

    async fn handle_init(&mut self, init: Init) {
        self.own = Some(init.interface);
        self.gateways.set_relays(init.relays);
        let idle = self.shared.router().replace_resources(init.resources);
        self.resources_changed(idle).await;
    }

    async fn resources_changed(&mut self, idle: impl IntoIterator<Item = GatewayId>) {
        for gateway in idle {
            if self.gateways.leave(gateway) {
                self.record(goodbye(gateway, "no resource left"));
            }
        }
        self.configure().await;
    }

    async fn configure(&mut self) {
        let Some(own) = self.own else { return };
        let networks = {
            let mut router = self.shared.router();
            router.set_own_addresses(own);
            router.networks()
        };
        if let Err(error) = self.tunnel.configure(own, networks).await {
            tracing::warn!(%error, "some of the interface's configuration is missing");
        }
    }

    /// `announced`: the name that the gateway has heard of with the request for it.
    async fn handle_grant(&mut self, grant: AuthorizationCreated, announced: Option<Domain>) {
        let (resource, gateway) = (grant.resource_id, grant.gateway_id);
        if grant.use_iceless {
            tracing::error!("the portal chose a protocol that we said we do not speak");
            self.shared.router().handle_refused(resource);
            return;
        }
        let addresses = Interface {
            ipv4: grant.gateway_ipv4,
            ipv6: grant.gateway_ipv6,
        };
        let granted = self
            .shared
            .router()
            .handle_granted(resource, gateway, addresses);
        if let Some(domain) = announced {
            self.confirm_name(gateway, resource, domain).await;
        }
        let Some(granted) = granted else {
            tracing::debug!(%resource, "ignoring a grant that we did not ask for");
            return;
        };
        self.record(Milestone {
            milestone: "authorization_created",
            resource: Some(resource),
            gateway: Some(gateway),
            since_first_packet_ms: Some(since(granted.first_packet_at)),
            ..Milestone::default()
        });
        self.gateways
            .open_or_keep(gateway, keys(grant), granted.first_packet_at);
        self.shared.routes.granted.notify_waiters();
        for packet in granted.held {
            self.handle_packet(&packet).await;
        }
    }

    async fn handle_connection_event(&mut self, event: ConnectionEvent) {
        let Some(begun) = self.gateways.current(&event) else {
            return;
        };
        let ConnectionEvent { gateway, news, .. } = event;
        let mut milestone = Milestone {
            gateway: Some(gateway),
            ms: Some(since(begun.opened_at)),
            since_first_packet_ms: Some(since(begun.first_packet_at)),
            ..Milestone::default()
        };
        match news {
            News::Candidates(candidates) => {
                self.portal.send(Outgoing::NewCandidates {
                    gateway_id: gateway,
                    candidates,
                });
                return;
            }
            News::PathNominated(local, remote) => {
                milestone.milestone = "path_nominated";
                milestone.local = Some(local);
                milestone.remote = Some(remote);
            }
            News::HandshakeCompleted => milestone.milestone = "handshake_completed",
            News::FirstPacket => milestone.milestone = "first_packet_received",
            News::DomainStatus(status) => {
                self.handle_domain_status(gateway, status).await;
                return;
            }
            News::Goodbye => {
                milestone.milestone = "goodbye";
                milestone.reason = Some("received".into());
                self.forget(gateway);
            }
            News::Lost(reason) => {
                milestone.milestone = "connection_lost";
                milestone.reason = Some(reason.into());
                self.forget(gateway);
            }
        }
        self.record(milestone);
    }

    fn forget(&mut self, gateway: GatewayId) {
        self.gateways.forget(gateway);
        self.shared.router().forget_gateway(gateway);
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "milestones are made on the spot, and this reads better at every call"
    )]
    fn record(&self, milestone: Milestone) {
        self.timeline.record(&milestone);
    }
}

fn goodbye(gateway: GatewayId, reason: &str) -> Milestone {
    Milestone {
        milestone: "goodbye",
        gateway: Some(gateway),
        reason: Some(reason.to_owned()),
        ..Milestone::default()
    }
}

fn keys(grant: AuthorizationCreated) -> Keys {
    let credentials = |from: IceCredentials| ice::Credentials {
        ufrag: from.username,
        password: from.password,
    };
    Keys {
        peer: PeerKeys {
            public_key: grant.gateway_public_key.0,
            preshared_key: grant.preshared_key.0,
        },
        local: credentials(grant.client_ice_credentials),
        remote: credentials(grant.gateway_ice_credentials),
    }
}

fn since(at: Instant) -> f64 {
    millis(now().saturating_duration_since(at))
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Packets handled before other events get their turn.
const BURST: usize = 64;
/// How often counters are looked at.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
