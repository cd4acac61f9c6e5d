//! The requirements of the gateway on its host, checked before anything is changed.
//!
//! Reports everything that is missing at once, with remedies. One small function gathers the facts,
//! and a pure one judges them, so that the judgement can be tested without a broken host.

use super::capabilities::NetAdmin;
use super::forwarding;
use super::masquerade::{self, MasqueradeError};
use super::netlink;
use super::sysctl::{self, Setting};
use crate::config::GatewayConfig;
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Checks whether a gateway with `config` can run here. Changes nothing.
///
/// # Errors
/// All problems, each with its remedy, the most fundamental first; never empty.
pub fn preflight(config: &GatewayConfig) -> Result<(), Vec<String>> {
    let problems = judge(config, &gather(config));
    match problems.is_empty() {
        true => Ok(()),
        false => Err(problems),
    }
}

/// The facts about the host.
#[derive(Debug)]
struct Facts {
    net_admin: NetAdmin,
    /// The result of opening `/dev/net/tun`.
    tun_device: Result<(), io::ErrorKind>,
    /// Whether an interface has the name of the TUN.
    interface_exists: bool,
    /// The result of binding the UDP port, in each family that the host has.
    udp_port: Result<(), io::ErrorKind>,
    ipv4_forwarding: Setting,
    /// Checked only if it is needed.
    nft: Result<(), MasqueradeError>,
}

fn gather(config: &GatewayConfig) -> Facts {
    let tun = OpenOptions::new().read(true).write(true).open(TUN_DEVICE);
    let tunnel = &config.tunnel;
    Facts {
        net_admin: NetAdmin::of_this_thread(),
        tun_device: tun.map(drop).map_err(|error| error.kind()),
        interface_exists: netlink::index(tunnel.interface.as_str()).is_ok(),
        udp_port: bind(config.network.udp_port).map_err(|error| error.kind()),
        ipv4_forwarding: sysctl::state(forwarding::IPV4),
        nft: match tunnel.masquerade {
            true => masquerade::probe(tunnel),
            false => Ok(()),
        },
    }
}

fn judge(config: &GatewayConfig, facts: &Facts) -> Vec<String> {
    let mut problems = Vec::new();
    let mut add = |what: String, remedy: &str| problems.push(format!("{what}; {remedy}"));
    let net_admin = "the capability CAP_NET_ADMIN is missing".to_owned();
    match facts.net_admin {
        NetAdmin::Effective => {}
        NetAdmin::HeldBack => add(net_admin, HELD_BACK_REMEDY),
        NetAdmin::Missing => add(net_admin, NET_ADMIN_REMEDY),
    }
    if let Err(kind) = facts.tun_device {
        let what = format!("{TUN_DEVICE} cannot be opened ({kind})");
        add(what, tun_remedy(kind));
    }
    let interface = &config.tunnel.interface;
    if facts.interface_exists {
        let what = format!("an interface {interface} exists already");
        add(what, INTERFACE_REMEDY);
    }
    let port = config.network.udp_port;
    if let Err(kind) = facts.udp_port {
        let what = format!("UDP port {port} cannot be used ({kind})");
        add(what, &port_remedy(port, kind));
    }
    let is_off = matches!(facts.ipv4_forwarding, Setting::Locked | Setting::Absent);
    if config.tunnel.forwarding && is_off {
        let what = "forwarding is off and cannot be switched on".to_owned();
        let or = "or set tunnel.forwarding = false to do without";
        add(what, &format!("{}, {or}", forwarding::REMEDY));
    }
    if let Err(error) = &facts.nft {
        // Without the capability nft fails too; the capability is reported already.
        if facts.net_admin == NetAdmin::Effective || matches!(error, MasqueradeError::NoNft) {
            let what = "tunnel.masquerade is on, but cannot be set up".to_owned();
            add(what, &error.to_string());
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
        return format!(
            "`ss -ulpn 'sport = :{port}'` shows who has it; stop that, or choose another with network.udp_port"
        );
    }
    let is_privileged = kind == io::ErrorKind::PermissionDenied;
    match is_privileged {
        true => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one with network.udp_port"
        }
        false => "choose another with network.udp_port",
    }
    .to_owned()
}

/// Binds the port in both families, one after the other, and closes the sockets. A missing family
/// is no problem.
fn bind(port: u16) -> io::Result<()> {
    for ip in [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Ipv6Addr::UNSPECIFIED.into(),
    ] {
        let address = SocketAddr::new(ip, port);
        let domain = Domain::for_address(address);
        let Ok(socket) = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)) else {
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
const INTERFACE_REMEDY: &str = "stop the other gateway that runs here, or remove the interface with `ip link delete`, or \
     choose another name with tunnel.interface";
const NET_ADMIN_REMEDY: &str = "docker: --cap-add NET_ADMIN; systemd: AmbientCapabilities=CAP_NET_ADMIN; by hand: start it as \
     root, for example with sudo";

const HELD_BACK_REMEDY: &str = "no-new-privileges keeps it back; docker: leave --security-opt no-new-privileges out, or run it as \
     root within the container with --user 0:0; systemd: AmbientCapabilities=CAP_NET_ADMIN";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load};
    use crate::system::netns::{in_private_netns, ip};

    fn config(more: &[(&str, &str)]) -> GatewayConfig {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("gateway.toml");
        std::fs::write(&path, "[portal]\nurl = \"ws://portal.example.com:1\"\n").expect("writable");
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
            ipv4_forwarding: Setting::Off,
            nft: Ok(()),
        }
    }

    #[test]
    fn a_healthy_host_has_no_problems() {
        assert_eq!(judge(&config(&[]), &healthy()), [""; 0]);
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once_with_its_remedy() {
        let facts = Facts {
            net_admin: NetAdmin::Missing,
            tun_device: Err(io::ErrorKind::NotFound),
            interface_exists: true,
            udp_port: Err(io::ErrorKind::AddrInUse),
            ipv4_forwarding: Setting::Locked,
            nft: Err(MasqueradeError::NoNft),
        };
        let shown = judge(&config(&[]), &facts);
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
    fn a_requirement_that_is_switched_off_is_not_reported() {
        let facts = Facts {
            ipv4_forwarding: Setting::Locked,
            ..healthy()
        };
        assert_eq!(
            judge(&config(&[("POSTERN__TUNNEL__FORWARDING", "false")]), &facts),
            [""; 0]
        );
    }

    #[test]
    fn a_failure_of_nft_without_privileges_is_not_a_second_problem() {
        let facts = Facts {
            net_admin: NetAdmin::Missing,
            nft: Err(MasqueradeError::Refused(
                "Operation not permitted".to_owned(),
            )),
            ..healthy()
        };
        assert_eq!(judge(&config(&[]), &facts).len(), 1);
    }

    #[test]
    fn a_capability_that_is_held_back_has_its_own_remedy() {
        let facts = Facts {
            net_admin: NetAdmin::HeldBack,
            ..healthy()
        };
        let shown = judge(&config(&[]), &facts);
        assert_eq!(shown.len(), 1, "{shown:?}");
        for clue in ["no-new-privileges", "--user 0:0", "AmbientCapabilities"] {
            assert!(shown[0].contains(clue), "{clue:?} in {shown:?}");
        }
    }

    #[test]
    fn a_real_host_is_checked() {
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
}
