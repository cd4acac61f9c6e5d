//! Forwarding in the kernel, without which no packet reaches a resource.
//!
//! Switched on when the configuration says so, and left on: other programs may depend on it by
//! then. IPv4 is required. IPv6 is set where the kernel has it; its absence is a warning, because a
//! container without IPv6 is common and its IPv4 resources are reachable.

use super::sysctl::{self, Setting};
use crate::config::TunnelConfig;
use std::fs;
use std::io;
use tracing::{info, warn};

pub(super) const IPV4: &str = "net/ipv4/ip_forward";
pub(super) const IPV6: &str = "net/ipv6/conf/all/forwarding";

/// The kernel refused to switch IPv4 forwarding on.
#[derive(Debug, thiserror::Error)]
#[error("forwarding is off and cannot be switched on ({source}); {REMEDY}")]
pub struct ForwardingError {
    source: io::Error,
}

/// The remedy when forwarding cannot be switched on.
pub(super) const REMEDY: &str = "set net.ipv4.ip_forward=1 for the gateway (docker: --sysctl net.ipv4.ip_forward=1; \
     otherwise: a file in /etc/sysctl.d), or run it with CAP_NET_ADMIN";

/// Switches forwarding on if `config` asks for it, and logs each setting that it changes.
///
/// # Errors
/// [`ForwardingError`] when IPv4 forwarding is wanted, off, and the kernel refuses.
pub fn enable(config: &TunnelConfig) -> Result<(), ForwardingError> {
    let (v4, v6) = (sysctl::state(IPV4), sysctl::state(IPV6));
    if !config.forwarding {
        if !matches!(v4, Setting::On) {
            warn!(
                "forwarding is off in the kernel and tunnel.forwarding is false: no packet will reach a resource"
            );
        }
        return Ok(());
    }
    if !matches!(v4, Setting::On) {
        sysctl::write(IPV4, "1").map_err(|source| ForwardingError { source })?;
        info!(
            sysctl = "net.ipv4.ip_forward",
            "switched on; it stays on after exit"
        );
    }
    if matches!(v6, Setting::Off | Setting::Locked) {
        enable_v6();
    }
    Ok(())
}

fn enable_v6() {
    // A forwarding host ignores router advertisements by default (kernel documentation, ip-sysctl,
    // accept_ra): it loses a default route that it learned from one.
    let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
    match sysctl::write(IPV6, "1") {
        Ok(()) => {
            info!(
                sysctl = "net.ipv6.conf.all.forwarding",
                "switched on; it stays on after exit"
            );
            if let Some(interface) = advertised_default_route(&routes) {
                warn!(
                    "the IPv6 default route over {interface} comes from router advertisements and expires now; \
                     set net.ipv6.conf.{interface}.accept_ra=2 to keep it"
                );
            }
        }
        Err(error) => warn!(
            %error,
            "IPv6 forwarding is off and cannot be switched on: IPv6 resources are unreachable; \
             set net.ipv6.conf.all.forwarding=1 (docker: --sysctl)"
        ),
    }
}

/// The interface of a default route that the kernel learned from a router advertisement, from the
/// text of `/proc/net/ipv6_route`: destination, its length, four more, metric, counters, flags,
/// interface. Netlink does not tell these routes, which expire, from those of a network manager,
/// which stay: both have the protocol "ra".
fn advertised_default_route(routes: &str) -> Option<&str> {
    routes.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, length, .., flags, interface] = fields.as_slice() else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_default = *length == "00" && destination.bytes().all(|digit| digit == b'0');
        (is_default && flags & RTF_ADDRCONF != 0).then_some(*interface)
    })
}

/// Learned from a router advertisement by the kernel (linux/ipv6_route.h).
const RTF_ADDRCONF: u32 = 0x0004_0000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::netns::in_private_netns;
    use proptest::prelude::*;

    fn config(forwarding: bool) -> TunnelConfig {
        TunnelConfig {
            forwarding,
            ..crate::system::netns::tunnel("postern0")
        }
    }

    #[test]
    fn switches_both_families_on_only_when_asked() {
        in_private_netns(|| {
            sysctl::write(IPV4, "0").expect("a setting");
            sysctl::write(IPV6, "0").expect("a setting");
            enable(&config(false)).expect("nothing to do");
            assert_eq!(
                (sysctl::state(IPV4), sysctl::state(IPV6)),
                (Setting::Off, Setting::Off)
            );
            enable(&config(true)).expect("permitted");
            assert_eq!(
                (sysctl::state(IPV4), sysctl::state(IPV6)),
                (Setting::On, Setting::On)
            );
            enable(&config(true)).expect("idempotent");
        });
    }

    #[test]
    fn finds_a_default_route_learned_from_an_advertisement() {
        let zero = "00000000000000000000000000000000";
        let gateway = "fe800000000000000000000000000001";
        let line = |flags: &str, name: &str| {
            format!("{zero} 00 {zero} 00 {gateway} 00000400 00000001 00000000 {flags}     {name}\n")
        };
        let learned = line("00450003", "eth0");
        let manual = line("00000003", "eth1");
        assert_eq!(
            advertised_default_route(&format!("{manual}{learned}")),
            Some("eth0")
        );
        assert_eq!(advertised_default_route(&manual), None);
        let network = learned.replacen(" 00 ", " 40 ", 1);
        assert_eq!(advertised_default_route(&network), None);
    }

    proptest! {
        #[test]
        fn arbitrary_route_tables_never_panic(text in "[0-9a-z \n]{0,200}") {
            let _ = advertised_default_route(&text);
        }
    }
}
