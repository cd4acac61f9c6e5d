//! The one list of keys: name, type, default, range, unit, example and meaning of each, and whether
//! it changes in place.
//!
//! Everything else comes from this list ([`settings`]): the typed configuration, the checks of file
//! and environment, `postern check`, what a reload takes over, and the test of
//! `config/gateway.toml`. A key that is not in it does not exist.

use super::dns::{DnsServer, DnsSuffix};
use super::kinds::{Generation, LogFormat, Setting};
use super::schema::{Change, Key, Presence, settings};
use super::secret::Secret;
use super::values::{EgressPattern, InterfaceName, InterfacePattern, LogFilter};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

settings! {
    /// The control plane, and this gateway's identity at it.
    portal: PortalConfig {
        /// Base address of the portal's websocket.
        url: Url = (required), Restart { example: "\"wss://portal.example.com\"", }
        /// File with the token that the portal issued for this gateway.
        token_file: Option<PathBuf> = (unset: "the token comes from the environment or from systemd"),
            Restart { example: "\"/etc/postern/token\"", }
        /// The token itself: printable ASCII without spaces, never empty.
        token: Secret = (environment), Restart { example: "POSTERN__PORTAL__TOKEN", }
        /// The permanent name of this machine at the portal.
        id: Option<String> = (unset: "kept in id_file"), Restart { example: "\"edge-gateway-1\"", }
        /// Where the id is kept when it is not configured.
        id_file: PathBuf = "/var/lib/postern/gateway_id", Restart {}
        /// For people, in the portal's lists.
        name: Option<String> = (unset: "the host name"),
            Restart { example: "\"Edge gateway, first floor\"", }
        /// Which generation of the protocol to speak.
        generation: Generation = "auto", Restart {}
        /// How long to go on without the portal before giving up.
        max_outage: Duration = "24h", InPlace { unit: "duration", }
    }

    /// The outside: sockets and addresses.
    network: NetworkConfig {
        /// The one UDP port, for IPv4 and IPv6; 0 lets the kernel choose.
        udp_port: u16 = 52625, Restart { unit: "port", range: Some(0..=65_535), }
        /// Interfaces whose addresses are offered to clients; empty means all.
        interfaces: Vec<InterfacePattern> = [], InPlace { example: r#"["eth0", "wlan*"]"#, }
        /// Interfaces whose addresses are not offered.
        exclude_interfaces: Vec<InterfacePattern> = ["lo", "docker*", "br-*", "veth*"],
            InPlace { example: r#"["lo", "docker*"]"#, }
        /// STUN servers to ask for our public address, beside the portal's relays.
        stun_servers: Vec<SocketAddr> = [],
            InPlace { example: r#"["192.0.2.1:3478", "[2001:db8::1]:3478"]"#, }
        /// Receive buffer (`SO_RCVBUF`) of each UDP socket.
        receive_buffer_bytes: usize = 16777216, Restart { unit: "bytes", range: BUFFER_BYTES, }
        /// Send buffer (`SO_SNDBUF`) of each UDP socket.
        send_buffer_bytes: usize = 2097152, Restart { unit: "bytes", range: BUFFER_BYTES, }
    }

    /// The inside: the TUN interface and the way to the resources.
    tunnel: TunnelConfig {
        /// Name of the TUN interface.
        interface: InterfaceName = "postern0", Restart {}
        /// Threads that carry packets, each for a part of the clients.
        shards: Option<u8> = (unset: "one for each core that the gateway may use, at most 8"),
            Restart { unit: "threads", range: Some(1..=64), example: "2", }
        /// Whether clients appear to resources under the gateway's own addresses.
        masquerade: bool = true, Restart {}
        /// Whether the gateway switches the kernel's forwarding on.
        forwarding: bool = true, Restart {}
        /// Interfaces to masquerade on; empty means every one but the tunnel's.
        egress_interfaces: Vec<EgressPattern> = [], Restart { example: r#"["eth1", "ens*"]"#, }
    }

    /// The name servers. No public server is ever a default.
    dns: DnsConfig {
        /// Name servers to ask; empty means those of /etc/resolv.conf.
        servers: Vec<DnsServer> = [],
            InPlace { example: r#"["10.0.0.53", "tls://10.0.0.54#dns.corp.example"]"#, }
        /// Name servers for a domain and all names below it.
        suffixes: Vec<DnsSuffix> = [], InPlace { example: r#"["corp.example=10.1.0.53"]"#, }
        /// Certificates (PEM) trusted for encrypted name servers beside the public ones.
        ca_file: Option<PathBuf> =
            (unset: "encrypted servers need a certificate of a public authority"),
            InPlace { example: "\"/etc/postern/dns-ca.pem\"", }
        /// Addresses are kept at least this long.
        min_ttl: Duration = "5s", InPlace { unit: "duration", }
        /// Addresses are kept no longer than this.
        max_ttl: Duration = "1h", InPlace { unit: "duration", }
        /// Whether addresses in 64:ff9b::/96 lead anywhere from here.
        nat64: bool = false, InPlace {}
        /// How long resources keep their addresses while lookups of them fail.
        last_known_good: Duration = "24h", InPlace { unit: "duration", }
        /// Names looked up at one time on behalf of one client; more wait.
        lookups_per_client: usize = 16, InPlace { unit: "names", range: Some(1..=512), }
    }

    /// What one gateway takes on.
    limits: LimitsConfig {
        /// Clients connected at one time; more are refused.
        clients: usize = 10000, InPlace { unit: "clients", range: Some(1..=1_000_000), }
        /// Resources granted to one client at one time; more are refused.
        resources_per_client: usize = 1024,
            InPlace { unit: "resources", range: Some(1..=65_536), }
        /// WireGuard handshakes answered before senders must prove their address by a cookie.
        handshakes_per_second: u32 = 2000,
            InPlace { unit: "handshakes per second", range: Some(1..=1_000_000), }
        /// Flows of all clients to names at one time; the oldest unanswered ones give way.
        flows: u32 = 262144, InPlace { unit: "flows", range: Some(1024..=16_777_216), }
        /// Flows of one client to names at one time; its oldest unanswered ones give way.
        flows_per_client: u32 = 16384, InPlace { unit: "flows", range: Some(16..=32_768), }
    }

    /// What the next process takes over.
    state: StateConfig {
        /// Whether a restarted gateway takes its clients over from the process before it.
        enabled: bool = true, Restart {}
        /// Where the clients are written down for the next process; never on a disk.
        file: PathBuf = "/run/postern/gateway.state", Restart {}
        /// Whether SIGTERM leaves the clients to the next process instead of saying goodbye.
        handover: bool = false, InPlace {}
        /// Clients are not taken over from a file that is older.
        max_age: Duration = "5m", InPlace { unit: "duration", }
    }

    /// Where the operator asks.
    admin: AdminConfig {
        /// Unix socket of the operator's commands, for the gateway's own user and root.
        socket: PathBuf = "/run/postern/admin.sock", Restart {}
        /// Where probes and Prometheus ask over TCP, and anybody on a loopback address the status;
        /// empty means nowhere.
        listen: Vec<SocketAddr> = ["127.0.0.1:9599"], Restart {}
    }

    /// What is logged, and how.
    log: LogConfig {
        /// How log lines are written to stderr.
        format: LogFormat = "text", Restart {}
        /// Which events are logged, as `tracing` directives.
        filter: LogFilter = "info", InPlace { example: "\"info,postern::actors=debug\"", }
    }
}

/// Keys whose values differ between two configurations, in the order of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Taken over while the gateway runs.
    pub in_place: Vec<&'static str>,
    /// The gateway keeps the old values until it is restarted.
    pub needs_restart: Vec<&'static str>,
}

impl GatewayConfig {
    /// The keys that a reload of `wanted` changes.
    #[must_use]
    pub fn changes(&self, wanted: &Self) -> Changes {
        let mut changes = Changes::default();
        for (key, _) in KEYS.iter().zip(self.differing(wanted)).filter(|it| it.1) {
            match key.change {
                Change::InPlace => changes.in_place.push(key.path),
                Change::Restart => changes.needs_restart.push(key.path),
            }
        }
        changes
    }
}

impl TunnelConfig {
    /// As many shards as configured; else one for each core that the process may use, up to a
    /// limit.
    #[must_use]
    pub fn shards(&self) -> u8 {
        self.shards.unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
            u8::try_from(cores).map_or(SHARDS_UNASKED_MAX, |cores| cores.min(SHARDS_UNASKED_MAX))
        })
    }
}

/// The key with this path.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The sections of the file, in order.
#[must_use]
pub fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&'static str> = KEYS.iter().map(|key| key.parts().0).collect();
    sections.dedup();
    sections
}

/// The kernel's own minimum is 2304 bytes; below 64 KiB one super-packet does not fit. The kernel
/// doubles the value in a signed 32-bit number.
const BUFFER_BYTES: Option<std::ops::RangeInclusive<i64>> = Some(65_536..=1_073_741_823);
/// More threads than this are of use to few, and each keeps buffers for itself.
const SHARDS_UNASKED_MAX: u8 = 8;
