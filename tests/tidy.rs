//! The rules of the house that a machine can hold up, each a test that names file, line and remedy.
//!
//! Every rule is a function from a file to its findings, so that a second test can show that the
//! rule can fail. What a rule must let pass stands in [`EXCEPTIONS`], each with its reason; an
//! exception that nothing needs fails too.

#[path = "tidy/arguments.rs"]
mod arguments;
#[path = "tidy/closure.rs"]
mod closure;
#[path = "tidy/comments.rs"]
mod comments;
#[path = "tidy/faults.rs"]
mod faults;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/licences.rs"]
mod licences;
#[path = "tidy/paths.rs"]
mod paths;
#[path = "tidy/references.rs"]
mod references;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use serde_json::Value;
use source::{Source, functions, lines_with};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const MAIN_LINES_MAX: usize = 100;
const COLUMNS_MAX: usize = 100;

/// A rule that a file may break, and why.
struct Exception {
    rule: &'static str,
    path: &'static str,
    reason: &'static str,
}

/// Everything that a rule lets pass.
const EXCEPTIONS: [Exception; 3] = [
    Exception {
        rule: "one clock",
        path: "crates/core/src/diagnosis/words.rs",
        reason: "a date is written from its distance to the epoch; no clock is read",
    },
    Exception {
        rule: "one clock",
        path: "crates/core/src/testing.rs",
        reason: "virtual time has to begin somewhere; compiled for tests only",
    },
    Exception {
        rule: "honest tests",
        path: "src/faults/enabled.rs",
        reason: "a thread that stands still is a fault to inject; absent from releases",
    },
];

/// What the cores may be built from: nothing that reads a clock, a socket, a file or randomness.
const CORE_DEPENDENCIES: [&str; 21] = [
    // Hashes with keys that it is given.
    "ahash",
    "base64",
    "boringtun",
    "data-encoding",
    "hashbrown",
    "hmac",
    // Parses the dates of HTTP headers; the current time stays an argument.
    "httpdate",
    // Writes dates; its formatting reads no clock.
    "humantime",
    "ipnet",
    "is",
    "postcard",
    "rand_chacha",
    "serde",
    "serde_json",
    "sha2",
    "thiserror",
    "tracing",
    "url",
    "uuid",
    "x25519-dalek",
    "zeroize",
];

/// What no core may name.
const CORE_TABOOS: [&str; 16] = [
    "tokio",
    "actix",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "getrandom",
    "OsRng",
    "thread_rng",
    "println",
    "eprintln",
];

/// The modules of the cores that may speak JSON: the wire types and what translates them.
const JSON_MODULES: [&str; 3] = [
    // The bodies of the messages inside the tunnel are JSON too.
    "crates/core/src/peer/control",
    "crates/core/src/portal/wire",
    "crates/core/src/portal/translate",
];

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    line: usize,
    what: String,
}

fn finding(line: usize, what: impl Into<String>) -> Finding {
    let what = what.into();
    Finding { line, what }
}

// ---- The rules
// ------------------------------------------------------------------------------------

fn too_long_file(source: &Source) -> Vec<Finding> {
    let lines = source.text.lines().count();
    let max = if source.path == "src/main.rs" {
        MAIN_LINES_MAX
    } else {
        FILE_LINES_MAX
    };
    let over = (lines > max).then(|| finding(max, format!("{lines} lines, at most {max}")));
    over.into_iter().collect()
}

fn too_long_functions(source: &Source) -> Vec<Finding> {
    functions(&source.code)
        .into_iter()
        .map(|function| (function.last - function.first + 1, function))
        .filter(|(lines, _)| *lines > FUNCTION_LINES_MAX)
        .map(|(lines, f)| finding(f.first, format!("{} has {lines} lines", f.name)))
        .collect()
}

fn missing_front_matter(source: &Source) -> Vec<Finding> {
    let opens = source.text.starts_with("//!");
    (!opens)
        .then(|| finding(1, "does not open with //!"))
        .into_iter()
        .collect()
}

/// A line with a literal may run on: rustfmt does not break literals, and frames read best whole.
fn wide_lines(source: &Source) -> Vec<Finding> {
    let columns = |line: &str| line.chars().count();
    let may_run_on = |line: &str| line.contains('"') && !line.trim_start().starts_with("//");
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| columns(line) > COLUMNS_MAX && !may_run_on(line))
        .map(|(at, line)| finding(at + 1, format!("{} columns", columns(line))))
        .collect()
}

/// Paths of one machine. Written in two halves, or this file would break its own rule.
fn machine_paths(source: &Source) -> Vec<Finding> {
    let roots = [
        concat!("/wo", "rk/"),
        concat!("/tm", "p/"),
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
    ];
    let lines = source.text.lines().enumerate();
    lines
        .flat_map(|(at, line)| roots.map(|root| (at, line, root)))
        .filter(|(_, line, root)| line.contains(root))
        .map(|(at, _, root)| finding(at + 1, format!("a path below {root}")))
        .collect()
}

fn unfinished(source: &Source) -> Vec<Finding> {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("X", "XX"),
    ];
    let macros = ["todo", "unimplemented"];
    let in_text = marks.iter().flat_map(|mark| {
        let lines = lines_with(&source.text, mark).into_iter();
        lines.map(move |line| finding(line, *mark))
    });
    let in_code = macros.iter().flat_map(|name| {
        let lines = lines_with(&source.code, &format!("{name}!")).into_iter();
        lines.map(move |line| finding(line, format!("{name}!")))
    });
    in_text.chain(in_code).collect()
}

fn words(code: &str, taboo: &[&str]) -> Vec<Finding> {
    let found = taboo.iter().flat_map(|word| {
        let lines = lines_with(code, word).into_iter();
        lines.map(move |line| finding(line, *word))
    });
    found.collect()
}

/// The lab is a world of programs and may read clocks; the gateway has one door to them.
fn clock_reads(source: &Source) -> Vec<Finding> {
    let ours = source.path.starts_with("src/") || source.path.starts_with("crates/core/src/");
    if !ours || source.path == "src/shell.rs" {
        return Vec::new();
    }
    words(
        &source.shipped(),
        &["Instant::now", "SystemTime::now", "UNIX_EPOCH"],
    )
}

/// A span costs more than the packet that it would describe.
fn spans(source: &Source) -> Vec<Finding> {
    let ours = source.path.starts_with("src/") || source.path.starts_with("crates/core/src/");
    match ours {
        true => words(
            &source.shipped(),
            &[
                "instrument",
                "span!",
                "info_span!",
                "debug_span!",
                "trace_span!",
            ],
        ),
        false => Vec::new(),
    }
}

fn io_in_core(source: &Source) -> Vec<Finding> {
    match source.path.starts_with("crates/core/src/") {
        true => words(&source.shipped(), &CORE_TABOOS),
        false => Vec::new(),
    }
}

fn json_outside_the_wire(source: &Source) -> Vec<Finding> {
    let core = source.path.starts_with("crates/core/src/");
    let wire = JSON_MODULES
        .iter()
        .any(|module| source.path.starts_with(module));
    match core && !wire {
        true => words(&source.shipped(), &["serde_json"]),
        false => Vec::new(),
    }
}

fn tests_that_cheat(source: &Source) -> Vec<Finding> {
    words(
        &source.code,
        &["#[ignore", "#[should_panic", "thread::sleep"],
    )
}

fn foreign_core_dependencies(manifest: &str) -> Vec<Finding> {
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let allowed: BTreeSet<&str> = CORE_DEPENDENCIES.into_iter().collect();
    let sections = ["dependencies", "build-dependencies"];
    let named = sections
        .iter()
        .filter_map(|section| manifest.get(*section)?.as_table());
    named
        .flat_map(toml::Table::keys)
        .filter(|name| !allowed.contains(name.as_str()))
        .map(|name| finding(1, format!("depends on {name}")))
        .collect()
}

// ---- The tests
// ------------------------------------------------------------------------------------

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The paths of all files that a person wrote, in order.
fn files() -> Vec<String> {
    const SKIPPED: [&str; 4] = [".git", "target", "Cargo.lock", "corpus"];
    let mut files = BTreeSet::new();
    let mut folders = vec![repository().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the repository is readable") {
            let path = entry.expect("the repository is readable").path();
            let name = path
                .file_name()
                .expect("entries have names")
                .to_string_lossy();
            if SKIPPED.contains(&&*name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(path) = path.strip_prefix(repository()) {
                files.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    files.into_iter().collect()
}

/// A file's text; nothing for files that are not text.
fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_default()
}

/// Fails with every finding of `rule` in the files that `concerns` picks, beside its remedy.
fn enforce(
    rule: &str,
    remedy: &str,
    concerns: impl Fn(&str) -> bool,
    check: impl Fn(&Source) -> Vec<Finding>,
) {
    let mut broken = Vec::new();
    for path in files().into_iter().filter(|path| concerns(path)) {
        let found = check(&Source::new(&path, &read(&path)));
        let exception = EXCEPTIONS
            .iter()
            .find(|it| it.rule == rule && it.path == path);
        if let Some(exception) = exception {
            assert!(
                !exception.reason.is_empty(),
                "{rule}: an exception without a reason: {path}"
            );
            assert!(
                !found.is_empty(),
                "{rule}: {path} needs no exception; take it out"
            );
            continue;
        }
        broken.extend(
            found
                .iter()
                .map(|it| format!("{path}:{}: {}", it.line, it.what)),
        );
    }
    assert!(
        broken.is_empty(),
        "{rule}\n  {}\n  remedy: {remedy}\n",
        broken.join("\n  ")
    );
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

/// Rust, documents, configuration and scripts; not what is generated or recorded.
fn is_written(path: &str) -> bool {
    is_rust(path)
        || path == "dev"
        || [".md", ".toml", ".sh", ".yml"]
            .iter()
            .any(|it| path.ends_with(it))
}

#[test]
fn files_are_short() {
    let remedy = "find the second idea in the file and give it a file of its own";
    enforce("file length", remedy, is_rust, too_long_file);
}

#[test]
fn functions_are_short() {
    let remedy = "name a part of it and make that a function";
    enforce("function length", remedy, is_rust, too_long_functions);
}

#[test]
fn files_say_what_they_are() {
    let remedy = "begin with //! lines: what it is, what it refuses to do, its source";
    enforce("front matter", remedy, is_rust, missing_front_matter);
}

#[test]
fn lines_fit_a_hundred_columns() {
    let remedy = "run cargo fmt; break comments by hand";
    let concerns = |path: &str| is_rust(path) || path == "dev";
    enforce("100 columns", remedy, concerns, wide_lines);
}

#[test]
fn no_path_of_one_machine_is_named() {
    let remedy = "say it relative to the repository, or as a variable";
    enforce("machine paths", remedy, |_| true, machine_paths);
}

#[test]
fn nothing_is_left_unfinished() {
    let remedy = "finish it, or write an issue";
    enforce("unfinished", remedy, is_rust, unfinished);
}

#[test]
fn only_the_shell_reads_clocks() {
    let remedy = "take the time as an argument; actors use shell::now and shell::unix_now";
    enforce("one clock", remedy, is_rust, clock_reads);
}

/// docs/lessons.md 27: no tracing span per packet.
#[test]
fn nothing_opens_a_tracing_span() {
    let remedy = "log an event with fields; a span is entered and left for every packet";
    enforce("no spans", remedy, is_rust, spans);
}

#[test]
fn the_cores_do_nothing_but_decide() {
    let remedy = "move it to an actor or to src/shell.rs and hand the core what it needs";
    enforce("no IO in core", remedy, is_rust, io_in_core);
}

#[test]
fn the_cores_depend_on_nothing_that_does_io() {
    let manifest = "crates/core/Cargo.toml";
    let remedy = "do without, or add it to CORE_DEPENDENCIES if it can neither wait nor ask";
    let concerns = |path: &str| path == manifest;
    let check = |source: &Source| foreign_core_dependencies(&source.text);
    enforce("core dependencies", remedy, concerns, check);
}

#[test]
fn only_the_wire_speaks_json() {
    let remedy = "translate in crates/core/src/portal/wire.rs and hand on plain values";
    enforce("JSON at the wire", remedy, is_rust, json_outside_the_wire);
}

#[test]
fn tests_do_not_cheat() {
    let remedy = "wait for a condition; expect the error; mend or remove the test";
    enforce("honest tests", remedy, is_rust, tests_that_cheat);
}

#[test]
fn documents_name_only_paths_that_exist() {
    let files = files();
    let concerns = |path: &str| path.ends_with(".md");
    let check = |source: &Source| {
        let mentions = paths::mentions(&source.text);
        let objections = mentions.iter().filter_map(|mention| {
            let objection = paths::objection(mention, &files, read)?;
            Some(finding(mention.line, objection))
        });
        objections.collect()
    };
    enforce(
        "paths in documents",
        "name the file as it is called today",
        concerns,
        check,
    );
}

#[test]
fn walks_name_functions_that_exist() {
    let steps = paths::walks(&read("ARCHITECTURE.md"));
    assert!(steps.len() > WALK_STEPS_MIN, "{} steps", steps.len());
    let missing: Vec<String> = steps
        .iter()
        .flat_map(|step| {
            let missing = paths::missing_functions(step, read).into_iter();
            missing.map(|name| {
                format!(
                    "ARCHITECTURE.md:{}: no {name} in {:?}",
                    step.line, step.files
                )
            })
        })
        .collect();
    assert!(
        missing.is_empty(),
        "name the functions as they are called today\n  {}",
        missing.join("\n  ")
    );
}

/// Both ways of a packet, an authorization and a name are walked in more steps than this.
const WALK_STEPS_MIN: usize = 30;

#[test]
fn references_lead_to_headings() {
    let known =
        references::NUMBERED.map(|document| (document, references::headings(&read(document))));
    let known = BTreeMap::from(known);
    enforce(
        "references",
        "name a heading that the document has, as in docs/protocol.md 3.3.1",
        is_written,
        |source| references::dangling(source, &known),
    );
}

#[test]
fn nothing_is_named_that_is_not_in_the_repository() {
    enforce(
        "named sources",
        "write docs/protocol.md 5.4, docs/lessons.md 7 or RFC 8489, section 5",
        is_written,
        references::homeless,
    );
}

/// A lesson that no test holds up, and why.
const LESSONS_WITHOUT_TEST: [(&str, &str); 0] = [];

#[test]
fn every_lesson_has_a_test_or_a_reason() {
    let lessons = references::headings(&read("docs/lessons.md"));
    let rust = files().into_iter().filter(|path| is_rust(path));
    let tested: BTreeSet<String> = rust
        .flat_map(|path| references::tested_lessons(&Source::new(&path, &read(&path))))
        .collect();
    let excused: BTreeSet<String> = LESSONS_WITHOUT_TEST
        .iter()
        .filter(|(_, reason)| !reason.is_empty())
        .map(|(number, _)| (*number).to_owned())
        .collect();
    let covered: BTreeSet<String> = tested.union(&excused).cloned().collect();
    let missing: Vec<_> = lessons.difference(&covered).collect();
    assert!(
        missing.is_empty(),
        "no test names these lessons: {missing:?}"
    );
    let needless: Vec<_> = excused.intersection(&tested).collect();
    assert!(
        needless.is_empty(),
        "these lessons have tests: {needless:?}"
    );
    for (number, _) in LESSONS_WITHOUT_TEST {
        assert!(lessons.contains(number), "there is no lesson {number}");
    }
}

#[test]
fn modules_import_each_other_in_no_circle() {
    for root in [
        "src/",
        "crates/core/src/",
        "crates/lab/src/",
        "crates/bench/src/",
    ] {
        let rust = files()
            .into_iter()
            .filter(|path| path.starts_with(root) && is_rust(path));
        let sources: Vec<Source> = rust.map(|path| Source::new(&path, &read(&path))).collect();
        let circles = imports::circles(root, &sources);
        let shown: Vec<String> = circles
            .iter()
            .map(|it| {
                format!(
                    "{}\n    {}",
                    it.modules.join(", "),
                    it.imports.join("\n    ")
                )
            })
            .collect();
        assert!(
            circles.is_empty(),
            "circles of imports below {root}\n  {}\n  remedy: move what both need to a module below both",
            shown.join("\n  ")
        );
    }
}

#[test]
fn messages_import_nothing_but_core_types() {
    let remedy =
        "move the type to the core or into src/messages, or the message to the room that owns it";
    let concerns = |path: &str| path.starts_with("src/messages/");
    enforce("plain messages", remedy, concerns, |source| {
        let code = source.shipped();
        let others = code
            .match_indices("crate::")
            .filter(|(at, _)| !code[at + "crate::".len()..].starts_with("messages"));
        others
            .map(|(at, _)| finding(source::line_of(&code, at), "an import from outside"))
            .collect()
    });
}

#[test]
fn doc_comments_say_something() {
    let remedy = "say what the name does not say (meaning, unit, shape), or leave it out";
    let concerns = |path: &str| is_rust(path);
    enforce("short doc comments", remedy, concerns, comments::too_short);
    let all: String = files()
        .iter()
        .filter(|path| is_rust(path))
        .map(|path| read(path))
        .collect();
    for term in comments::TERMS {
        assert!(
            all.contains(&format!("/// {term}\n")),
            "nothing says {term:?}: take it out"
        );
    }
}

#[test]
fn the_gateway_is_built_without_the_lab() {
    let built = closure::of("postern", "normal,build", repository());
    for foreign in ["postern-lab", "postern-bench"] {
        assert!(!built.contains(foreign), "postern depends on {foreign}");
    }
    assert!(built.contains("postern-core"));
    let names = closure::of("postern", "normal", repository());
    assert!(
        names.len() <= CLOSURE_MAX,
        "{} packages in the gateway's closure, at most {CLOSURE_MAX}: do without the new one, or say why",
        names.len()
    );
}

/// Lines that are neither blank nor comments, outside tests, below a folder; and what they were
/// allowed to grow to.
const CODE_LINES_MAX: [(&str, usize); 4] = [
    ("src/", 13_100),
    ("crates/core/src/", 18_400),
    ("crates/lab/src/", 12_800),
    ("crates/bench/src/", 6_500),
];

#[test]
#[expect(
    clippy::print_stdout,
    reason = "the harness captures it; --no-capture shows the sizes"
)]
fn the_code_stays_within_its_size() {
    for (root, max) in CODE_LINES_MAX {
        let rust = files()
            .into_iter()
            .filter(|path| path.starts_with(root) && is_rust(path));
        let lines = rust.map(|path| {
            let shipped = Source::new(&path, &read(&path)).shipped();
            shipped
                .lines()
                .filter(|line| !line.trim().is_empty())
                .count()
        });
        let lines: usize = lines.sum();
        println!("{root} {lines} lines of code without tests, at most {max}");
        assert!(
            lines <= max,
            "{root} has {lines} lines of code: take something out, or say why"
        );
    }
}

/// Packages that the gateway is built from, itself among them.
const CLOSURE_MAX: usize = 240;

#[test]
fn exceptions_name_files_that_exist() {
    for exception in &EXCEPTIONS {
        assert!(
            repository().join(exception.path).exists(),
            "there is no {}",
            exception.path
        );
    }
}

#[test]
fn licences_and_origins_are_allowed() {
    let metadata = metadata();
    let (allowed, banned) = deny_lists(&read("deny.toml"));
    let mut broken = Vec::new();
    for package in licences::packages(&metadata) {
        let objections = licences::objections(&package, &allowed, &banned);
        broken.extend(
            objections
                .iter()
                .map(|what| format!("{}: {what}", package.name)),
        );
    }
    let remedy = "do without it, or widen deny.toml and say why there";
    assert!(
        broken.is_empty(),
        "licences\n  {}\n  remedy: {remedy}",
        broken.join("\n  ")
    );
}

/// What cargo knows of the workspace, with the features that it has when nobody asks for any.
fn metadata() -> Value {
    let host = Command::new(env!("CARGO"))
        .args(["-vV"])
        .output()
        .expect("cargo runs");
    let host = String::from_utf8(host.stdout).expect("cargo writes text");
    let host = host
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("a host");
    // Only this platform: the others' packages may never have been fetched, and are never linked.
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", host])
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {told}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The allowed licences and the banned packages of `deny.toml`.
fn deny_lists(deny: &str) -> (Vec<String>, Vec<String>) {
    let deny: toml::Table = deny.parse().expect("deny.toml is TOML");
    let list = |section: &str, key: &str| deny[section][key].as_array().expect("a list").clone();
    let text = |value: &toml::Value| value.as_str().expect("text").to_owned();
    let allowed = list("licenses", "allow").iter().map(text).collect();
    let banned = list("bans", "deny")
        .iter()
        .map(|ban| text(&ban["crate"]))
        .collect();
    (allowed, banned)
}

/// The lines at which `check` finds something in `text`.
fn found(check: impl Fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
    check(&Source::new(path, text))
        .into_iter()
        .map(|finding| finding.line)
        .collect()
}
