//! Doc comments that are too short to say anything.
//!
//! A block of `///` lines counts as one comment. What a term of the field says by itself stands in
//! [`TERMS`].

use super::source::Source;
use super::{Finding, finding};

/// Shorter comments than this many characters say nothing that the name does not say.
const CHARS_MIN: usize = 21;

/// Comments that are as short as that and say what is needed.
pub(crate) const TERMS: [&str; 0] = [];

/// Blocks of `///` with their first line (from 1).
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        let comment = line
            .trim()
            .strip_prefix("///")
            .filter(|rest| !rest.starts_with('/'));
        match (comment, blocks.last_mut()) {
            (Some(comment), Some((_, block))) if open => {
                block.push(' ');
                block.push_str(comment.trim());
            }
            (Some(comment), _) => blocks.push((at + 1, comment.trim().to_owned())),
            (None, _) => {}
        }
        open = comment.is_some();
    }
    blocks
}

/// Doc comments that say nothing.
pub(crate) fn too_short(source: &Source) -> Vec<Finding> {
    blocks(&source.text)
        .into_iter()
        .filter(|(_, block)| block.chars().count() < CHARS_MIN && !TERMS.contains(&block.as_str()))
        .map(|(line, block)| finding(line, format!("{block:?}")))
        .collect()
}

#[test]
fn blocks_count_as_one_comment() {
    let text = "/// Which.\nx: u8,\n/// Which one it is,\n/// exactly.\ny: u8,\n// Plain.\n";
    let found = too_short(&Source::new("src/x.rs", text));
    assert_eq!(found, [finding(1, "\"Which.\"")]);
}
