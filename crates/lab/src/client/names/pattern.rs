//! Which names a DNS resource stands for.
//!
//! A pattern is matched label by label, without case: `?` is one character, `*` any run within a
//! label, a label `**` any run of labels, none included; a leading `*.` also matches what follows
//! it. Refuses nothing: a pattern that makes no sense matches no name. Source: docs/protocol.md
//! 5.5.

/// The address of a DNS resource, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    labels: Vec<String>,
    specificity: Specificity,
}

/// How narrow a pattern is. Only to be compared between patterns that match the same name: the
/// greater one is the narrower.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Specificity(Vec<(Kind, usize)>);

/// A label's place in the order, with the number of its literal characters beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    AnyLabels,
    Run,
    OneCharacter,
    Literal,
    /// Two patterns that match the same name and differ in length: the longer one matches more.
    End,
}

impl Pattern {
    /// Takes `address` apart.
    #[must_use]
    pub(super) fn new(address: &str) -> Self {
        let address = address.strip_suffix('.').unwrap_or(address);
        let labels: Vec<String> = address
            .to_ascii_lowercase()
            .split('.')
            .map(str::to_owned)
            .collect();
        let from_the_right = labels.iter().rev().map(|label| rank(label));
        let end = (Kind::End, 0);
        let specificity = Specificity(from_the_right.chain([end]).collect());
        Self {
            labels,
            specificity,
        }
    }

    /// Whether `name` (lower case, without a trailing dot) is meant.
    #[must_use]
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

    /// Its place among the patterns that match the same name.
    #[must_use]
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

/// Matches `text` with `pattern`, in which `is_run` items stand for any run and others for one item
/// that is `equal`. Gives the last run one more item whenever it gets stuck, which is enough, so
/// that no pattern costs more than the product of both lengths.
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
    fn a_pattern_without_wildcards_is_one_name() {
        assert!(matches("app.example.com", "app.example.com"));
        assert!(matches("App.Example.COM.", "app.example.com"));
        assert!(!matches("app.example.com", "example.com"));
        assert!(!matches("app.example.com", "x.app.example.com"));
        assert!(!matches("app.example.com", "appxexample.com"));
    }

    #[test]
    fn a_star_stays_within_its_label() {
        assert!(matches("*.example.com", "app.example.com"));
        assert!(!matches("*.example.com", "a.b.example.com"));
        assert!(matches("app-*.example.com", "app-12.example.com"));
        assert!(matches("app-*.example.com", "app-.example.com"));
        assert!(!matches("app-*.example.com", "app-1.2.example.com"));
        assert!(matches("a.*.com", "a.b.com"));
        assert!(!matches("a.*.com", "a.com"));
    }

    #[test]
    fn a_leading_star_matches_the_bare_suffix_too() {
        assert!(matches("*.example.com", "example.com"));
        assert!(matches("**.example.com", "example.com"));
        assert!(!matches("?.example.com", "example.com"));
        assert!(!matches("a*.example.com", "example.com"));
    }

    #[test]
    fn two_stars_cross_labels_and_a_question_mark_is_one_character() {
        assert!(matches("**.example.com", "a.b.c.example.com"));
        assert!(!matches("**.example.com", "example.org"));
        assert!(!matches("**.example.com", "notexample.com"));
        assert!(matches("a.**.com", "a.b.c.com"));
        assert!(matches("app?.example.com", "app1.example.com"));
        assert!(!matches("app?.example.com", "app.example.com"));
        assert!(!matches("app?example.com", "app.example.com"));
    }

    #[test]
    fn the_narrower_pattern_is_the_greater() {
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

    /// The obvious way, which takes for ever on patterns made for that.
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
        fn a_label_matches_as_in_the_obvious_way(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            // A label between others, so that neither the bare suffix nor two stars play a part.
            prop_assume!(pattern != "**");
            let expected = naive(pattern.as_bytes(), text.as_bytes());
            let (pattern, text) = (format!("x.{pattern}.x"), format!("x.{text}.x"));
            prop_assert_eq!(matches(&pattern, &text), expected);
        }

        #[test]
        fn anything_is_read(pattern in ".{0,64}", name in "[a-z.*?]{0,64}") {
            let _ = matches(&pattern, &name);
        }
    }
}
