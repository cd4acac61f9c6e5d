//! Milestones and log records that gateway and client write.
//!
//! The client appends JSON lines `{"unix_ms", "milestone", …}` to its `--timeline` file; the
//! gateway's log (format `json`) holds them as fields. Lines of another form,
//! or half written ones, are ignored.

use serde_json::{Map, Value};
use std::time::UNIX_EPOCH;

/// A state that gateway or client reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Milestone {
    /// Time in milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: f64,
    /// Kind of the milestone: `joined`, `authorization_requested`, `path_nominated`, …
    pub name: String,
    /// The line's fields, those above included.
    pub fields: Map<String, Value>,
}

impl Milestone {
    /// A field as text; empty when it is missing.
    pub fn field(&self, name: &str) -> String {
        match self.fields.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }
}

/// Parses the client's timeline file.
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

/// Parses the milestones in a log of format `json`.
pub fn of_log(text: &str) -> Vec<Milestone> {
    let milestone = |record: Record| {
        Some(Milestone {
            unix_ms: record.unix_ms,
            name: record.fields.get("milestone")?.as_str()?.to_owned(),
            fields: record.fields,
        })
    };
    records(text).into_iter().filter_map(milestone).collect()
}

/// One line of a log of format `json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Time in milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: f64,
    pub level: String,
    /// The line's fields, `message` included.
    pub fields: Map<String, Value>,
}

impl Record {
    /// A field as text; empty when it is missing or not text.
    pub fn text(&self, name: &str) -> &str {
        let text = self.fields.get(name).and_then(Value::as_str);
        text.unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.fields.get(name)?.as_u64()
    }
}

/// Parses all lines of a log of format `json`.
pub fn records(text: &str) -> Vec<Record> {
    let entry = |line: &str| {
        let record: Map<String, Value> = serde_json::from_str(line).ok()?;
        let level = record.get("level").and_then(Value::as_str);
        // The fields are beside the time, or in their own object.
        let fields = match record.get("fields") {
            Some(fields) => fields.as_object()?.clone(),
            None => record.clone(),
        };
        Some(Record {
            unix_ms: parse_timestamp(record.get("timestamp")?.as_str()?)?,
            level: level.unwrap_or_default().to_owned(),
            fields,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// Parses an RFC 3339 time in UTC (`2026-03-21T10:04:05.678901Z`) to milliseconds since 1970.
fn parse_timestamp(text: &str) -> Option<f64> {
    let time = humantime::parse_rfc3339(text).ok()?;
    let since_1970 = time.duration_since(UNIX_EPOCH).ok()?;
    // Microseconds since 1970 fit the 53 bits of an f64 until the year 2255.
    Some(since_1970.as_micros() as f64 / 1000.0)
}

/// How often a milestone was reached.
pub fn count(milestones: &[Milestone], name: &str) -> usize {
    milestones.iter().filter(|it| it.name == name).count()
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
    fn a_timeline_is_parsed_and_half_lines_are_ignored() {
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
    fn a_log_is_parsed_and_other_lines_are_ignored() {
        let text = "{\"timestamp\":\"1970-01-01T00:00:02Z\",\"level\":\"INFO\",\
                    \"fields\":{\"message\":\"joined the portal\",\"milestone\":\"joined\"}}\n\
                    {\"timestamp\":\"1970-01-01T00:00:03Z\",\"fields\":{\"message\":\"other\"}}\n\
                    {\"timestamp\":\"1970-01-01T00:00:04Z\",\"milestone\":\"goodbye\"}\n\
                    thread panicked\n";
        let milestones = of_log(text);
        let found: Vec<_> = milestones
            .iter()
            .map(|it| (it.unix_ms, &*it.name))
            .collect();
        assert_eq!(found, [(2000.0, "joined"), (4000.0, "goodbye")]);
    }
}
