//! A strict reader of the OpenMetrics text format (version 1.0.0): each broken rule is an error
//! with its line.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Page {
    families: BTreeMap<String, Family>,
    /// By name and labels, as written.
    samples: BTreeMap<String, f64>,
}

/// A number with its series.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    unit: Option<String>,
    /// Names of samples, as in alert rules and dashboards.
    pub(crate) names: BTreeSet<String>,
    pub(crate) labels: BTreeSet<String>,
}

struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl Page {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("no end")?;
        let mut page = Self::default();
        let mut current = String::new();
        for line in body.lines() {
            page.line(line, &mut current)
                .map_err(|why| format!("{why}: {line}"))?;
        }
        for (name, family) in &page.families {
            page.check(name, family)?;
        }
        Ok(page)
    }

    pub(crate) fn families(&self) -> &BTreeMap<String, Family> {
        &self.families
    }

    /// All series, as written.
    pub(crate) fn series(&self) -> BTreeSet<&str> {
        self.samples.keys().map(String::as_str).collect()
    }

    /// The value of an existing series.
    #[track_caller]
    pub(crate) fn value(&self, series: &str) -> f64 {
        let value = self.samples.get(series).copied();
        value.unwrap_or_else(|| panic!("no {series}"))
    }

    fn line(&mut self, line: &str, current: &mut String) -> Result<(), String> {
        if let Some(about) = line.strip_prefix("# ") {
            let mut words = about.splitn(3, ' ');
            let (what, name) = (words.next(), words.next());
            let (Some(what), Some(name), Some(rest)) = (what, name, words.next()) else {
                return Err("three words".into());
            };
            return self.describe((what, name, rest), current);
        }
        let sample = Sample::parse(line)?;
        let family = self.families.get_mut(&current[..]).ok_or("of no family")?;
        let suffix = sample
            .name
            .strip_prefix(&current[..])
            .ok_or("not of this family")?;
        let allowed: &[&str] = match &family.kind[..] {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => return Err("unknown type".into()),
        };
        if !allowed.contains(&suffix) {
            return Err("unexpected suffix".into());
        }
        family.names.insert(sample.name.to_owned());
        let labels = sample.labels.iter().map(|(name, _)| (*name).to_owned());
        family.labels.extend(labels);
        if family.kind != "gauge" && (sample.value.is_nan() || sample.value < 0.0) {
            return Err("less than nothing".into());
        }
        let (series, _) = line.rsplit_once(' ').ok_or("no value")?;
        match self.samples.insert(series.to_owned(), sample.value) {
            Some(_) => Err("told twice".into()),
            None => Ok(()),
        }
    }

    fn describe(
        &mut self,
        (what, name, rest): (&str, &str, &str),
        current: &mut String,
    ) -> Result<(), String> {
        is_name(name).then_some(()).ok_or("not a name")?;
        if name != current {
            if self.families.contains_key(name) {
                return Err("a family in two places".into());
            }
            current.clear();
            current.push_str(name);
        }
        let family = self.families.entry(name.to_owned()).or_default();
        if !family.names.is_empty() {
            return Err("described after its samples".into());
        }
        match what {
            "HELP" if family.help.is_empty() => family.help = rest.to_owned(),
            "TYPE" if family.kind.is_empty() => family.kind = rest.to_owned(),
            "UNIT" if family.unit.is_none() => family.unit = Some(rest.to_owned()),
            _ => return Err("unknown or repeated".into()),
        }
        Ok(())
    }

    fn check(&self, name: &str, family: &Family) -> Result<(), String> {
        if family.names.is_empty() || family.help.is_empty() || family.kind.is_empty() {
            return Err(format!("{name} is not complete"));
        }
        let is_unit_named = |unit: &String| name.ends_with(&format!("_{unit}"));
        if !family.unit.iter().all(is_unit_named) {
            return Err(format!("{name} does not end with its unit"));
        }
        match &family.kind[..] {
            "histogram" => self.check_histogram(name),
            _ => Ok(()),
        }
    }

    /// The buckets of each series ascend to infinity, and the last equals the count.
    fn check_histogram(&self, name: &str) -> Result<(), String> {
        let mut last: BTreeMap<Vec<(&str, String)>, (f64, f64)> = BTreeMap::new();
        let mut buckets = Vec::new();
        for (series, value) in &self.samples {
            let text = format!("{series} {value}");
            let sample = Sample::parse(&text)?;
            if sample.name != format!("{name}_bucket") {
                continue;
            }
            let mut labels = Vec::new();
            let mut limit = None;
            for (label, text) in sample.labels {
                match label {
                    "le" => limit = Some(number(&text)?),
                    _ => labels.push((label.to_owned(), text)),
                }
            }
            buckets.push((labels, limit.ok_or("a bucket without limit")?, *value));
        }
        buckets.sort_by(|a, b| a.partial_cmp(b).expect("no NaN"));
        for (labels, limit, value) in &buckets {
            let key = labels.iter().map(|(a, b)| (&a[..], b.clone())).collect();
            let (_, before) = last.insert(key, (*limit, *value)).unwrap_or_default();
            if *value < before {
                return Err(format!("{name} falls at {limit}"));
            }
        }
        for (labels, (limit, value)) in last {
            let of_count = |text: &str| {
                Sample::parse(&format!("{text} 0"))
                    .is_ok_and(|it| it.name == format!("{name}_count") && it.labels == labels)
            };
            let count = self.samples.iter().find(|(series, _)| of_count(series));
            if limit != f64::INFINITY || count.map(|(_, count)| *count) != Some(value) {
                return Err(format!("{name} {labels:?} does not add up"));
            }
        }
        Ok(())
    }
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Result<Self, String> {
        let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
        let value = number(value)?;
        let (name, labels) = match series.split_once('{') {
            None => (series, Vec::new()),
            Some((name, rest)) => {
                let rest = rest.strip_suffix('}').ok_or("no end of labels")?;
                (name, labels(rest)?)
            }
        };
        is_name(name).then_some(()).ok_or("not a name")?;
        Ok(Self {
            name,
            labels,
            value,
        })
    }
}

/// `a="x",b="y"`; our labels need no escapes, so none are supported.
fn labels(mut text: &str) -> Result<Vec<(&str, String)>, String> {
    let mut labels: Vec<(&str, String)> = Vec::new();
    loop {
        let (name, rest) = text.split_once("=\"").ok_or("no value of a label")?;
        let (value, rest) = rest.split_once('"').ok_or("no end of a label")?;
        if !is_name(name) || name.contains(':') || value.contains('\\') {
            return Err("an odd label".into());
        }
        if labels.iter().any(|(known, _)| *known == name) {
            return Err("a label twice".into());
        }
        labels.push((name, value.to_owned()));
        match rest.strip_prefix(',') {
            Some(more) => text = more,
            None if rest.is_empty() => return Ok(labels),
            None => return Err("no comma".into()),
        }
    }
}

fn number(text: &str) -> Result<f64, String> {
    let is_odd = text.is_empty() || text.starts_with('+') && text != "+Inf";
    let parsed = text.parse().ok().filter(|_| !is_odd);
    parsed.ok_or_else(|| format!("not a number: {text}"))
}

fn is_name(text: &str) -> bool {
    let is_letter = |at: char| at.is_ascii_alphabetic() || at == '_' || at == ':';
    text.starts_with(is_letter) && text.chars().all(|at| is_letter(at) || at.is_ascii_digit())
}

#[test]
fn rejects_pages_that_break_a_rule() {
    let good = "# HELP a_seconds b.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
                a_seconds_sum{x=\"1\"} 0.5\na_seconds_count{x=\"1\"} 2\n\
                a_seconds_bucket{le=\"0.1\",x=\"1\"} 1\na_seconds_bucket{le=\"+Inf\",x=\"1\"} 2\n\
                # HELP c d\n# TYPE c counter\nc_total 7\n# EOF\n";
    let page = Page::parse(good).expect("a page");
    assert_eq!(page.value("c_total"), 7.0);
    assert_eq!(page.families()["a_seconds"].labels.len(), 2);
    for (from, to) in [
        ("# EOF\n", ""),
        ("# EOF\n", "# EOF\nc_total 8\n# EOF\n"),
        ("c_total 7", "c 7"),
        ("c_total 7", "c_total seven"),
        ("c_total 7", "c_total -7"),
        ("c_total 7", "c_total 7\nc_total 7"),
        ("c_total 7\n", ""),
        ("c_total 7", "e_total 7"),
        ("# TYPE c counter", "# TYPE c tachometer"),
        ("# TYPE c counter", "# TYPE c counter\n# TYPE c counter"),
        ("# TYPE c counter", "# TYPE a_seconds counter"),
        ("# HELP c d", "# HELP c-c d"),
        ("# HELP c d\n", ""),
        ("# UNIT a_seconds seconds", "# UNIT a_seconds bytes"),
        ("le=\"0.1\",x=\"1\"} 1", "le=\"0.1\",x=\"1\"} 3"),
        ("{x=\"1\"} 2", "{x=\"1\"} 3"),
        ("le=\"+Inf\"", "le=\"9\""),
        ("{x=\"1\"} 0.5", "{x=\"1} 0.5"),
        ("{x=\"1\"} 0.5", "{x=\"1\",x=\"1\"} 0.5"),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replacen(from, to, 1);
        assert!(Page::parse(&bad).is_err(), "{bad}");
    }
}
