//! `postern-bench crowd`: many clients in one process, each with a socket, a path and a session, and
//! nothing to say.
//!
//! Each is admitted through the portal's control socket, checks its path, shakes hands, and then
//! keeps both alive as an idle client does. When all are up, or the time is over, one line of JSON
//! tells how long it took ([`Gathered`]); then it goes on until it is killed. Refuses to give up on
//! a client before the time is over.

use super::checks::IcePair;
use super::clock::Moment;
use super::link::{Link, LinkConfig, Pace};
use super::noise::Identity;
use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use postern_lab::client::wireguard;
use postern_lab::figures::percentile;
use postern_lab::portal::client_wire::ClientGrant;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UdpSocket, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::LocalSet;
use tokio::time::Instant;

/// `postern-bench crowd`
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The portal's control socket.
    #[arg(long, value_name = "PATH")]
    control: PathBuf,
    /// Where the gateway is.
    #[arg(long, value_name = "ADDRESS")]
    gateway: SocketAddr,
    /// Name of the resource that each is granted.
    #[arg(long, value_name = "NAME")]
    resource: String,
    /// How many clients.
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// How many may be connecting at the same time.
    #[arg(long, default_value_t = 64)]
    at_once: usize,
    /// Seconds after which it is told how far they have come.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// Between an initiation and the next while there is no response; WireGuard's own by default.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = humantime::parse_duration)]
    retry: Duration,
    /// Between the keepalives of a client; none by default, as clients have it since 2025.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    keepalive: Option<Duration>,
}

/// How long the crowd took, in milliseconds from the beginning of each client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gathered {
    /// How many clients were asked for.
    pub clients: usize,
    /// How many have a session.
    pub up: usize,
    /// Until the gateway had admitted them.
    pub admitted: Times,
    /// Until their session stood.
    pub connected: Times,
}

/// Where some times lie, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Half of them are no longer.
    pub median: f64,
    /// 99 % of them are no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent| percentile(&times, percent).as_secs_f64() * 1000.0;
        Self {
            median: at(50),
            p99: at(99),
            max: at(100),
        }
    }
}

/// What a client has reached.
#[derive(Clone, Copy, Debug)]
enum Reached {
    Admitted(Duration),
    Up(Duration),
}

/// Connects all and stays until it is killed.
///
/// # Errors
/// The kernel gives too few descriptors, or standard output is gone.
pub async fn run(args: Args) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.max(args.clients as u64 * 2 + 100);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted)
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))?;
    LocalSet::new().run_until(gather(Rc::new(args))).await
}

async fn gather(args: Rc<Args>) -> Result<()> {
    let (reached, mut milestones) = mpsc::unbounded_channel();
    let doors = Rc::new(Semaphore::new(args.at_once));
    for number in 0..args.clients {
        let (args, doors, reached) = (Rc::clone(&args), Rc::clone(&doors), reached.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = live(&args, number, &doors, &reached).await {
                tracing::warn!(number, "a client is lost: {error:#}");
            }
        });
    }
    let deadline = Instant::now() + Duration::from_secs(args.patience);
    let (mut admitted, mut up) = (Vec::new(), Vec::new());
    while up.len() < args.clients {
        match tokio::time::timeout_at(deadline, milestones.recv()).await {
            Ok(Some(Reached::Admitted(after))) => admitted.push(after),
            Ok(Some(Reached::Up(after))) => up.push(after),
            Ok(None) | Err(_) => break,
        }
    }
    let gathered = Gathered {
        clients: args.clients,
        up: up.len(),
        admitted: Times::of(admitted),
        connected: Times::of(up),
    };
    let mut out = std::io::stdout();
    writeln!(out, "{}", serde_json::to_string(&gathered)?)?;
    out.flush()?;
    std::future::pending().await
}

/// One client, until it is killed.
async fn live(
    args: &Args,
    number: usize,
    doors: &Semaphore,
    reached: &mpsc::UnboundedSender<Reached>,
) -> Result<()> {
    let door = doors.acquire().await?;
    let begun = Instant::now();
    let config = admitted(args, number).await?;
    // Nobody listens any more once the time is over.
    let _over = reached.send(Reached::Admitted(begun.elapsed()));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(args.gateway).await?;
    let mut link = Link::new(config, Moment::now());
    let mut door = Some(door);
    loop {
        link.handle_timeout(Moment::now());
        while let Some((_, datagram)) = link.poll_transmit() {
            // Lost like any datagram.
            let _lost = socket.send(&datagram).await;
        }
        if link.is_up() && door.take().is_some() {
            let _over = reached.send(Reached::Up(begun.elapsed()));
        }
        let deadline = link.poll_timeout().map(Instant::from_std);
        let due = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            readable = socket.readable() => {
                readable?;
                receive(&socket, &mut link);
            }
            () = due => {}
        }
    }
}

/// Takes what is there. One buffer serves all clients.
fn receive(socket: &UdpSocket, link: &mut Link) {
    thread_local! {
        static BUFFER: RefCell<[u8; 2048]> = const { RefCell::new([0; 2048]) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        while let Ok(bytes) = socket.try_recv(buffer) {
            link.handle_datagram(&buffer[..bytes], Moment::now());
        }
    });
}

/// Has a client admitted.
async fn admitted(args: &Args, number: usize) -> Result<LinkConfig> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| anyhow!("no randomness: {error}"))?;
    let public = wireguard::Identity::from_secret(secret).public_key();
    let op = json!({"op": "admit", "client": format!("crowd-{number}"), "number": number,
                    "public_key": STANDARD.encode(public), "resource": args.resource});
    let grant = ask(&args.control, &op).await?;
    let config = LinkConfig {
        identity: Identity {
            secret,
            peer: super::key(&grant.gateway_public_key)?,
            preshared: super::key(&grant.preshared_key)?,
        },
        gateway: args.gateway,
        ice: Some(IcePair {
            client: grant.client_ice_credentials,
            gateway: grant.gateway_ice_credentials,
        }),
        announcements: Vec::new(),
        pace: Pace {
            handshake: args.retry,
            keepalive: args.keepalive,
            ..Pace::IDLE
        },
        number: u32::try_from(number)?,
    };
    Ok(config)
}

async fn ask(control: &Path, question: &Value) -> Result<ClientGrant> {
    let mut socket = UnixStream::connect(control).await?;
    socket.write_all(format!("{question}\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).await?;
    let mut answer: Value = serde_json::from_str(&line).context("no answer")?;
    let grant = answer["grant"].take();
    serde_json::from_value(grant).with_context(|| format!("not admitted: {answer}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_milliseconds() {
        let times = Times::of((1..=200).rev().map(Duration::from_millis).collect());
        let expected = Times {
            median: 100.0,
            p99: 198.0,
            max: 200.0,
        };
        assert_eq!(times, expected);
        assert_eq!(Times::of(Vec::new()), Times::default());
    }
}
