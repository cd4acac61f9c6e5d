//! The fast client end in a playground: its keys, what it is told, and starting it.

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

/// Connecting takes milliseconds; on a busy machine longer.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// Where a Postern gateway receives.
const GATEWAY_PORT: u16 = 52_625;

/// A key pair, in base64.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Ours to keep.
    pub private: String,
    /// For the other end.
    pub public: String,
}

impl Keys {
    /// A new pair.
    ///
    /// # Errors
    /// The kernel has no randomness.
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

/// A client that the portal's control socket has a gateway admit.
#[derive(Clone, Debug)]
pub struct Admitted {
    number: usize,
    keys: Keys,
    peer: Option<Peer>,
}

impl Admitted {
    /// Nobody yet; `number` tells guests apart.
    ///
    /// # Errors
    /// The kernel has no randomness.
    pub fn new(number: usize) -> Result<Self> {
        Ok(Self {
            number,
            keys: Keys::generate()?,
            peer: None,
        })
    }

    /// Its address in the tunnel.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        ExternalClient::addresses(self.number).0
    }

    /// Has it admitted to a resource. Where that is a name, `proxy_ip` and the three addresses
    /// after it stand for the name.
    ///
    /// # Errors
    /// The portal or its gateway refuses.
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

    /// What it is to be told.
    ///
    /// # Errors
    /// It was admitted to nothing.
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

/// What a grant says; the announcements of the one before stay.
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

/// Where the client's end of a tunnel is, and what leads into it.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// In which playground.
    pub playground: &'a Playground,
    /// At which of its places.
    pub role: Role,
    /// What the client is called in the tunnel.
    pub address: Ipv4Addr,
    /// Networks that are reached through it.
    pub routes: &'a [&'a str],
}

impl Place<'_> {
    /// Starts a fast client; ready when its session stands and its names were answered.
    ///
    /// # Errors
    /// It cannot be started, or does not become ready.
    pub fn start(self, programs: &Programs, peer: &Peer) -> Result<Process> {
        let name = format!("fast-client-{}", self.role);
        let file = self.playground.directory().join(format!("{name}.json"));
        std::fs::write(&file, serde_json::to_vec(peer)?)?;
        let mut command = self.playground.command(self.role, &programs.bench());
        command.arg("fast-client").arg("--peer").arg(file);
        self.spawn(&name, command)
    }

    /// Starts a program that is told interface, address and routes, and says `ready`.
    ///
    /// # Errors
    /// It cannot be started, or does not become ready.
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

/// Waits until a program has said `ready`.
///
/// # Errors
/// It ends or says nothing, or the wait was called off.
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

/// The interface of a fast client or of the floor.
pub const INTERFACE: &str = "fast0";
