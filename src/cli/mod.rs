//! The command line: what can be asked for, and how answers and errors are shown.
//!
//! Results go to stdout, log lines and problems to stderr. Exit codes: 0 done, 1 wrong
//! configuration or another fatal error, 2 wrong usage, 70 too many restarts of a part (a bug;
//! start the process again).

mod drain;
mod health;
mod status;
mod why;
mod words;

use crate::admin::client::AdminClient;
use crate::config::{self, Environment, Loaded};
use crate::reload::{self, Reloader};
use crate::{gateway, handover, logging};
use clap::{Args, Parser, Subcommand};
use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// A zero-trust gateway that answers first and resolves later.
#[derive(Debug, Parser)]
#[command(name = "postern", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until a signal ends it.
    Gateway(ConfigArgs),
    /// Check the gateway's configuration, and show it with where each value came from.
    Check(ConfigArgs),
    /// End the running gateway and leave its clients connected, for the next one to take over.
    Handover(HandoverArgs),
    /// Show how the running gateway is: its health, its clients, what it dropped.
    Status(status::Args),
    /// Ask the running gateway whether it is ready for clients; for probes.
    Health(health::Args),
    /// Ask the running gateway why a client can reach something, or cannot.
    Why(why::Args),
    /// Refuse new clients, let the others finish, then end the running gateway.
    Drain(drain::Args),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The gateway's configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/postern/gateway.toml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct HandoverArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How long to wait for its end.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    #[arg(value_parser = humantime::parse_duration)]
    timeout: Duration,
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    ///
    /// The reason why it could not be done, with the remedy; for [`show_error`].
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Gateway(args) => {
                let loaded = load(&args)?;
                logging::init(&loaded.config.log)?;
                for warning in &loaded.warnings {
                    tracing::warn!("{warning}");
                }
                let environment = Environment::of_process();
                let settings = reload::check(loaded.config).map_err(anyhow::Error::msg)?;
                let settings = Arc::new(settings);
                let running = Arc::clone(&settings);
                let reloader = Reloader::new(args.config, environment, running, loaded.sources);
                gateway::run(settings, reloader)
            }
            Command::Check(args) => check(&load(&args)?),
            Command::Handover(args) => hand_over(&args),
            Command::Status(args) => ask(&args.config, |client| status::run(client, &args)),
            Command::Health(args) => ask(&args.config, |client| health::run(client, &args)),
            Command::Why(args) => ask(&args.config, |client| why::run(client, &args)),
            Command::Drain(args) => ask(&args.config, |client| drain::run(client, &args)),
        }
    }
}

/// Speaks to the gateway that runs with this configuration.
fn ask<F>(args: &ConfigArgs, question: impl FnOnce(AdminClient) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    let admin = config::load_admin(&args.config, &Environment::of_process())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(question(AdminClient::new(&admin.socket)))
}

/// Writes the error to stderr: one line for each problem, nothing else.
pub fn show_error(error: &anyhow::Error) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(io::stderr(), "{error:#}");
}

fn load(args: &ConfigArgs) -> anyhow::Result<Loaded> {
    Ok(config::load(&args.config, &Environment::of_process())?)
}

fn check(loaded: &Loaded) -> anyhow::Result<ExitCode> {
    for warning in &loaded.warnings {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    show(&loaded.effective)
}

fn hand_over(args: &HandoverArgs) -> anyhow::Result<ExitCode> {
    let state = config::load_state(&args.config.config, &Environment::of_process())?;
    let happened = handover::run(&state, args.timeout)?;
    show(&format_args!("{happened}\n"))
}

/// Writes a result to stdout.
fn show(result: &dyn Display) -> anyhow::Result<ExitCode> {
    match write!(io::stdout(), "{result}") {
        // `postern check | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
