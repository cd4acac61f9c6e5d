//! The portal's control socket: executes commands and waits for their results.

use super::hub::{Command, SetUpMeasurement};
use super::server::PortalServer;
use crate::clock::ClockReading;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn execute(line: Vec<u8>, server: Arc<PortalServer>) -> Result<Value, String> {
    let command: Command = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
    if let Command::Authorize(measurement) = command {
        return measure(&measurement, &server).await;
    }
    let (outcome, settled) = server.with_ticket(
        |hub| hub.handle_command(command, ClockReading::now()),
        |outcome| outcome.ticket,
    )?;
    let mut answer = outcome.answer;
    if outcome.ticket.is_some() {
        answer["micros"] = json!(settled.await.map_err(|_| STOPPING)??);
    }
    Ok(answer)
}

/// One set-up after another, so that each is measured alone. Stops at the first that fails.
async fn measure(measurement: &SetUpMeasurement, server: &PortalServer) -> Result<Value, String> {
    let mut micros = Vec::new();
    for index in 0..measurement.count {
        let (_, settled) = server.with_ticket(
            |hub| hub.measure(measurement, index, ClockReading::now()),
            |ticket| Some(*ticket),
        )?;
        let settled = settled.await.map_err(|_| STOPPING)?;
        micros.push(settled.map_err(|error| format!("set-up {index}: {error}"))?);
    }
    Ok(json!({ "micros": micros }))
}

const STOPPING: &str = "the portal stops";
