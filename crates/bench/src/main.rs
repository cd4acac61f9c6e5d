//! `postern-bench`: what the gateway costs beside other programs, and what its faults cost clients.

use clap::{Parser, Subcommand};
use postern_bench::{chaos, floor, measure, udp_load};
use postern_lab::program::{exit_code, run, run_blocking};
use std::process::ExitCode;

/// Benchmarks and chaos runs for the Postern gateway.
#[derive(Debug, Parser)]
#[command(name = "postern-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure throughput and cost through the tunnel.
    Bench(measure::Args),
    /// Break the gateway in every way, and measure what a crowd of clients notices.
    Chaos(chaos::Args),
    /// Forward and seal, and nothing else: what `bench` measures against.
    #[command(hide = true)]
    Floor(floor::FloorArgs),
    /// A client that is fast and nothing else.
    #[command(hide = true)]
    FastClient(floor::FastClientArgs),
    /// Many idle clients in one process.
    #[command(hide = true)]
    Crowd(floor::crowd::Args),
    /// Send UDP at a given rate, and count what arrives.
    #[command(hide = true)]
    UdpLoad(udp_load::Args),
}

fn main() -> ExitCode {
    exit_code(match Cli::parse().command {
        Command::Bench(args) => run(measure::run(args)),
        Command::Chaos(args) => run(chaos::run(args)),
        Command::Floor(args) => run_blocking(|| floor::run_floor(&args)),
        Command::FastClient(args) => run_blocking(|| floor::run_fast_client(&args)),
        Command::Crowd(args) => run(floor::crowd::run(args)),
        Command::UdpLoad(args) => run_blocking(|| udp_load::run(&args)),
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
