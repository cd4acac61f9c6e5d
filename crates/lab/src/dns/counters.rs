//! Counts of queries by name and kind, their arrival times, and how many were open at once.

use super::zone::NAMES_MAX;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Arrival times kept for each name and kind.
const TIMES_MAX: usize = 4096;
/// How long a swallowed query counts as outstanding. The server cannot tell when the sender stops
/// waiting, and a resolver that asks again within this time has two queries open.
pub const SWALLOWED_FOR: Duration = Duration::from_secs(1);

/// A query, identified by its sender and message id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryKey {
    /// In lower case, without a trailing dot.
    pub name: String,
    pub kind: RecordType,
    pub sender: (SocketAddr, u16),
}

#[derive(Debug, Default)]
struct Count {
    queries: u64,
    /// Milliseconds since 1970, in order; the latest [`TIMES_MAX`].
    times: VecDeque<f64>,
    /// Open queries and when each ends by itself; `None` waits for its answer.
    open: BTreeMap<(SocketAddr, u16), Option<Instant>>,
    most_open: usize,
}

/// All counts, at most [`NAMES_MAX`] names and kinds; further ones are not counted.
#[derive(Debug, Default)]
pub struct QueryCounts {
    counts: BTreeMap<(String, RecordType), Count>,
}

impl QueryCounts {
    pub fn arrived(&mut self, query: &QueryKey, unix_ms: f64) {
        let key = (query.name.clone(), query.kind);
        if self.counts.len() >= NAMES_MAX && !self.counts.contains_key(&key) {
            return;
        }
        let count = self.counts.entry(key).or_default();
        count.queries += 1;
        if count.times.len() == TIMES_MAX {
            count.times.pop_front();
        }
        count.times.push_back(unix_ms);
    }

    /// The query is answered later or, if `swallowed`, never.
    pub fn opened(&mut self, query: &QueryKey, swallowed: bool) {
        let now = Instant::now();
        let Some(count) = self.count(query) else {
            return;
        };
        let is_open = |until: &Option<Instant>| until.is_none_or(|until| until > now);
        count.open.retain(|_, until| is_open(until));
        let until = swallowed.then(|| now + SWALLOWED_FOR);
        count.open.insert(query.sender, until);
        count.most_open = count.most_open.max(count.open.len());
    }

    pub fn answered(&mut self, query: &QueryKey) {
        if let Some(count) = self.count(query) {
            count.open.remove(&query.sender);
        }
    }

    fn count(&mut self, query: &QueryKey) -> Option<&mut Count> {
        self.counts.get_mut(&(query.name.clone(), query.kind))
    }

    /// The answer of the control socket.
    #[must_use]
    pub fn report(&self) -> Value {
        let questions = self.counts.iter().map(|((name, kind), count)| {
            json!({
                "name": name,
                "type": kind.to_string(),
                "queries": count.queries,
                "most_outstanding": count.most_open,
                "unix_ms": count.times,
            })
        });
        questions.collect()
    }
}
