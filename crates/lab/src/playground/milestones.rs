//! The milestones that gateway and client write down, as one timeline.
//!
//! The client appends JSON lines `{"unix_ms", "milestone", …}` to its `--timeline` file; the
//! gateway's log (format `json`) holds them as fields. Refuses nothing: lines that are something
//! else, or half written, are passed over.

use serde_json::{Map, Value};
use std::time::UNIX_EPOCH;

/// Something that gateway or client reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Milestone {
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: f64,
    /// What: `joined`, `authorization_requested`, `path_nominated`, …
    pub name: String,
    /// What else it says.
    pub fields: Map<String, Value>,
}

impl Milestone {
    /// A field as text; empty when there is none.
    #[must_use]
    pub fn field(&self, name: &str) -> String {
        match self.fields.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }
}

/// Reads the client's timeline file.
#[must_use]
pub fn of_timeline(text: &str) -> Vec<Milestone> {
    let entry = |line: &str| {
        let fields: Map<String, Value> = serde_json::from_str(line).ok()?;
        Some(Milestone {
            unix_ms: fields.get("unix_ms")?.as_f64()?,
            name: fields.get("milestone")?.as_str()?.to_owned(),
            fields,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// Reads a log that was written with format `json`: one flat object a line.
#[must_use]
pub fn of_log(text: &str) -> Vec<Milestone> {
    let entry = |line: &str| {
        let fields: Map<String, Value> = serde_json::from_str(line).ok()?;
        Some(Milestone {
            unix_ms: parse_timestamp(fields.get("timestamp")?.as_str()?)?,
            name: fields.get("milestone")?.as_str()?.to_owned(),
            fields,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// An RFC 3339 time in UTC (`2026-03-21T10:04:05.678901Z`) as milliseconds since 1970.
fn parse_timestamp(text: &str) -> Option<f64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    let since_1970 = time.duration_since(UNIX_EPOCH).ok()?;
    Some(since_1970.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_agree_with_date() {
        // date -u -d … +%s
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0.0),
            ("2000-02-29T12:00:00Z", 951_825_600.0),
            ("2000-03-01T00:00:00Z", 951_868_800.0),
            ("2026-12-31T23:59:59Z", 1_798_761_599.0),
        ] {
            assert_eq!(parse_timestamp(text), Some(seconds * 1000.0), "{text}");
        }
        let micros = parse_timestamp("1970-01-01T00:00:01.250500Z");
        assert_eq!(micros, Some(1250.5));
        for text in [
            "",
            "2026-12-31",
            "2026-12-31T23:59:59",
            "aTbZ",
            "2026-1T0:0:0Z",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn a_timeline_is_read_and_half_lines_are_passed_over() {
        let text = "{\"unix_ms\":1000,\"milestone\":\"joined\"}\n\
                    {\"unix_ms\":1001.5,\"milestone\":\"path_nominated\",\
                    \"local\":\"a\",\"ms\":3}\n\
                    {\"unix_ms\":10";
        let milestones = of_timeline(text);
        assert_eq!(milestones.len(), 2);
        assert_eq!(milestones[1].unix_ms, 1001.5);
        assert_eq!(milestones[1].field("local"), "a");
        assert_eq!(milestones[1].field("ms"), "3");
        assert_eq!(milestones[1].field("remote"), "");
    }

    #[test]
    fn a_log_is_read_and_other_lines_are_passed_over() {
        let text = "{\"timestamp\":\"1970-01-01T00:00:02Z\",\"level\":\"INFO\",\
                    \"message\":\"joined the portal\",\"milestone\":\"joined\"}\n\
                    {\"timestamp\":\"1970-01-01T00:00:03Z\",\"message\":\"other\"}\n\
                    thread panicked\n";
        let milestones = of_log(text);
        assert_eq!(milestones.len(), 1);
        assert_eq!(
            (milestones[0].unix_ms, &*milestones[0].name),
            (2000.0, "joined")
        );
    }
}
