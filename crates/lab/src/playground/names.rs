//! A client of the control socket of the lab's name server.

use super::control::Control;
use crate::dns::mode::Mode;
use crate::dns::zone::NameRecords;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;

/// Queries that the name server has received for one type of record of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryCounter {
    /// The name, in lower case, without a trailing dot.
    pub name: String,
    /// `A`, `AAAA`, `SRV`, …
    pub kind: String,
    pub queries: u64,
    /// Maximum of unanswered queries at a time; see [`crate::dns::counters::SWALLOWED_FOR`].
    pub most_outstanding: u64,
    /// Arrival times in milliseconds since 1970, in order; at most the latest 4096.
    pub unix_ms: Vec<f64>,
}

impl QueryCounter {
    /// Number of queries that arrived at or after a time.
    pub fn since(&self, unix_ms: f64) -> usize {
        self.unix_ms.iter().filter(|at| **at >= unix_ms).count()
    }
}

/// The name server's control socket. Connects for each command.
#[derive(Clone, Debug)]
pub struct NameServer(Control);

impl NameServer {
    pub fn new(path: &Path) -> Self {
        Self(Control::new(path))
    }

    /// Replaces the records of a name of the zone by these addresses, of either family.
    pub fn set_addresses(&self, name: &str, ttl: u32, addresses: &[IpAddr]) -> Result<()> {
        let records = NameRecords::addresses(name, ttl, addresses);
        self.0.tell(&json!({"op": "set", "records": records}))
    }

    /// Removes a name from the zone.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.0.tell(&json!({"op": "remove", "name": name}))
    }

    /// Sets the mode for all names that have no mode of their own.
    pub fn set_mode(&self, mode: Mode) -> Result<()> {
        let op = json!({"op": "mode", "mode": mode.to_string()});
        self.0.tell(&op)
    }

    /// Sets the mode for one name; `None` removes the name's own mode.
    pub fn set_mode_of(&self, name: &str, mode: Option<Mode>) -> Result<()> {
        let mode = mode.map(|mode| mode.to_string());
        let op = json!({"op": "mode", "name": name, "mode": mode});
        self.0.tell(&op)
    }

    /// Resets the counters of queries.
    pub fn forget(&self) -> Result<()> {
        self.0.tell(&json!({"op": "forget"}))
    }

    /// Counters since the start or the last [`Self::forget`].
    pub fn counters(&self) -> Result<Vec<QueryCounter>> {
        let answer = self.0.ask(&json!({"op": "counters"}))?;
        let questions = answer["questions"].as_array().context("no questions")?;
        questions.iter().map(counter).collect()
    }

    /// Number of A and AAAA queries for a name at or after a time.
    pub fn lookups(&self, name: &str, since_unix_ms: f64) -> Result<usize> {
        let counters = self.counters()?;
        let of_name = counters
            .iter()
            .filter(|it| it.name == name && matches!(it.kind.as_str(), "A" | "AAAA"));
        Ok(of_name.map(|it| it.since(since_unix_ms)).sum())
    }
}

fn counter(question: &Value) -> Result<QueryCounter> {
    let number = |key: &str| question[key].as_u64().context("a count is no number");
    let times = question["unix_ms"].as_array().context("no list of times")?;
    Ok(QueryCounter {
        name: question["name"].as_str().context("no name")?.to_owned(),
        kind: question["type"].as_str().context("no type")?.to_owned(),
        queries: number("queries")?,
        most_outstanding: number("most_outstanding")?,
        unix_ms: times.iter().filter_map(Value::as_f64).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_counted_from_a_time() {
        let question = json!({"name": "app.lab.example", "type": "A", "queries": 3,
                              "most_outstanding": 1, "unix_ms": [1000.5, 2000, 3000]});
        let counted = counter(&question).expect("counters");
        assert_eq!((counted.queries, counted.most_outstanding), (3, 1));
        assert_eq!(counted.since(2000.0), 2);
        assert!(counter(&json!({"name": "app.lab.example"})).is_err());
    }
}
