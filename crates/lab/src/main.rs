//! `postern-lab`: the portal, the relay and the client to try the gateway with, and the demo.

use clap::{Parser, Subcommand};
use postern_lab::program::{exit_code, run};
use postern_lab::{client, demo, dns, init, portal, relay, web};
use std::process::ExitCode;

/// A portal, a relay, a client and a demo to try the Postern gateway with.
#[derive(Debug, Parser)]
#[command(name = "postern-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a portal from one configuration file.
    Portal(portal::Args),
    /// Run a relay that answers STUN requests.
    Relay(relay::Args),
    /// Run the reference client.
    Client(client::Args),
    /// Show the gateway at work in private network namespaces.
    Demo(demo::Args),
    /// Serve a page, for the demo and the tests.
    #[command(hide = true)]
    Web(web::Args),
    /// Answer for the names of the demo and the tests.
    #[command(hide = true)]
    Dns(dns::Args),
    /// Write the files that the programs of docker/compose.yml read.
    #[command(hide = true)]
    Init(init::Args),
}

fn main() -> ExitCode {
    exit_code(match Cli::parse().command {
        Command::Portal(args) => run(portal::run(args)),
        Command::Relay(args) => run(relay::run(args)),
        Command::Client(args) => run(client::run(args)),
        Command::Demo(args) => run(demo::run(args)),
        Command::Web(args) => run(web::run(args)),
        Command::Dns(args) => run(dns::run(args)),
        Command::Init(args) => run(init::run(args)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn commands_are_distinct() {
        Cli::command().debug_assert();
    }
}
