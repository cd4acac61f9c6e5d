//! What the programs of the lab have in common: log lines on stderr, an event loop, an exit code.

use anyhow::Result;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// Runs an asynchronous program until it ends by itself or by a signal.
///
/// # Errors
/// Those of the program, or no event loop can be made.
pub fn run(program: impl Future<Output = Result<()>>) -> Result<()> {
    log_to_stderr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(program)
}

/// Runs a program that is one thread without an event loop.
///
/// # Errors
/// Those of the program.
pub fn run_blocking(program: impl FnOnce() -> Result<()>) -> Result<()> {
    log_to_stderr()?;
    program()
}

/// Shows what went wrong on stderr, and turns it into the exit code.
#[must_use]
pub fn exit_code(ended: Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed stderr leaves no place to report to.
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr() -> Result<()> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(FILTER)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    Ok(subscriber.finish().try_init()?)
}

/// Libraries that log per packet or per check are kept quiet.
const FILTER: &str = "info,defguard_boringtun=off,webrtc_ice=error,webrtc_mdns=warn,\
     webrtc_util=warn,turn=warn,stun=warn,hickory_proto=warn,tungstenite=warn,\
     tokio_tungstenite=warn,tun_rs=warn,mio=warn";
