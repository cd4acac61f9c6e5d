//! The floor: what forwarding between a TUN interface and WireGuard's data messages costs at the
//! least, and the fast client end that is made of the same loop.
//!
//! `postern-bench floor` does the gateway's input, output and AEAD, and nothing else: no handshake,
//! replay window, policy or translation, keys from the command line. `postern-bench fast-client`
//! forwards in the same way with keys from a real handshake, with a Postern gateway (over ICE) or a
//! plain WireGuard program. Both are yardsticks of `postern-bench bench`. Refuse to be secure.

pub mod checks;
pub mod clock;
pub mod crowd;
pub mod device;
mod gather;
mod inbound;
pub mod link;
pub mod noise;
mod outbound;
mod pump;
pub mod session;
pub mod socket;

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use checks::IcePair;
use clock::Moment;
use device::{Interface, TunDevice};
use link::{Link, LinkConfig, Pace};
use noise::Identity;
use postern_lab::client::control::assigned_ips;
use postern_lab::client::names::Domain;
use postern_lab::client::wire::ResourceId;
use pump::{Client, Static};
use serde::{Deserialize, Serialize};
use session::{Key, Opener, Sealer};
use sha2::{Digest, Sha256};
use socket::GsoSocket;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use uuid::Uuid;

/// `postern-bench floor`
#[derive(clap::Args, Clone, Debug)]
pub struct FloorArgs {
    #[command(flatten)]
    interface: Interface,
    /// Where it receives.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The other end; whoever sends authentic messages when not given.
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<SocketAddr>,
    /// Any text; the keys of both directions follow from it.
    #[arg(long, value_name = "TEXT")]
    key: String,
}

/// Forwards until it is killed.
///
/// # Errors
/// The interface or the socket cannot be made, or is gone.
pub fn run_floor(args: &FloorArgs) -> Result<()> {
    let device = TunDevice::create(&args.interface)?;
    let mut socket = GsoSocket::bind(args.listen)?;
    let key = |from: &str| -> Key { Sha256::digest(format!("{from} {}", args.key)).into() };
    // Who knows the other end calls it.
    let (ours, theirs) = match args.peer {
        Some(_) => ("caller", "called"),
        None => ("called", "caller"),
    };
    let mut end = Static {
        peer: args.peer,
        sealer: Sealer::new(&key(ours), INDEX),
        openers: [Opener::new(&key(theirs), INDEX)],
    };
    say("ready")?;
    pump::forward(&device, &mut socket, &mut end)
}

/// `postern-bench fast-client`
#[derive(clap::Args, Clone, Debug)]
pub struct FastClientArgs {
    #[command(flatten)]
    interface: Interface,
    /// File with keys and address of the gateway, as JSON.
    #[arg(long, value_name = "FILE")]
    peer: PathBuf,
}

/// What a fast client is told: the content of its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Base64 of our private key.
    pub private_key: String,
    /// Base64 of the other end's public key.
    pub public_key: String,
    /// Base64; none when absent.
    #[serde(default)]
    pub preshared_key: Option<String>,
    /// Where the other end is.
    pub endpoint: SocketAddr,
    /// Plain WireGuard when absent.
    #[serde(default)]
    pub ice: Option<IcePair>,
    /// What is announced inside the tunnel.
    #[serde(default)]
    pub announce: Vec<Announcement>,
}

/// A name of a resource, and the proxy IPs that stand for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// UUID.
    pub resource: Uuid,
    /// Without a trailing dot.
    pub domain: String,
    /// Four or eight.
    pub proxy_ips: Vec<IpAddr>,
}

impl Peer {
    /// As a link needs it.
    ///
    /// # Errors
    /// A key is none.
    pub fn config(&self, pace: Pace, number: u32) -> Result<LinkConfig> {
        let announcement = |it: &Announcement| {
            let domain = Domain {
                name: it.domain.clone(),
                proxy_ips: it.proxy_ips.clone(),
            };
            assigned_ips(ResourceId(it.resource), &domain)
        };
        let preshared = self.preshared_key.as_deref().map(key).transpose()?;
        Ok(LinkConfig {
            identity: Identity {
                secret: key(&self.private_key)?,
                peer: key(&self.public_key)?,
                preshared: preshared.unwrap_or_default(),
            },
            gateway: self.endpoint,
            ice: self.ice.clone(),
            announcements: self.announce.iter().map(announcement).collect(),
            pace,
            number,
        })
    }
}

/// Connects and forwards until it is killed. Says `ready` on standard output when the session
/// stands and all names were answered.
///
/// # Errors
/// The file cannot be read, or the interface or the socket cannot be made, or is gone.
pub fn run_fast_client(args: &FastClientArgs) -> Result<()> {
    let text = std::fs::read_to_string(&args.peer)
        .with_context(|| format!("cannot read {}", args.peer.display()))?;
    let peer: Peer = serde_json::from_str(&text)?;
    let number = getrandom::u32().map_err(|error| anyhow!("no randomness: {error}"))? >> 8;
    let config = peer.config(Pace::ACTIVE, number)?;
    let device = TunDevice::create(&args.interface)?;
    let any = match peer.endpoint {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let mut socket = GsoSocket::bind((any, 0).into())?;
    let mut end = Client {
        link: Link::new(config, Moment::now()),
        ready: Some(|| {
            // Whoever waits for it sees that it does not come.
            let _ = say("ready");
        }),
    };
    pump::forward(&device, &mut socket, &mut end)
}

/// Reads a key.
fn key(base64: &str) -> Result<Key> {
    let bytes = STANDARD.decode(base64).context("a key is not base64")?;
    let bytes = bytes.try_into();
    bytes.map_err(|_| anyhow!("a key is not 32 bytes long"))
}

fn say(word: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}

/// What both ends of the floor call their session.
const INDEX: u32 = 0x0066_6c00;
