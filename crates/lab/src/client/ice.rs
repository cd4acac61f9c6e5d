//! One ICE agent per gateway: `webrtc-ice` in the controlling role, with credentials from the
//! portal.
//!
//! Adds to the crate the settings that suit a tunnel, the candidate strings of the portal protocol,
//! and a mark on the sockets that keeps ICE out of the tunnel it builds. Refuses mDNS names, TCP
//! candidates, loopback (outside tests), and local relay candidates.
//!
//! Known limits of `webrtc-ice` 0.17, accepted here: the agent keeps the first nominated pair for
//! good, cannot withdraw a remote candidate, and drops datagrams from an address that no check or
//! candidate announced (a gateway sends from its nominated path, which is announced). Source:
//! RFC 8445; docs/protocol.md 3.2, 3.3.1 and 3.3.2.

use super::tunnel::SOCKET_MARK;
use super::vocabulary::IceCredentials;
use anyhow::{Context as _, bail, ensure};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use webrtc_ice::agent::Agent;
use webrtc_ice::agent::agent_config::{AgentConfig, InterfaceFilterFn, IpFilterFn};
use webrtc_ice::candidate::candidate_base::unmarshal_candidate;
use webrtc_ice::candidate::{Candidate, CandidateType};
use webrtc_ice::mdns::MulticastDnsMode;
use webrtc_ice::network_type::NetworkType;
use webrtc_ice::state::ConnectionState;
use webrtc_ice::url::{ProtoType, SchemeType, Url};
use webrtc_util::Conn;

/// A connected path to a gateway; it sends on the nominated pair.
pub type Path = Arc<dyn Conn + Send + Sync>;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Pause between two rounds of checks while connecting.
    pub check_interval: Duration,
    /// Patterns of interfaces to use (`*` at the end matches any rest); empty means all.
    pub interfaces: Vec<String>,
    /// The client's own tunnel, which must never carry ICE.
    pub tunnel_interface: String,
    /// Servers that report the client's server-reflexive address.
    pub stun_servers: Vec<SocketAddr>,
    /// Only tests set this option.
    pub include_loopback: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IceEvent {
    /// A local candidate to signal, as the portal protocol writes it.
    Candidate(String),
    /// Checks are unanswered; the agent continues.
    Disconnected,
    /// Checks are answered, for the first time or again.
    Connected,
    /// The agent found no path and has stopped.
    Failed,
}

/// An agent that gathers at once; its [`Dialer`] starts the checks.
pub struct IceAgent {
    agent: Arc<Agent>,
    events: mpsc::UnboundedReceiver<IceEvent>,
}

impl IceAgent {
    /// Starts gathering; candidates arrive as events.
    ///
    /// # Errors
    /// When the credentials are too short or gathering cannot start.
    pub async fn new(settings: &Settings, local: &IceCredentials) -> anyhow::Result<Self> {
        let agent = Arc::new(Agent::new(agent_config(settings, local)).await?);
        let (sender, events) = mpsc::unbounded_channel();
        let (states, ufrag) = (sender.clone(), local.username.clone());
        agent.on_connection_state_change(Box::new(move |state| {
            if let Some(event) = event_of(state) {
                let _ = states.send(event);
            }
            Box::pin(std::future::ready(()))
        }));
        agent.on_candidate(Box::new(move |candidate| {
            if let Some(candidate) = candidate {
                mark_socket(candidate.as_ref());
                let _ = sender.send(IceEvent::Candidate(candidate_string(
                    candidate.as_ref(),
                    &ufrag,
                )));
            }
            Box::pin(std::future::ready(()))
        }));
        agent.gather_candidates()?;
        Ok(Self { agent, events })
    }

    /// The next event; stays pending after the agent is closed.
    pub async fn next_event(&mut self) -> IceEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// The next event if it is already queued.
    pub fn try_event(&mut self) -> Option<IceEvent> {
        self.events.try_recv().ok()
    }

    /// Takes a candidate of the gateway.
    ///
    /// # Errors
    /// When the candidate is unusable; the agent continues.
    pub fn add_remote_candidate(&self, candidate: &str) -> anyhow::Result<()> {
        let candidate = parse_candidate(candidate)?;
        Ok(self.agent.add_remote_candidate(&candidate)?)
    }

    /// A handle that dials and closes without borrowing the event queue.
    pub fn dialer(&self) -> Dialer {
        Dialer {
            agent: Arc::clone(&self.agent),
        }
    }
}

/// Starts the checks, and ends the agent.
#[derive(Clone)]
pub struct Dialer {
    agent: Arc<Agent>,
}

impl Dialer {
    /// Checks all pairs as the controlling side until one is nominated. Failure arrives as
    /// [`IceEvent::Failed`]; this future then stays pending and must be dropped.
    ///
    /// # Errors
    /// When the library refuses the credentials or a second dial.
    pub async fn dial(self, remote: IceCredentials) -> anyhow::Result<Path> {
        let (_cancel, cancelled) = mpsc::channel(1);
        let path = self.agent.dial(cancelled, remote.username, remote.password);
        Ok(path.await?)
    }

    /// The nominated pair: the client's address and the gateway's.
    pub fn nominated(&self) -> Option<(SocketAddr, SocketAddr)> {
        let pair = self.agent.get_selected_candidate_pair()?;
        Some((pair.local.addr(), pair.remote.addr()))
    }

    /// Ends all tasks and sockets of the agent.
    pub async fn close(&self) {
        // The library may wait for its own handlers here. A second is ample; without a limit the
        // process could hang.
        let closing = tokio::time::timeout(Duration::from_secs(1), self.agent.close());
        if !matches!(closing.await, Ok(Ok(()))) {
            tracing::debug!("the ICE agent did not close cleanly");
        }
    }
}

fn event_of(state: ConnectionState) -> Option<IceEvent> {
    match state {
        ConnectionState::Connected | ConnectionState::Completed => Some(IceEvent::Connected),
        ConnectionState::Disconnected => Some(IceEvent::Disconnected),
        ConnectionState::Failed => Some(IceEvent::Failed),
        ConnectionState::Unspecified
        | ConnectionState::New
        | ConnectionState::Checking
        | ConnectionState::Closed => None,
    }
}

fn agent_config(settings: &Settings, local: &IceCredentials) -> AgentConfig {
    let servers = &settings.stun_servers;
    let mut candidate_types = vec![CandidateType::Host];
    if !servers.is_empty() {
        candidate_types.push(CandidateType::ServerReflexive);
    }
    let interval_ms = settings.check_interval.as_millis().max(1);
    let checks_until_failed = CONNECT_TIMEOUT.as_millis() / interval_ms;
    AgentConfig {
        local_ufrag: local.username.clone(),
        local_pwd: local.password.clone(),
        urls: servers.iter().map(stun_url).collect(),
        multicast_dns_mode: MulticastDnsMode::Disabled,
        disconnected_timeout: Some(DISCONNECTED_TIMEOUT),
        failed_timeout: Some(FAILED_TIMEOUT),
        keepalive_interval: Some(KEEPALIVE_INTERVAL),
        network_types: vec![NetworkType::Udp4, NetworkType::Udp6],
        candidate_types,
        check_interval: settings.check_interval,
        // The default of 7 would abandon a pair after 7 ticks, which at 20 ms is sooner than a
        // gateway behind a slow link can answer.
        max_binding_requests: Some(u16::try_from(checks_until_failed).unwrap_or(u16::MAX)),
        is_controlling: true,
        // Accept the first working pair: a check that arrives before the gateway's candidates makes
        // it peer-reflexive, and waiting for a better one would only cost time.
        srflx_acceptance_min_wait: Some(Duration::ZERO),
        prflx_acceptance_min_wait: Some(Duration::ZERO),
        relay_acceptance_min_wait: Some(RELAY_ACCEPTANCE_WAIT),
        interface_filter: Arc::new(Some(interface_filter(settings))),
        ip_filter: Arc::new(Some(ip_filter(settings))),
        include_loopback: settings.include_loopback,
        ..AgentConfig::default()
    }
}

fn interface_filter(settings: &Settings) -> InterfaceFilterFn {
    let (wanted, tunnel) = (
        settings.interfaces.clone(),
        settings.tunnel_interface.clone(),
    );
    Box::new(move |name| {
        name != tunnel && (wanted.is_empty() || wanted.iter().any(|pattern| matches(pattern, name)))
    })
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(stem) => name.starts_with(stem),
        None => name == pattern,
    }
}

fn ip_filter(settings: &Settings) -> IpFilterFn {
    let loopback = settings.include_loopback;
    Box::new(move |ip| {
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            // Without a scope such an address can be neither bound nor signalled.
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        !link_local && (loopback || !ip.is_loopback())
    })
}

fn stun_url(server: &SocketAddr) -> Url {
    let host = match server.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        // The library joins host and port with a colon before it parses them.
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    Url {
        scheme: SchemeType::Stun,
        host,
        port: server.port(),
        proto: ProtoType::Udp,
        ..Url::default()
    }
}

/// Keeps the candidate's datagrams out of the tunnel's routes, and enlarges the buffers for bursts.
/// The kernel may refuse both (no privilege, in tests): ICE still works without overlapping routes.
fn mark_socket(candidate: &(dyn Candidate + Send + Sync)) {
    let Some(socket) = candidate
        .get_conn()
        .and_then(|conn| conn.as_any().downcast_ref::<UdpSocket>())
    else {
        return;
    };
    let socket = socket2::SockRef::from(socket);
    if let Err(error) = socket.set_mark(SOCKET_MARK) {
        tracing::debug!(%error, "cannot mark an ICE socket");
    }
    for result in [
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES),
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES),
    ] {
        if let Err(error) = result {
            tracing::debug!(%error, "cannot enlarge an ICE socket's buffer");
        }
    }
}

/// Writes a local candidate for the portal protocol: with prefix and ufrag, and without the base
/// address behind a server-reflexive one.
fn candidate_string(candidate: &(dyn Candidate + Send + Sync), ufrag: &str) -> String {
    let addr = candidate.addr();
    let (ip, kind) = (candidate.address(), candidate.candidate_type());
    let related = match (kind, addr.is_ipv4()) {
        (CandidateType::Host | CandidateType::Unspecified, _) => "",
        (_, true) => " raddr 0.0.0.0 rport 0",
        (_, false) => " raddr :: rport 0",
    };
    format!(
        "candidate:{} {} udp {} {ip} {} typ {kind}{related} ufrag {ufrag}",
        candidate.foundation(),
        candidate.component(),
        candidate.priority(),
        candidate.port(),
    )
}

/// Reads a candidate as gateways write it, without the extensions that `webrtc-ice` does not know.
///
/// # Errors
/// For anything but a UDP candidate of component 1 with a literal address.
fn parse_candidate(text: &str) -> anyhow::Result<Arc<dyn Candidate + Send + Sync>> {
    let rest = text.strip_prefix("candidate:");
    let rest = rest.context("no candidate: prefix")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let [
        foundation,
        component,
        transport,
        priority,
        ip,
        port,
        "typ",
        kind,
        extensions @ ..,
    ] = fields.as_slice()
    else {
        bail!("too few fields");
    };
    ensure!(
        *component == "1" && transport.eq_ignore_ascii_case("udp"),
        "not UDP component 1"
    );
    let priority: u32 = priority.parse().context("priority is not a number")?;
    let ip: IpAddr = ip.parse().context("address is not literal")?;
    let port: NonZeroU16 = port.parse().context("port is not a number above 0")?;
    let related = match extensions {
        ["raddr", raddr, "rport", rport, ..] => format!(" raddr {raddr} rport {rport}"),
        _ => String::new(),
    };
    let plain = format!("{foundation} 1 udp {priority} {ip} {port} typ {kind}{related}");
    Ok(Arc::new(unmarshal_candidate(&plain)?))
}

/// While connecting, a pair fails after this long without an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Silence after which a path counts as disturbed.
const DISCONNECTED_TIMEOUT: Duration = Duration::from_secs(5);
/// Further silence after which the path counts as lost. The sum of 20 s is close to that of the
/// Firezone client, 16.5 s and 2 s.
const FAILED_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause between two consent checks (RFC 7675).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// Wait for a direct pair before accepting a relayed one.
const RELAY_ACCEPTANCE_WAIT: Duration = Duration::from_millis(200);
/// Room for a burst of about 3000 full packets; the kernel may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
pub(super) mod tests;
