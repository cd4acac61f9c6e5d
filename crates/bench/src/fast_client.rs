//! The fast client in a playground: its keys, its configuration, and its start.

use crate::floor::checks::IcePair;
use crate::floor::{Announcement, Peer};
use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postern_lab::client::wireguard::Identity;
use postern_lab::playground::lab::Lab;
use postern_lab::playground::network::GATEWAY_V4;
use postern_lab::playground::process::Process;
use postern_lab::playground::programs::Programs;
use postern_lab::playground::{Playground, Role};
use postern_lab::portal::client_wire::ClientGrant;
use postern_lab::portal::hub::ExternalClient;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Connecting takes milliseconds, longer on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// Port at which a Postern gateway receives.
const GATEWAY_PORT: u16 = 52_625;

/// A key pair, in base64.
#[derive(Clone, Debug)]
pub struct Keys {
    pub private: String,
    pub public: String,
}

impl Keys {
    pub fn generate() -> Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| anyhow!("no randomness: {error}"))?;
        let public = Identity::from_secret(secret).public_key();
        Ok(Self {
            private: STANDARD.encode(secret),
            public: STANDARD.encode(public),
        })
    }
}

/// A client that a gateway admits through the portal's control socket.
#[derive(Clone, Debug)]
pub struct Admitted {
    number: usize,
    keys: Keys,
    peer: Option<Peer>,
}

impl Admitted {
    /// Creates keys for the client `number`, which is not admitted yet.
    pub fn new(number: usize) -> Result<Self> {
        Ok(Self {
            number,
            keys: Keys::generate()?,
            peer: None,
        })
    }

    /// The client's address in the tunnel.
    pub fn address(&self) -> Ipv4Addr {
        ExternalClient::addresses(self.number).0
    }

    /// Lets the gateway admit the client to a resource. For a DNS resource, `proxy_ip` and the
    /// three addresses after it are the name's proxy IPs.
    pub fn admit(&mut self, lab: &Lab, resource: &str, proxy_ip: Option<Ipv4Addr>) -> Result<()> {
        let client = format!("guest-{}", self.number);
        let (control, public) = (lab.control(), &self.keys.public);
        let grant = control.admit(&client, public, self.number, resource)?;
        let announcement = proxy_ip.map(|first| announcement(&grant, resource, first));
        let mut peer = peer(&self.keys, grant, self.peer.take());
        peer.announce.extend(announcement.transpose()?);
        self.peer = Some(peer);
        Ok(())
    }

    /// Configuration of the client's process; an error before any admission.
    pub fn peer(&self) -> Result<&Peer> {
        self.peer.as_ref().context("admitted to nothing")
    }
}

fn announcement(grant: &ClientGrant, name: &str, first: Ipv4Addr) -> Result<Announcement> {
    let proxy_ips = first.to_bits()..first.to_bits() + 4;
    let address = |bits| IpAddr::from(Ipv4Addr::from_bits(bits));
    Ok(Announcement {
        resource: grant.resource_id.parse()?,
        domain: name.to_owned(),
        proxy_ips: proxy_ips.map(address).collect(),
    })
}

/// Merges a grant; keeps the announcements of earlier ones.
fn peer(keys: &Keys, grant: ClientGrant, before: Option<Peer>) -> Peer {
    Peer {
        private_key: keys.private.clone(),
        public_key: grant.gateway_public_key,
        preshared_key: Some(grant.preshared_key),
        endpoint: SocketAddr::from((GATEWAY_V4, GATEWAY_PORT)),
        ice: Some(IcePair {
            client: grant.client_ice_credentials,
            gateway: grant.gateway_ice_credentials,
        }),
        announce: before.map(|it| it.announce).unwrap_or_default(),
    }
}

/// Location of the client's end of a tunnel, and the routes into it.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub playground: &'a Playground,
    pub role: Role,
    /// The client's address in the tunnel.
    pub address: Ipv4Addr,
    /// Networks that are reached through the tunnel.
    pub routes: &'a [&'a str],
}

impl Place<'_> {
    /// Starts a fast client; it is ready when its session is established and its names are
    /// answered.
    pub fn start(self, programs: &Programs, peer: &Peer) -> Result<Process> {
        let name = format!("fast-client-{}", self.role);
        let file = self.playground.directory().join(format!("{name}.json"));
        std::fs::write(&file, serde_json::to_vec(peer)?)?;
        let mut command = self.playground.command(self.role, programs.bench());
        command.arg("fast-client").arg("--peer").arg(file);
        self.spawn(&name, command)
    }

    /// Starts a program with interface, address and routes as arguments, and waits until it prints
    /// `ready`.
    pub fn spawn(self, name: &str, mut command: std::process::Command) -> Result<Process> {
        command.args(["--interface", INTERFACE]);
        command.args(["--address", &format!("{}/32", self.address)]);
        for route in self.routes {
            command.args(["--route", route]);
        }
        let process = self.playground.spawn(name, command)?;
        wait_ready(self.playground, process)
    }
}

/// Waits until a program has printed `ready`.
pub fn wait_ready(playground: &Playground, mut process: Process) -> Result<Process> {
    let what = format!("{} to be ready", process.name());
    playground.interrupt().until_ok(&what, READY_LIMIT, || {
        if let Some(status) = process.ended()? {
            bail!("ended with {status}: {}", process.log_tail(5));
        }
        Ok(process.log().lines().any(|it| it == "ready").then_some(()))
    })?;
    Ok(process)
}

/// Interface name of a fast client or of the floor.
pub const INTERFACE: &str = "fast0";
