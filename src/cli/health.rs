//! `postern health`: one line for people, an exit code for probes.

use super::{ConfigArgs, show};
use crate::admin::client::AdminClient;
use crate::messages::reports::HealthReport;
use clap::Args as ClapArgs;
use std::process::ExitCode;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Ask only whether all its parts answer, not whether it is ready for clients.
    #[arg(long)]
    live: bool,
}

/// Exit code 0 when the gateway is ready or degraded, or with `--live` live; else 1.
pub(super) async fn run(client: AdminClient, args: &Args) -> anyhow::Result<ExitCode> {
    let path = match args.live {
        true => "/livez",
        false => "/readyz",
    };
    let answer = client.get(path).await?;
    let report: HealthReport = answer.json()?;
    show(&format_args!("{}\n", line(&report, args.live)))?;
    Ok(match answer.status.is_success() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn line(report: &HealthReport, live: bool) -> String {
    if live {
        return match report.live {
            true => "live".to_owned(),
            false => format!("not live: {} does not answer", report.silent.join(", ")),
        };
    }
    match report.reasons.is_empty() {
        true => report.status.word().to_owned(),
        false => format!("{}: {}", report.status.word(), report.reasons.join("; ")),
    }
}
