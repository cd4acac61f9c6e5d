//! The milestones of a session, as one log line each and as one JSON line each.
//!
//! Carries addresses and names on purpose, above DEBUG: this client is the lab's measuring
//! instrument.

use super::clock::millis;
use super::vocabulary::{GatewayId, ResourceId};
use serde::Serialize;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// One milestone. Fields that do not apply are `None` and absent from the JSON.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Milestone {
    /// `joined`, `authorization_requested`, `authorization_created`, `authorization_failed`,
    /// `path_nominated`, `handshake_completed`, `first_packet_received`, `connection_lost`,
    /// `goodbye`; for names `name_asked`, `name_announced`, `name_active`, `name_inactive`.
    pub milestone: &'static str,
    pub resource: Option<ResourceId>,
    pub gateway: Option<GatewayId>,
    pub name: Option<String>,
    /// The client's end of the path.
    pub local: Option<SocketAddr>,
    /// The gateway's end of the path.
    pub remote: Option<SocketAddr>,
    pub reason: Option<String>,
    /// Milliseconds since the grant that opened this connection; for `name_active` and
    /// `name_inactive`, since the last announcement of the name.
    pub ms: Option<f64>,
    /// Milliseconds since the first packet for the resource, or for the name.
    pub since_first_packet_ms: Option<f64>,
}

pub struct Timeline {
    file: Option<Mutex<File>>,
}

impl Timeline {
    /// Appends to `path`, if there is one.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path| File::options().create(true).append(true).open(path);
        let file = path.map(open).transpose()?.map(Mutex::new);
        Ok(Self { file })
    }

    /// Logs the milestone and appends it to the file.
    pub fn record(&self, event: &Milestone) {
        tracing::info!(
            milestone = event.milestone,
            resource = event.resource.map(tracing::field::display),
            gateway = event.gateway.map(tracing::field::display),
            name = event.name,
            local = event.local.map(tracing::field::display),
            remote = event.remote.map(tracing::field::display),
            reason = event.reason,
            ms = event.ms,
            since_first_packet_ms = event.since_first_packet_ms,
        );
        let Some(file) = &self.file else { return };
        let mut line = json!(event);
        if let Value::Object(fields) = &mut line {
            fields.retain(|_, value| !value.is_null());
        }
        // With fractions: several milestones may fall into one millisecond.
        line["unix_ms"] = json!(unix_ms());
        let mut file = file.lock().expect("no holder panics");
        if let Err(error) = file.write_all(format!("{line}\n").as_bytes()) {
            tracing::warn!(%error, "cannot append to the timeline file");
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a timeline is read beside other processes' timelines, so it needs the wall clock"
)]
fn unix_ms() -> f64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0.0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::time::Duration;

    #[test]
    fn appends_one_json_line_per_milestone_without_empty_fields() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("timeline.jsonl");
        for name in ["joined", "goodbye"] {
            let timeline = Timeline::open(Some(&path)).expect("opens");
            timeline.record(&Milestone {
                milestone: name,
                ms: Some(millis(Duration::from_micros(1500))),
                ..Milestone::default()
            });
        }
        let text = std::fs::read_to_string(&path).expect("is there");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["milestone"], "joined");
        assert_eq!(lines[0]["ms"], 1.5);
        assert!(lines[0]["unix_ms"].as_f64().is_some_and(|ms| ms > 0.0));
        assert!(lines[0].get("gateway").is_none());
    }
}
