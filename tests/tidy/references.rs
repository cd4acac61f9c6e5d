//! References to numbered headings of the documents, `docs/protocol.md 3.3.1`, and whether they
//! lead anywhere.
//!
//! Reads comments of Rust files line by line joined, and whole texts of other files. Refuses to
//! guess: a number counts as a reference only behind the name of a document.

use super::source::Source;
use super::{Finding, finding};
use std::collections::{BTreeMap, BTreeSet};

/// The documents whose headings have numbers.
pub(crate) const NUMBERED: [&str; 3] = ["docs/protocol.md", "docs/lessons.md", "ARCHITECTURE.md"];

/// The numbers of a document's headings: `## 7. Title` and `### 3.3.1 Title`.
pub(crate) fn headings(document: &str) -> BTreeSet<String> {
    let is_heading =
        |line: &&str| line.starts_with('#') && line.trim_start_matches('#').starts_with(' ');
    let numbers = document.lines().filter(is_heading).filter_map(|line| {
        let number = line.trim_start_matches('#').split_whitespace().next()?;
        let number = number.trim_end_matches('.');
        number
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| number.to_owned())
    });
    numbers.collect()
}

/// A stretch of prose: where it begins (from 1), and its text with the line breaks taken out.
struct Prose {
    line: usize,
    text: String,
}

/// The comments of a Rust file, each block as one stretch, and its literals line by line; of other
/// files their paragraphs.
fn prose(source: &Source) -> Vec<Prose> {
    let is_rust = source.path.ends_with(".rs");
    let mut stretches: Vec<Prose> = Vec::new();
    let mut open = false;
    for (at, line) in source.text.lines().enumerate() {
        let trimmed = line.trim();
        let comment = ["///", "//!", "//"]
            .iter()
            .find_map(|mark| trimmed.strip_prefix(mark));
        let text = if is_rust {
            comment
        } else {
            (!trimmed.is_empty()).then_some(trimmed)
        };
        match (text, stretches.last_mut()) {
            (Some(text), Some(last)) if open => {
                last.text.push(' ');
                last.text.push_str(text.trim());
            }
            (Some(text), _) => stretches.push(Prose {
                line: at + 1,
                text: text.trim().to_owned(),
            }),
            (None, _) if is_rust => stretches.push(Prose {
                line: at + 1,
                text: line.to_owned(),
            }),
            (None, _) => {}
        }
        open = text.is_some();
    }
    stretches
}

/// The numbers that follow a document's name: `3.4, 4 and 5`.
fn numbers(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches('`');
    for separators in
        std::iter::once(&[" "][..]).chain(std::iter::repeat(&[", ", " and ", " to ", " – "][..]))
    {
        let Some(next) = separators.iter().find_map(|it| rest.strip_prefix(it)) else {
            break;
        };
        let end = next
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(next.len());
        let number = next[..end].trim_end_matches('.');
        if number.is_empty() {
            break;
        }
        found.push(number);
        rest = &next[number.len()..];
    }
    found
}

/// References to headings that do not exist.
pub(crate) fn dangling(source: &Source, known: &BTreeMap<&str, BTreeSet<String>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for stretch in prose(source) {
        for (document, headings) in known {
            for (at, _) in stretch.text.match_indices(document) {
                let unknown = numbers(&stretch.text[at + document.len()..]);
                let unknown = unknown
                    .into_iter()
                    .filter(|number| !headings.contains(*number));
                findings.extend(
                    unknown.map(|it| finding(stretch.line, format!("{document} has no {it}"))),
                );
            }
        }
    }
    findings
}

/// Places that name a page, a section or a lesson without the document.
pub(crate) fn homeless(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for stretch in prose(source) {
        let text = stretch.text.to_lowercase();
        for phrase in [concat!("protocol", " page"), concat!("house", " style")] {
            if text.contains(phrase) && !source.path.ends_with(".md") {
                findings.push(finding(stretch.line, phrase));
            }
        }
        for word in ["lesson ", "lessons ", "lesson_", "section ", "sections "] {
            for (at, _) in text.match_indices(word) {
                let digit = text[at + word.len()..].starts_with(|c: char| c.is_ascii_digit());
                let before = &text[..at];
                let whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '/');
                if digit && whole && !names_a_source(before) {
                    findings.push(finding(stretch.line, format!("{word}without its document")));
                }
            }
        }
    }
    findings
}

/// Whether what stands shortly before says whose section it is.
fn names_a_source(before: &str) -> bool {
    const SOURCES: [&str; 4] = ["rfc", "paper", "virtio", "proc_locks"];
    let from = before
        .char_indices()
        .rev()
        .nth(SOURCE_CHARS)
        .map_or(0, |(at, _)| at);
    SOURCES.iter().any(|source| before[from..].contains(source))
}

/// A source stands at most this far before its section.
const SOURCE_CHARS: usize = 60;

/// The lessons that the doc comments of tests name.
pub(crate) fn tested_lessons(source: &Source) -> BTreeSet<String> {
    let mut lessons = BTreeSet::new();
    let mut comment = String::new();
    for line in source.text.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            comment.push(' ');
            comment.push_str(text.trim());
        } else if line.starts_with("#[") && line.contains("test") {
            let document = "docs/lessons.md";
            for (at, _) in comment.match_indices(document) {
                let named = numbers(&comment[at + document.len()..]);
                lessons.extend(named.into_iter().map(str::to_owned));
            }
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            comment.clear();
        }
    }
    lessons
}

#[test]
fn numbers_behind_a_document_are_found() {
    assert_eq!(numbers(" 3.4, 4 and 5."), ["3.4", "4", "5"]);
    assert_eq!(numbers("` 2.1 to 2.3 (x)"), ["2.1", "2.3"]);
    assert_eq!(numbers(" has no number"), [""; 0]);
    assert_eq!(numbers(", 7"), [""; 0]);
}

#[test]
fn a_reference_across_lines_must_lead_to_a_heading() {
    let known = BTreeMap::from([(
        "docs/lessons.md",
        headings("# L\n## 7. Seven\n### 7.1 More\n"),
    )]);
    let text =
        "//! As docs/lessons.md 7 says.\n\n/// See docs/lessons.md\n/// 7.1 and 8.\nfn a() {}\n";
    let found = dangling(&Source::new("src/x.rs", text), &known);
    assert_eq!(found, [finding(3, "docs/lessons.md has no 8")]);
}

#[test]
fn a_section_needs_its_document() {
    let found = |text: &str| homeless(&Source::new("src/x.rs", text)).len();
    for good in [
        "// RFC 8489, section 9.2",
        "// the WireGuard paper,\n// sections 5 and 6",
        "// docs/lessons.md 7",
        "// a section of the file",
        "fn bisection_4() {}",
    ] {
        assert_eq!(found(good), 0, "{good}");
    }
    for bad in [
        concat!("// the protocol", " page"),
        concat!("// see sec", "tion 5.4"),
        concat!("fn less", "on_07_x() {}"),
        concat!("// Less", "on 7"),
    ] {
        assert_eq!(found(bad), 1, "{bad}");
    }
}

#[test]
fn lessons_of_tests_are_found_above_their_attributes() {
    let text = "/// docs/lessons.md 5 and 6: a flow stays.\n#[test]\nfn a() {}\n\
                /// docs/lessons.md 7.\nfn helper() {}\n\
                /// docs/lessons.md\n/// 8.\n#[tokio::test]\n";
    let found = tested_lessons(&Source::new("src/x.rs", text));
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["5", "6", "8"]);
}
