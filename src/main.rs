//! The one program: `postern gateway`, `postern check` and the lab's commands.

use clap::Parser;
use postern::cli::{self, Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    Cli::parse().run().unwrap_or_else(|error| {
        cli::show_error(&error);
        ExitCode::FAILURE
    })
}
