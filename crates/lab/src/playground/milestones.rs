//! The milestones that gateway and client write down, as one timeline.
//!
//! The client appends JSON lines `{"unix_ms", "milestone", …}` to its `--timeline` file; the
//! gateway's log (format `json`) holds them as fields. Refuses nothing: lines that are something
//! else, or half written, are passed over.

use serde_json::{Map, Value};

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

/// Reads a log that was written with format `json`.
#[must_use]
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

/// A line of a log.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: f64,
    /// `ERROR`, `WARN`, `INFO`, …
    pub level: String,
    /// What it says, `message` among it.
    pub fields: Map<String, Value>,
}

impl Record {
    /// A field as text; empty when there is none or it is no text.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        let text = self.fields.get(name).and_then(Value::as_str);
        text.unwrap_or_default()
    }

    /// A field as a number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.fields.get(name)?.as_u64()
    }
}

/// Reads all lines of a log that was written with format `json`.
#[must_use]
pub fn records(text: &str) -> Vec<Record> {
    let entry = |line: &str| {
        let record: Map<String, Value> = serde_json::from_str(line).ok()?;
        let level = record.get("level").and_then(Value::as_str);
        // The fields stand beside the time, or in an object of their own.
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

/// An RFC 3339 time in UTC (`2026-03-21T10:04:05.678901Z`) as milliseconds since 1970.
fn parse_timestamp(text: &str) -> Option<f64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let date: Vec<i32> = date
        .split('-')
        .map_while(|part| part.parse().ok())
        .collect();
    let [year, month, day] = date[..] else {
        return None;
    };
    let mut time = time.splitn(3, ':');
    let hours: f64 = time.next()?.parse().ok()?;
    let minutes: f64 = time.next()?.parse().ok()?;
    let seconds: f64 = time.next()?.parse().ok()?;
    let of_day = (hours * 60.0 + minutes) * 60.0 + seconds;
    Some((f64::from(days_since_1970(year, month, day)) * 86_400.0 + of_day) * 1000.0)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, for the years from 1970 on: whole
/// years, their leap days, and a year that begins in March so that its own leap day comes last.
fn days_since_1970(year: i32, month: i32, day: i32) -> i32 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719 468 days lie between 0000-03-01 and 1970-01-01; (153 m + 2) / 5 sums the months 31, 30, …
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
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
