//! The interface that applications see, and the routes into it.
//!
//! The interface disappears with the process. Routes are in a separate table, which every socket
//! uses except those with [`SOCKET_MARK`]: the client reaches a gateway, relay or portal outside
//! the tunnel even if its address lies in a resource's network. Sets addresses and routes by
//! running `ip`. Source: docs/protocol.md 5.7 and 6.

use super::addresses::{STUB_IPV4, STUB_IPV6, TUNNEL_IPV4, TUNNEL_IPV6};
use super::vocabulary::TunnelAddresses;
use anyhow::{Context as _, bail};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tun_rs::{AsyncDevice, DeviceBuilder};

/// Mark on every socket of this process that must bypass the tunnel ("post" in ASCII).
pub const SOCKET_MARK: u32 = 0x706f_7374;

/// Delivers packets from the tunnel to applications.
pub trait PacketSink: Send + Sync {
    /// Delivers one IP packet, or drops it when there is no room.
    fn deliver(&self, packet: &[u8]);
}

impl PacketSink for AsyncDevice {
    fn deliver(&self, packet: &[u8]) {
        if let Err(error) = self.try_send(packet) {
            tracing::trace!(%error, "the kernel refuses a packet");
        }
    }
}

/// The client's tunnel addresses and the networks behind them.
type Settings = (TunnelAddresses, BTreeSet<IpNet>);

/// The interface with its addresses, routes and rules. Dropping it removes all of them.
pub struct Tunnel {
    device: Arc<AsyncDevice>,
    name: String,
    table: u32,
    current: Option<Settings>,
}

impl Tunnel {
    /// Creates the interface and sets it up, with the addresses on which the client answers DNS
    /// queries and no others: the kernel delivers packets to them within the host, without a route.
    ///
    /// # Errors
    /// One line with the remedy.
    pub async fn create(name: &str) -> anyhow::Result<Self> {
        let builder = DeviceBuilder::new().name(name).mtu(MTU).enable(false);
        let device = builder.build_async();
        let device = device.and_then(|it| Ok((nix::net::if_::if_nametoindex(name)?, it)));
        let (index, device) = device.map_err(|error| {
            anyhow::anyhow!(
                "cannot create the interface {name}: {error}; it needs CAP_NET_ADMIN, \
                 /dev/net/tun, and a name that nobody uses (tunnel.interface)"
            )
        })?;
        let tunnel = Self {
            device: Arc::new(device),
            name: name.to_owned(),
            // One table for each interface: two clients must not share one.
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
        if let Err(error) = tunnel.ip(stub_addresses(name)).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "an address for DNS queries is missing"
            );
        }
        Ok(tunnel)
    }

    /// Source of applications' packets, and sink of the packets for them.
    pub fn device(&self) -> Arc<AsyncDevice> {
        Arc::clone(&self.device)
    }

    /// Gives the interface these addresses, and routes to these networks and to other tunnel
    /// addresses. Changes only what differs.
    ///
    /// # Errors
    /// When a part failed (on a host without IPv6, for example); the rest is in place.
    pub async fn configure(
        &mut self,
        addresses: TunnelAddresses,
        mut networks: BTreeSet<IpNet>,
    ) -> anyhow::Result<()> {
        networks.extend([IpNet::from(TUNNEL_IPV4), IpNet::from(TUNNEL_IPV6)]);
        let wanted = (addresses, networks);
        if self.current.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let script = script(&self.name, self.table, self.current.as_ref(), &wanted);
        self.current = Some(wanted);
        self.ip(script).await
    }

    async fn add_rules(&self) -> anyhow::Result<()> {
        for family in ["-4", "-6"] {
            let mut command = Command::new("ip");
            let output = command.args(rule(family, "add", self.table)).output();
            let output = output.await.context(NO_IP)?;
            if !output.status.success() {
                let error = String::from_utf8_lossy(&output.stderr);
                tracing::warn!(family, error = error.trim(), "no tunnel for this family");
            }
        }
        Ok(())
    }

    async fn ip(&self, script: String) -> anyhow::Result<()> {
        let mut child = Command::new("ip")
            .args(["-force", "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context(NO_IP)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if output.status.success() {
            return Ok(());
        }
        let error = String::from_utf8_lossy(&output.stderr).replace('\n', "; ");
        bail!("`ip` refuses to configure the interface: {error}")
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // Rules outlive the interface, and the runtime may already be gone: this call blocks.
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

fn stub_addresses(name: &str) -> String {
    format!(
        "addr replace {STUB_IPV4}/32 dev {name}\naddr replace {STUB_IPV6}/128 dev {name} nodad\n"
    )
}

/// The lines for `ip -batch` that turn `current` into the new settings.
fn script(
    name: &str,
    table: u32,
    current: Option<&Settings>,
    (addresses, networks): &Settings,
) -> String {
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
    let TunnelAddresses { ipv4, ipv6 } = addresses;
    line(format_args!("addr replace {ipv4}/32 dev {name}"));
    line(format_args!("addr replace {ipv6}/128 dev {name} nodad"));
    for net in networks {
        let (net, source) = match net {
            IpNet::V4(_) => (net.trunc(), IpAddr::from(*ipv4)),
            IpNet::V6(_) => (net.trunc(), IpAddr::from(*ipv6)),
        };
        line(format_args!(
            "route replace {net} dev {name} src {source} table {table}"
        ));
    }
    lines
}

/// The MTU of both ends of the tunnel (docs/protocol.md 5.7).
const MTU: u16 = 1280;
const NO_IP: &str = "cannot run `ip` (package iproute2)";
/// Precedes the main table (32766).
const RULE_PRIORITY: u32 = 100;
/// Far from the numbers that administrators give to tables.
const TABLE_BASE: u32 = 0x706f_0000;

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: u8) -> TunnelAddresses {
        TunnelAddresses {
            ipv4: [100, 64, 1, last].into(),
            ipv6: format!("fd00:2021:1111::{last}").parse().expect("valid"),
        }
    }

    fn nets(nets: &[&str]) -> BTreeSet<IpNet> {
        nets.iter().map(|net| net.parse().expect("valid")).collect()
    }

    #[test]
    fn sets_addresses_before_routes() {
        let wanted = (addresses(2), nets(&["10.20.0.0/24", "2001:db8:20::/64"]));
        assert_eq!(
            script("pclient0", 7, None, &wanted),
            "addr replace 100.64.1.2/32 dev pclient0\n\
             addr replace fd00:2021:1111::2/128 dev pclient0 nodad\n\
             route replace 10.20.0.0/24 dev pclient0 src 100.64.1.2 table 7\n\
             route replace 2001:db8:20::/64 dev pclient0 src fd00:2021:1111::2 table 7\n"
        );
    }

    #[test]
    fn removes_routes_and_addresses_that_are_gone() {
        let old = (addresses(2), nets(&["10.20.0.0/24", "10.30.0.0/24"]));
        let new = (addresses(3), nets(&["10.30.0.0/24"]));
        let script = script("pclient0", 7, Some(&old), &new);
        assert!(script.starts_with(
            "route del 10.20.0.0/24 dev pclient0 table 7\naddr del 100.64.1.2/32 dev pclient0\n"
        ));
        assert!(!script.contains("del 10.30.0.0/24"));
    }
}
