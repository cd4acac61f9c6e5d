//! `postern why`: one verdict, how far it came, and what to do.

use super::{ConfigArgs, show};
use crate::admin::client::AdminClient;
use anyhow::bail;
use clap::Args as ClapArgs;
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

/// Exit code 0 when it works, else 1.
pub(super) async fn run(client: AdminClient, args: &Args) -> anyhow::Result<ExitCode> {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("client", &args.client)
        .append_pair("target", &args.target.to_string())
        .finish();
    let answer = client.get(&format!("/why?{query}")).await?;
    if !answer.status.is_success() {
        bail!("{}", answer.text());
    }
    let report: Report = answer.json()?;
    let shown = match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&report)?),
        false => text(&report, Ink::of(stdout().is_terminal())),
    };
    show(&shown)?;
    Ok(match report.severity {
        Severity::Works => ExitCode::SUCCESS,
        Severity::Limited | Severity::Broken => ExitCode::FAILURE,
    })
}

/// Whether marks are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ink {
    Plain,
    Coloured,
}

impl Ink {
    fn of(is_terminal: bool) -> Self {
        match is_terminal {
            true => Self::Coloured,
            false => Self::Plain,
        }
    }

    fn paint(self, code: u8, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

fn text(report: &Report, ink: Ink) -> String {
    let (code, word) = match report.severity {
        Severity::Works => (GREEN, "works"),
        Severity::Limited => (YELLOW, "unproven"),
        Severity::Broken => (RED, "broken"),
    };
    let mut text = format!("{}: {}\n\n", ink.paint(code, word), report.verdict);
    for step in &report.steps {
        text.push_str(&line(step, ink));
    }
    for note in &report.notes {
        let _ = write!(text, "\n{}\n", wrapped("note: ", note));
    }
    if let Some(remedy) = &report.remedy {
        let _ = write!(text, "\n{}\n", wrapped("What to do: ", remedy));
    }
    text
}

fn line(step: &Step, ink: Ink) -> String {
    let (code, mark) = match step.state {
        StepState::Passed => (GREEN, "✓"),
        StepState::Open => (YELLOW, "?"),
        StepState::Failed => (RED, "✗"),
        StepState::NotNeeded | StepState::Unknown => (GREY, "–"),
    };
    let text = match step.state {
        StepState::Unknown => "not known",
        // It stands above already.
        StepState::Failed => "see above",
        StepState::Passed | StepState::Open | StepState::NotNeeded => &step.text,
    };
    let (mark, word) = (ink.paint(code, mark), word(step.name));
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

/// In lines that a terminal shows whole.
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
