//! The interface that applications see, and the routes into it.
//!
//! The interface belongs to the process and goes with it. Routes live in a table of their own,
//! which every socket uses but those that carry [`SOCKET_MARK`]: so a gateway, relay or portal
//! whose address lies inside a resource's network is still reached from outside the tunnel.
//! Addresses and routes are set by running `ip`. Source: docs/protocol.md 5.7 and 6.

use super::stub;
use super::wire::Interface;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tun_rs::{AsyncDevice, DeviceBuilder};

/// Mark on every socket of this process that must not be routed into the tunnel ("post" in ASCII).
pub const SOCKET_MARK: u32 = 0x706f_7374;

/// Takes packets out of the tunnel to where applications get them.
pub trait PacketSink: Send + Sync {
    /// Hands one IP packet over, or drops it when there is no room.
    fn deliver(&self, packet: &[u8]);
}

impl PacketSink for AsyncDevice {
    fn deliver(&self, packet: &[u8]) {
        if let Err(error) = self.try_send(packet) {
            tracing::trace!(%error, "the kernel refuses a packet");
        }
    }
}

/// What can go wrong with the interface.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The interface cannot be created.
    #[error(
        "cannot create the interface {name}: {error}; it needs CAP_NET_ADMIN, /dev/net/tun, and a \
         name that nobody uses (tunnel.interface)"
    )]
    Create {
        /// Which.
        name: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// `ip` cannot be run.
    #[error("cannot run `ip` (package iproute2): {0}")]
    Run(#[from] io::Error),
    /// `ip` refuses.
    #[error("`ip` refuses to configure the interface: {0}")]
    Refused(String),
}

/// The interface with its addresses, routes and rules. Dropping it removes all of them.
pub struct Tunnel {
    device: Arc<AsyncDevice>,
    name: String,
    table: u32,
    current: Option<(Interface, BTreeSet<IpNet>)>,
}

impl Tunnel {
    /// Creates the interface, up, with the addresses on which the client answers DNS queries and
    /// no others: packets to them are delivered within the host, and need no route.
    ///
    /// # Errors
    /// [`TunnelError`], with the remedy.
    pub async fn create(name: &str) -> Result<Self, TunnelError> {
        let refused = |error| TunnelError::Create {
            name: name.to_owned(),
            error,
        };
        let device = DeviceBuilder::new()
            .name(name)
            .mtu(MTU)
            .enable(false)
            .build_async()
            .map_err(refused)?;
        let index = nix::net::if_::if_nametoindex(name).map_err(|errno| refused(errno.into()))?;
        let tunnel = Self {
            device: Arc::new(device),
            name: name.to_owned(),
            // One table for each interface, so that two clients do not share one.
            table: TABLE_BASE + index,
            current: None,
        };
        // Without link-local addresses the kernel sends no router solicitations into the tunnel.
        tunnel
            .ip(format!(
                "link set dev {name} addrgenmode none\nlink set dev {name} up\n"
            ))
            .await?;
        tunnel.add_rules().await?;
        if let Err(error) = tunnel.ip(resolver_addresses(name)).await {
            tracing::warn!(%error, "an address for DNS queries is missing");
        }
        Ok(tunnel)
    }

    /// The packets of applications, and the way back.
    #[must_use]
    pub fn device(&self) -> Arc<AsyncDevice> {
        Arc::clone(&self.device)
    }

    /// Gives the interface these addresses, and routes to these networks and to other tunnel
    /// addresses. Changes only what differs.
    ///
    /// # Errors
    /// [`TunnelError::Refused`] when some of it failed; the rest is in place (a host without IPv6,
    /// say).
    pub async fn configure(
        &mut self,
        addresses: Interface,
        mut networks: BTreeSet<IpNet>,
    ) -> Result<(), TunnelError> {
        networks.extend(
            TUNNEL_RANGES
                .iter()
                .filter_map(|net| net.parse::<IpNet>().ok()),
        );
        let wanted = (addresses, networks);
        if self.current.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let script = script(&self.name, self.table, self.current.as_ref(), &wanted);
        self.current = Some(wanted);
        self.ip(script).await
    }

    async fn add_rules(&self) -> Result<(), TunnelError> {
        for family in ["-4", "-6"] {
            let output = Command::new("ip")
                .args(rule(family, "add", self.table))
                .output()
                .await?;
            if !output.status.success() {
                let error = String::from_utf8_lossy(&output.stderr);
                tracing::warn!(family, error = error.trim(), "no tunnel for this family");
            }
        }
        Ok(())
    }

    async fn ip(&self, script: String) -> Result<(), TunnelError> {
        let mut child = Command::new("ip")
            .args(["-force", "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if output.status.success() {
            return Ok(());
        }
        let error = String::from_utf8_lossy(&output.stderr).replace('\n', "; ");
        Err(TunnelError::Refused(error))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // Rules outlive the interface; they must go even when the runtime is already gone.
        for family in ["-4", "-6"] {
            let _ = std::process::Command::new("ip")
                .args(rule(family, "del", self.table))
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn rule(family: &str, action: &str, table: u32) -> Vec<String> {
    let (priority, mark, table) = (
        RULE_PRIORITY.to_string(),
        format!("{SOCKET_MARK:#x}"),
        table.to_string(),
    );
    let words = [
        family, "rule", action, "priority", &priority, "not", "fwmark", &mark, "lookup", &table,
    ];
    words.map(str::to_owned).to_vec()
}

fn resolver_addresses(name: &str) -> String {
    let (ipv4, ipv6) = (stub::IPV4, stub::IPV6);
    format!("addr replace {ipv4}/32 dev {name}\naddr replace {ipv6}/128 dev {name} nodad\n")
}

/// The lines for `ip -batch` that lead from `current` to `wanted`.
fn script(
    name: &str,
    table: u32,
    current: Option<&(Interface, BTreeSet<IpNet>)>,
    wanted: &(Interface, BTreeSet<IpNet>),
) -> String {
    let (addresses, networks) = wanted;
    let mut lines = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        writeln!(lines, "{text}").expect("writing to a string does not fail");
    };
    if let Some((old, old_networks)) = current {
        for gone in old_networks.difference(networks) {
            line(format_args!("route del {gone} dev {name} table {table}"));
        }
        if old.ipv4 != addresses.ipv4 {
            line(format_args!("addr del {}/32 dev {name}", old.ipv4));
        }
        if old.ipv6 != addresses.ipv6 {
            line(format_args!("addr del {}/128 dev {name}", old.ipv6));
        }
    }
    line(format_args!(
        "addr replace {}/32 dev {name}",
        addresses.ipv4
    ));
    line(format_args!(
        "addr replace {}/128 dev {name} nodad",
        addresses.ipv6
    ));
    for net in networks {
        let source: std::net::IpAddr = match net {
            IpNet::V4(_) => addresses.ipv4.into(),
            IpNet::V6(_) => addresses.ipv6.into(),
        };
        line(format_args!(
            "route replace {} dev {name} src {source} table {table}",
            net.trunc()
        ));
    }
    lines
}

/// Both ends of the tunnel use it (docs/protocol.md 5.7.
const MTU: u16 = 1280;
/// Addresses of clients and gateways.
const TUNNEL_RANGES: [&str; 2] = ["100.64.0.0/11", "fd00:2021:1111::/107"];
/// Before the main table (32766).
const RULE_PRIORITY: u32 = 100;
/// Far from the tables that people number by hand.
const TABLE_BASE: u32 = 0x706f_0000;

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(last: u8) -> Interface {
        Interface {
            ipv4: [100, 64, 1, last].into(),
            ipv6: format!("fd00:2021:1111::{last}").parse().expect("valid"),
        }
    }

    fn nets(nets: &[&str]) -> BTreeSet<IpNet> {
        nets.iter().map(|net| net.parse().expect("valid")).collect()
    }

    #[test]
    fn first_configuration_sets_addresses_then_routes() {
        let wanted = (interface(2), nets(&["10.20.0.0/24", "2001:db8:20::/64"]));
        assert_eq!(
            script("pclient0", 7, None, &wanted),
            "addr replace 100.64.1.2/32 dev pclient0\n\
             addr replace fd00:2021:1111::2/128 dev pclient0 nodad\n\
             route replace 10.20.0.0/24 dev pclient0 src 100.64.1.2 table 7\n\
             route replace 2001:db8:20::/64 dev pclient0 src fd00:2021:1111::2 table 7\n"
        );
    }

    #[test]
    fn what_is_gone_is_removed() {
        let old = (interface(2), nets(&["10.20.0.0/24", "10.30.0.0/24"]));
        let new = (interface(3), nets(&["10.30.0.0/24"]));
        let script = script("pclient0", 7, Some(&old), &new);
        assert!(script.starts_with(
            "route del 10.20.0.0/24 dev pclient0 table 7\naddr del 100.64.1.2/32 dev pclient0\n"
        ));
        assert!(!script.contains("del 10.30.0.0/24"));
    }
}
