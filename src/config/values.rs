//! Checked words of the configuration: interface names and patterns of them.
//!
//! They end up in nft rulesets and in paths under `/proc/sys`, so the characters are limited here,
//! once.

use serde::Deserialize;
use std::fmt;

/// Longest name of a Linux interface, in bytes (IFNAMSIZ without the terminating zero).
const NAME_BYTES_MAX: usize = 15;

/// The name of a network interface: 1 to 15 letters, digits, `_`, `-` or `.`; not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        if name.len() > NAME_BYTES_MAX {
            return Err(format!("longer than {NAME_BYTES_MAX} characters"));
        }
        if name.is_empty() || name == "." || name == ".." || !name.bytes().all(is_name_byte) {
            return Err("not a name of an interface".to_owned());
        }
        Ok(Self(name))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an interface, or a glob of names: `*` stands for any characters, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct InterfacePattern(String);

impl InterfacePattern {
    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

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

    /// Whether its only wildcard, if any, is one `*` at the end: what nftables understands.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        let stem = self.0.strip_suffix('*').unwrap_or(&self.0);
        !stem.is_empty() && !stem.contains(['*', '?'])
    }
}

impl TryFrom<String> for InterfacePattern {
    type Error = String;

    fn try_from(pattern: String) -> Result<Self, Self::Error> {
        if pattern.len() > NAME_BYTES_MAX {
            return Err(format!("longer than {NAME_BYTES_MAX} characters"));
        }
        let permitted = |byte: u8| is_name_byte(byte) || matches!(byte, b'*' | b'?');
        if pattern.is_empty() || !pattern.bytes().all(permitted) {
            return Err("not a name of an interface".to_owned());
        }
        Ok(Self(pattern))
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
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
        assert!(pattern("eth0").is_prefix());
        assert!(pattern("eth*").is_prefix());
        for text in ["*", "e?h", "*0", "e*h*"] {
            assert!(!pattern(text).is_prefix(), "{text}");
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
