//! Checked words of the configuration: interface names, patterns of them, the filter of the log.
//!
//! Names of interfaces end up in nft rulesets and in paths under `/proc/sys`, so the characters are
//! limited here, once.

use super::kinds::{Refusal, Scalar};
use std::fmt;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Longest name of a Linux interface, in bytes (IFNAMSIZ without the terminating zero).
const NAME_BYTES_MAX: usize = 15;

/// A text that a check has passed, and that is written as it was read.
macro_rules! word {
    ($(#[$meta:meta])* $Word:ident, $check:ident, $expects:literal) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $Word(String);

        impl TryFrom<String> for $Word {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                $check(&text).map(|()| Self(text))
            }
        }

        impl fmt::Display for $Word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Scalar for $Word {
            const EXPECTS: &'static str = $expects;

            fn from_text(text: &str) -> Result<Self, Refusal> {
                Ok(Self::try_from(text.to_owned())?)
            }
        }
    };
}

word! {
    /// The name of a network interface: 1 to 15 letters, digits, `_`, `-` or `.`; not `.` or `..`.
    InterfaceName, check_name, "an interface name of at most 15 letters, digits, _, - or ."
}

word! {
    /// The name of an interface, or a glob of names: `*` stands for any characters, `?` for one.
    InterfacePattern, check_pattern, "an interface name or a pattern with * and ?"
}

word! {
    /// The name of an interface, or the start of one and `*`: the patterns that nftables
    /// understands.
    EgressPattern, check_egress, "an interface name, or the start of one and *"
}

word! {
    /// Levels and `target=level` directives of `tracing`, separated by commas.
    LogFilter, check_filter,
    "levels (off, error, warn, info, debug, trace) and target=level, separated by commas"
}

impl InterfaceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl LogFilter {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl InterfacePattern {
    /// Whether it names exactly one interface.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// Whether it fits `name` as a whole.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        glob(self.0.as_bytes(), name.as_bytes())
    }
}

fn check_name(name: &str) -> Result<(), String> {
    check_pattern(name)?;
    if name.contains(['*', '?']) || matches!(name, "." | "..") {
        return Err("not a name of an interface".to_owned());
    }
    Ok(())
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.len() > NAME_BYTES_MAX {
        return Err(format!("longer than {NAME_BYTES_MAX} characters"));
    }
    let is_permitted = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.*?".contains(&byte);
    if pattern.is_empty() || !pattern.bytes().all(is_permitted) {
        return Err("not a name of an interface".to_owned());
    }
    Ok(())
}

fn check_egress(pattern: &str) -> Result<(), String> {
    check_pattern(pattern)?;
    let stem = pattern.strip_suffix('*').unwrap_or(pattern);
    if stem.is_empty() || stem.contains(['*', '?']) {
        return Err("nftables takes one * at the end, and no other wildcard".to_owned());
    }
    Ok(())
}

/// A bare word that is not a level is refused although `tracing` takes it: it would mean
/// "everything from this target, and nothing else", so that `inof` would end all logging.
fn check_filter(filter: &str) -> Result<(), String> {
    if filter.trim().is_empty() {
        return Err("it would log nothing; \"off\" says so".to_owned());
    }
    // A span's fields may hold commas; tracing's own parser decides about those.
    if !filter.contains('[') {
        for directive in filter.split(',').map(str::trim) {
            let (target, level) = directive.split_once('=').unwrap_or(("", directive));
            let is_level = level.parse::<LevelFilter>().is_ok();
            if level.is_empty() || !is_level || (directive.contains('=') && target.is_empty()) {
                return Err(format!("{directive:?} is neither a level nor target=level"));
            }
        }
    }
    let parsed = EnvFilter::try_new(filter);
    parsed.map(drop).map_err(|error| error.to_string())
}

/// Linear in practice: on a mismatch only the last `*` takes one more byte.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => {
                p += 1;
                n += 1;
            }
            Some(_) | None => {
                let Some((star_at, taken)) = star else {
                    return false;
                };
                star = Some((star_at, taken + 1));
                p = star_at + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> InterfacePattern {
        InterfacePattern::try_from(text.to_owned()).expect("valid pattern")
    }

    #[test]
    fn patterns_fit_whole_names() {
        assert!(pattern("br-*").matches("br-0123abcd"));
        assert!(!pattern("br-*").matches("xbr-0"));
        assert!(pattern("eth?").matches("eth0"));
        assert!(!pattern("eth?").matches("eth10"));
        assert!(!pattern("lo").matches("lo0"));
        assert!(pattern("*").matches("anything"));
    }

    #[test]
    fn names_that_could_escape_a_path_or_a_ruleset_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\"b",
            "a;b",
            "a\nb",
            "sixteencharacter",
        ] {
            assert!(
                InterfaceName::try_from(name.to_owned()).is_err(),
                "{name:?}"
            );
        }
        assert!(InterfaceName::try_from("postern0".to_owned()).is_ok());
    }

    #[test]
    fn nftables_understands_only_a_star_at_the_end() {
        let is_understood = |text: &str| EgressPattern::try_from(text.to_owned()).is_ok();
        assert!(is_understood("eth0"));
        assert!(is_understood("eth*"));
        for text in ["*", "e?h", "*0", "e*h*"] {
            assert!(!is_understood(text), "{text}");
        }
    }

    /// The obvious, exponential definition.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => naive(rest, name),
            (Some((b'*', rest)), Some((_, tail))) => naive(rest, name) || naive(pattern, tail),
            (Some((b'?', rest)), Some((_, tail))) => naive(rest, tail),
            (Some((p, rest)), Some((n, tail))) => p == n && naive(rest, tail),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    #[test]
    fn levels_and_targets_are_taken() {
        for filter in [
            "info",
            "warn,postern=debug",
            "off",
            "postern::actors=trace, info",
        ] {
            let taken = LogFilter::try_from(filter.to_owned()).map(|it| it.0);
            assert_eq!(taken, Ok(filter.to_owned()));
        }
    }

    #[test]
    fn filters_that_would_silence_everything_by_mistake_are_refused() {
        for filter in [
            "inof",
            "",
            "info,",
            "postern=",
            "=info",
            "postern=loud",
            "postern",
        ] {
            assert!(
                LogFilter::try_from(filter.to_owned()).is_err(),
                "{filter:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(text in "[ab*?]{1,8}", name in "[ab]{0,8}") {
            prop_assert_eq!(
                pattern(&text).matches(&name),
                naive(text.as_bytes(), name.as_bytes())
            );
        }
    }
}
