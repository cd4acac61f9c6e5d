//! Puts the gateway together, runs it until it is told to stop, and tidies up.

use crate::actors::dns::{DnsActor, Upstreams};
use crate::actors::portal::{PortalActor, PortalOutlets, PortalSpec};
use crate::actors::supervisor::{SupervisorActor, SupervisorSpec};
use crate::config::GatewayConfig;
use crate::messages::supervisor::{Child, Shutdown};
use crate::metrics::Metrics;
use crate::shard::{self, PortalInlets, ShardSpec};
use crate::shell::{self, DeathNotice, tell_addr};
use crate::sockets::{BoundSockets, BufferSizes};
use crate::system::{external_id, forwarding, interface, interfaces, masquerade, preflight};
use crate::tunnel;
use actix::prelude::*;
use anyhow::Context as _;
use postern_core::peer::{DemuxConfig, GatewayKeys};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tun_rs::SyncDevice;

/// Runs the gateway with `config`; returns the process exit code.
///
/// # Errors
/// When it cannot start, with the remedy.
pub fn run(config: GatewayConfig) -> anyhow::Result<ExitCode> {
    preflight::check(&config)?;
    let prepared = Prepared::new(config)?;
    let masquerade = prepared.masquerade()?;
    let system = System::new();
    system.block_on(start(prepared))?;
    let code = system.run_with_code();
    let code = code.context("the event loop ended with an error")?;
    if let Some(masquerade) = masquerade {
        masquerade.remove()?;
    }
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
}

impl Prepared {
    fn new(config: GatewayConfig) -> anyhow::Result<Self> {
        let buffers = BufferSizes {
            receive_bytes: config.network.receive_buffer_bytes,
            send_bytes: config.network.send_buffer_bytes,
        };
        let port = config.network.udp_port;
        let sockets = BoundSockets::bind(port, buffers).with_context(|| {
            format!("UDP port {port} cannot be bound; `ss -ulpn` shows who has it, network.udp_port changes it")
        })?;
        let name = &config.tunnel.interface;
        let device = tunnel::create(name.as_str()).with_context(|| {
            format!("the interface {} cannot be created", name.as_str())
        })?;
        let interface = interface::Interface::new(name)?;
        if config.tunnel.forwarding {
            forwarding::enable(&config.tunnel)?;
        }
        Ok(Self {
            keys: GatewayKeys::new(random_bytes()?),
            external_id: external_id::determine(&config.portal)?,
            config,
            sockets,
            device,
            interface,
        })
    }

    fn masquerade(&self) -> anyhow::Result<Option<masquerade::Masquerade>> {
        let wanted = self.config.tunnel.masquerade;
        let applied = wanted.then(|| masquerade::Masquerade::apply(&self.config.tunnel));
        Ok(applied.transpose()?)
    }
}

/// Starts the actors: shard, dns, portal, all children of the supervisor.
async fn start(prepared: Prepared) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::default());
    let supervisor = Context::<SupervisorActor>::new();
    let parent = supervisor.address();
    let notice = |child| DeathNotice::new(child, parent.clone().recipient());
    let limits = prepared.config.limits;

    let portal_context = Context::<PortalActor>::new();
    let portal = portal_context.address();
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
            stun_servers: network.stun_servers.clone(),
            list_addresses: Box::new({
                let tunnel = prepared.config.tunnel.interface.clone();
                move || interfaces::host_addresses(&network, &tunnel)
            }),
            metrics: Arc::clone(&metrics),
            supervisor: parent.clone().recipient(),
        },
        PortalInlets {
            accepted: portal.clone().recipient(),
            gathered: portal.clone().recipient(),
            invalidated: portal.clone().recipient(),
        },
    )
    .await
    .context("the data plane cannot start")?;

    DnsActor::new(Upstreams::System, notice(Child::Dns)).start();
    portal_context.run(PortalActor::new(PortalSpec {
        protocol: portal_protocol(&prepared.config, &prepared.keys, &prepared.external_id)?,
        seed: random_bytes()?,
        outlets: PortalOutlets::to(&parent),
        death: notice(Child::Portal),
    }));
    supervisor.run(SupervisorActor::new(SupervisorSpec {
        keys: prepared.keys,
        seed: random_bytes()?,
        max_clients: limits.clients,
        max_resources: limits.resources_per_client,
        shard: links,
        leave_portal: portal.recipient(),
        metrics,
    }));
    stop_on_signals(&parent)?;
    Ok(())
}
