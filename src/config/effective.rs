//! The effective configuration, as `postern check` shows it.

use super::schema::{Change, Presence, Scalar};
use super::settings::{Origin, Setting, Settings};
use std::fmt;

/// Every key, its value and where it came from. Printed, it is TOML again: one dotted key a line,
/// with the origin as a comment, and whether a change of it takes a restart; keys without a value
/// are comments altogether. Secrets are hidden.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    lines: Vec<(String, String)>,
}

impl Effective {
    pub(super) fn new(settings: &Settings, token_origin: Origin) -> Self {
        let line = |setting: &Setting| {
            let (value, origin) = shown(setting, &token_origin);
            match setting.key.change {
                Change::InPlace => (value, origin),
                Change::Restart => (value, format!("{origin} (restart)")),
            }
        };
        Self {
            lines: settings.all.iter().map(line).collect(),
        }
    }
}

fn shown(setting: &Setting, token_origin: &Origin) -> (String, String) {
    let path = setting.key.path;
    match (&setting.raw, setting.key.presence) {
        _ if matches!(setting.key.kind.scalar(), Scalar::Secret) => {
            (format!("# {path} = (hidden)"), token_origin.to_string())
        }
        (Some(raw), _) => (format!("{path} = {raw}"), setting.origin.to_string()),
        (None, Presence::Optional(instead)) => (format!("# {path} is not set"), instead.to_owned()),
        (None, _) => (format!("# {path} is not set"), setting.origin.to_string()),
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|(value, _)| value.chars().count());
        let width = width
            .filter(|width| *width <= ALIGNED_MAX)
            .max()
            .unwrap_or(0);
        for (value, origin) in &self.lines {
            writeln!(f, "{value:width$}  # {origin}")?;
        }
        writeln!(f, "{LEGEND}")
    }
}

const LEGEND: &str =
    "# (restart): takes effect at the next start; all others when the file changes";
/// Longer values stand out instead of pushing every comment to the right.
const ALIGNED_MAX: usize = 64;
