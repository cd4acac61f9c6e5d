//! That no released gateway can be broken on purpose: fault injection is opt-in, stays in its
//! module, and refuses to be built for release.
//!
//! The last line of defence is the compiler itself, by the guard in `src/faults/mod.rs`; most rules
//! here see to it that nothing takes the guard away.

use crate::source::Source;
use crate::{Finding, enforce, files, finding, found, is_rust, metadata, read};
use serde_json::Value;

const FEATURE: &str = "fault-injection";
const MODULE: &str = "src/faults/mod.rs";
/// Without its message, and with one space wherever there is any.
const GUARD: &str =
    "#[cfg(all(feature = \"fault-injection\", not(debug_assertions)))] compile_error!( \"";
/// Begins every message of an injected panic.
const LAST_WORDS: &str = concat!("injected", ": panic in ");

// ---- The rules
// ------------------------------------------------------------------------------------

/// The manifest of the gateway may declare the feature, and nothing may enable it.
fn enabled_by_manifest(source: &Source) -> Vec<Finding> {
    let lines = source.text.lines().enumerate();
    let declaration = format!("{FEATURE} = []");
    lines
        .filter(|(_, line)| !line.trim_start().starts_with('#') && line.contains(FEATURE))
        .filter(|(_, line)| source.path != "Cargo.toml" || *line != declaration)
        .map(|(at, line)| finding(at + 1, format!("enables the feature: {line}")))
        .collect()
}

/// What the guard goes by, in any spelling: of manifests, flags and variables.
fn debug_assertions_decided(source: &Source) -> Vec<Finding> {
    let decides = |line: &str| {
        let plain = line.to_ascii_lowercase().replace('_', "-");
        plain.contains("debug-assertions") && !line.trim_start().starts_with('#')
    };
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| decides(line))
        .map(|(at, line)| finding(at + 1, format!("decides on debug assertions: {line}")))
        .collect()
}

fn guard_gone(source: &Source) -> Vec<Finding> {
    let words: Vec<&str> = source.text.split_whitespace().collect();
    let stands = words.join(" ").contains(GUARD);
    (!stands)
        .then(|| finding(1, "there is no guard against release builds"))
        .into_iter()
        .collect()
}

/// A guard in a module that is not always compiled guards nothing.
fn guard_bypassed(source: &Source) -> Vec<Finding> {
    let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
    let declared = lines.iter().position(|line| *line == "mod faults;");
    match declared {
        Some(at) if at > 0 && lines[at - 1].starts_with('#') => {
            vec![finding(at + 1, "the module has an attribute")]
        }
        Some(_) => Vec::new(),
        None => vec![finding(1, "the module is not declared")],
    }
}

fn known_elsewhere(source: &Source) -> Vec<Finding> {
    let is_test = source.path.split('/').any(|part| part == "tests");
    if is_test || source.path.starts_with("src/faults/") {
        return Vec::new();
    }
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| line.contains("feature") && line.contains(FEATURE))
        .map(|(at, _)| finding(at + 1, "knows of the feature"))
        .collect()
}

/// Commands that run over several lines count as one.
fn released_with_faults(source: &Source) -> Vec<Finding> {
    let (mut findings, mut command, mut begun) = (Vec::new(), String::new(), 1);
    for (at, line) in source.text.lines().enumerate() {
        if command.is_empty() {
            begun = at + 1;
        }
        command += line.trim_end_matches('\\');
        if line.ends_with('\\') {
            continue;
        }
        let is_release = command.contains("--release") || command.contains("--profile release");
        let has_faults = command.contains(FEATURE) || command.contains("--all-features");
        if is_release && has_faults {
            findings.push(finding(begun, "builds faults for release"));
        }
        command.clear();
    }
    findings
}

/// The features that cargo would build a package with when nobody asks for any.
fn features_by_default(metadata: &Value, package: &str) -> Option<Vec<String>> {
    let named = |it: &&Value| it["name"] == package;
    let id = &metadata["packages"].as_array()?.iter().find(named)?["id"];
    let nodes = metadata["resolve"]["nodes"].as_array()?;
    let node = nodes.iter().find(|node| node["id"] == *id)?;
    let features = node["features"].as_array()?.iter();
    Some(
        features
            .filter_map(|it| Some(it.as_str()?.to_owned()))
            .collect(),
    )
}

fn contains(bytes: &[u8], text: &str) -> bool {
    let text = text.as_bytes();
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == text[0]) {
        if rest[at..].starts_with(text) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

// ---- The tests
// ------------------------------------------------------------------------------------

fn is_manifest(path: &str) -> bool {
    path.ends_with("Cargo.toml") || path.starts_with(".cargo/")
}

/// What builds the gateway for somebody.
fn is_build_script(path: &str) -> bool {
    let roots = [".ci/", ".github/", ".config/", "docker/"];
    path == "dev" || roots.iter().any(|root| path.starts_with(root))
}

#[test]
fn faults_are_in_no_default() {
    let remedy = "ask for it on the command line of the test that needs it";
    enforce(
        "faults are opt-in",
        remedy,
        is_manifest,
        enabled_by_manifest,
    );
    let features = features_by_default(&metadata(), "postern").expect("the gateway is a package");
    assert!(!features.iter().any(|it| it == FEATURE), "{features:?}");
}

#[test]
fn releases_have_no_debug_assertions() {
    let remedy = "leave debug assertions to cargo: the guard of src/faults goes by them";
    let concerns = |path: &str| is_manifest(path) || is_build_script(path);
    let rule = "debug assertions as cargo has them";
    enforce(rule, remedy, concerns, debug_assertions_decided);
}

#[test]
fn faults_are_guarded_against_release() {
    let remedy = "put the compile_error! back";
    enforce(
        "the guard stands",
        remedy,
        |path| path == MODULE,
        guard_gone,
    );
    assert!(files().iter().any(|path| path == MODULE));
    let remedy = "declare the module for every build: without the feature it is empty by itself";
    let root = |path: &str| path == "src/lib.rs";
    enforce("the guard is compiled", remedy, root, guard_bypassed);
}

#[test]
fn faults_stay_in_their_module() {
    let remedy = "use the hooks of src/faults, which are there without the feature too";
    enforce("faults in their module", remedy, is_rust, known_elsewhere);
}

#[test]
fn nobody_builds_faults_for_release() {
    let remedy = "faults are for tests and chaos runs: build without --release";
    let rule = "no faults in releases";
    enforce(rule, remedy, is_build_script, released_with_faults);
}

/// The program that was built together with this test, if it was built as for a release.
#[test]
fn the_program_holds_no_faults() {
    if cfg!(not(feature = "fault-injection")) {
        let program = std::fs::read(env!("CARGO_BIN_EXE_postern")).expect("it was built");
        assert!(!contains(&program, LAST_WORDS), "faults in the program");
    }
    assert!(read("src/faults/enabled.rs").contains(LAST_WORDS));
}

// ---- Each rule can fail
// ---------------------------------------------------------------------------

#[test]
fn an_enabled_feature_is_found() {
    let text =
        "[features]\n# fault-injection\ndefault = [\"fault-injection\"]\nfault-injection = []\n";
    assert_eq!(found(enabled_by_manifest, "Cargo.toml", text), [3]);
    assert_eq!(
        found(enabled_by_manifest, "crates/x/Cargo.toml", text),
        [3, 4]
    );
    let metadata = serde_json::json!({
        "packages": [{ "name": "other", "id": "o" }, { "name": "postern", "id": "p" }],
        "resolve": { "nodes": [
            { "id": "o", "features": ["x"] },
            { "id": "p", "features": ["default", FEATURE] },
        ] },
    });
    let features = features_by_default(&metadata, "postern");
    assert_eq!(
        features,
        Some(vec!["default".to_owned(), FEATURE.to_owned()])
    );
    assert_eq!(features_by_default(&metadata, "none"), None);
}

#[test]
fn a_decision_on_debug_assertions_is_found() {
    let text = "[profile.release]\ndebug-assertions = true\n# debug-assertions\n\
                RUSTFLAGS=-Cdebug_assertions CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=on\n";
    assert_eq!(found(debug_assertions_decided, "Cargo.toml", text), [2, 4]);
}

#[test]
fn a_missing_guard_is_found() {
    let text = read(MODULE);
    assert_eq!(found(guard_gone, MODULE, &text), [0; 0]);
    let weak = text.replace("not(debug_assertions)", "debug_assertions");
    assert_eq!(found(guard_gone, MODULE, &weak), [1]);
    let commented = text.replace("compile_error!", "// compile_error!");
    assert_eq!(found(guard_gone, MODULE, &commented), [1]);
    let root = "pub mod cli;\n#[cfg(test)]\nmod faults;\n";
    assert_eq!(found(guard_bypassed, "src/lib.rs", root), [3]);
    assert_eq!(found(guard_bypassed, "src/lib.rs", "pub mod cli;\n"), [1]);
}

#[test]
fn a_feature_that_spreads_is_found() {
    let text = "//! x\n#[cfg(feature = \"fault-injection\")]\nfn f() {}\n";
    assert_eq!(found(known_elsewhere, "src/actors/tun.rs", text), [2]);
    assert_eq!(found(known_elsewhere, "crates/core/src/a.rs", text), [2]);
    for path in ["src/faults/mod.rs", "crates/bench/tests/netns/chaos.rs"] {
        assert_eq!(found(known_elsewhere, path, text), [0; 0], "{path}");
    }
}

#[test]
fn a_release_with_faults_is_found() {
    let text = "cargo build --release\ncargo test --features fault-injection\n\
                cargo build --release \\\n    --features fault-injection\n\
                cargo build --all-features --profile release\n";
    assert_eq!(found(released_with_faults, "dev", text), [3, 5]);
}

#[test]
fn words_in_a_program_are_found() {
    let program = format!("\0in\0inject{LAST_WORDS}x\0");
    assert!(contains(program.as_bytes(), LAST_WORDS));
    assert!(!contains(b"in\0injected", LAST_WORDS));
}
