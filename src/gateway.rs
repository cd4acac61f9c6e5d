//! Assembles the gateway, runs it until a signal or a failure stops it, and cleans up.

use crate::actors::supervisor::state_saver::{StateSaver, StateSaverSpec};
use crate::actors::supervisor::{SupervisorActor, SupervisorSpec};
use crate::admin::AdminListeners;
use crate::config::{self, GatewayConfig, LiveSettings, NetworkConfig, StateConfig};
use crate::messages::supervisor::{Shutdown, ShutdownMode};
use crate::metrics::Metrics;
use crate::metrics::lag::{self, EventLoop};
use crate::reload::{self, ReloadLinks, Reloader};
use crate::service_manager::ServiceManager;
use crate::shell::{self, random_bytes, unix_now};
use crate::sockets::{BufferSizes, SocketGroup};
use crate::spawner::{SpawnerSpec, Threads};
use crate::state::{StateFile, StateLock, identity_key};
use crate::system::{capabilities, limits, masquerade, preflight};
use crate::system::{external_id, forwarding};
use crate::{faults, heartbeat, supervision, tunnel};
use actix::prelude::*;
use anyhow::Context as _;
use postern_core::UnixTime;
use postern_core::backoff::BackoffConfig;
use postern_core::ledger::{Ledger, LedgerLimits, SavedState};
use postern_core::peer::GatewayKeys;
use postern_core::portal::{
    Generation, GenerationChoice, IceSecret, PortalConfig, PortalLimits, PortalUrl, Token,
};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tun_rs::SyncDevice;
use zeroize::Zeroizing;

/// Runs the gateway with `settings`, which `reloader` reads again when they change; returns the
/// process exit code. An error says why it cannot start, and the remedy.
pub fn run(settings: Arc<LiveSettings>, reloader: Reloader) -> anyhow::Result<ExitCode> {
    // Must come before any thread is started.
    if let Err(error) = capabilities::raise_net_admin() {
        tracing::warn!(%error, "CAP_NET_ADMIN cannot be raised");
    }
    supervision::report_panics();
    if let Err(error) = limits::raise_open_files() {
        tracing::warn!(%error, "the number of open files stays limited");
    }
    check_host(&settings.config)?;
    let system = System::new();
    // Signals are handled before the process changes anything on the host, and before it looks like
    // a running gateway.
    let hands_over = Arc::new(AtomicBool::new(settings.config.state.handover));
    let (supervisor, asked) =
        system.block_on(async { listening_supervisor(Arc::clone(&hands_over)) })?;
    let links = reload_links(&supervisor.address(), hands_over);
    let mut prepared = Prepared::new(settings)?;
    let lock = prepared.initial.lock.take();
    let handed_over = Arc::clone(&prepared.handed_over);
    let masquerade = system.block_on(async { start(prepared, supervisor) })?;
    reload::watch(reloader, asked, links)?;
    let code = system.run_with_code();
    tidy_up(masquerade, handed_over.load(Ordering::Relaxed));
    // The kernel releases the lock after all else of this process: the next one waits for it.
    std::mem::forget(lock);
    let code = code.context("the event loop ended with an error")?;
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// After a handover the nftables table stays: flows that continue need their translation.
fn tidy_up(masquerade: Option<masquerade::Masquerade>, is_handed_over: bool) {
    match masquerade {
        Some(masquerade) if is_handed_over => masquerade.leave(),
        Some(masquerade) => {
            if let Err(error) = masquerade.remove() {
                tracing::warn!(%error, "the nftables table stays until the next start");
            }
        }
        None => {}
    }
}

/// The results of all steps that can fail for reasons outside the program.
struct Prepared {
    settings: Arc<LiveSettings>,
    initial: InitialState,
    external_id: String,
    sockets: SocketGroup,
    listeners: AdminListeners,
    /// One TUN queue for each shard.
    queues: Vec<SyncDevice>,
    handed_over: Arc<AtomicBool>,
}

impl Prepared {
    /// The state file comes before all that only one process can own: its lock is free when the
    /// previous process has released everything.
    fn new(settings: Arc<LiveSettings>) -> anyhow::Result<Self> {
        let config = &settings.config;
        let external_id = external_id::external_id(&config.portal)?;
        let initial = InitialState::load(config, &external_id)?;
        let shards = settings.shards;
        let sockets = bind(&config.network, initial.udp_port, shards)?;
        let listeners = AdminListeners::bind(&config.admin)?;
        let name = &config.tunnel.interface;
        let queues = tunnel::create(name.as_str(), shards)
            .with_context(|| format!("the interface {} cannot be created", name.as_str()))?;
        if config.tunnel.forwarding {
            forwarding::enable(&config.tunnel)?;
        }
        Ok(Self {
            initial,
            external_id,
            sockets,
            listeners,
            queues,
            settings,
            handed_over: Arc::default(),
        })
    }

    fn masquerade(&self) -> anyhow::Result<Option<masquerade::Masquerade>> {
        let wanted = self.settings.config.tunnel.masquerade;
        let applied = wanted.then(|| masquerade::Masquerade::apply(&self.settings.config.tunnel));
        Ok(applied.transpose()?)
    }
}

/// If the kernel may choose the port, that of the previous process comes first: its clients know
/// it.
fn bind(network: &NetworkConfig, former: u16, shards: u8) -> anyhow::Result<SocketGroup> {
    let buffers = BufferSizes {
        receive_bytes: network.receive_buffer_bytes,
        send_bytes: network.send_buffer_bytes,
    };
    let configured = network.udp_port;
    if configured == 0 && former != 0 {
        match SocketGroup::bind(former, buffers, shards) {
            Ok(sockets) => return Ok(sockets),
            Err(error) => {
                tracing::warn!(%error, former, "the former UDP port is taken: another is used")
            }
        }
    }
    SocketGroup::bind(configured, buffers, shards).with_context(|| {
        format!(
            "UDP port {configured} cannot be bound; `ss -ulpn` shows who has it, \
             network.udp_port changes it"
        )
    })
}

/// The state that a process begins with: that of the previous process, or a fresh one.
struct InitialState {
    file: Option<StateFile>,
    lock: Option<StateLock>,
    gateway_key: Zeroizing<[u8; 32]>,
    ice_secret: Zeroizing<[u8; 32]>,
    /// 0 without a previous process.
    udp_port: u16,
    ledger: Ledger,
    taken_over_at: Option<UnixTime>,
}

impl InitialState {
    /// An unusable state file is logged and ignored.
    fn load(config: &GatewayConfig, external_id: &str) -> anyhow::Result<Self> {
        let limits = ledger_limits(config);
        let (file, saved) = match open_state(config, external_id) {
            Some(file) => {
                let saved = file.load(unix_now(), config.state.max_age, limits);
                let saved = saved.unwrap_or_else(|error| {
                    tracing::warn!(%error, "the state of the former process is ignored");
                    None
                });
                let saved = saved.filter(|_| is_first_of_few(&file));
                (Some(file), saved)
            }
            None => (None, None),
        };
        Ok(match saved {
            Some(saved) => Self::from_saved(file, saved),
            None => Self {
                lock: file.as_ref().map(StateFile::lock),
                file,
                gateway_key: Zeroizing::new(random_bytes()?),
                ice_secret: Zeroizing::new(random_bytes()?),
                udp_port: 0,
                ledger: Ledger::new(limits),
                taken_over_at: None,
            },
        })
    }

    fn from_saved(file: Option<StateFile>, saved: SavedState) -> Self {
        let mut ledger = saved.ledger;
        ledger.prune_expired(unix_now());
        let has_clients = ledger.clients().len() > 0;
        Self {
            lock: file.as_ref().map(StateFile::lock),
            file,
            gateway_key: saved.gateway_key,
            ice_secret: saved.ice_secret,
            udp_port: saved.udp_port,
            taken_over_at: has_clients.then(unix_now),
            ledger,
        }
    }

    fn state_saver(&mut self, udp_port: u16) -> Option<StateSaver> {
        let spec = StateSaverSpec {
            file: self.file.take()?,
            gateway_key: self.gateway_key.clone(),
            ice_secret: self.ice_secret.clone(),
            udp_port,
            taken_over_at: self.taken_over_at,
        };
        Some(StateSaver::new(spec))
    }
}

/// Returns `false` if many processes in a row died after taking over the state, which may be the
/// cause. A file beside it counts them; a process that runs for a minute resets the count.
fn is_first_of_few(file: &StateFile) -> bool {
    let attempts = file.attempts();
    if attempts >= ATTEMPTS {
        tracing::warn!(
            attempts,
            "the state is ignored: whoever took it over died soon after"
        );
        return false;
    }
    file.note_attempts(attempts + 1);
    true
}

fn open_state(config: &GatewayConfig, external_id: &str) -> Option<StateFile> {
    let StateConfig { enabled, file, .. } = &config.state;
    let portal = &config.portal;
    let key = identity_key(portal.url.as_str(), external_id, portal.token.expose());
    let opened = enabled.then(|| StateFile::open(file, key, FORMER_PROCESS_ENDS))?;
    opened
        .inspect_err(|error| {
            tracing::warn!(%error, "the next process will not take the clients over");
        })
        .ok()
}

fn ledger_limits(config: &GatewayConfig) -> LedgerLimits {
    LedgerLimits {
        clients: config.limits.clients,
        resources_per_client: config.limits.resources_per_client,
        ..LedgerLimits::default()
    }
}

/// The context of the supervisor, before it is started, and the receiver of requests to reload.
fn listening_supervisor(
    hands_over: Arc<AtomicBool>,
) -> anyhow::Result<(Context<SupervisorActor>, Receiver<()>)> {
    let supervisor = Context::new();
    stop_on_signals(&supervisor.address(), &hands_over)?;
    Ok((supervisor, reload_on_hangup()?))
}

fn reload_links(supervisor: &Addr<SupervisorActor>, hands_over: Arc<AtomicBool>) -> ReloadLinks {
    ReloadLinks {
        news: supervisor.clone().recipient(),
        settings: supervisor.clone().recipient(),
        hands_over,
    }
}

/// Starts the supervisor, which starts all other actors.
fn start(
    mut prepared: Prepared,
    supervisor: Context<SupervisorActor>,
) -> anyhow::Result<Option<masquerade::Masquerade>> {
    let settings = Arc::clone(&prepared.settings);
    let (shards, limits) = (settings.shards, &settings.config.limits);
    let metrics = Arc::new(Metrics::new(shards.into(), shell::now()));
    let parent = supervisor.address();
    let masquerade = prepared.masquerade()?;
    let initial = &mut prepared.initial;
    let keys = GatewayKeys::new(*initial.gateway_key);
    let portal = portal_config(
        &settings.config.portal,
        &keys,
        &initial.ice_secret,
        prepared.external_id,
    )?;
    let udp_port = prepared.sockets.port();
    let state_saver = initial.state_saver(udp_port);
    let spawner = Threads::new(SpawnerSpec {
        keys: keys.clone(),
        sockets: prepared.sockets,
        listeners: prepared.listeners,
        queues: prepared.queues,
        settings: Arc::clone(&settings),
        portal,
        metrics: Arc::clone(&metrics),
    });
    let alive = Arc::new(AtomicBool::new(true));
    heartbeat::watch(Arc::clone(&alive))?;
    actix_rt::spawn(lag::measure(Arc::clone(&metrics), EventLoop::Main));
    actix_rt::spawn(faults::listen(parent.recipient()));
    supervisor.run(SupervisorActor::new(SupervisorSpec {
        keys,
        seed: random_bytes()?,
        shards,
        max_clients: limits.clients,
        max_resources: limits.resources_per_client,
        handshakes_per_second: usize::try_from(limits.handshakes_per_second)?,
        spawner: Box::new(spawner),
        ledger: prepared.initial.ledger,
        state_saver,
        handed_over: prepared.handed_over,
        alive,
        udp_port,
        service_manager: ServiceManager::of_environment(),
        metrics,
    }));
    Ok(masquerade)
}

/// Reports everything that is missing at once.
fn check_host(config: &GatewayConfig) -> anyhow::Result<()> {
    let checked = preflight::preflight(config);
    checked.map_err(|problems| anyhow::anyhow!(problems.join("\n")))
}

fn portal_config(
    portal: &config::PortalConfig,
    keys: &GatewayKeys,
    ice_secret: &[u8; 32],
    id: String,
) -> anyhow::Result<PortalConfig> {
    let system = nix::sys::utsname::uname().context("the kernel does not tell its name")?;
    let name = match &portal.name {
        Some(name) => name.clone(),
        None => system.nodename().to_string_lossy().into_owned(),
    };
    Ok(PortalConfig {
        url: PortalUrl::parse(portal.url.as_str())?,
        token: Token::new(portal.token.expose())?,
        id,
        name,
        public_key: keys.public(),
        ice_secret: IceSecret::new(*ice_secret),
        generation: match portal.generation {
            config::Generation::Auto => GenerationChoice::Auto,
            config::Generation::V2 => GenerationChoice::Only(Generation::V2),
            config::Generation::V1 => GenerationChoice::Only(Generation::V1),
        },
        kernel: system.release().to_string_lossy().into_owned(),
        arch: system.machine().to_string_lossy().into_owned(),
        max_outage: portal.max_outage,
        backoff: BackoffConfig::default(),
        limits: PortalLimits::default(),
    })
}

/// The usual signals lead to goodbyes; SIGUSR1 leads to a handover, and so do the usual ones if
/// that is configured.
fn stop_on_signals(
    supervisor: &Addr<SupervisorActor>,
    always_hands_over: &Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let kinds = [
        (SignalKind::terminate(), false),
        (SignalKind::interrupt(), false),
        (SignalKind::quit(), false),
        (SignalKind::user_defined1(), true),
    ];
    for (kind, hands_over) in kinds {
        let mut signals = signal(kind).context("signals cannot be received")?;
        let supervisor = supervisor.clone();
        let always_hands_over = Arc::clone(always_hands_over);
        actix_rt::spawn(async move {
            while signals.recv().await.is_some() {
                let exit_code = 0;
                let mode = match hands_over || always_hands_over.load(Ordering::Relaxed) {
                    true => ShutdownMode::HandOver,
                    false => ShutdownMode::Goodbye,
                };
                // Waits for room.
                let _ = supervisor.send(Shutdown { exit_code, mode }).await;
            }
        });
    }
    Ok(())
}

fn reload_on_hangup() -> anyhow::Result<Receiver<()>> {
    let mut signals = signal(SignalKind::hangup()).context("signals cannot be received")?;
    let (asked, receiver) = mpsc::channel();
    actix_rt::spawn(
        async move { while signals.recv().await.is_some() && asked.send(()).is_ok() {} },
    );
    Ok(receiver)
}

/// A process ends within two seconds after a signal.
const FORMER_PROCESS_ENDS: Duration = Duration::from_secs(3);
/// Processes in a row that may take over the same state and die.
const ATTEMPTS: u32 = 8;
