//! The portal's control socket: what a tester's command does.

use super::clock::Moment;
use super::hub::{Command, Guest, Load, Outcome};
use super::server::Shared;
use crate::control_socket::ControlSocket;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// The tester's door; removed when dropped.
pub struct Control(ControlSocket);

impl Control {
    /// Makes the socket. A stale one of a dead portal is replaced.
    ///
    /// # Errors
    /// When something else is at `path`, another process answers there, or it cannot be made.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        ControlSocket::bind(path).map(Self)
    }

    /// Answers commands. Never returns unless the socket breaks.
    ///
    /// # Errors
    /// When the socket breaks.
    pub async fn serve(&self, shared: &Arc<Shared>) -> anyhow::Result<()> {
        self.0.serve(shared, execute).await
    }
}

async fn execute(line: Vec<u8>, shared: Arc<Shared>) -> Result<Value, String> {
    let command: Command = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
    if let Command::Authorize(load) = command {
        return measure(&load, &shared).await;
    }
    if let Command::Admit(guest) = command {
        return admit(&guest, &shared).await;
    }
    let ticket = |outcome: &Outcome| match outcome {
        Outcome::Done(_) => None,
        Outcome::Later(ticket) => Some(*ticket),
    };
    let (outcome, settled) =
        shared.with_ticket(|hub| hub.handle_command(command, Moment::now()), ticket)?;
    match outcome {
        Outcome::Done(members) => Ok(members),
        Outcome::Later(_) => {
            let micros = settled.await.map_err(|_| "the portal stops".to_owned())??;
            Ok(json!({ "micros": micros }))
        }
    }
}

/// One set-up after another, so that each is measured alone. Stops at the first that fails.
async fn measure(load: &Load, shared: &Shared) -> Result<Value, String> {
    let mut micros = Vec::new();
    for index in 0..load.count {
        let (_, settled) = shared.with_ticket(
            |hub| hub.measure(load, index, Moment::now()),
            |ticket| Some(*ticket),
        )?;
        let settled = settled.await.map_err(|_| "the portal stops".to_owned())?;
        micros.push(settled.map_err(|error| format!("set-up {index}: {error}"))?);
    }
    Ok(json!({ "micros": micros }))
}

/// What the guest is to know, once its gateway knows it.
async fn admit(guest: &Guest, shared: &Shared) -> Result<Value, String> {
    let ((_, grant), settled) = shared.with_ticket(
        |hub| hub.admit(guest, Moment::now()),
        |(ticket, _)| Some(*ticket),
    )?;
    let settled = settled.await.map_err(|_| "the portal stops".to_owned())?;
    settled?;
    Ok(json!({ "grant": grant }))
}
