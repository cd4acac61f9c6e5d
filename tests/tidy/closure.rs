//! The packages that the gateway is built from, as `cargo tree` lists them.
//!
//! With the features that the package has when it is built alone: `cargo metadata` unites those of
//! the whole workspace, and so lists optional packages that nothing of the gateway takes.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The names of the packages in the closure of `package`, itself among them, along these kinds of
/// dependencies (`normal`, `build`).
pub(crate) fn of(package: &str, kinds: &str, repository: &Path) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--package", package])
        .args(["--edges", kinds, "--prefix", "none"])
        .current_dir(repository)
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree: {errors}");
    names(&String::from_utf8_lossy(&output.stdout))
}

/// The first word of each line that is not empty.
fn names(tree: &str) -> BTreeSet<String> {
    let words = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    words.map(str::to_owned).collect()
}

#[test]
fn names_are_told_from_versions_and_marks() {
    let tree = "a v1.0.0 (/x)\nb v2.0.0\nb v1.0.0\nc v1.0.0 (proc-macro)\n\na v1.0.0 (*)\n";
    let found: Vec<String> = names(tree).into_iter().collect();
    assert_eq!(found, ["a", "b", "c"]);
}
