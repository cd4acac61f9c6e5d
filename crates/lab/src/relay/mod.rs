//! `postern-lab relay`: a STUN server that a Firezone client accepts as a relay.
//!
//! A thin UDP shell around `RelayCore`: one socket for each `--listen` address, so that an answer
//! leaves from exactly the address that received the question (docs/protocol.md 8.0: clients
//! ignore answers from elsewhere). It refuses wildcard addresses for that reason.

mod core;
pub(crate) mod credentials;

use self::core::{RelayCore, RelayCounters};

use crate::clock::unix_now;
use crate::secret;
use anyhow::{Context, bail};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

/// The only port on which Firezone's programs look for relay traffic (docs/protocol.md 3.5).
const RELAY_PORT: u16 = 3478;

/// Shortest interval between two reports of dropped datagrams.
const REPORT_EVERY: Duration = Duration::from_secs(60);

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Address to answer on, exactly as in the portal's relay entry; may be given several times
    #[arg(long, required = true, value_name = "IP:PORT")]
    pub listen: Vec<SocketAddr>,
    /// File with the secret shared with the portal; made with a random secret when missing
    #[arg(long, value_name = "FILE")]
    pub secret_file: PathBuf,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When an address cannot be bound or is a wildcard, or the secret cannot be read or made.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shared = secret::read_or_create(&args.secret_file)?;
    let relay = Arc::new(Mutex::new(RelayCore::new(shared, secret::random()?)));
    let mut tasks = JoinSet::new();
    for address in args.listen {
        let socket = bind(address)?;
        info!(%address, "relay listening");
        tasks.spawn(serve(socket, Arc::clone(&relay)));
    }
    tasks.spawn(report(Arc::clone(&relay)));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        Some(ended) = tasks.join_next() => {
            ended.context("a relay task panicked")?.context("a relay socket failed")?;
        }
    }
    let counters = lock(&relay).counters();
    info!(?counters, "relay stopped");
    Ok(())
}

fn bind(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    if address.ip().is_unspecified() {
        bail!(
            "cannot listen on {address}: a relay must answer from exactly the address in the \
             portal's relay entry, so give that address instead of a wildcard"
        );
    }
    if address.port() != RELAY_PORT {
        warn!(%address, "Firezone's programs only talk to relays on port {RELAY_PORT}");
    }
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket
        .bind(&address.into())
        .with_context(|| format!("cannot listen on {address}/udp (is it taken, is it ours?)"))?;
    Ok(UdpSocket::from_std(socket.into())?)
}

/// Answers on one socket. Returns only when the socket is broken.
async fn serve(socket: UdpSocket, relay: Arc<Mutex<RelayCore>>) -> std::io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error about an earlier answer: nothing to do about it.
            Err(error) if is_transient(&error) => continue,
            Err(error) => return Err(error),
        };
        let answer = lock(&relay).handle(&buffer[..length], from, unix_now());
        let Some(answer) = answer else { continue };
        if let Err(error) = socket.send_to(&answer, from).await {
            debug!(%from, %error, "answer not sent");
        }
    }
}

fn is_transient(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::Interrupted
    )
}

/// One line when drops have increased, never one for each datagram (docs/lessons.md 4).
async fn report(relay: Arc<Mutex<RelayCore>>) -> std::io::Result<()> {
    let mut reported = RelayCounters::default();
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    loop {
        ticks.tick().await;
        let current = lock(&relay).counters();
        let (malformed, ignored) = (current.malformed, current.ignored);
        if malformed + ignored > reported.malformed + reported.ignored {
            info!(malformed, ignored, "datagrams dropped so far");
        }
        reported = current;
    }
}

fn lock(relay: &Mutex<RelayCore>) -> std::sync::MutexGuard<'_, RelayCore> {
    relay.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_come_from_the_address_that_was_asked() {
        let address = "127.0.0.1:0".parse().expect("an address");
        let socket = bind(address).expect("binds");
        let server = socket.local_addr().expect("bound");
        let relay = RelayCore::new("secret".to_owned(), [0; 32]);
        let task = tokio::spawn(serve(socket, Arc::new(Mutex::new(relay))));
        let client = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let request = [
            0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        ];
        client.send_to(&request, server).await.expect("sent");
        let mut buffer = [0; 500];
        let (length, from) = client.recv_from(&mut buffer).await.expect("an answer");
        assert_eq!(from, server);
        assert_eq!(buffer[..2], [1, 1]);
        assert_eq!(buffer[8..20], request[8..20]);
        assert!(length > 20);
        task.abort();
    }

    #[tokio::test]
    async fn a_wildcard_address_is_refused_with_the_remedy() {
        let wildcard = "[::]:3478".parse().expect("an address");
        let error = bind(wildcard).expect_err("refused");
        assert!(error.to_string().contains("instead of a wildcard"));
    }
}
