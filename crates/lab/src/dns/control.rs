//! The name server's control socket: what a tester's command does.
//!
//! ```text
//! {"op":"set","records":{"name":"app.lab.example","ttl":30,"a":["10.20.0.101"]}}
//! {"op":"remove","name":"app.lab.example"}
//! {"op":"mode","mode":"silent"}
//! {"op":"mode","name":"app.lab.example","mode":"slow 250ms"}    (null: like all others again)
//! {"op":"counters"}
//! {"op":"forget"}                                               (count anew)
//! ```

use super::mode::Mode;
use super::serve::Shared;
use super::zone::NameRecords;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// A tester's command.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    Set {
        records: NameRecords,
    },
    Remove {
        name: String,
    },
    Mode {
        #[serde(default)]
        name: Option<String>,
        mode: Option<Mode>,
    },
    Counters,
    Forget,
}

/// Does what a line says.
pub(super) async fn execute(line: Vec<u8>, shared: Arc<Shared>) -> Result<Value, String> {
    let command = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
    let mut server = shared.server();
    let done = match command {
        Command::Set { records } => server.set(records),
        Command::Remove { name } => match server.remove(&name) {
            true => Ok(()),
            false => Err(anyhow::anyhow!("there is no {name}")),
        },
        Command::Mode { name, mode } => {
            tracing::info!(?name, ?mode, "behaving differently");
            server.set_mode(name.as_deref(), mode)
        }
        Command::Counters => return Ok(json!({ "questions": server.counters() })),
        Command::Forget => {
            server.forget();
            Ok(())
        }
    };
    let done = done.map(|()| json!({}));
    done.map_err(|error| format!("{error:#}"))
}
