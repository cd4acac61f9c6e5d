//! The packages that a package is built from, as `cargo metadata` resolves them.
//!
//! Normal and build dependencies with default features, on this platform; not what only tests take.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The names of the packages in the closure of `root`, itself among them.
pub(crate) fn of(root: &str, metadata: &Value) -> BTreeSet<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names: BTreeMap<String, String> = list(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let nodes: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let shipped = list(&node["deps"]).into_iter().filter(|dep| {
                list(&dep["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"] != "dev")
            });
            (
                text(&node["id"]),
                shipped.map(|dep| text(&dep["pkg"])).collect(),
            )
        })
        .collect();
    let is_root = |(_, name): &(&String, &String)| *name == root;
    let mut open: Vec<String> = names
        .iter()
        .filter(is_root)
        .map(|(id, _)| id.clone())
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id.clone()) {
            open.extend(nodes.get(&id).into_iter().flatten().cloned());
        }
    }
    seen.iter()
        .filter_map(|id| names.get(id).cloned())
        .collect()
}

#[test]
fn what_only_tests_take_is_not_in_the_closure() {
    let metadata = serde_json::json!({
        "packages": [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}, {"id": "3", "name": "c"}],
        "resolve": {"nodes": [
            {"id": "1", "deps": [
                {"pkg": "2", "dep_kinds": [{"kind": null}]},
                {"pkg": "3", "dep_kinds": [{"kind": "dev"}]}]},
            {"id": "2", "deps": [{"pkg": "1", "dep_kinds": [{"kind": "build"}]}]},
            {"id": "3", "deps": []}]}
    });
    let found: Vec<String> = of("a", &metadata).into_iter().collect();
    assert_eq!(found, ["a", "b"]);
}
