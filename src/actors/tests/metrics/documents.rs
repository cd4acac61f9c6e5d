//! docs/metrics.md and the dashboard against the page itself: neither may name missing numbers or
//! omit existing ones.

use super::openmetrics::{Family, Page};
use crate::metrics::Metrics;
use crate::metrics::process::Process;
use crate::shell::now;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../../../docs/grafana/postern.json");

fn page() -> Page {
    let metrics = Arc::new(Metrics::default());
    let text = metrics.render(now(), Some(Process::default()));
    Page::parse(&text).expect("a page")
}

/// The name of a number in queries to Prometheus.
fn asked_for(name: &str, family: &Family) -> String {
    match &family.kind[..] {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    }
}

/// The kind and the labels of each number in the tables of the document.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let is_row = |line: &&str| line.starts_with("| `postern_") || line.starts_with("| `process_");
    let rows = DOCUMENT.lines().filter(is_row);
    let mut all = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, meaning, _] = cells[..] else {
            panic!("not four columns: {row}");
        };
        assert!(meaning.len() > 15 && meaning.ends_with('.'), "{row}");
        let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned);
        let entry = (kind.to_owned(), labels.collect());
        let twice = all.insert(name.trim_matches('`').to_owned(), entry);
        assert_eq!(twice, None, "{name} has two rows");
    }
    all
}

/// All names in a text that look like our numbers.
fn mentioned(text: &str) -> BTreeSet<&str> {
    let is_part = |at: char| at.is_ascii_alphanumeric() || at == '_';
    let words = text.split(|at: char| !is_part(at));
    words
        .filter(|word| word.starts_with("postern_") || word.starts_with("process_"))
        .collect()
}

/// Names that may be mentioned: those of samples and of whole histograms.
fn mentionable(page: &Page) -> BTreeSet<String> {
    let families = page.families().iter();
    let names = families.flat_map(|(name, family)| {
        let asked = asked_for(name, family);
        family.names.iter().cloned().chain([asked])
    });
    names.collect()
}

#[test]
fn documents_each_number_with_kind_and_labels() {
    let page = page();
    let exposed = page.families().iter().map(|(name, family)| {
        let mut labels = family.labels.clone();
        labels.remove("le");
        (asked_for(name, family), (family.kind.clone(), labels))
    });
    assert_eq!(documented(), exposed.collect());
}

#[test]
fn the_document_names_only_existing_numbers() {
    let names = mentionable(&page());
    for word in mentioned(DOCUMENT) {
        assert!(names.contains(word), "{word}");
    }
}

#[test]
fn explains_each_value_of_a_label() {
    let page = page();
    for series in page.series() {
        let values = series.split('"').skip(1).step_by(2);
        for value in values.filter(|value| value.parse::<f64>().is_err() && *value != "+Inf") {
            let is_version = value == env!("CARGO_PKG_VERSION");
            let is_told = DOCUMENT.contains(&format!("`{value}`"));
            assert!(is_version || is_told, "{value} of {series}");
        }
    }
}

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).expect("JSON")
}

/// All expressions in the dashboard.
fn expressions(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(fields) => {
            let own = fields
                .iter()
                .filter(|(name, _)| *name == "expr" || *name == "query");
            let own = own.filter_map(|(_, text)| text.as_str());
            own.chain(fields.values().flat_map(expressions)).collect()
        }
        Value::Array(all) => all.iter().flat_map(expressions).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

#[test]
fn the_dashboard_queries_only_existing_numbers_and_shows_all() {
    let (page, dashboard) = (page(), dashboard());
    let asked: BTreeSet<&str> = expressions(&dashboard)
        .into_iter()
        .flat_map(mentioned)
        .collect();
    for name in &asked {
        let is_sample = page.families().values().any(|it| it.names.contains(*name));
        assert!(is_sample, "{name}");
    }
    for (name, family) in page.families() {
        let is_shown = family.names.iter().any(|name| asked.contains(&name[..]));
        assert!(is_shown, "{name}");
    }
}

#[test]
fn the_dashboard_uses_only_existing_labels() {
    let page = page();
    let families = page.families().values();
    let mut known: BTreeSet<&str> = families
        .flat_map(|it| it.labels.iter().map(|it| &it[..]))
        .collect();
    known.extend(["instance", "job"]);
    let dashboard = dashboard();
    for expression in expressions(&dashboard) {
        let selectors = expression
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split('}').next());
        for matcher in selectors.flat_map(|selector| selector.split(',')) {
            let label = matcher.split(['=', '!']).next().unwrap_or_default().trim();
            assert!(known.contains(label), "{label} in {expression}");
        }
    }
}

#[test]
fn the_dashboard_can_be_imported_and_its_panels_do_not_overlap() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(39));
    assert!(dashboard["id"].is_null());
    let variables = dashboard["templating"]["list"].as_array().expect("a list");
    let is_source = |it: &&Value| it["type"] == "datasource" && it["query"] == "prometheus";
    let source = variables
        .iter()
        .find(is_source)
        .expect("a data source to choose");
    let source = format!("${{{}}}", source["name"].as_str().expect("a name"));

    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let number = |of: &Value| of.as_u64().expect("a number");
        assert!(ids.insert(number(&panel["id"])), "{}", panel["id"]);
        let place = &panel["gridPos"];
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| number(&place[side]));
        assert!(w > 0 && h > 0 && x + w <= 24, "{place}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{place} is taken");
        }
        assert!(!panel["title"].as_str().expect("a title").is_empty());
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], source[..], "{}", panel["title"]);
        let targets = panel["targets"].as_array().expect("targets");
        let refs: BTreeSet<_> = targets.iter().map(|it| it["refId"].as_str()).collect();
        assert_eq!(refs.len(), targets.len(), "{}", panel["title"]);
        assert!(targets.iter().all(|it| it["expr"].is_string()), "{panel}");
    }
    assert!(panels.len() > 20);
}
