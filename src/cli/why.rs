//! `postern why`: one verdict, the steps up to it, and the remedy.

use super::{ConfigArgs, show, words};
use crate::admin::client::AdminClient;
use clap::Args as ClapArgs;
use hyper::Method;
use postern_core::diagnosis::{Report, Severity, Step, StepName, StepState};
use postern_core::target::{Target, TargetParseError};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// The client: its id, the beginning of it, or its tunnel address.
    client: String,
    /// What it wants to reach: a name or an address, and if need be a port, as in
    /// app.example.com, 10.20.0.7:443, 10.20.0.7:udp/53, 10.20.0.7:icmp or [2001:db8::7]:443.
    #[arg(value_name = "NAME|IP[:PORT]", value_parser = target)]
    target: Target,
    /// As the gateway says it.
    #[arg(long)]
    json: bool,
}

fn target(text: &str) -> Result<Target, TargetParseError> {
    text.parse()
}

/// Exit code 0 when the client reaches the target, else 1.
pub(super) async fn run(client: AdminClient, args: &Args) -> anyhow::Result<ExitCode> {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("client", &args.client)
        .append_pair("target", &args.target.to_string())
        .finish();
    let path = format!("/why?{query}");
    let report: Report = client.request(Method::GET, &path).await?;
    match args.json {
        true => show(&words::json(&report)?)?,
        false => show(&text(&report, stdout().is_terminal()))?,
    };
    Ok(match report.severity {
        Severity::Works => ExitCode::SUCCESS,
        Severity::Limited | Severity::Broken => ExitCode::FAILURE,
    })
}

fn paint(colour: bool, code: u8, text: &str) -> String {
    match colour {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

fn text(report: &Report, colour: bool) -> String {
    let (code, word) = match report.severity {
        Severity::Works => (GREEN, "works"),
        Severity::Limited => (YELLOW, "unproven"),
        Severity::Broken => (RED, "broken"),
    };
    let mut text = format!("{}: {}\n\n", paint(colour, code, word), report.verdict);
    for step in &report.steps {
        text.push_str(&line(step, colour));
    }
    for note in &report.notes {
        let _ = write!(text, "\n{}\n", wrapped("note: ", note));
    }
    if let Some(remedy) = &report.remedy {
        let _ = write!(text, "\n{}\n", wrapped("What to do: ", remedy));
    }
    text
}

fn line(step: &Step, colour: bool) -> String {
    let (code, mark) = match step.state {
        StepState::Passed => (GREEN, "✓"),
        StepState::Open => (YELLOW, "?"),
        StepState::Failed => (RED, "✗"),
        StepState::NotNeeded | StepState::Unknown => (GREY, "–"),
    };
    let text = match step.state {
        StepState::Unknown => "not known",
        // The verdict above says it.
        StepState::Failed => "see above",
        StepState::Passed | StepState::Open | StepState::NotNeeded => &step.text,
    };
    let (mark, word) = (paint(colour, code, mark), word(step.name));
    format!("  {mark} {word:<14} {text}\n")
}

fn word(step: StepName) -> &'static str {
    match step {
        StepName::Client => "client",
        StepName::Session => "session",
        StepName::Authorization => "authorization",
        StepName::Filter => "filter",
        StepName::Name => "name",
        StepName::Addresses => "addresses",
        StepName::Flow => "flow",
        StepName::Reply => "reply",
    }
}

/// Breaks the text into lines that fit a terminal.
fn wrapped(title: &str, text: &str) -> String {
    let mut lines = title.to_owned();
    let mut width = title.chars().count();
    for word in text.split(' ') {
        let length = word.chars().count();
        if width + length > COLUMNS {
            lines.truncate(lines.trim_end().len());
            lines.push_str("\n  ");
            width = 2;
        }
        lines.push_str(word);
        lines.push(' ');
        width += length + 1;
    }
    lines.trim_end().to_owned()
}

const COLUMNS: usize = 79;
const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const GREY: u8 = 90;
