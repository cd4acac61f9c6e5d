//! What the gateway needs of its host, checked before anything is changed.
//!
//! Everything that is missing is named at once, each with its remedy. The facts are gathered by one
//! small function and judged by another that is pure, so that the judgement can be tested without a
//! broken host.

use super::forwarding;
use super::masquerade::{self, MasqueradeError};
use super::netlink;
use super::sysctl::{self, Switch};
use crate::config::GatewayConfig;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Something that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Whether a gateway with `config` can run here. Changes nothing.
///
/// # Errors
///
/// Every [`Problem`], the most fundamental first; never empty.
pub fn preflight(config: &GatewayConfig) -> Result<(), Vec<Problem>> {
    let problems = judge(config, &gather(config));
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// What was found on the host.
#[derive(Debug)]
struct Facts {
    net_admin: NetAdmin,
    /// Opening `/dev/net/tun`.
    tun_device: Result<(), io::ErrorKind>,
    /// Whether some interface has the name of ours.
    interface_exists: bool,
    /// Binding the UDP port, for each family that the host has.
    udp_port: Result<(), io::ErrorKind>,
    ipv4_forwarding: Switch,
    /// Only when it is needed.
    nft: Result<(), MasqueradeError>,
}

/// The capability, and why it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NetAdmin {
    Effective,
    /// The program's file would give it, or a parent could, but `no_new_privs` keeps it back.
    HeldBack,
    Missing,
}

fn gather(config: &GatewayConfig) -> Facts {
    let tun = OpenOptions::new().read(true).write(true).open(TUN_DEVICE);
    let tunnel = &config.tunnel;
    Facts {
        net_admin: net_admin(&fs::read_to_string("/proc/thread-self/status").unwrap_or_default()),
        tun_device: tun.map(drop).map_err(|error| error.kind()),
        interface_exists: netlink::index(tunnel.interface.as_str()).is_ok(),
        udp_port: bind(config.network.udp_port).map_err(|error| error.kind()),
        ipv4_forwarding: sysctl::state(forwarding::IPV4),
        nft: if tunnel.masquerade {
            masquerade::probe(tunnel)
        } else {
            Ok(())
        },
    }
}

fn judge(config: &GatewayConfig, facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |what: String, remedy: &str| {
        problems.push(Problem {
            what,
            remedy: remedy.to_owned(),
        });
    };
    if let Some(remedy) = net_admin_remedy(facts.net_admin) {
        add("the capability CAP_NET_ADMIN is missing".to_owned(), remedy);
    }
    if let Err(kind) = facts.tun_device {
        add(
            format!("{TUN_DEVICE} cannot be opened ({kind})"),
            tun_remedy(kind),
        );
    }
    let interface = &config.tunnel.interface;
    if facts.interface_exists {
        add(
            format!("an interface {interface} exists already"),
            "stop the other gateway that runs here, or remove the interface with `ip link delete`, or choose another \
             name with tunnel.interface",
        );
    }
    let port = config.network.udp_port;
    if let Err(kind) = facts.udp_port {
        add(
            format!("UDP port {port} cannot be used ({kind})"),
            &port_remedy(port, kind),
        );
    }
    let off = matches!(facts.ipv4_forwarding, Switch::Locked | Switch::Absent);
    if config.tunnel.forwarding && off {
        add(
            "forwarding is off and cannot be switched on".to_owned(),
            &format!(
                "{}, or set tunnel.forwarding = false to do without",
                forwarding::REMEDY
            ),
        );
    }
    if let Err(error) = &facts.nft {
        // Without the capability nft cannot but fail; that has been said.
        if facts.net_admin == NetAdmin::Effective || matches!(error, MasqueradeError::NoNft) {
            add(
                "tunnel.masquerade is on, but cannot be set up".to_owned(),
                &error.to_string(),
            );
        }
    }
    problems
}

fn tun_remedy(kind: io::ErrorKind) -> &'static str {
    if kind == io::ErrorKind::NotFound {
        "load the driver with `modprobe tun`; in docker add --device /dev/net/tun; in a bare container \
         `mkdir -p /dev/net && mknod /dev/net/tun c 10 200`"
    } else if kind == io::ErrorKind::PermissionDenied {
        "give the gateway's user access to it (mode 0666 is usual); in docker add --device /dev/net/tun"
    } else {
        "load the driver with `modprobe tun`, or use a kernel that has it (CONFIG_TUN)"
    }
}

fn port_remedy(port: u16, kind: io::ErrorKind) -> String {
    if kind == io::ErrorKind::AddrInUse {
        format!(
            "`ss -ulpn 'sport = :{port}'` shows who has it; stop that, or choose another with network.udp_port"
        )
    } else if kind == io::ErrorKind::PermissionDenied {
        "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one with network.udp_port"
            .to_owned()
    } else {
        "choose another with network.udp_port".to_owned()
    }
}

/// What the text of `/proc/*/status` says about CAP_NET_ADMIN.
fn net_admin(status: &str) -> NetAdmin {
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
    };
    let holds = |name: &str| field(name).is_some_and(|bits| bits & CAP_NET_ADMIN != 0);
    if holds("CapEff:") {
        NetAdmin::Effective
    } else if holds("CapBnd:") && field("NoNewPrivs:") == Some(1) {
        NetAdmin::HeldBack
    } else {
        NetAdmin::Missing
    }
}

fn net_admin_remedy(found: NetAdmin) -> Option<&'static str> {
    match found {
        NetAdmin::Effective => None,
        NetAdmin::HeldBack => Some(HELD_BACK_REMEDY),
        NetAdmin::Missing => Some(NET_ADMIN_REMEDY),
    }
}

/// Binds the port in both families, one after the other, and lets it go again. A family that the
/// host does not have is no problem.
fn bind(port: u16) -> io::Result<()> {
    for ip in [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ] {
        let address = SocketAddr::new(ip, port);
        let Ok(socket) = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        ) else {
            continue;
        };
        if ip.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        match socket.bind(&address.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            bound => bound?,
        }
    }
    Ok(())
}

const TUN_DEVICE: &str = "/dev/net/tun";
/// Bit 12 (linux/capability.h).
const CAP_NET_ADMIN: u64 = 1 << 12;
const NET_ADMIN_REMEDY: &str = "docker: --cap-add NET_ADMIN; systemd: AmbientCapabilities=CAP_NET_ADMIN; by hand: start it as \
     root, for example with sudo";

const HELD_BACK_REMEDY: &str = "no-new-privileges keeps it back; docker: leave --security-opt no-new-privileges out, or run it as \
     root within the container with --user 0:0; systemd: AmbientCapabilities=CAP_NET_ADMIN";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load};
    use crate::system::netns::{in_private_netns, ip};
    use proptest::prelude::*;

    fn config(more: &[(&str, &str)]) -> GatewayConfig {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("gateway.toml");
        fs::write(&path, "[portal]\nurl = \"ws://portal.example.com:1\"\n").expect("writable");
        let token = [("POSTERN__PORTAL__TOKEN", "t")];
        let environment = Environment::new(more.iter().chain(&token).copied());
        load(&path, &environment).expect("valid").config
    }

    fn healthy() -> Facts {
        Facts {
            net_admin: NetAdmin::Effective,
            tun_device: Ok(()),
            interface_exists: false,
            udp_port: Ok(()),
            ipv4_forwarding: Switch::Off,
            nft: Ok(()),
        }
    }

    fn shown(config: &GatewayConfig, facts: &Facts) -> Vec<String> {
        judge(config, facts)
            .iter()
            .map(Problem::to_string)
            .collect()
    }

    #[test]
    fn a_healthy_host_has_no_problems() {
        assert_eq!(shown(&config(&[]), &healthy()), [""; 0]);
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once_with_its_remedy() {
        let facts = Facts {
            net_admin: NetAdmin::Missing,
            tun_device: Err(io::ErrorKind::NotFound),
            interface_exists: true,
            udp_port: Err(io::ErrorKind::AddrInUse),
            ipv4_forwarding: Switch::Locked,
            nft: Err(MasqueradeError::NoNft),
        };
        let shown = shown(&config(&[]), &facts);
        let clues = [
            [
                "CAP_NET_ADMIN",
                "--cap-add NET_ADMIN",
                "AmbientCapabilities",
                "sudo",
            ],
            [
                "/dev/net/tun",
                "modprobe tun",
                "--device /dev/net/tun",
                "mknod",
            ],
            [
                "postern0 exists",
                "stop",
                "ip link delete",
                "tunnel.interface",
            ],
            [
                "UDP port 52625",
                "ss -ulpn",
                "sport = :52625",
                "network.udp_port",
            ],
            [
                "forwarding is off",
                "net.ipv4.ip_forward=1",
                "--sysctl",
                "tunnel.forwarding = false",
            ],
            [
                "tunnel.masquerade",
                "nft",
                "install",
                "tunnel.masquerade = false",
            ],
        ];
        assert_eq!(shown.len(), clues.len(), "{shown:#?}");
        for (line, clues) in shown.iter().zip(clues) {
            for clue in clues {
                assert!(line.contains(clue), "{clue:?} in {line:?}");
            }
            assert!(!line.contains('\n'), "{line:?}");
        }
    }

    #[test]
    fn what_the_configuration_does_not_ask_for_is_not_missed() {
        let facts = Facts {
            ipv4_forwarding: Switch::Locked,
            ..healthy()
        };
        assert_eq!(
            shown(&config(&[("POSTERN__TUNNEL__FORWARDING", "false")]), &facts),
            [""; 0]
        );
    }

    #[test]
    fn a_failure_of_nft_that_follows_from_missing_privileges_is_not_a_problem_of_its_own() {
        let facts = Facts {
            net_admin: NetAdmin::Missing,
            nft: Err(MasqueradeError::Refused(
                "Operation not permitted".to_owned(),
            )),
            ..healthy()
        };
        assert_eq!(shown(&config(&[]), &facts).len(), 1);
    }

    #[test]
    fn capabilities_are_read_from_the_status_of_the_process() {
        let status = |no_new_privs: &str, bounding: &str, effective: &str| {
            format!(
                "Name:\tx\nCapPrm:\t0000000000001000\nCapEff:\t{effective}\nCapBnd:\t{bounding}\n\
                 NoNewPrivs:\t{no_new_privs}\n"
            )
        };
        let (with, without) = ("0000000000001000", "0000000000000000");
        for (status, expected) in [
            (status("0", with, with), NetAdmin::Effective),
            (status("1", with, with), NetAdmin::Effective),
            (status("1", with, without), NetAdmin::HeldBack),
            (status("0", with, without), NetAdmin::Missing),
            (status("1", without, without), NetAdmin::Missing),
            (String::new(), NetAdmin::Missing),
        ] {
            assert_eq!(net_admin(&status), expected, "{status}");
        }
    }

    #[test]
    fn a_capability_that_is_held_back_has_a_remedy_of_its_own() {
        let facts = Facts {
            net_admin: NetAdmin::HeldBack,
            ..healthy()
        };
        let shown = shown(&config(&[]), &facts);
        assert_eq!(shown.len(), 1, "{shown:?}");
        for clue in ["no-new-privileges", "--user 0:0", "AmbientCapabilities"] {
            assert!(shown[0].contains(clue), "{clue:?} in {shown:?}");
        }
    }

    #[test]
    fn a_real_host_is_judged_by_its_facts() {
        in_private_netns(|| {
            let config = config(&[]);
            assert_eq!(preflight(&config), Ok(()));
            ip("tuntap add dev postern0 mode tun");
            for address in ["0.0.0.0:52625", "[::]:52625"] {
                let taken = std::net::UdpSocket::bind(address).expect("free");
                let problems = preflight(&config).expect_err("two problems");
                assert_eq!(problems.len(), 2, "{problems:?}");
                drop(taken);
            }
            ip("link delete postern0");
            assert_eq!(preflight(&config), Ok(()));
        });
    }

    proptest! {
        #[test]
        fn arbitrary_status_files_never_panic(status in "(CapEff:|CapBnd:)?[0-9a-fg\t\n]{0,60}") {
            let _ = net_admin(&status);
        }
    }
}
