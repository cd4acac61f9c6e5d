//! Who asked for what, when, and how many questions were open at once.

use super::zone::NAMES_MAX;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

/// How many arrival times are kept for each question.
const TIMES_MAX: usize = 4096;
/// How long a swallowed query counts as outstanding: nobody can tell when its sender gave up, and
/// a resolver that asks again within this time has two questions open.
pub const SWALLOWED_FOR: Duration = Duration::from_secs(1);

/// A query that has not been answered: who asked under which id.
pub type Open = (SocketAddr, u16);

/// The counters of one name and kind.
#[derive(Debug, Default)]
struct Counter {
    queries: u64,
    /// Milliseconds since 1970, in order; the latest [`TIMES_MAX`].
    times: VecDeque<f64>,
    /// Until when each counts, `None` until it is answered.
    open: BTreeMap<Open, Option<Instant>>,
    most_open: usize,
}

/// All counters, at most [`NAMES_MAX`] questions; more are not counted.
#[derive(Debug, Default)]
pub struct Counters {
    questions: BTreeMap<(String, RecordType), Counter>,
}

impl Counters {
    /// A query arrived.
    pub fn asked(&mut self, name: &str, kind: RecordType, unix_ms: f64) {
        let question = (name.to_owned(), kind);
        let room = self.questions.len() < NAMES_MAX || self.questions.contains_key(&question);
        if !room {
            return;
        }
        let counter = self.questions.entry(question).or_default();
        counter.queries += 1;
        if counter.times.len() == TIMES_MAX {
            counter.times.pop_front();
        }
        counter.times.push_back(unix_ms);
    }

    /// It will be answered later, or (`swallowed`) never.
    pub fn opened(&mut self, name: &str, kind: RecordType, open: Open, swallowed: bool) {
        let now = Instant::now();
        let Some(counter) = self.questions.get_mut(&(name.to_owned(), kind)) else {
            return;
        };
        let counts = |until: &Option<Instant>| until.is_none_or(|until| until > now);
        counter.open.retain(|_, until| counts(until));
        let until = swallowed.then(|| now + SWALLOWED_FOR);
        counter.open.insert(open, until);
        counter.most_open = counter.most_open.max(counter.open.len());
    }

    /// It was answered.
    pub fn answered(&mut self, name: &str, kind: RecordType, open: Open) {
        if let Some(counter) = self.questions.get_mut(&(name.to_owned(), kind)) {
            counter.open.remove(&open);
        }
    }

    /// All of it, for the control socket.
    #[must_use]
    pub fn told(&self) -> Value {
        let questions = self.questions.iter().map(|((name, kind), counter)| {
            json!({
                "name": name,
                "type": kind.to_string(),
                "queries": counter.queries,
                "most_outstanding": counter.most_open,
                "unix_ms": counter.times,
            })
        });
        questions.collect()
    }
}
