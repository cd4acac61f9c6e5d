//! The map of the playground, the path of the packets, and commands to try.

use super::screen::Screen;
use crate::figures::percentile;
use crate::playground::lab::Lab;
use crate::playground::nameservice::launcher;
use crate::playground::network::{
    self, CLIENT_INTERFACE, CLIENT_V4, CLIENT_V6, GATEWAY_V4, GATEWAY_V6, GATEWAY_WAN,
    InterfaceBytes, ROUTER_V4, ROUTER_V6, TUNNEL_INTERFACE, WEB_V4, WEB_V6,
};
use crate::playground::scene::APP;
use crate::playground::setup::{CLIENT, DENIED_PORT, GATEWAY, RESOURCE_V4};
use crate::playground::{Playground, Role};
use anyhow::Result;
use std::time::Duration;

/// Shows the namespaces with their addresses and programs.
pub(super) fn map(screen: &mut Screen, playground: &Playground) -> Result<()> {
    screen.heading("Postern in four private network namespaces")?;
    let rows = [
        Role::ALL.map(|role| role.to_string()),
        Role::ALL.map(|role| playground.namespace(role)),
        [CLIENT_V4, ROUTER_V4, GATEWAY_V4, WEB_V4].map(|it| it.to_string()),
        [CLIENT_V6, ROUTER_V6, GATEWAY_V6, WEB_V6].map(|it| it.to_string()),
        [
            "curl, ping",
            "NAT, portal, relay",
            "the gateway",
            "web, name server",
        ]
        .map(str::to_owned),
    ];
    for (row, cells) in rows.iter().enumerate() {
        let link = if row == 0 { "───  " } else { "     " };
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:<20}")).collect();
        screen.line(&format!("  {}", cells.join(link)))?;
    }
    screen.line("")
}

/// Shows the addresses that the two ends chose for their path.
pub(super) fn paths(screen: &mut Screen, lab: &Lab) -> Result<()> {
    screen.heading("Where the packets went")?;
    for (program, milestones) in [
        ("client", lab.client_milestones()),
        ("gateway", lab.gateway_milestones()),
    ] {
        let last = milestones
            .iter()
            .rfind(|milestone| milestone.name == "path_nominated");
        if let Some(path) = last {
            let (local, remote) = (path.field("local"), path.field("remote"));
            screen.line(&format!("  path of the {program:<8} {local} – {remote}"))?;
        }
    }
    Ok(())
}

/// Interfaces that a packet from the client to the web server passes, in this order.
const HOPS: [(Role, &str, &str); 7] = [
    (
        Role::Client,
        CLIENT_INTERFACE,
        "the client's end of the tunnel",
    ),
    (Role::Client, "eth0", "encrypted, to the router"),
    (Role::Router, "lan0", "encrypted, from the client"),
    (Role::Router, "wan0", "encrypted, behind the NAT"),
    (Role::Gateway, GATEWAY_WAN, "encrypted, at the gateway"),
    (
        Role::Gateway,
        TUNNEL_INTERFACE,
        "the gateway's end of the tunnel",
    ),
    (Role::Gateway, "lan0", "in the clear, to the web server"),
];

/// Byte counters of all hops at one time.
pub(super) struct Counters([InterfaceBytes; HOPS.len()]);

impl Counters {
    /// Reads the counters; an interface that does not exist counts nothing.
    pub(super) fn read(playground: &Playground) -> Result<Self> {
        let mut counters = [InterfaceBytes::default(); HOPS.len()];
        for (counter, (role, interface, _)) in counters.iter_mut().zip(HOPS) {
            let read = network::interface_bytes(playground, role, interface)?;
            *counter = read.unwrap_or_default();
        }
        Ok(Self(counters))
    }

    /// Shows the bytes through each hop since the counters were read.
    pub(super) fn show_growth(&self, screen: &mut Screen, playground: &Playground) -> Result<()> {
        let now = Self::read(playground)?;
        let header = format!("  {:<22}{:>12}{:>12}", "interface", "received", "sent");
        screen.line(&format!(
            "{}   bytes of all traffic above",
            screen.dim(&header)
        ))?;
        for (((role, interface, note), before), after) in HOPS.iter().zip(self.0).zip(now.0) {
            let received = after.received.saturating_sub(before.received);
            let sent = after.sent.saturating_sub(before.sent);
            let interface = format!("{role} {interface}");
            screen.line(&format!(
                "  {interface:<22}{received:>12}{sent:>12}   {note}"
            ))?;
        }
        Ok(())
    }
}

/// Shows median and 99th percentile of the gateway's times to acknowledge.
pub(super) fn answer_times(screen: &mut Screen, times: &mut [Duration]) -> Result<()> {
    times.sort_unstable();
    let detail = format!(
        "{} set-ups for clients that do not exist, one by one",
        times.len()
    );
    screen.done("median", percentile(times, 50), &detail)?;
    screen.done("99th percentile", percentile(times, 99), "")
}

/// Shows commands to try while the demo stays up.
pub(super) fn how_to_play(screen: &mut Screen, playground: &Playground) -> Result<()> {
    let client = playground.namespace(Role::Client);
    let gateway = playground.namespace(Role::Gateway);
    let directory = playground.directory().display();
    let at_client = launcher(playground, Role::Client);
    let at_client = at_client.display();
    screen.heading("It stays up. In another terminal, as root:")?;
    screen.plain(&format!(
        "  ip netns exec {client} curl http://{WEB_V4}/\n\
         \x20 ip netns exec {client} curl http://[{WEB_V6}]/\n\
         \x20 ip netns exec {client} curl -o /dev/null http://{WEB_V4}/bytes/100000000\n\
         \x20 ip netns exec {client} curl http://{WEB_V4}:{DENIED_PORT}/     (refused)\n\
         \x20 ip netns exec {client} ping {WEB_V6}\n\
         \x20 ip netns exec {gateway} tcpdump -ni {TUNNEL_INTERFACE}\n\
         \x20 sh {at_client} curl http://{APP}/     (sees the client's names)\n\
         \x20 sh {at_client} curl -6 http://anything.wild.lab.example/\n\
         \x20 ls {directory}     (logs and configurations)\n\
         \n\
         The portal takes orders on {directory}/portal.sock, one JSON object a line, as\n\
         \x20 {{\"op\":\"reject_access\",\"client\":\"{CLIENT}\",\"resource\":\"{RESOURCE_V4}\"}}\n\
         \x20 {{\"op\":\"init_again\",\"gateway\":\"{GATEWAY}\"}}\n\
         \x20 {{\"op\":\"grants\"}}\n\
         \n\
         So does the name server, on {directory}/names.sock:\n\
         \x20 {{\"op\":\"mode\",\"mode\":\"silent\"}}     (or healthy, \"slow 2s\", servfail, refused)\n\
         \x20 {{\"op\":\"set\",\"records\":{{\"name\":\"{APP}\",\"ttl\":5,\"a\":[\"10.20.0.101\"]}}}}\n\
         \n\
         Ctrl-C ends it and removes everything.\n"
    ))
}
