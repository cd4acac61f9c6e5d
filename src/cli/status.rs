//! `postern status`: the state of the gateway, as a table for people.

use super::{ConfigArgs, show, words};
use crate::admin::client::AdminClient;
use crate::messages::reports::{ClientReport, StatusReport};
use clap::Args as ClapArgs;
use hyper::Method;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Show it again every second, in place.
    #[arg(long)]
    watch: bool,
    /// As the gateway says it.
    #[arg(long)]
    json: bool,
    /// How many clients are listed.
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    clients: usize,
}

pub(super) async fn run(client: AdminClient, args: &Args) -> anyhow::Result<ExitCode> {
    let path = format!("/status?clients={}", args.clients);
    loop {
        let report: StatusReport = client.request(Method::GET, &path).await?;
        let shown = match args.json {
            true => words::json(&report)?,
            false => table(&report),
        };
        if !args.watch {
            return show(&shown);
        }
        show(&format_args!("{CLEAR}{shown}"))?;
        tokio::time::sleep(REFRESH_EVERY).await;
    }
}

fn table(report: &StatusReport) -> String {
    let mut text = words::table(&summary(report));
    let listed = report.client_list.len();
    if listed > 0 {
        text.push('\n');
        text.push_str(&words::table(&clients(report)));
        let all = report.clients;
        if all > listed {
            let hidden = all - listed;
            let _ = writeln!(text, "… and {hidden} more; --clients {all} shows all");
        }
    }
    text
}

fn summary(report: &StatusReport) -> Vec<Vec<String>> {
    let ago = |time| words::duration(report.now.saturating_sub(time));
    let or = |list: Vec<String>, empty: &str| match list.is_empty() {
        true => empty.to_owned(),
        false => list.join(", "),
    };
    let up = ago(report.started_at);
    let mut rows = vec![
        row("gateway", format!("postern {}, up {up}", report.version)),
        row("health", report.health.status.word().to_owned()),
    ];
    rows.extend(continued(&report.health.reasons));
    if let Some(drain) = &report.drain {
        let left = words::duration(drain.remaining);
        let active = drain.active;
        rows.push(row(
            "drain",
            format!("{left} left, {active} active clients"),
        ));
    }
    let portal = &report.portal;
    let (state, since) = (portal.state.replace('_', " "), ago(portal.since));
    let relays = portal.relays;
    let tunnel = report.tunnel.iter().map(ToString::to_string).collect();
    rows.extend([
        row("portal", format!("{state} for {since}, {relays} relays")),
        row("tunnel", or(tunnel, "no addresses yet")),
        row("udp port", report.udp_port.to_string()),
        row("clients", report.clients.to_string()),
    ]);
    if let Some(reload) = &report.reload {
        let at = ago(reload.at);
        rows.push(row("configuration", format!("{} {at} ago", reload.outcome)));
        // A configuration that is not in force takes more than a word.
        rows.extend(continued(&reload.problems));
        if !reload.needs_restart.is_empty() {
            let keys = reload.needs_restart.join(", ");
            rows.push(row("", format!("takes a restart: {keys}")));
        }
    }
    let deaths: u64 = report.actors.values().map(|actor| actor.deaths).sum();
    let drops = report.drops.iter();
    let drops = drops.map(|(reason, packets)| format!("{reason} {packets}"));
    rows.extend([
        row("rebuilt actors", deaths.to_string()),
        row("drops", or(drops.collect(), "none")),
    ]);
    rows
}

fn row(name: &str, value: String) -> Vec<String> {
    vec![name.to_owned(), value]
}

/// Further rows of the same name.
fn continued(values: &[String]) -> impl Iterator<Item = Vec<String>> {
    values.iter().map(|value| row("", value.clone()))
}

fn clients(report: &StatusReport) -> Vec<Vec<String>> {
    let head = "CLIENT TUNNEL SESSION HEARD FROM IN OUT RESOURCES NAMES";
    let mut rows = vec![head.split(' ').map(str::to_owned).collect()];
    rows.extend(report.client_list.iter().map(client_row));
    rows
}

fn client_row(client: &ClientReport) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        client.id.clone(),
        or_dash(client.tunnel.first().map(ToString::to_string)),
        match client.has_session {
            Some(true) => "up",
            Some(false) => "down",
            None => "no answer",
        }
        .to_owned(),
        words::ago(client.heard_before),
        or_dash(client.remote.map(|remote| remote.to_string())),
        words::bytes(client.inbound.bytes),
        words::bytes(client.outbound.bytes),
        client.resources.len().to_string(),
        client.names.to_string(),
    ]
}

/// Clears the screen and moves the cursor to its upper left corner.
const CLEAR: &str = "\x1b[H\x1b[2J";
const REFRESH_EVERY: Duration = Duration::from_secs(1);
