//! The TUN interface of the floor: super-packets both ways, no copies of its own.
//!
//! Addresses and routes are set by running `ip`; they go with the interface, which goes with the
//! process.

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use nix::errno::Errno;
use std::fmt::Write as _;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};
use tun_rs::{DeviceBuilder, SyncDevice};

/// The largest super-packet with its header of the queue.
pub const READ_BYTES: usize = 65_536 + 10;

/// How the interface is to be.
#[derive(clap::Args, Clone, Debug)]
pub struct Interface {
    /// Name of the TUN interface.
    #[arg(long, value_name = "NAME")]
    pub interface: String,
    /// Its addresses, with prefix lengths.
    #[arg(long, value_name = "ADDRESS")]
    pub address: Vec<IpNet>,
    /// What is routed into it.
    #[arg(long, value_name = "NETWORK")]
    pub route: Vec<IpNet>,
}

/// One queue of a TUN interface, never blocking.
pub struct TunDevice {
    device: SyncDevice,
}

impl TunDevice {
    /// Creates the interface, up, with its addresses and routes.
    ///
    /// # Errors
    /// Not root, the name is taken, the kernel has no offloads, or `ip` refuses.
    pub fn create(interface: &Interface) -> Result<Self> {
        let name = &interface.interface;
        let device = DeviceBuilder::new()
            .name(name)
            .mtu(MTU_BYTES)
            .with(|builder| {
                builder.offload(true).tx_queue_len(TX_QUEUE_LEN);
            })
            .build_sync()
            .with_context(|| format!("cannot create the interface {name}"))?;
        ensure!(device.tcp_gso(), "the kernel hands over no super-packets");
        device.set_nonblocking(true)?;
        ip(&script(interface))?;
        Ok(Self { device })
    }

    /// Reads one packet with its header of the queue; `None` when there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.device.recv(buffer) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes one packet in pieces, the header of the queue first. What the kernel has no room for
    /// or does not like is dropped: that is what IP does.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        match nix::sys::uio::writev(&self.device, pieces) {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINVAL | Errno::ENOBUFS | Errno::EIO) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for TunDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Lines for `ip -batch`. Without link-local addresses the kernel sends no router solicitations
/// into the tunnel.
fn script(interface: &Interface) -> String {
    let name = &interface.interface;
    let mut lines = format!("link set dev {name} addrgenmode none\nlink set dev {name} up\n");
    for address in &interface.address {
        // Writing to a String cannot fail.
        let _infallible = writeln!(lines, "addr replace {address} dev {name}");
    }
    for route in &interface.route {
        let _infallible = writeln!(lines, "route replace {route} dev {name}");
    }
    lines
}

fn ip(lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `ip` (package iproute2)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip` refuses: {}", said.trim());
    Ok(())
}

/// The gateway's (docs/protocol.md 5.7.
const MTU_BYTES: u16 = 1280;
/// The gateway's.
const TX_QUEUE_LEN: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_gets_its_addresses_before_its_routes() {
        let nets = |texts: &[&str]| texts.iter().map(|it| it.parse().expect("a net")).collect();
        let interface = Interface {
            interface: "floor0".to_owned(),
            address: nets(&["100.64.1.2/32"]),
            route: nets(&["10.20.0.0/24", "fd20::/64"]),
        };
        let expected = "link set dev floor0 addrgenmode none\nlink set dev floor0 up\n\
                        addr replace 100.64.1.2/32 dev floor0\n\
                        route replace 10.20.0.0/24 dev floor0\nroute replace fd20::/64 dev floor0\n";
        assert_eq!(script(&interface), expected);
    }
}
