//! `postern`: the gateway, and what an operator asks it.

use clap::Parser;
use postern::cli::{self, Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    Cli::parse().run().unwrap_or_else(|error| {
        cli::show_error(&error);
        ExitCode::FAILURE
    })
}
