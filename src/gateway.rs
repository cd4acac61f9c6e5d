//! Puts the gateway together, runs it until it is told to stop, and tidies up.

use crate::actors::dns::{self, DnsActor, DnsSpec};
use crate::actors::portal::{PortalActor, PortalOutlets, PortalSpec};
use crate::actors::supervisor::{SupervisorActor, SupervisorSpec};
use crate::config::{self, GatewayConfig, InterfaceName, NetworkConfig};
use crate::messages::supervisor::{Child, Shutdown};
use crate::metrics::Metrics;
use crate::shard::{self, PortalInlets, ShardSpec};
use crate::shell::{DeathNotice, tell_addr};
use crate::sockets::{BoundSockets, BufferSizes};
use crate::system::{external_id, forwarding, interface, interfaces};
use crate::system::{limits, masquerade, preflight};
use crate::tunnel;
use actix::prelude::*;
use anyhow::Context as _;
use postern_core::backoff::BackoffConfig;
use postern_core::domains::DomainsConfig;
use postern_core::nat_table::NatTableConfig;
use postern_core::nat_table::flows::FlowLimits;
use postern_core::peer::{DemuxConfig, GatewayKeys};
use postern_core::portal::{
    Generation, GenerationChoice, IceSecret, PortalConfig, PortalLimits, PortalUrl, Token,
};
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tun_rs::SyncDevice;

/// Runs the gateway with `config`; returns the process exit code.
///
/// # Errors
/// When it cannot start, with the remedy.
pub fn run(config: GatewayConfig) -> anyhow::Result<ExitCode> {
    if let Err(error) = limits::raise_open_files() {
        tracing::warn!(%error, "the number of open files stays limited");
    }
    check_host(&config)?;
    let prepared = Prepared::new(config)?;
    let system = System::new();
    let masquerade = system.block_on(start(prepared))?;
    let code = system.run_with_code();
    if let Some(masquerade) = masquerade
        && let Err(error) = masquerade.remove()
    {
        tracing::warn!(%error, "the nftables table stays until the next start");
    }
    let code = code.context("the event loop ended with an error")?;
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Everything that can fail for a reason outside the program, done before anything runs.
struct Prepared {
    config: GatewayConfig,
    keys: GatewayKeys,
    external_id: String,
    sockets: BoundSockets,
    device: SyncDevice,
    interface: interface::Interface,
    dns_trust: rustls::ClientConfig,
}

impl Prepared {
    fn new(config: GatewayConfig) -> anyhow::Result<Self> {
        let dns_trust = dns::trust(&config.dns).map_err(anyhow::Error::msg)?;
        let buffers = BufferSizes {
            receive_bytes: config.network.receive_buffer_bytes,
            send_bytes: config.network.send_buffer_bytes,
        };
        let port = config.network.udp_port;
        let sockets = BoundSockets::bind(port, buffers).with_context(|| {
            format!("UDP port {port} cannot be bound; `ss -ulpn` shows who has it, network.udp_port changes it")
        })?;
        let name = &config.tunnel.interface;
        let device = tunnel::create(name.as_str())
            .with_context(|| format!("the interface {} cannot be created", name.as_str()))?;
        let interface = interface::Interface::new(name)?;
        if config.tunnel.forwarding {
            forwarding::enable(&config.tunnel)?;
        }
        Ok(Self {
            keys: GatewayKeys::new(random_bytes()?),
            external_id: external_id::external_id(&config.portal)?,
            config,
            sockets,
            device,
            interface,
            dns_trust,
        })
    }

    fn masquerade(&self) -> anyhow::Result<Option<masquerade::Masquerade>> {
        let wanted = self.config.tunnel.masquerade;
        let applied = wanted.then(|| masquerade::Masquerade::apply(&self.config.tunnel));
        Ok(applied.transpose()?)
    }
}

/// Starts the actors: shard, dns, portal, all children of the supervisor. Signals are heard before
/// the first trace is left on the host, so that none can end the process past its tidying up.
async fn start(prepared: Prepared) -> anyhow::Result<Option<masquerade::Masquerade>> {
    let metrics = Arc::new(Metrics::default());
    let supervisor = Context::<SupervisorActor>::new();
    let parent = supervisor.address();
    stop_on_signals(&parent)?;
    let masquerade = prepared.masquerade()?;
    let notice = |child| DeathNotice::new(child, parent.clone().recipient());
    let limits = prepared.config.limits;

    let portal_context = Context::<PortalActor>::new();
    let portal = portal_context.address();
    let dns_context = Context::<DnsActor>::new();
    let dns = dns_context.address();
    let network = prepared.config.network.clone();
    let links = shard::start(
        ShardSpec {
            sockets: prepared.sockets,
            device: prepared.device,
            interface: prepared.interface,
            demux: DemuxConfig {
                keys: prepared.keys.clone(),
                handshakes_per_second: limits.handshakes_per_second.into(),
                max_transactions: MAX_STUN_TRANSACTIONS,
            },
            seed: random_bytes()?,
            nat_table: nat_table_config(&prepared.config),
            nat_seed: random_bytes()?,
            resolve: dns.clone().recipient(),
            stun_servers: network.stun_servers.clone(),
            list_addresses: Box::new({
                let tunnel = prepared.config.tunnel.interface.clone();
                move || list_addresses(&network, &tunnel)
            }),
            metrics: Arc::clone(&metrics),
            supervisor: parent.clone().recipient(),
            interface_failed: parent.clone().recipient(),
        },
        PortalInlets {
            accepted: portal.clone().recipient(),
            gathered: portal.clone().recipient(),
        },
    )
    .await
    .context("the data plane cannot start")?;

    let dns_spec = DnsSpec::new(&prepared.config.dns, prepared.dns_trust, notice(Child::Dns));
    dns_context.run(DnsActor::new(dns_spec));
    portal_context.run(PortalActor::new(PortalSpec {
        config: portal_config(
            &prepared.config.portal,
            &prepared.keys,
            prepared.external_id,
        )?,
        seed: random_bytes()?,
        outlets: PortalOutlets::all_to(&parent),
        death: notice(Child::Portal),
    }));
    supervisor.run(SupervisorActor::new(SupervisorSpec {
        keys: prepared.keys,
        seed: random_bytes()?,
        max_clients: limits.clients,
        max_resources: limits.resources_per_client,
        shard: links,
        leave_portal: portal.clone().recipient(),
        request_relays: portal.recipient(),
        names: dns.recipient(),
        metrics,
    }));
    Ok(masquerade)
}

/// Names everything that is missing, all at once.
fn check_host(config: &GatewayConfig) -> anyhow::Result<()> {
    preflight::preflight(config).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!(lines.join("\n"))
    })
}

fn nat_table_config(config: &GatewayConfig) -> NatTableConfig {
    NatTableConfig {
        domains: DomainsConfig {
            last_known_good: config.dns.last_known_good,
            ..DomainsConfig::default()
        },
        flows: FlowLimits {
            flows: config.limits.flows,
            flows_per_client: config.limits.flows_per_client,
        },
    }
}

fn portal_config(
    portal: &config::PortalConfig,
    keys: &GatewayKeys,
    id: String,
) -> anyhow::Result<PortalConfig> {
    let system = nix::sys::utsname::uname().context("the kernel does not tell its name")?;
    let name = match &portal.name {
        Some(name) => name.clone(),
        None => system.nodename().to_string_lossy().into_owned(),
    };
    Ok(PortalConfig {
        url: PortalUrl::parse(portal.url.as_str())?,
        token: Token::new(portal.token.expose())?,
        id,
        name,
        public_key: keys.public(),
        ice_secret: IceSecret::new(random_bytes()?),
        generation: match portal.generation {
            config::Generation::Auto => GenerationChoice::Auto,
            config::Generation::V2 => GenerationChoice::Only(Generation::V2),
            config::Generation::V1 => GenerationChoice::Only(Generation::V1),
        },
        kernel: system.release().to_string_lossy().into_owned(),
        arch: system.machine().to_string_lossy().into_owned(),
        max_outage: portal.max_outage,
        backoff: BackoffConfig::default(),
        limits: PortalLimits::default(),
    })
}

/// A list that cannot be read changes nothing: the next attempt is seconds away.
fn list_addresses(network: &NetworkConfig, tunnel: &InterfaceName) -> Option<Vec<IpAddr>> {
    interfaces::host_addresses(network, tunnel)
        .inspect_err(|error| tracing::warn!(%error, "the interfaces cannot be listed"))
        .ok()
}

fn stop_on_signals(supervisor: &Addr<SupervisorActor>) -> anyhow::Result<()> {
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ];
    for kind in kinds {
        let mut signals = signal(kind).context("signals cannot be received")?;
        let supervisor = supervisor.clone();
        actix_rt::spawn(async move {
            while signals.recv().await.is_some() {
                tell_addr(&supervisor, Shutdown { exit_code: 0 });
            }
        });
    }
    Ok(())
}

fn random_bytes() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(bytes)
}

/// Requests outstanding for a gateway's full load of clients, each with a few pairs under check.
const MAX_STUN_TRANSACTIONS: usize = 65_536;
