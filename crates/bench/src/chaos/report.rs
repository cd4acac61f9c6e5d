//! What came of the faults, as tables for people and one line of JSON for machines.
//!
//! Pure. Aims stand beside the figures that missed them; missing one is no failure of the run.

use super::crowd::Crowd;
use super::trace::At;
use postern_lab::figures::{percentile, table};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// What came of one fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Time until traffic flowed again, of each hit client; `None`: not before the next fault.
    pub recoveries: Vec<Option<Duration>>,
    /// Probes lost by the hit clients.
    pub lost_by_hit: usize,
    /// Probes lost by all others.
    pub lost_by_others: usize,
    /// Transfers that broke: whose, and why.
    pub broken: Vec<(usize, String)>,
}

impl Outcome {
    /// Reads the traces of a window that begins with the fault. Recoveries are counted from `zero`:
    /// the fault itself, or the start of the process that has to make up for it.
    pub(super) fn of(crowd: &Crowd, hit: &[usize], window: &Range<At>, zero: At) -> Self {
        let head_start = zero.saturating_sub(window.start);
        let mut outcome = Self::default();
        for client in crowd.everybody() {
            let trace = crowd.trace(client);
            let lost = trace.lost(window);
            let breaks = trace.breaks(window);
            outcome
                .broken
                .extend(breaks.map(|it| (client, it.why.clone())));
            if hit.contains(&client) {
                let recovery = trace.recovery(window);
                let recovery = recovery.map(|it| it.saturating_sub(head_start));
                outcome.recoveries.push(recovery);
                outcome.lost_by_hit += lost;
            } else {
                outcome.lost_by_others += lost;
            }
        }
        outcome
    }
}

/// All faults of one sort.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Of which sort.
    pub name: String,
    /// What came of each.
    pub outcomes: Vec<Outcome>,
    /// How long the gateway took, as it says itself, to build what had died anew.
    pub rebuilt: Vec<Duration>,
}

/// What is aimed at.
#[derive(Clone, Copy, Debug)]
pub struct Aims {
    /// Median time until traffic flows again.
    pub median: Duration,
    /// Longest time until traffic flows again.
    pub max: Duration,
    /// Whether even the hit clients are to lose nothing.
    pub lossless: bool,
}

impl Tally {
    /// An empty one.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// The recoveries of all hit clients, in order of length.
    fn recoveries(&self) -> Vec<Duration> {
        let each = self.outcomes.iter().flat_map(|it| &it.recoveries);
        let mut recoveries: Vec<Duration> = each.copied().flatten().collect();
        recoveries.sort_unstable();
        recoveries
    }

    /// How many hit clients did not recover.
    #[must_use]
    pub fn unrecovered(&self) -> usize {
        let each = self.outcomes.iter().flat_map(|it| &it.recoveries);
        each.filter(|recovery| recovery.is_none()).count()
    }

    /// Median and longest time until traffic flowed again; zero when nobody was hit.
    #[must_use]
    pub fn median_and_max(&self) -> (Duration, Duration) {
        let recoveries = self.recoveries();
        (percentile(&recoveries, 50), percentile(&recoveries, 100))
    }

    fn sum(&self, count: impl Fn(&Outcome) -> usize) -> usize {
        self.outcomes.iter().map(count).sum()
    }

    /// Probes lost by all but the hit clients.
    #[must_use]
    pub fn lost_by_others(&self) -> usize {
        self.sum(|it| it.lost_by_others)
    }

    /// Probes lost by the hit clients.
    #[must_use]
    pub fn lost_by_hit(&self) -> usize {
        self.sum(|it| it.lost_by_hit)
    }

    /// Transfers that broke.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.sum(|it| it.broken.len())
    }

    fn rebuilt_median(&self) -> Duration {
        let mut rebuilt = self.rebuilt.clone();
        rebuilt.sort_unstable();
        percentile(&rebuilt, 50)
    }

    fn row(&self) -> [String; 9] {
        let (median, max) = self.median_and_max();
        let most = self.outcomes.iter().map(|it| it.lost_by_hit).max();
        let mut max = milliseconds(max);
        if self.unrecovered() > 0 {
            max = format!("never ({})", self.unrecovered());
        }
        [
            self.name.clone(),
            self.outcomes.len().to_string(),
            milliseconds(median),
            max,
            match self.rebuilt.is_empty() {
                true => "-".to_owned(),
                false => milliseconds(self.rebuilt_median()),
            },
            self.lost_by_hit().to_string(),
            most.unwrap_or_default().to_string(),
            self.lost_by_others().to_string(),
            self.broken().to_string(),
        ]
    }

    fn json(&self) -> Value {
        let (median, max) = self.median_and_max();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        json!({
            "name": self.name,
            "faults": self.outcomes.len(),
            "median_ms": ms(median),
            "max_ms": ms(max),
            "unrecovered": self.unrecovered(),
            "rebuilt_median_ms": (!self.rebuilt.is_empty()).then(|| ms(self.rebuilt_median())),
            "lost_by_hit": self.lost_by_hit(),
            "lost_by_others": self.lost_by_others(),
            "broken": self.broken(),
        })
    }

    /// Which aims it missed, in words.
    #[must_use]
    pub fn misses(&self, aims: Aims) -> Vec<String> {
        let (median, max) = self.median_and_max();
        let mut misses = Vec::new();
        let mut check = |missed: bool, what: String| {
            if missed {
                misses.push(format!("{}: {what}", self.name));
            }
        };
        let (aim_median, aim_max) = (milliseconds(aims.median), milliseconds(aims.max));
        check(
            median > aims.median,
            format!("median {} ms, aim under {aim_median}", milliseconds(median)),
        );
        check(
            max > aims.max,
            format!("longest {} ms, aim under {aim_max}", milliseconds(max)),
        );
        let (hit, others, broken) = (self.lost_by_hit(), self.lost_by_others(), self.broken());
        check(
            aims.lossless && hit > 0,
            format!("{hit} packets lost, aim 0"),
        );
        check(
            others > 0,
            format!("{others} packets lost by others, aim 0"),
        );
        check(broken > 0, format!("{broken} transfers broken, aim 0"));
        let never = self.unrecovered();
        check(never > 0, format!("{never} clients did not recover"));
        misses
    }
}

/// One scenario's figures.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// What it is called on the command line.
    pub name: &'static str,
    /// In words.
    pub title: String,
    /// The lines of its table.
    pub tallies: Vec<Tally>,
    /// What else was seen.
    pub notes: Vec<String>,
    /// Aims that were missed.
    pub misses: Vec<String>,
    /// What the gateway did that it must not do, or did not do, whatever the figures.
    pub wrong: Vec<String>,
}

impl Section {
    /// An empty one.
    #[must_use]
    pub fn new(name: &'static str, title: impl Into<String>) -> Self {
        Self {
            name,
            title: title.into(),
            ..Self::default()
        }
    }

    /// Adds a line, and what it missed.
    pub fn add(&mut self, tally: Tally, aims: Option<Aims>) {
        if let Some(aims) = aims {
            self.misses.extend(tally.misses(aims));
        }
        let mut whose: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (client, why) in tally.outcomes.iter().flat_map(|it| &it.broken) {
            whose.entry(why).or_default().push(*client);
        }
        for (why, clients) in whose {
            let name = &tally.name;
            let note = format!("{name}: transfers broken, {why}: of the clients {clients:?}");
            self.notes.push(note);
        }
        self.tallies.push(tally);
    }

    /// How many clients did not recover from something.
    #[must_use]
    pub fn unrecovered(&self) -> usize {
        self.tallies.iter().map(Tally::unrecovered).sum()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        const HEADER: [&str; 9] = [
            "ms",
            "faults",
            "median",
            "max",
            "rebuilt",
            "lost by hit",
            "most",
            "lost by others",
            "broken",
        ];
        let mut text = format!("{}\n", self.title);
        if !self.tallies.is_empty() {
            let mut rows: Vec<[String; 9]> = self.tallies.iter().map(Tally::row).collect();
            if rows.len() > 1 {
                rows.push(self.total().row());
            }
            text += &table(&HEADER.map(str::to_owned), &rows);
        }
        for miss in &self.misses {
            text += &format!("aim missed: {miss}\n");
        }
        for wrong in &self.wrong {
            text += &format!("WRONG: {wrong}\n");
        }
        for note in &self.notes {
            text += &format!("note: {note}\n");
        }
        text
    }

    fn total(&self) -> Tally {
        let mut total = Tally::new("all");
        for tally in &self.tallies {
            total.outcomes.extend(tally.outcomes.iter().cloned());
            total.rebuilt.extend(&tally.rebuilt);
        }
        total
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self.tallies.iter().map(Tally::json).collect();
        json!({
            "scenario": self.name,
            "rows": rows,
            "misses": self.misses,
            "wrong": self.wrong,
            "notes": self.notes,
        })
    }
}

/// What the columns mean.
pub(super) const LEGEND: &str = "\
median, max: time until traffic of a hit client flows again, over all hit clients of all faults:
the arrival of the first echo of a probe that was sent after the fault, and after the last probe
that the fault cost or held up for 100 ms, minus the moment of the fault; for new processes, minus
their start. The resolution is the distance of two probes. rebuilt: what the gateway says that it
took. lost: UDP probes without an echo within 2 s, by the hit clients (most: for one fault) and by
all others. broken: TCP transfers that were reset, closed, wrong, or still for 10 s.
";

fn milliseconds(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn outcome(recoveries: &[Option<u64>], lost_by_hit: usize, lost_by_others: usize) -> Outcome {
        Outcome {
            recoveries: recoveries.iter().map(|it| it.map(ms)).collect(),
            lost_by_hit,
            lost_by_others,
            broken: Vec::new(),
        }
    }

    fn tally() -> Tally {
        Tally {
            name: "udp".to_owned(),
            outcomes: vec![
                outcome(&[Some(20), Some(40)], 3, 0),
                outcome(&[Some(30)], 5, 1),
            ],
            rebuilt: vec![ms(4), ms(2), ms(3)],
        }
    }

    const AIMS: Aims = Aims {
        median: Duration::from_millis(250),
        max: Duration::from_millis(1000),
        lossless: false,
    };

    #[test]
    fn a_row_sums_up_all_faults_and_all_hit_clients() {
        let expected = ["udp", "2", "30", "40", "3", "8", "5", "1", "0"];
        assert_eq!(tally().row(), expected);
    }

    #[test]
    fn a_table_ends_with_the_sum_of_its_rows() {
        let mut section = Section::new("kinds", "Every kind of actor");
        section.add(tally(), None);
        assert!(!section.text().contains("all"), "one row is its own sum");
        section.add(tally(), None);
        let text = section.text();
        let expected = "\
Every kind of actor
ms   faults  median  max  rebuilt  lost by hit  most  lost by others  broken
udp       2      30   40        3            8     5               1       0
udp       2      30   40        3            8     5               1       0
all       4      30   40        3           16     5               2       0
";
        assert_eq!(text, expected);
    }

    #[test]
    fn misses_are_named_one_by_one() {
        assert_eq!(
            tally().misses(AIMS),
            ["udp: 1 packets lost by others, aim 0"]
        );
        let mut slow = Tally::new("tun");
        slow.outcomes
            .push(outcome(&[Some(300), Some(1200), None], 9, 0));
        let lossless = Aims {
            lossless: true,
            ..AIMS
        };
        let expected = [
            "tun: median 300 ms, aim under 250",
            "tun: longest 1200 ms, aim under 1000",
            "tun: 9 packets lost, aim 0",
            "tun: 1 clients did not recover",
        ];
        assert_eq!(slow.misses(lossless), expected);
    }

    #[test]
    fn who_never_recovers_is_seen_in_row_and_json() {
        let mut section = Section::new("kinds", "x");
        let mut tally = Tally::new("tun");
        tally.outcomes.push(outcome(&[Some(10), None], 9, 0));
        let broken = [(1, "reset".to_owned()), (3, "reset".to_owned())];
        tally.outcomes[0].broken.extend(broken);
        section.add(tally, Some(AIMS));
        assert!(section.text().contains("never (1)"), "{}", section.text());
        assert_eq!(section.unrecovered(), 1);
        let json = section.json();
        assert_eq!(json["rows"][0]["unrecovered"], 1);
        assert_eq!(json["rows"][0]["median_ms"], 10.0);
        let expected = "tun: transfers broken, reset: of the clients [1, 3]";
        assert_eq!(json["notes"][0], expected);
        assert_eq!(json["misses"].as_array().map(Vec::len), Some(2));
    }
}
