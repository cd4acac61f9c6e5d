//! A shard: one thread with its sockets, its TUN queue, its NAT table and its connections.
//!
//! Everything that a packet meets lives on this thread, so that nothing is shared and nothing is
//! locked.

use crate::actors::connection::{ConnectionActor, ConnectionOutlets};
use crate::actors::nat_table::{NatTableActor, NatTableSpec};
use crate::actors::supervisor::ShardLinks;
use crate::actors::tun::{TunActor, TunSpec};
use crate::actors::udp::{ListAddresses, UdpActor, UdpSpec};
use crate::messages::dns::ResolveName;
use crate::messages::portal::{CandidatesGathered, ConnectionAccepted};
use crate::messages::supervisor::{Child, ChildDied, InterfaceFailed};
use crate::metrics::Metrics;
use crate::shell::{self, DeathNotice};
use crate::sockets::{BoundSockets, UdpPorts};
use crate::system::interface::Interface;
use crate::tunnel::TunQueue;
use actix::prelude::*;
use postern_core::nat_table::NatTableConfig;
use postern_core::peer::{AddressGatherer, Demux, DemuxConfig, GathererConfig};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::oneshot;
use tun_rs::SyncDevice;

/// Everything a shard is built from. Made on the main thread, where failures can be reported.
pub struct ShardSpec {
    /// Bound.
    pub sockets: BoundSockets,
    /// Created.
    pub device: SyncDevice,
    /// Addresses and routes of the device.
    pub interface: Interface,
    /// For the demultiplexer.
    pub demux: DemuxConfig,
    /// For the gatherer's transaction ids.
    pub seed: [u8; 32],
    /// For the NAT.
    pub nat_table: NatTableConfig,
    /// For the ports that the NAT chooses.
    pub nat_seed: [u8; 32],
    /// Who looks names up.
    pub resolve: Recipient<ResolveName>,
    /// From the configuration.
    pub stun_servers: Vec<SocketAddr>,
    /// The addresses to offer.
    pub list_addresses: ListAddresses,
    /// Shared counters.
    pub metrics: Arc<Metrics>,
    /// Who is told of deaths.
    pub supervisor: Recipient<ChildDied>,
    /// Who is told that the interface cannot be configured.
    pub interface_failed: Recipient<InterfaceFailed>,
}

/// The portal's side of a connection's outlets.
#[derive(Clone)]
pub struct PortalInlets {
    /// Acknowledgements.
    pub accepted: Recipient<ConnectionAccepted>,
    /// Our candidates.
    pub gathered: Recipient<CandidatesGathered>,
}

struct ShardActors {
    tun: Addr<TunActor>,
    nat_table: Addr<NatTableActor>,
    udp: Addr<UdpActor>,
}

/// Starts the shard on a thread of its own: tun, then nat_table, then udp.
///
/// # Errors
/// When the event loop refuses the device or the sockets.
pub async fn start(spec: ShardSpec, portal: PortalInlets) -> io::Result<ShardLinks> {
    let arbiter = Arbiter::new();
    let resolve = spec.resolve.clone();
    let (report, started) = oneshot::channel();
    arbiter.spawn_fn(move || {
        // Nobody listens any more only if the process is ending.
        let _ = report.send(start_actors(spec));
    });
    let actors = started
        .await
        .map_err(|_| io::Error::other("the shard's thread ended while it started"))??;
    let handle = arbiter.handle();
    Ok(ShardLinks {
        interface: actors.tun.recipient(),
        relays: actors.udp.clone().recipient(),
        flush: actors.udp.clone().recipient(),
        outlets: ConnectionOutlets {
            nat_table: actors.nat_table.clone().recipient(),
            attach_client: actors.nat_table.clone().recipient(),
            detach_client: actors.nat_table.clone().recipient(),
            assign_proxy_ips: actors.nat_table.clone().recipient(),
            release_resource: actors.nat_table.recipient(),
            resolve,
            udp: actors.udp.clone().recipient(),
            attach_peer: actors.udp.clone().recipient(),
            detach_peer: actors.udp.recipient(),
            accepted: portal.accepted,
            gathered: portal.gathered,
        },
        start_connection: Box::new(move |spec| {
            ConnectionActor::start_in_arbiter(&handle, |_| ConnectionActor::new(spec))
        }),
    })
}

fn start_actors(spec: ShardSpec) -> io::Result<ShardActors> {
    let notice = |child| DeathNotice::new(child, spec.supervisor.clone());
    let port = spec.sockets.port();
    let queue = TunQueue::new(spec.device)?;
    let ports = UdpPorts::new(spec.sockets)?;

    let nat_context = Context::<NatTableActor>::new();
    let tun = TunActor::new(TunSpec {
        queue,
        interface: spec.interface,
        nat_table: nat_context.address().recipient(),
        failed: spec.interface_failed.clone(),
        metrics: Arc::clone(&spec.metrics),
        death: notice(Child::Tun),
    })
    .start();
    let nat_table = nat_context.run(NatTableActor::new(NatTableSpec {
        config: spec.nat_table,
        seed: spec.nat_seed,
        tun: tun.clone().recipient(),
        resolve: spec.resolve.clone(),
        metrics: Arc::clone(&spec.metrics),
        death: notice(Child::NatTable),
    }));
    let udp = UdpActor::new(UdpSpec {
        ports,
        demux: Demux::new(spec.demux, shell::now()),
        gatherer: AddressGatherer::new(
            GathererConfig {
                port,
                max_servers: MAX_STUN_SERVERS,
            },
            spec.seed,
        ),
        stun_servers: spec.stun_servers,
        list_addresses: spec.list_addresses,
        metrics: spec.metrics,
        death: notice(Child::Udp),
    })
    .start();
    Ok(ShardActors {
        tun,
        nat_table,
        udp,
    })
}

/// A portal hands out two relays of two addresses; the rest is room for configured servers.
const MAX_STUN_SERVERS: usize = 16;
