//! The overrides in the environment.

use super::document::wrong_value;
use super::keys::{self, KEYS};
use super::problem::{Place, Problem};
use super::schema::{Key, Kind, Presence, Raw, VARIABLE_PREFIX};
use super::suggest;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use zeroize::Zeroizing;

/// The part of the process environment that concerns the configuration. Values are wiped on drop,
/// because one of them may be the token.
pub struct Environment {
    variables: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl Environment {
    /// Of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::new(std::env::vars_os())
    }

    /// From name and value pairs; everything that does not concern the configuration is left out.
    #[must_use]
    pub fn new<N, V>(variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let ours = |name: &str| {
            name.starts_with("POSTERN_") || [LOG_VARIABLE, CREDENTIALS_VARIABLE].contains(&name)
        };
        let variables = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into().into_string().ok()?, value)))
            .filter(|(name, _)| ours(name))
            .map(|(name, value)| (name, Zeroizing::new(value.into().into_vec())))
            .collect();
        Self { variables }
    }

    pub(super) fn get(&self, variable: &str) -> Option<&[u8]> {
        self.variables.get(variable).map(|value| value.as_slice())
    }
}

/// A key that a variable sets.
pub(super) struct Override {
    pub(super) key: &'static Key,
    pub(super) raw: Raw,
    pub(super) variable: String,
}

/// What the environment says.
#[derive(Default)]
pub(super) struct Overrides {
    pub(super) settings: Vec<Override>,
    pub(super) refused: BTreeSet<&'static str>,
    pub(super) warnings: Vec<String>,
}

/// Reads all overrides but the token, which is read where it is resolved.
pub(super) fn read(environment: &Environment, problems: &mut Vec<Problem>) -> Overrides {
    let mut overrides = Overrides::default();
    for (variable, value) in &environment.variables {
        if !variable.starts_with(VARIABLE_PREFIX) {
            overrides.warnings.extend(almost_an_override(variable));
            continue;
        }
        let Some(key) = KEYS.iter().find(|key| key.variable() == *variable) else {
            problems.push(unknown(variable, &mut overrides.refused));
            continue;
        };
        if key.presence != Presence::EnvironmentOnly {
            overrides.take(key, variable, value, problems);
        }
    }
    overrides.take_log_filter(environment, problems);
    overrides
}

impl Overrides {
    fn take(
        &mut self,
        key: &'static Key,
        variable: &str,
        value: &[u8],
        problems: &mut Vec<Problem>,
    ) {
        match parse(key, value) {
            Ok(raw) => self.settings.push(Override {
                key,
                raw,
                variable: variable.to_owned(),
            }),
            Err(message) => {
                self.refused.insert(key.path);
                let place = Place::Environment(variable.to_owned());
                problems.push(Problem::new(place, message));
            }
        }
    }

    /// `RUST_LOG` counts where our own variable is not set; empty, it counts as not set, as
    /// everywhere.
    fn take_log_filter(&mut self, environment: &Environment, problems: &mut Vec<Problem>) {
        let key = keys::find("log.filter").expect("the table has log.filter");
        let overridden = environment.get(&key.variable()).is_some();
        match environment.get(LOG_VARIABLE) {
            Some(value) if !overridden && !value.is_empty() => {
                self.take(key, LOG_VARIABLE, value, problems);
            }
            Some(_) | None => {}
        }
    }
}

fn parse(key: &Key, value: &[u8]) -> Result<Raw, String> {
    let Ok(text) = std::str::from_utf8(value) else {
        return Err(wrong_value(key, "bytes that are not UTF-8"));
    };
    let raw = key.kind.read_text(text);
    let items = match (&key.kind, &raw) {
        (Kind::List(_), Raw::List(items)) => items.as_slice(),
        (_, single) => std::slice::from_ref(single),
    };
    for item in items {
        key.kind.scalar().check(item).map_err(|found| {
            let list = matches!(key.kind, Kind::List(_));
            let hint = if list {
                " (items are separated by commas)"
            } else {
                ""
            };
            format!("{}{hint}", wrong_value(key, &found))
        })?;
    }
    Ok(raw)
}

fn unknown(variable: &str, refused: &mut BTreeSet<&'static str>) -> Problem {
    let variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let near = suggest::nearest(variable, variables.iter().map(String::as_str));
    let hint = suggest::did_you_mean(variable, near);
    let meant = KEYS
        .iter()
        .find(|key| near == Some(key.variable().as_str()));
    refused.extend(meant.map(|key| key.path));
    let place = Place::Environment(variable.to_owned());
    Problem::new(place, format!("unknown variable{hint}"))
}

/// A single underscore where two are needed is not refused (orchestrators invent such names for
/// services), but it is not passed over in silence either.
fn almost_an_override(variable: &str) -> Option<String> {
    let squeezed = |name: &str| name.replace('_', "");
    let key = KEYS
        .iter()
        .find(|key| squeezed(&key.variable()) == squeezed(variable))?;
    Some(format!(
        "the environment variable {variable} is not used; did you mean {} (two underscores)?",
        key.variable()
    ))
}

/// Where tools of this kind look for their log filter.
const LOG_VARIABLE: &str = "RUST_LOG";
/// Set by systemd for `LoadCredential=` (systemd.exec, "Credentials").
pub(super) const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
