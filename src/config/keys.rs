//! The one list of keys: type, unit, default and meaning of each.
//!
//! The checks, `postern check` and the test of `config/gateway.toml` read this table; a key that is
//! not in it does not exist.

use super::schema::{Key, Kind, Presence, Scalar};

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

/// Every key, in the order of `config/gateway.toml`.
pub static KEYS: &[Key] = &[
    Key {
        path: "portal.url",
        kind: Kind::One(Scalar::PortalUrl),
        presence: Presence::Required,
        unit: "",
        example: "\"wss://portal.example.com\"",
        doc: "Base address of the portal's websocket.",
    },
    Key {
        path: "portal.token_file",
        kind: Kind::One(Scalar::Path),
        presence: Presence::Optional("the token comes from the environment or from systemd"),
        unit: "",
        example: "\"/etc/postern/token\"",
        doc: "File with the token that the portal issued for this gateway.",
    },
    Key {
        path: "portal.token",
        kind: Kind::One(Scalar::Secret),
        presence: Presence::EnvironmentOnly,
        unit: "",
        example: "POSTERN__PORTAL__TOKEN",
        doc: "The token itself.",
    },
    Key {
        path: "portal.id",
        kind: Kind::One(Scalar::Text),
        presence: Presence::Optional("kept in id_file"),
        unit: "",
        example: "\"edge-gateway-1\"",
        doc: "The name under which the portal knows this machine, for ever.",
    },
    Key {
        path: "portal.id_file",
        kind: Kind::One(Scalar::Path),
        presence: Presence::Default("\"/var/lib/postern/gateway_id\""),
        unit: "",
        example: "\"/var/lib/postern/gateway_id\"",
        doc: "Where the id is kept when it is not configured.",
    },
    Key {
        path: "portal.name",
        kind: Kind::One(Scalar::Text),
        presence: Presence::Optional("the host name"),
        unit: "",
        example: "\"Edge gateway, first floor\"",
        doc: "For people, in the portal's lists.",
    },
    Key {
        path: "portal.generation",
        kind: Kind::One(Scalar::Choice(&["auto", "v2", "v1"])),
        presence: Presence::Default("\"auto\""),
        unit: "",
        example: "\"auto\"",
        doc: "Which generation of the protocol to speak.",
    },
    Key {
        path: "portal.max_outage",
        kind: Kind::One(Scalar::Duration),
        presence: Presence::Default("\"24h\""),
        unit: "duration",
        example: "\"24h\"",
        doc: "How long to go on without the portal before giving up.",
    },
    Key {
        path: "network.udp_port",
        kind: Kind::One(Scalar::Integer {
            min: 0,
            max: 65_535,
        }),
        presence: Presence::Default("52625"),
        unit: "port; 0 lets the kernel choose",
        example: "52625",
        doc: "The one UDP port, for IPv4 and IPv6.",
    },
    Key {
        path: "network.interfaces",
        kind: Kind::List(Scalar::InterfacePattern),
        presence: Presence::Default("[]"),
        unit: "",
        example: "[\"eth0\", \"wlan*\"]",
        doc: "Interfaces whose addresses are offered to clients; empty means all.",
    },
    Key {
        path: "network.exclude_interfaces",
        kind: Kind::List(Scalar::InterfacePattern),
        presence: Presence::Default("[\"lo\", \"docker*\", \"br-*\", \"veth*\"]"),
        unit: "",
        example: "[\"lo\", \"docker*\"]",
        doc: "Interfaces whose addresses are not offered.",
    },
    Key {
        path: "network.stun_servers",
        kind: Kind::List(Scalar::SocketAddress),
        presence: Presence::Default("[]"),
        unit: "",
        example: "[\"192.0.2.1:3478\", \"[2001:db8::1]:3478\"]",
        doc: "STUN servers to ask for our public address, beside the portal's relays.",
    },
    Key {
        path: "network.receive_buffer_bytes",
        kind: Kind::One(Scalar::Integer {
            min: BUFFER_BYTES_MIN,
            max: BUFFER_BYTES_MAX,
        }),
        presence: Presence::Default("16777216"),
        unit: "bytes",
        example: "16777216",
        doc: "Receive buffer of each UDP socket.",
    },
    Key {
        path: "network.send_buffer_bytes",
        kind: Kind::One(Scalar::Integer {
            min: BUFFER_BYTES_MIN,
            max: BUFFER_BYTES_MAX,
        }),
        presence: Presence::Default("2097152"),
        unit: "bytes",
        example: "2097152",
        doc: "Send buffer of each UDP socket.",
    },
    Key {
        path: "tunnel.interface",
        kind: Kind::One(Scalar::InterfaceName),
        presence: Presence::Default("\"postern0\""),
        unit: "",
        example: "\"postern0\"",
        doc: "Name of the TUN interface.",
    },
    Key {
        path: "tunnel.masquerade",
        kind: Kind::One(Scalar::Flag),
        presence: Presence::Default("true"),
        unit: "",
        example: "true",
        doc: "Whether clients appear to resources under the gateway's own addresses.",
    },
    Key {
        path: "tunnel.forwarding",
        kind: Kind::One(Scalar::Flag),
        presence: Presence::Default("true"),
        unit: "",
        example: "true",
        doc: "Whether the gateway switches the kernel's forwarding on.",
    },
    Key {
        path: "tunnel.egress_interfaces",
        kind: Kind::List(Scalar::EgressPattern),
        presence: Presence::Default("[]"),
        unit: "",
        example: "[\"eth1\", \"ens*\"]",
        doc: "Interfaces to masquerade on; empty means every one but the tunnel's.",
    },
    Key {
        path: "dns.servers",
        kind: Kind::List(Scalar::DnsServer),
        presence: Presence::Default("[]"),
        unit: "",
        example: "[\"10.0.0.53\", \"tls://10.0.0.54#dns.corp.example\"]",
        doc: "Name servers to ask; empty means those of /etc/resolv.conf.",
    },
    Key {
        path: "dns.suffixes",
        kind: Kind::List(Scalar::DnsSuffix),
        presence: Presence::Default("[]"),
        unit: "",
        example: "[\"corp.example=10.1.0.53\"]",
        doc: "Name servers for a domain and all names below it.",
    },
    Key {
        path: "dns.ca_file",
        kind: Kind::One(Scalar::Path),
        presence: Presence::Optional("encrypted servers need a certificate of a public authority"),
        unit: "",
        example: "\"/etc/postern/dns-ca.pem\"",
        doc: "Certificates trusted for encrypted name servers beside the public ones.",
    },
    Key {
        path: "dns.min_ttl",
        kind: Kind::One(Scalar::Duration),
        presence: Presence::Default("\"5s\""),
        unit: "duration",
        example: "\"5s\"",
        doc: "Addresses are kept at least this long.",
    },
    Key {
        path: "dns.max_ttl",
        kind: Kind::One(Scalar::Duration),
        presence: Presence::Default("\"1h\""),
        unit: "duration",
        example: "\"1h\"",
        doc: "Addresses are kept no longer than this.",
    },
    Key {
        path: "dns.nat64",
        kind: Kind::One(Scalar::Flag),
        presence: Presence::Default("false"),
        unit: "",
        example: "false",
        doc: "Whether addresses in 64:ff9b::/96 lead anywhere from here.",
    },
    Key {
        path: "dns.last_known_good",
        kind: Kind::One(Scalar::Duration),
        presence: Presence::Default("\"24h\""),
        unit: "duration",
        example: "\"24h\"",
        doc: "How long resources keep their addresses when they cannot be looked up anew.",
    },
    Key {
        path: "dns.lookups_per_client",
        kind: Kind::One(Scalar::Integer { min: 1, max: 512 }),
        presence: Presence::Default("16"),
        unit: "names",
        example: "16",
        doc: "Names looked up at one time on behalf of one client; more wait.",
    },
    Key {
        path: "limits.clients",
        kind: Kind::One(Scalar::Integer {
            min: 1,
            max: 1_000_000,
        }),
        presence: Presence::Default("10000"),
        unit: "clients",
        example: "10000",
        doc: "Clients connected at one time; more are refused.",
    },
    Key {
        path: "limits.resources_per_client",
        kind: Kind::One(Scalar::Integer {
            min: 1,
            max: 65_536,
        }),
        presence: Presence::Default("1024"),
        unit: "resources",
        example: "1024",
        doc: "Resources granted to one client at one time; more are refused.",
    },
    Key {
        path: "limits.handshakes_per_second",
        kind: Kind::One(Scalar::Integer {
            min: 1,
            max: 1_000_000,
        }),
        presence: Presence::Default("100"),
        unit: "handshakes per second",
        example: "100",
        doc: "WireGuard handshakes answered before senders must prove their address by a cookie.",
    },
    Key {
        path: "limits.flows",
        kind: Kind::One(Scalar::Integer {
            min: 1024,
            max: 16_777_216,
        }),
        presence: Presence::Default("262144"),
        unit: "flows",
        example: "262144",
        doc: "Flows of all clients to names at one time; the oldest unanswered ones give way.",
    },
    Key {
        path: "limits.flows_per_client",
        kind: Kind::One(Scalar::Integer {
            min: 16,
            max: 32_768,
        }),
        presence: Presence::Default("16384"),
        unit: "flows",
        example: "16384",
        doc: "Flows of one client to names at one time; its oldest unanswered ones give way.",
    },
    Key {
        path: "state.enabled",
        kind: Kind::One(Scalar::Flag),
        presence: Presence::Default("true"),
        unit: "",
        example: "true",
        doc: "Whether a restarted gateway takes its clients over from the process before it.",
    },
    Key {
        path: "state.file",
        kind: Kind::One(Scalar::Path),
        presence: Presence::Default("\"/run/postern/gateway.state\""),
        unit: "",
        example: "\"/run/postern/gateway.state\"",
        doc: "Where the clients are written down for the next process; never on a disk.",
    },
    Key {
        path: "state.handover",
        kind: Kind::One(Scalar::Flag),
        presence: Presence::Default("false"),
        unit: "",
        example: "false",
        doc: "Whether SIGTERM leaves the clients to the next process instead of saying goodbye.",
    },
    Key {
        path: "state.max_age",
        kind: Kind::One(Scalar::Duration),
        presence: Presence::Default("\"5m\""),
        unit: "duration",
        example: "\"5m\"",
        doc: "Clients are not taken over from a file that is older.",
    },
    Key {
        path: "admin.socket",
        kind: Kind::One(Scalar::Path),
        presence: Presence::Default("\"/run/postern/admin.sock\""),
        unit: "",
        example: "\"/run/postern/admin.sock\"",
        doc: "Where the gateway's own user and root ask how it is, and tell it to drain.",
    },
    Key {
        path: "admin.listen",
        kind: Kind::List(Scalar::SocketAddress),
        presence: Presence::Default("[\"127.0.0.1:9599\"]"),
        unit: "",
        example: "[\"127.0.0.1:9599\"]",
        doc: "Where probes and Prometheus ask; empty means nowhere.",
    },
    Key {
        path: "log.format",
        kind: Kind::One(Scalar::Choice(&["text", "json"])),
        presence: Presence::Default("\"text\""),
        unit: "",
        example: "\"text\"",
        doc: "How log lines are written to stderr.",
    },
    Key {
        path: "log.filter",
        kind: Kind::One(Scalar::LogFilter),
        presence: Presence::Default("\"info\""),
        unit: "",
        example: "\"info,postern::actors=debug\"",
        doc: "What is logged.",
    },
];

/// The kernel's own minimum is 2304 bytes; below 64 KiB one super-packet does not fit.
const BUFFER_BYTES_MIN: i64 = 65_536;
/// The kernel doubles the value in a signed 32-bit number.
const BUFFER_BYTES_MAX: i64 = 1_073_741_823;
