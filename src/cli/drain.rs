//! `postern drain`: lets the gateway end when its clients are done, and shows the countdown.

use super::{ConfigArgs, show, words};
use crate::admin::client::AdminClient;
use crate::messages::reports::{DrainReport, StatusReport};
use anyhow::bail;
use clap::Args as ClapArgs;
use hyper::Method;
use serde::de::IgnoredAny;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// How long clients may stay; it ends earlier when none has anything under way.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    #[arg(value_parser = humantime::parse_duration)]
    grace: Duration,
    /// Do not wait for the end.
    #[arg(long)]
    no_wait: bool,
    /// Call it off: serve new clients again.
    #[arg(long, conflicts_with_all = ["grace", "no_wait"])]
    cancel: bool,
}

/// Exit code 0 when the gateway has ended.
pub(super) async fn run(client: AdminClient, args: &Args) -> anyhow::Result<ExitCode> {
    if args.cancel {
        let _: IgnoredAny = client.request(Method::DELETE, "/drain").await?;
        return show(&"not draining: new clients are served\n");
    }
    let path = format!("/drain?grace={}ms", args.grace.as_millis());
    let mut report: DrainReport = client.request(Method::POST, &path).await?;
    let mut progress = Progress::default();
    loop {
        progress.show(&line(&report))?;
        if args.no_wait {
            return progress.end("the gateway drains on its own");
        }
        tokio::time::sleep(REFRESH_EVERY).await;
        let Ok(answer) = client.get("/status?clients=0").await else {
            return progress.end("drained: the gateway has ended");
        };
        match answer.json::<StatusReport>()?.drain {
            Some(current) => report = current,
            None => bail!("draining was called off; new clients are served"),
        }
    }
}

fn line(report: &DrainReport) -> String {
    format!(
        "draining: {} left, {} clients, {} of them active within the last minute, {} refused",
        words::duration(report.remaining),
        report.clients,
        report.active,
        report.refused,
    )
}

/// One line that changes in place; without a terminal, a line for each change.
#[derive(Default)]
struct Progress {
    last: String,
}

impl Progress {
    fn show(&mut self, line: &str) -> io::Result<()> {
        let mut out = io::stdout();
        if out.is_terminal() {
            write!(out, "\r\x1b[K{line}")?;
        } else if self.last != line {
            writeln!(out, "{line}")?;
        }
        line.clone_into(&mut self.last);
        out.flush()
    }

    fn end(&mut self, line: &str) -> anyhow::Result<ExitCode> {
        let newline = match io::stdout().is_terminal() {
            true => "\n",
            false => "",
        };
        show(&format_args!("{newline}{line}\n"))
    }
}

const REFRESH_EVERY: Duration = Duration::from_secs(1);
