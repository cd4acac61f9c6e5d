//! `postern-lab portal`: a control plane for small set-ups, labs and tests, from one TOML file.
//!
//! It serves Firezone-compatible gateways and clients of generations 0, 1 and 2 at the same time,
//! follows changes of its file, and keeps its grants over restarts. Written from docs/protocol.md;
//! it shares nothing with the gateway but the JSON types of `postern_core::portal::wire`, so that
//! an error in the gateway is not mirrored here.
//!
//! [`Hub`] decides, `server` owns the websockets, `control` executes a tester's commands,
//! [`Config`] is the file.

pub mod client_wire;
pub mod config;
mod control;
mod derive;
pub mod hub;
mod server;
mod state;

pub use config::Config;
pub use hub::Hub;

use crate::clock::ClockReading;
use crate::control_socket::ControlSocket;
use crate::secret::random;
use anyhow::{Context, anyhow};
use server::PortalServer;
use sha2::{Digest, Sha256};
use state::State;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// How often the portal compares the file with what it has read.
const RELOAD_EVERY: Duration = Duration::from_secs(1);
/// How long open connections may take to close when the portal stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// The portal's arguments
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The configuration file; followed when it changes
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Unix socket for commands, one JSON object a line
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When the configuration is wrong, an address cannot be bound, or the state file is unusable.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let portal = Portal::start(&args)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = portal.serve() => ended?,
    }
    portal.stop().await;
    Ok(())
}

/// A portal with bound sockets.
struct Portal {
    server: Arc<PortalServer>,
    config_file: PathBuf,
    config_text: String,
    control: Option<ControlSocket>,
    state_file: PathBuf,
    seed: [u8; 32],
    tasks: tokio::task::JoinSet<()>,
    /// The listening addresses, with the ports that the kernel chose.
    addresses: Vec<SocketAddr>,
}

impl Portal {
    fn start(args: &Args) -> anyhow::Result<Self> {
        let config_text = read(&args.config)?;
        let config = parse(&config_text, &args.config)?;
        let state_file = match &config.service.state_file {
            Some(file) => file.clone(),
            None => state::with_suffix(&args.config, ".state"),
        };
        let saved = state::load(&state_file)?;
        let seed = seed(&config, saved.as_ref())?;
        let listen = config.service.listen.clone();
        let mut hub = Hub::new(config, seed, random()?);
        if let Some(saved) = saved {
            hub.restore(&saved.grants, ClockReading::now());
        }
        let server = PortalServer::new(hub);
        let control = args
            .control
            .as_deref()
            .map(ControlSocket::bind)
            .transpose()?;
        let mut tasks = tokio::task::JoinSet::new();
        let mut addresses = Vec::new();
        tasks.spawn(server::keep_time(Arc::clone(&server)));
        for address in listen {
            let listener = server::bind(address).with_context(|| {
                format!("cannot listen on {address} (is it taken, is it ours?)")
            })?;
            let address = listener.local_addr()?;
            info!(%address, "portal listening");
            addresses.push(address);
            tasks.spawn(server::listen(listener, Arc::clone(&server)));
        }
        let portal = Self {
            server,
            config_file: args.config.clone(),
            config_text,
            control,
            state_file,
            seed,
            tasks,
            addresses,
        };
        // Immediately, not with the first grant: restarts must agree on the seed.
        portal.save();
        Ok(portal)
    }

    /// Serves everything beside the websockets. Returns only on failure.
    async fn serve(&self) -> anyhow::Result<()> {
        tokio::select! {
            () = self.follow_config() => Ok(()),
            () = self.save_grants() => Ok(()),
            ended = self.serve_control() => ended,
        }
    }

    async fn serve_control(&self) -> anyhow::Result<()> {
        match &self.control {
            Some(control) => control.serve(&self.server, control::execute).await,
            None => std::future::pending().await,
        }
    }

    /// Follows changes of the configuration file. Compares content instead of modification times:
    /// two changes within one tick of the file system's clock are two changes. Never returns.
    async fn follow_config(&self) {
        let mut current = Some(self.config_text.clone());
        let mut ticks = tokio::time::interval(RELOAD_EVERY);
        loop {
            ticks.tick().await;
            let loaded = read(&self.config_file);
            let text = loaded.as_ref().ok().cloned();
            if text == current {
                continue;
            }
            current = text;
            match loaded.and_then(|text| parse(&text, &self.config_file)) {
                Ok(config) => self.put_in_force(config),
                Err(error) => warn!("{error:#}; going on with the configuration from before"),
            }
        }
    }

    fn put_in_force(&self, config: Config) {
        self.server.with_hub(|hub| {
            let (old, new) = (&hub.config().service, &config.service);
            if (&old.listen, &old.seed, &old.state_file)
                != (&new.listen, &new.seed, &new.state_file)
            {
                warn!("changes of listen, seed and state_file take effect at the next start");
            }
            hub.handle_config(config, ClockReading::now());
        });
    }

    /// Saves changed grants. Never returns.
    async fn save_grants(&self) {
        loop {
            self.server.grants_changed.notified().await;
            self.save();
        }
    }

    fn save(&self) {
        let state = State {
            seed: data_encoding::HEXLOWER.encode(&self.seed),
            grants: self.server.with_hub(|hub| hub.saved_grants()),
        };
        if let Err(error) = state::save(&self.state_file, &state) {
            warn!("{error:#}; a restart of the portal will revoke all grants");
        }
    }

    async fn stop(mut self) {
        self.server.stopping.send_replace(true);
        self.save();
        // Listeners end by themselves; each connection holds a subscription until it is closed.
        let _ = tokio::time::timeout(STOP_TIMEOUT, self.server.stopping.closed()).await;
        self.tasks.shutdown().await;
        info!(addresses = ?self.addresses, "portal stopped");
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn parse(text: &str, path: &Path) -> anyhow::Result<Config> {
    let base = path.parent().unwrap_or(Path::new("."));
    Config::parse(text, base).map_err(|error| anyhow!("{}:{error}", path.display()))
}

/// The configured seed, else the saved one, else a random one.
fn seed(config: &Config, saved: Option<&State>) -> anyhow::Result<[u8; 32]> {
    if let Some(text) = &config.service.seed {
        return Ok(Sha256::digest(text).into());
    }
    if let Some(saved) = saved {
        return saved
            .seed_bytes()
            .context("the seed in the state file is damaged; delete the file to start anew");
    }
    random()
}

#[cfg(test)]
mod tests;
