//! The commands of the name server's control socket.
//!
//! ```text
//! {"op":"set","records":{"name":"app.lab.example","ttl":30,"a":["10.20.0.101"]}}
//! {"op":"remove","name":"app.lab.example"}
//! {"op":"mode","mode":"silent"}
//! {"op":"mode","name":"app.lab.example","mode":"slow 250ms"}    (null: as all others)
//! {"op":"counters"}
//! {"op":"forget"}                                               (resets the counts)
//! ```

use super::mode::Mode;
use super::serve::SharedResponder;
use super::zone::NameRecords;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

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

/// Executes the command of a line.
pub(super) async fn execute(line: Vec<u8>, shared: Arc<SharedResponder>) -> Result<Value, String> {
    let command = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
    let mut responder = shared.responder();
    let done = match command {
        Command::Set { records } => responder.set(records),
        Command::Remove { name } => match responder.remove(&name) {
            true => Ok(()),
            false => Err(anyhow::anyhow!("there is no {name}")),
        },
        Command::Mode { name, mode } => {
            tracing::info!(?name, ?mode, "behaving differently");
            responder.set_mode(name.as_deref(), mode)
        }
        Command::Counters => return Ok(json!({ "questions": responder.counts() })),
        Command::Forget => {
            responder.forget();
            Ok(())
        }
    };
    let done = done.map(|()| json!({}));
    done.map_err(|error| format!("{error:#}"))
}
