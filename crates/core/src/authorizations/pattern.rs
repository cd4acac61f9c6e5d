//! The names that a DNS resource covers: the patterns of docs/protocol.md 5.5.
//!
//! `?` matches one character, `*` any run within a label, `**` any run across labels; a leading
//! `*.` also matches the bare suffix, and `**.` any number of labels, including none. Without
//! wildcards a pattern is a name. Case is ignored.

use crate::names::DomainName;

/// Whether `pattern` covers `name`.
///
/// Time is proportional to the product of the two lengths, for any pattern.
#[must_use]
pub fn covers(pattern: &str, name: &DomainName) -> bool {
    let pattern = pattern.strip_suffix('.').unwrap_or(pattern);
    let pattern = pattern.to_ascii_lowercase();
    if pattern.strip_prefix("*.") == Some(name.as_str()) {
        return true;
    }
    matches(&tokens(&pattern), name.as_str().as_bytes())
}

/// The only name that `pattern` covers, if it has no wildcard.
#[must_use]
pub fn exact_name(pattern: &str) -> Option<DomainName> {
    // A name contains no wildcard characters.
    pattern.parse().ok()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Literal(u8),
    /// One character of a label.
    One,
    /// Any run within a label.
    WithinLabel,
    /// Any run across labels.
    AcrossLabels,
    /// Any number of whole labels, each with its dot.
    Labels,
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = pattern.as_bytes();
    let mut at_label_start = true;
    while let [first, ..] = rest {
        let (token, bytes) = match rest {
            [b'*', b'*', b'.', ..] if at_label_start => (Token::Labels, 3),
            [b'*', b'*', ..] => (Token::AcrossLabels, 2),
            [b'*', ..] => (Token::WithinLabel, 1),
            [b'?', ..] => (Token::One, 1),
            _ => (Token::Literal(*first), 1),
        };
        tokens.push(token);
        at_label_start = matches!(token, Token::Labels | Token::Literal(b'.'));
        rest = &rest[bytes..];
    }
    tokens
}

/// Follows all alternatives together: `reached[i]` says whether the tokens so far can match the
/// first `i` characters of the name.
fn matches(tokens: &[Token], name: &[u8]) -> bool {
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for token in tokens {
        reached = advance(*token, &reached, name);
    }
    reached[name.len()]
}

fn advance(token: Token, reached: &[bool], name: &[u8]) -> Vec<bool> {
    let mut next = vec![false; reached.len()];
    // Whether a run that began further left has reached this position.
    let mut running = false;
    for place in 0..reached.len() {
        let before = place
            .checked_sub(1)
            .map(|before| (reached[before], name[before]));
        next[place] = match (token, before) {
            (Token::Literal(wanted), Some((was, byte))) => was && byte == wanted,
            (Token::One, Some((was, byte))) => was && byte != b'.',
            (Token::Literal(_) | Token::One, None) => false,
            (Token::WithinLabel, _) => {
                running &= before.is_none_or(|(_, byte)| byte != b'.');
                running |= reached[place];
                running
            }
            (Token::AcrossLabels, _) => {
                running |= reached[place];
                running
            }
            (Token::Labels, _) => {
                let ends_label = running && before.is_some_and(|(_, byte)| byte == b'.');
                running |= reached[place];
                reached[place] || ends_label
            }
        };
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, covered: &[&str], others: &[&str]) {
        let name = |text: &str| text.parse::<DomainName>().expect("a name");
        for text in covered {
            assert!(covers(pattern, &name(text)), "{pattern} covers {text}");
        }
        for text in others {
            assert!(
                !covers(pattern, &name(text)),
                "{pattern} does not cover {text}"
            );
        }
    }

    #[test]
    fn a_pattern_without_wildcards_is_a_name_in_any_case() {
        let covered = ["app.example.com", "APP.example.COM."];
        check(
            "App.Example.com",
            &covered,
            &["example.com", "xapp.example.com"],
        );
        check("app.example.com.", &covered, &["app.example.com.lab"]);
    }

    #[test]
    fn one_star_stays_within_a_label_and_leading_covers_the_bare_suffix() {
        check(
            "*.example.com",
            &["example.com", "a.example.com"],
            &["a.b.example.com", "xexample.com", "com"],
        );
        check(
            "app*.example.com",
            &["app.example.com", "app7.example.com"],
            &["app.b.example.com", "example.com", "ap.example.com"],
        );
        check("a.*.c", &["a.b.c"], &["a.c", "a.b.b.c"]);
    }

    #[test]
    fn two_stars_cross_labels() {
        check(
            "**.example.com",
            &["example.com", "a.example.com", "a.b.c.example.com"],
            &["xexample.com", "example.org"],
        );
        check(
            "a.**.c",
            &["a.c", "a.b.c", "a.b.b.c"],
            &["ac", "a.bc", "xa.c"],
        );
        check("a.**", &["a.b", "a.b.c"], &["a", "ab"]);
        check(
            "a**z.com",
            &["az.com", "a.b.z.com", "abz.com"],
            &["a.com", "z.com"],
        );
    }

    #[test]
    fn a_question_mark_is_exactly_one_character() {
        check("app?.com", &["app1.com"], &["app.com", "app12.com", "app"]);
    }

    #[test]
    fn only_a_pattern_without_wildcards_is_a_name() {
        assert_eq!(
            exact_name("App.com").map(|name| name.to_string()),
            Some("app.com".into())
        );
        for pattern in ["*.com", "a?.com", "**", ""] {
            assert_eq!(exact_name(pattern), None, "{pattern}");
        }
    }

    /// By recursion over every alternative.
    fn naive(pattern: &[u8], name: &[u8], at_label_start: bool) -> bool {
        let splits = |rest: &[u8], across: bool| {
            (0..=name.len())
                .take_while(|end| across || !name[..*end].contains(&b'.'))
                .any(|end| naive(rest, &name[end..], false))
        };
        match (pattern, name) {
            ([], _) => name.is_empty(),
            ([b'*', b'*', b'.', rest @ ..], _) if at_label_start => {
                let after_dots = (1..=name.len()).filter(|end| name[end - 1] == b'.');
                std::iter::once(0)
                    .chain(after_dots)
                    .any(|end| naive(rest, &name[end..], true))
            }
            ([b'*', b'*', rest @ ..], _) => splits(rest, true),
            ([b'*', rest @ ..], _) => splits(rest, false),
            ([b'?', rest @ ..], [byte, more @ ..]) => *byte != b'.' && naive(rest, more, false),
            ([wanted, rest @ ..], [byte, more @ ..]) => {
                wanted == byte && naive(rest, more, *wanted == b'.')
            }
            (_, []) => false,
        }
    }

    proptest! {
        #[test]
        fn matches_the_same_names_as_exhaustive_search(pattern in "[ab.*?]{1,9}", name in "[ab]{1,3}(\\.[ab]{1,3}){0,3}") {
            let dotless = pattern.strip_suffix('.').unwrap_or(&pattern);
            let bare_suffix = dotless.strip_prefix("*.") == Some(&name);
            let expected = bare_suffix || naive(dotless.as_bytes(), name.as_bytes(), true);
            prop_assert_eq!(covers(&pattern, &name.parse().expect("a name")), expected);
        }
    }
}
