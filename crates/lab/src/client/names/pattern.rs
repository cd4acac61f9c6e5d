//! Patterns of DNS resources, matched against names.
//!
//! Matching goes label by label and ignores case: `?` is one character, `*` any run within a label,
//! a label `**` any run of labels, also an empty one; a pattern with a leading `*.` also matches
//! the name without it. Accepts every string: a malformed pattern matches no name. Source:
//! docs/protocol.md 5.5.

/// The address of a DNS resource, split into labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    labels: Vec<String>,
    specificity: Specificity,
}

/// The narrowness of a pattern: the greater, the narrower. The order is meaningful only between
/// patterns that match the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Specificity(Vec<(Kind, usize)>);

/// The kind of a label; within a kind, the number of literal characters decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    AnyLabels,
    Run,
    OneCharacter,
    Literal,
    /// Follows the last label: of two patterns that match the same name, the longer one is wider.
    End,
}

impl Pattern {
    pub(super) fn new(address: &str) -> Self {
        let address = address.strip_suffix('.').unwrap_or(address);
        let address = address.to_ascii_lowercase();
        let labels: Vec<String> = address.split('.').map(str::to_owned).collect();
        let from_the_right = labels.iter().rev().map(|label| rank(label));
        let end = (Kind::End, 0);
        let specificity = Specificity(from_the_right.chain([end]).collect());
        Self {
            labels,
            specificity,
        }
    }

    /// Whether the pattern matches `name` (lower case, without a trailing dot).
    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<&str> = name.split('.').collect();
        let matches = |labels: &[String]| {
            let label_matches = |label: &String, text: &&str| {
                let one = |expected: &u8, byte: &u8| *expected == b'?' || expected == byte;
                is_match(label.as_bytes(), text.as_bytes(), |byte| *byte == b'*', one)
            };
            is_match(labels, &name, |label| label == "**", label_matches)
        };
        matches(&self.labels)
            || match self.labels.split_first() {
                Some((first, rest)) => first == "*" && !rest.is_empty() && matches(rest),
                None => false,
            }
    }

    pub(super) fn specificity(&self) -> &Specificity {
        &self.specificity
    }
}

fn rank(label: &str) -> (Kind, usize) {
    let kind = if label == "**" {
        Kind::AnyLabels
    } else if label.contains('*') {
        Kind::Run
    } else if label.contains('?') {
        Kind::OneCharacter
    } else {
        Kind::Literal
    };
    let literals = label.chars().filter(|c| !matches!(c, '*' | '?')).count();
    (kind, literals)
}

/// Matches `text` with `pattern`: an `is_run` item stands for any run, another for one `equal`
/// item. On a mismatch, extends the last run by one item; earlier runs need no change, so that the
/// cost stays below the product of both lengths.
fn is_match<P, T>(
    pattern: &[P],
    text: &[T],
    is_run: impl Fn(&P) -> bool,
    equal: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut last_run: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(at), text.get(read)) {
            (Some(run), _) if is_run(run) => {
                last_run = Some((at, read));
                at += 1;
                continue;
            }
            (None, None) => return true,
            (Some(one), Some(item)) if equal(one, item) => {
                at += 1;
                read += 1;
                continue;
            }
            (Some(_) | None, Some(_)) => {}
            (Some(_), None) => return false,
        }
        let Some((run, swallowed)) = last_run else {
            return false;
        };
        last_run = Some((run, swallowed + 1));
        at = run + 1;
        read = swallowed + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).matches(name)
    }

    #[test]
    fn matches_one_name_without_wildcards() {
        assert!(matches("app.example.com", "app.example.com"));
        assert!(matches("App.Example.COM.", "app.example.com"));
        assert!(!matches("app.example.com", "example.com"));
        assert!(!matches("app.example.com", "x.app.example.com"));
        assert!(!matches("app.example.com", "appxexample.com"));
    }

    #[test]
    fn a_star_matches_within_one_label() {
        assert!(matches("*.example.com", "app.example.com"));
        assert!(!matches("*.example.com", "a.b.example.com"));
        assert!(matches("app-*.example.com", "app-12.example.com"));
        assert!(matches("app-*.example.com", "app-.example.com"));
        assert!(!matches("app-*.example.com", "app-1.2.example.com"));
        assert!(matches("a.*.com", "a.b.com"));
        assert!(!matches("a.*.com", "a.com"));
    }

    #[test]
    fn a_leading_star_also_matches_the_bare_suffix() {
        assert!(matches("*.example.com", "example.com"));
        assert!(matches("**.example.com", "example.com"));
        assert!(!matches("?.example.com", "example.com"));
        assert!(!matches("a*.example.com", "example.com"));
    }

    #[test]
    fn two_stars_match_across_labels_and_a_question_mark_one_character() {
        assert!(matches("**.example.com", "a.b.c.example.com"));
        assert!(!matches("**.example.com", "example.org"));
        assert!(!matches("**.example.com", "notexample.com"));
        assert!(matches("a.**.com", "a.b.c.com"));
        assert!(matches("app?.example.com", "app1.example.com"));
        assert!(!matches("app?.example.com", "app.example.com"));
        assert!(!matches("app?example.com", "app.example.com"));
    }

    #[test]
    fn orders_patterns_by_narrowness() {
        let ordered = [
            "**.com",
            "*.com",
            "**.example.com",
            "*.example.com",
            "a*.example.com",
            "ap*.example.com",
            "?pp.example.com",
            "app.example.com",
        ];
        for pair in ordered.windows(2) {
            let [wide, narrow] = pair else { continue };
            let (wide, narrow) = (Pattern::new(wide), Pattern::new(narrow));
            assert!(
                wide.specificity() < narrow.specificity(),
                "{wide:?} {narrow:?}"
            );
        }
        // Both match example.com.
        let (wide, narrow) = (Pattern::new("*.example.com"), Pattern::new("example.com"));
        assert!(wide.specificity() < narrow.specificity());
    }

    /// The direct recursion, with exponential cost on hostile patterns.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|n| naive(rest, &text[n..])),
            Some((one, rest)) => text
                .split_first()
                .is_some_and(|(byte, text)| (*one == b'?' || one == byte) && naive(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn matches_a_label_like_the_direct_recursion(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            // A label between others, so that neither the bare suffix nor two stars play a part.
            prop_assume!(pattern != "**");
            let expected = naive(pattern.as_bytes(), text.as_bytes());
            let (pattern, text) = (format!("x.{pattern}.x"), format!("x.{text}.x"));
            prop_assert_eq!(matches(&pattern, &text), expected);
        }

        #[test]
        fn arbitrary_patterns_never_panic(pattern in ".{0,64}", name in "[a-z.*?]{0,64}") {
            let _ = matches(&pattern, &name);
        }
    }
}
