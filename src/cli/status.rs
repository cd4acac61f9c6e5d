//! `postern status`: how the gateway is, as a table that a person likes to read.

use super::{ConfigArgs, show, words};
use crate::admin::client::{AdminClient, Answer};
use crate::messages::reports::{ClientReport, ReloadSummary, StatusReport};
use anyhow::bail;
use clap::Args as ClapArgs;
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
    loop {
        let answer = client
            .get(&format!("/status?clients={}", args.clients))
            .await?;
        if !answer.status.is_success() {
            bail!("{}", answer.text());
        }
        let shown = shown(&answer, args.json)?;
        if !args.watch {
            return show(&shown);
        }
        show(&format_args!("{CLEAR}{shown}"))?;
        tokio::time::sleep(AGAIN).await;
    }
}

fn shown(answer: &Answer, json: bool) -> anyhow::Result<String> {
    let report: StatusReport = answer.json()?;
    Ok(match json {
        true => format!("{}\n", serde_json::to_string_pretty(&report)?),
        false => table(&report),
    })
}

fn table(report: &StatusReport) -> String {
    let mut text = words::table(&summary(report));
    if !report.client_list.is_empty() {
        text.push('\n');
        text.push_str(&words::table(&clients(report)));
    }
    let hidden = report.clients.saturating_sub(report.client_list.len());
    if hidden > 0 && !report.client_list.is_empty() {
        let _ = writeln!(
            text,
            "… and {hidden} more; --clients {} shows all",
            report.clients
        );
    }
    text
}

fn summary(report: &StatusReport) -> Vec<Vec<String>> {
    let since = report.now.saturating_sub(report.portal.since);
    let up = report.now.saturating_sub(report.started_at);
    let tunnel: Vec<String> = report.tunnel.iter().map(ToString::to_string).collect();
    let mut rows = vec![
        row(
            "gateway",
            format!("postern {}, up {}", report.version, words::duration(up)),
        ),
        row("health", report.health.status.word().to_owned()),
    ];
    rows.extend(
        report
            .health
            .reasons
            .iter()
            .map(|reason| row("", reason.clone())),
    );
    if let Some(drain) = &report.drain {
        let left = words::duration(drain.remaining);
        rows.push(row(
            "drain",
            format!("{left} left, {} active clients", drain.active),
        ));
    }
    rows.push(row(
        "portal",
        format!(
            "{} for {}, {} relays",
            report.portal.state.replace('_', " "),
            words::duration(since),
            report.portal.relays
        ),
    ));
    rows.push(row(
        "tunnel",
        match tunnel.is_empty() {
            true => "no addresses yet".to_owned(),
            false => tunnel.join(", "),
        },
    ));
    rows.push(row("udp port", report.udp_port.to_string()));
    rows.push(row("clients", report.clients.to_string()));
    rows.extend(
        report
            .reload
            .iter()
            .flat_map(|reload| reload_rows(report.now, reload)),
    );
    let deaths: u64 = report.actors.values().map(|actor| actor.deaths).sum();
    rows.push(row("rebuilt actors", deaths.to_string()));
    let drops = report
        .drops
        .iter()
        .map(|(reason, packets)| format!("{reason} {packets}"));
    let drops: Vec<String> = drops.collect();
    rows.push(row(
        "drops",
        match drops.is_empty() {
            true => "none".to_owned(),
            false => drops.join(", "),
        },
    ));
    rows
}

/// A configuration that is not in force is worth more than a word.
fn reload_rows(now: u64, reload: &ReloadSummary) -> Vec<Vec<String>> {
    let ago = words::duration(now.saturating_sub(reload.at));
    let mut rows = vec![row(
        "configuration",
        format!("{} {ago} ago", reload.outcome),
    )];
    rows.extend(
        reload
            .problems
            .iter()
            .map(|problem| row("", problem.clone())),
    );
    if !reload.needs_restart.is_empty() {
        let keys = reload.needs_restart.join(", ");
        rows.push(row("", format!("takes a restart: {keys}")));
    }
    rows
}

fn row(name: &str, value: String) -> Vec<String> {
    vec![name.to_owned(), value]
}

fn clients(report: &StatusReport) -> Vec<Vec<String>> {
    let head = [
        "CLIENT",
        "TUNNEL",
        "SESSION",
        "HEARD",
        "FROM",
        "IN",
        "OUT",
        "RESOURCES",
        "NAMES",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
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

/// To the upper left corner of an empty screen.
const CLEAR: &str = "\x1b[H\x1b[2J";
const AGAIN: Duration = Duration::from_secs(1);
