//! The lab's name server, from the outside: what it is told through its control socket.

use super::control::Control;
use crate::dns::mode::Mode;
use crate::dns::zone::NameRecords;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;

/// How often somebody asked for one kind of record of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The name, in lower case, without a trailing dot.
    pub name: String,
    /// `A`, `AAAA`, `SRV`, …
    pub kind: String,
    /// Queries in all.
    pub queries: u64,
    /// The most that were unanswered at once; see [`crate::dns::counters::SWALLOWED_FOR`].
    pub most_outstanding: u64,
    /// When they came, in milliseconds since 1970, in order; at most the latest 4096.
    pub unix_ms: Vec<f64>,
}

impl Asked {
    /// How many came at or after a time.
    #[must_use]
    pub fn since(&self, unix_ms: f64) -> usize {
        self.unix_ms.iter().filter(|at| **at >= unix_ms).count()
    }
}

/// The name server's control socket. Connects anew for each command.
#[derive(Clone, Debug)]
pub struct NameServer {
    control: Control,
}

impl NameServer {
    /// The one with its socket at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            control: Control::new(path),
        }
    }

    /// Gives a name these addresses, of either family, and no other records.
    ///
    /// # Errors
    /// Nobody listens, or the name is not in the zone.
    pub fn set_addresses(&self, name: &str, ttl: u32, addresses: &[IpAddr]) -> Result<()> {
        let records = NameRecords::addresses(name, ttl, addresses);
        self.control
            .ask(&json!({"op": "set", "records": records}))
            .map(drop)
    }

    /// Takes a name out: it does not exist any more.
    ///
    /// # Errors
    /// Nobody listens, or it was not there.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.control
            .ask(&json!({"op": "remove", "name": name}))
            .map(drop)
    }

    /// Behaves like this for all names that have no mode of their own.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn set_mode(&self, mode: Mode) -> Result<()> {
        let op = json!({"op": "mode", "mode": mode.to_string()});
        self.control.ask(&op).map(drop)
    }

    /// Behaves like this for one name; `None`: as for all others again.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn set_mode_of(&self, name: &str, mode: Option<Mode>) -> Result<()> {
        let mode = mode.map(|mode| mode.to_string());
        let op = json!({"op": "mode", "name": name, "mode": mode});
        self.control.ask(&op).map(drop)
    }

    /// Begins to count anew.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn forget(&self) -> Result<()> {
        self.control.ask(&json!({"op": "forget"})).map(drop)
    }

    /// What was asked since it started or last forgot.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn asked(&self) -> Result<Vec<Asked>> {
        let answer = self.control.ask(&json!({"op": "counters"}))?;
        let questions = answer["questions"].as_array().context("no questions")?;
        questions.iter().map(asked).collect()
    }

    /// Queries for addresses of a name at or after a time, both families together.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn lookups(&self, name: &str, since_unix_ms: f64) -> Result<usize> {
        let of_name =
            |asked: &&Asked| asked.name == name && matches!(asked.kind.as_str(), "A" | "AAAA");
        let asked = self.asked()?;
        let counts = asked.iter().filter(of_name);
        Ok(counts.map(|asked| asked.since(since_unix_ms)).sum())
    }
}

fn asked(question: &Value) -> Result<Asked> {
    let number = |key: &str| question[key].as_u64().context("a count is no number");
    let times = question["unix_ms"].as_array().context("no list of times")?;
    Ok(Asked {
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
        let asked = asked(&question).expect("counters");
        assert_eq!((asked.queries, asked.most_outstanding), (3, 1));
        assert_eq!(asked.since(2000.0), 2);
        assert!(super::asked(&json!({"name": "app.lab.example"})).is_err());
    }
}
