//! Which value of each key wins, and where it came from.

use super::document::Entries;
use super::environment::Overrides;
use super::keys::KEYS;
use super::problem::{Place, Problem};
use super::schema::{Key, Presence, Raw, is_path, parse_duration};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Built in.
    Default,
    /// The file, at this line.
    File {
        /// As the user named it.
        path: String,
        /// From 1.
        line: usize,
    },
    /// This variable.
    Environment(String),
    /// A credential passed by systemd.
    Credential,
}

impl Origin {
    /// Where to put right a value that came from here.
    pub(super) fn place(&self, file: &str) -> Place {
        match self {
            Self::File { path, line } => Place::File {
                path: path.clone(),
                line: *line,
                column: 1,
            },
            Self::Environment(variable) => Place::Environment(variable.clone()),
            Self::Default | Self::Credential => Place::Whole(file.to_owned()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Environment(variable) => write!(f, "env {variable}"),
            Self::Credential => f.write_str("systemd credential"),
        }
    }
}

/// A key with the value that won, if any.
pub(super) struct Setting {
    pub(super) key: &'static Key,
    pub(super) raw: Option<Raw>,
    pub(super) origin: Origin,
}

/// All keys, in the order of the table.
pub(super) struct Settings {
    pub(super) all: Vec<Setting>,
    refused: BTreeSet<&'static str>,
    /// The file, as the user named it.
    pub(super) file: String,
}

impl Settings {
    /// The environment beats the file, the file beats the default.
    pub(super) fn merge(file: &Path, entries: Entries, overrides: Overrides) -> Self {
        let shown = file.display().to_string();
        let base = file.parent().unwrap_or(Path::new(""));
        let mut all: Vec<Setting> = KEYS.iter().map(by_default).collect();
        for entry in entries.set {
            let raw = relative_to(base, entry.key, entry.raw);
            let origin = Origin::File {
                path: shown.clone(),
                line: entry.line,
            };
            set(&mut all, entry.key, raw, origin);
        }
        for over in overrides.settings {
            set(
                &mut all,
                over.key,
                over.raw,
                Origin::Environment(over.variable),
            );
        }
        Self {
            all,
            refused: entries
                .refused
                .into_iter()
                .chain(overrides.refused)
                .collect(),
            file: shown,
        }
    }

    pub(super) fn get(&self, path: &str) -> &Setting {
        let found = self.all.iter().find(|setting| setting.key.path == path);
        found.expect("only keys of the table are asked for")
    }

    /// The files that the gateway reads because a key names them.
    pub(super) fn paths_read(&self) -> Vec<PathBuf> {
        let named = ["portal.token_file", "dns.ca_file"].map(|path| &self.get(path).raw);
        let paths = named.into_iter().filter_map(|raw| match raw {
            Some(Raw::Text(path)) => Some(PathBuf::from(path)),
            Some(_) | None => None,
        });
        paths.collect()
    }

    /// Whether the user meant to set this key, and that was refused already.
    pub(super) fn is_refused(&self, path: &str) -> bool {
        self.refused.contains(path)
    }

    /// One problem for each required key that nobody sets.
    pub(super) fn missing(&self) -> Vec<Problem> {
        let missing = |setting: &&Setting| {
            setting.key.presence == Presence::Required
                && setting.raw.is_none()
                && !self.is_refused(setting.key.path)
        };
        let problem = |setting: &Setting| {
            let (section, name) = setting.key.parts();
            Problem::new(
                Place::Whole(self.file.clone()),
                format!(
                    "{} is missing: {} Write {name} = {} under [{section}], or set {}",
                    setting.key.path,
                    setting.key.doc,
                    setting.key.example,
                    setting.key.variable()
                ),
            )
        };
        self.all.iter().filter(missing).map(problem).collect()
    }
}

impl Settings {
    /// What is wrong with two values together, each of which is right.
    pub(super) fn conflict(&self) -> Option<Problem> {
        let (shorter, longer) = (self.get("dns.min_ttl"), self.get("dns.max_ttl"));
        let duration = |setting: &Setting| match &setting.raw {
            Some(Raw::Text(text)) => parse_duration(text).ok(),
            Some(_) | None => None,
        };
        if duration(shorter)? <= duration(longer)? {
            return None;
        }
        let is_shorter_written = longer.origin == Origin::Default;
        let blamed = if is_shorter_written { shorter } else { longer };
        let (min, max) = (shorter.raw.as_ref()?, longer.raw.as_ref()?);
        let message = format!(
            "dns.min_ttl = {min} is longer than dns.max_ttl = {max}; raise dns.max_ttl or lower dns.min_ttl"
        );
        Some(Problem::new(blamed.origin.place(&self.file), message))
    }
}

fn by_default(key: &'static Key) -> Setting {
    let raw = match key.presence {
        Presence::Default(toml) => Some(literal(toml)),
        Presence::Required | Presence::Optional(_) | Presence::EnvironmentOnly => None,
    };
    Setting {
        key,
        raw,
        origin: Origin::Default,
    }
}

fn literal(toml: &str) -> Raw {
    let value = toml
        .parse()
        .expect("defaults of the table are TOML; a test reads them all");
    super::document::raw(&value)
}

fn set(all: &mut [Setting], key: &Key, raw: Raw, origin: Origin) {
    if let Some(setting) = all.iter_mut().find(|setting| setting.key.path == key.path) {
        setting.raw = Some(raw);
        setting.origin = origin;
    }
}

/// A path in the file is relative to the file; one in the environment to the working directory.
fn relative_to(base: &Path, key: &Key, raw: Raw) -> Raw {
    let Raw::Text(text) = &raw else { return raw };
    if !is_path(key) {
        return raw;
    }
    Raw::Text(base.join(text).to_string_lossy().into_owned())
}
