//! The floor: the minimal cost of forwarding between a TUN interface and WireGuard's data messages,
//! and the fast client, which uses the same loop.
//!
//! `postern-bench floor` does the gateway's input, output and AEAD, and nothing else: no handshake,
//! replay window, policy or translation; its keys come from the command line. `postern-bench
//! fast-client` forwards in the same way with keys from a real handshake, with a Postern gateway
//! (over ICE) or a plain WireGuard program. Both are yardsticks of `postern-bench bench`; neither
//! is secure.

pub mod checks;
pub mod clock;
mod coalesce;
pub mod crowd;
pub mod device;
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
use clock::Timestamp;
use device::{Interface, TunDevice};
use link::{Link, LinkConfig, Pace};
use noise::Identity;
use postern_lab::client::control::assigned_ips;
use postern_lab::client::names::Domain;
use postern_lab::client::wire::ResourceId;
use pump::{FixedKeys, LinkEnd};
use serde::{Deserialize, Serialize};
use session::{Key, Opener, Sealer};
use sha2::{Digest, Sha256};
use socket::GsoSocket;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use uuid::Uuid;

/// Arguments of `postern-bench floor`.
#[derive(clap::Args, Clone, Debug)]
pub struct FloorArgs {
    #[command(flatten)]
    interface: Interface,
    /// Address at which it receives.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Address of the other end; when absent, the sender of the last authentic message.
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<SocketAddr>,
    /// Any text, from which the keys of both directions are derived.
    #[arg(long, value_name = "TEXT")]
    key: String,
}

/// Forwards until the process is killed.
pub fn run_floor(args: &FloorArgs) -> Result<()> {
    let device = TunDevice::create(&args.interface)?;
    let mut socket = GsoSocket::bind(args.listen)?;
    let key = |from: &str| -> Key { Sha256::digest(format!("{from} {}", args.key)).into() };
    // The end that knows the other's address is the caller.
    let (ours, theirs) = match args.peer {
        Some(_) => ("caller", "called"),
        None => ("called", "caller"),
    };
    let mut end = FixedKeys {
        peer: args.peer,
        sealer: Sealer::new(&key(ours), INDEX),
        openers: [Opener::new(&key(theirs), INDEX)],
    };
    print_line("ready")?;
    pump::forward(&device, &mut socket, &mut end)
}

/// Arguments of `postern-bench fast-client`.
#[derive(clap::Args, Clone, Debug)]
pub struct FastClientArgs {
    #[command(flatten)]
    interface: Interface,
    /// File with keys and address of the gateway, as JSON.
    #[arg(long, value_name = "FILE")]
    peer: PathBuf,
}

/// Content of the fast client's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Our private key in base64.
    pub private_key: String,
    /// The other end's public key in base64.
    pub public_key: String,
    /// Preshared key in base64, if there is one.
    #[serde(default)]
    pub preshared_key: Option<String>,
    /// Address of the other end.
    pub endpoint: SocketAddr,
    /// ICE credentials; absent for plain WireGuard.
    #[serde(default)]
    pub ice: Option<IcePair>,
    /// Names that are announced inside the tunnel.
    #[serde(default)]
    pub announce: Vec<Announcement>,
}

/// A name of a resource, and its proxy IPs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// UUID of the resource.
    pub resource: Uuid,
    /// Name without a trailing dot.
    pub domain: String,
    /// Four or eight proxy IPs.
    pub proxy_ips: Vec<IpAddr>,
}

impl Peer {
    /// Converts the file's content for a link.
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

/// Connects and forwards until the process is killed. Prints `ready` when the session is
/// established and all names are answered.
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
    let mut end = LinkEnd {
        link: Link::new(config, Timestamp::now()),
        ready: Some(|| {
            // Without the line, the waiting process times out.
            let _ = print_line("ready");
        }),
    };
    pump::forward(&device, &mut socket, &mut end)
}

/// Decodes a key of 32 bytes.
fn key(base64: &str) -> Result<Key> {
    let bytes = STANDARD.decode(base64).context("a key is not base64")?;
    let bytes = bytes.try_into();
    bytes.map_err(|_| anyhow!("a key is not 32 bytes long"))
}

fn print_line(word: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}

/// Session index that both ends of the floor use.
const INDEX: u32 = 0x0066_6c00;
