//! What the gateway tells in its log about deaths and takeovers.

use postern_lab::playground::injector::Kind;
use postern_lab::playground::milestones::Record;
use std::time::Duration;

/// How many deaths of a kind the log tells of.
pub(super) fn deaths(log: &[Record], kind: Kind) -> usize {
    let died = |record: &&Record| is(record, "actor died", kind);
    log.iter().filter(died).count()
}

/// How long the gateway took to build actors of a kind anew, for each that was built since
/// `unix_ms`.
pub(super) fn rebuilt(log: &[Record], kind: Kind, unix_ms: f64) -> Vec<Duration> {
    let rebuilt = log
        .iter()
        .filter(|record| record.unix_ms >= unix_ms && is(record, "actor rebuilt", kind));
    let took = rebuilt.map(|record| record.number("after_ms").unwrap_or_default());
    took.map(Duration::from_millis).collect()
}

/// When an actor of a kind was first built anew since `unix_ms`, in milliseconds after it.
pub(super) fn replaced_after(log: &[Record], kind: Kind, unix_ms: f64) -> Option<Duration> {
    let mut later = log.iter().filter(|record| record.unix_ms >= unix_ms);
    let record = later.find(|record| is(record, "actor rebuilt", kind))?;
    Some(Duration::from_secs_f64((record.unix_ms - unix_ms) / 1000.0))
}

fn is(record: &Record, message: &str, kind: Kind) -> bool {
    record.text("message") == message && record.text("child") == kind.word()
}

/// The errors that are not about the death of an actor.
pub(super) fn other_errors(log: &[Record]) -> Vec<String> {
    let errors = log.iter().filter(|record| record.level == "ERROR");
    let others = errors.filter(|record| record.text("message") != "actor died");
    others.map(|it| it.text("message").to_owned()).collect()
}

/// How many clients a process says that it took over; `None` when it took over nothing.
pub(super) fn taken_over(log: &[Record]) -> Option<u64> {
    let takeover = |record: &&Record| record.text("milestone") == "taken_over";
    log.iter().find(takeover)?.number("clients")
}

/// The warnings about a state file.
pub(super) fn state_warnings(log: &[Record]) -> Vec<String> {
    let warnings = log.iter().filter(|record| record.level == "WARN");
    let told = warnings.map(|record| {
        let fields = record.fields.values().map(ToString::to_string);
        fields.collect::<Vec<_>>().join(" ")
    });
    told.filter(|told| told.contains("state")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_lab::playground::milestones::records;

    const LOG: &str = r#"
{"timestamp":"1970-01-01T00:00:01Z","level":"WARN","fields":{"message":"the state file is ignored","reason":"stale"}}
{"timestamp":"1970-01-01T00:00:01Z","level":"WARN","fields":{"message":"something else"}}
{"timestamp":"1970-01-01T00:00:02Z","level":"INFO","fields":{"message":"x","milestone":"taken_over","clients":20}}
{"timestamp":"1970-01-01T00:00:03Z","level":"ERROR","fields":{"message":"actor died","child":"udp","panic":"x","at":"f:1"}}
{"timestamp":"1970-01-01T00:00:03.25Z","level":"INFO","fields":{"message":"actor rebuilt","child":"udp","after_ms":12}}
{"timestamp":"1970-01-01T00:00:05Z","level":"ERROR","fields":{"message":"actor died","child":"connection","client":"id"}}
{"timestamp":"1970-01-01T00:00:06Z","level":"ERROR","fields":{"message":"no way"}}
"#;

    #[test]
    fn deaths_and_rebuilds_are_told_apart_by_kind() {
        let log = records(LOG);
        assert_eq!(deaths(&log, Kind::Udp), 1);
        assert_eq!(deaths(&log, Kind::Connection), 1);
        assert_eq!(deaths(&log, Kind::Tun), 0);
        assert_eq!(rebuilt(&log, Kind::Udp, 0.0), [Duration::from_millis(12)]);
        assert_eq!(rebuilt(&log, Kind::Udp, 4000.0), []);
        let after = replaced_after(&log, Kind::Udp, 3000.0);
        assert_eq!(after, Some(Duration::from_millis(250)));
        assert_eq!(replaced_after(&log, Kind::Connection, 0.0), None);
    }

    #[test]
    fn takeovers_warnings_and_other_errors_are_found() {
        let log = records(LOG);
        assert_eq!(taken_over(&log), Some(20));
        assert_eq!(taken_over(&log[3..]), None);
        assert_eq!(other_errors(&log), ["no way"]);
        assert_eq!(state_warnings(&log).len(), 1);
    }
}
