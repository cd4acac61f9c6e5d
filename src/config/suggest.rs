//! The nearest known name to a mistyped one.

use strsim::normalized_damerau_levenshtein;

/// The known name that `unknown` was probably meant to be, if one is near enough.
///
/// Names are dotted paths (`portal.url`) or variables (`POSTERN__PORTAL__URL`); a right key in the
/// wrong section counts as near.
pub(super) fn nearest<'k>(
    unknown: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    let mut best: Option<(f64, &'k str)> = None;
    for candidate in known {
        let score = likeness(unknown, candidate);
        if score >= NEAR && best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// `; did you mean "…"?`, or nothing.
pub(super) fn did_you_mean<'k>(unknown: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    nearest(unknown, known).map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"))
}

fn likeness(unknown: &str, candidate: &str) -> f64 {
    let whole = normalized_damerau_levenshtein(unknown, candidate);
    let leaf = normalized_damerau_levenshtein(last_part(unknown), last_part(candidate));
    // A leaf that fits (nearly) counts, but less than a whole path that fits as well.
    whole.max(leaf * LEAF_WEIGHT)
}

fn last_part(name: &str) -> &str {
    let after_dot = name.rsplit_once('.').map_or(name, |(_, last)| last);
    after_dot
        .rsplit_once("__")
        .map_or(after_dot, |(_, last)| last)
}

/// Below this, a suggestion confuses more than it helps. 0.6 finds two slips in a word of five
/// letters.
const NEAR: f64 = 0.6;
/// A right key in the wrong section scores less than a whole path that fits as well.
const LEAF_WEIGHT: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = [
        "portal.url",
        "portal.token_file",
        "network.udp_port",
        "log.filter",
    ];

    #[test]
    fn finds_slips_in_the_section_and_in_the_key() {
        assert_eq!(nearest("prtal.url", KNOWN), Some("portal.url"));
        assert_eq!(
            nearest("portal.tokenfile", KNOWN),
            Some("portal.token_file")
        );
        assert_eq!(nearest("network.upd_port", KNOWN), Some("network.udp_port"));
    }

    #[test]
    fn finds_a_right_key_in_the_wrong_section() {
        assert_eq!(nearest("udp_port", KNOWN), Some("network.udp_port"));
        assert_eq!(nearest("tunnel.filter", KNOWN), Some("log.filter"));
    }

    #[test]
    fn stays_silent_when_nothing_is_near() {
        assert_eq!(nearest("database.password", KNOWN), None);
        assert_eq!(nearest("", KNOWN), None);
    }
}
