//! `postern-lab dns`: an authoritative name server that can be made to fail.
//!
//! It answers over UDP and TCP from a zone file. A control socket changes records and modes, for
//! everything or for one name, and reports the queries and their times. Refuses names
//! outside its zone, recursion, and everything that a lab does not need: transfers, DNSSEC, CNAME.
//! Sources: RFC 1034, RFC 1035, RFC 4592 (wildcards), RFC 6891 (EDNS), RFC 7766 (TCP).
//!
//! Reading order: [`zone`] has the records, [`server`] decides on a query, `serve` owns the
//! sockets, [`control`] executes a tester's commands.

pub mod control;
pub mod counters;
pub mod mode;
mod serve;
pub mod server;
#[cfg(test)]
mod tests;
pub mod zone;

use crate::control_socket::ControlSocket;
use anyhow::{Context, Result};
use mode::Mode;
use serve::SharedResponder;
use server::Responder;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use zone::Zone;

/// Answers for the names of a lab.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address and port, for UDP and TCP; may be repeated.
    #[arg(long, required = true, value_name = "IP:PORT")]
    pub listen: Vec<SocketAddr>,
    /// The file with the zone, as TOML.
    #[arg(long, value_name = "FILE")]
    pub zone: PathBuf,
    /// First mode: healthy, "slow 250ms", silent, servfail or refused.
    #[arg(long, default_value_t = Mode::Healthy)]
    pub mode: Mode,
    /// Socket for commands, one JSON object a line.
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The zone cannot be read, or an address or the control socket cannot be bound.
pub async fn run(args: Args) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let text = std::fs::read_to_string(&args.zone)
        .with_context(|| format!("cannot read {}", args.zone.display()))?;
    let zone = Zone::parse(&text).with_context(|| format!("in {}", args.zone.display()))?;
    let shared = Arc::new(SharedResponder::new(Responder::new(zone, args.mode)));
    let mut tasks = JoinSet::new();
    for address in args.listen {
        let udp = UdpSocket::bind(address).await;
        let udp = udp.with_context(|| format!("cannot listen on {address}/udp"))?;
        let tcp = TcpListener::bind(address).await;
        let tcp = tcp.with_context(|| format!("cannot listen on {address}/tcp"))?;
        tracing::info!(%address, "answering for names");
        tasks.spawn(serve::datagrams(udp, Arc::clone(&shared)));
        tasks.spawn(serve::connections(tcp, Arc::clone(&shared)));
    }
    let control = args.control.as_deref().map(ControlSocket::bind);
    if let Some(control) = control.transpose()? {
        tasks.spawn(async move { control.serve(&shared, control::execute).await });
    }
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        Some(ended) = tasks.join_next() => ended.context("a task panicked")?,
    }
}
