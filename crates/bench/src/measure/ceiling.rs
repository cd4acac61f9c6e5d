//! The same way without the tunnel: a playground in which the kernel alone forwards.
//!
//! Shows what iperf3, the links and this machine would give if gateway and client cost nothing. It
//! is a playground of its own, so that neither the gateway's rules nor its routes are on the way.

use anyhow::{Context, Result, ensure};
use postern_lab::playground::wait::Interrupt;
use postern_lab::playground::{Playground, Role};
use std::process::Command;
use std::time::Duration;

/// `ip` and a write to /proc take milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// A playground whose client reaches the resource by plain forwarding, masqueraded by the router.
///
/// # Errors
/// The playground cannot be built, or the kernel refuses a route.
pub(super) fn forwarding(interrupt: &Interrupt) -> Result<Playground> {
    let playground = Playground::with_interrupt(interrupt.clone())?;
    playground.enter(Role::Gateway, || {
        let switch = "/proc/sys/net/ipv4/ip_forward";
        std::fs::write(switch, "1").with_context(|| format!("cannot write {switch}"))
    })?;
    for (role, net, via) in ROUTES {
        let mut command = Command::new("ip");
        command.args(["-n", &playground.namespace(role)]);
        command.args(["route", "add", net, "via", via]);
        let output = playground.run(command, LIMIT)?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cannot route {net}: {told}");
    }
    Ok(playground)
}

/// What the tunnel does for these places otherwise.
const ROUTES: [(Role, &str, &str); 2] = [
    (Role::Router, "10.20.0.0/24", "203.0.113.10"),
    (Role::Resource, "203.0.113.0/24", "10.20.0.1"),
];
