//! The overrides in the environment.

use super::keys::{self, KEYS};
use super::layers::{Entry, Layer};
use super::problem::{Findings, Place, Problem};
use super::schema::{Key, Presence, VARIABLE_PREFIX};
use super::suggest;
use config::ValueKind;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use zeroize::Zeroizing;

/// The part of the process environment that concerns the configuration. Values are wiped on drop,
/// because one of them may be the token.
pub struct Environment {
    variables: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl Environment {
    /// The environment of this process.
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

/// Reads all overrides but the token, which is read where it is resolved.
pub(super) fn read(environment: &Environment, findings: &mut Findings) -> Layer {
    let mut reader = Reader {
        layer: Layer::default(),
        findings,
    };
    for (variable, value) in &environment.variables {
        if !variable.starts_with(VARIABLE_PREFIX) {
            reader
                .findings
                .warnings
                .extend(almost_an_override(variable));
            continue;
        }
        match KEYS.iter().find(|key| key.variable() == *variable) {
            Some(key) if key.presence == Presence::EnvironmentOnly => {}
            Some(key) => reader.take(key, variable, value),
            None => reader.refuse_unknown(variable),
        }
    }
    reader.take_log_filter(environment);
    reader.layer
}

struct Reader<'f> {
    layer: Layer,
    findings: &'f mut Findings,
}

impl Reader<'_> {
    fn take(&mut self, key: &'static Key, variable: &str, value: &[u8]) {
        let place = Place::Environment(variable.to_owned());
        match parse(key, value) {
            Ok(value) => self.layer.entries.push(Entry { key, value, place }),
            Err(message) => {
                self.findings.refused.insert(key.path);
                self.findings.problems.push(Problem::new(place, message));
            }
        }
    }

    /// `RUST_LOG` counts where our own variable is not set. Empty, it counts as not set, as in
    /// other programs.
    fn take_log_filter(&mut self, environment: &Environment) {
        let key = keys::find("log.filter").expect("the list has log.filter");
        let is_overridden = environment.get(&key.variable()).is_some();
        match environment.get(LOG_VARIABLE) {
            Some(value) if !is_overridden && !value.is_empty() => {
                self.take(key, LOG_VARIABLE, value);
            }
            Some(_) | None => {}
        }
    }

    fn refuse_unknown(&mut self, variable: &str) {
        let variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
        let near = suggest::nearest(variable, variables.iter().map(String::as_str));
        let hint = suggest::did_you_mean(variable, near);
        let mut meant = KEYS.iter().zip(&variables);
        let meant = meant.find(|(_, variable)| near == Some(variable.as_str()));
        self.findings.refused.extend(meant.map(|(key, _)| key.path));
        let place = Place::Environment(variable.to_owned());
        let problem = Problem::new(place, format!("unknown variable{hint}"));
        self.findings.problems.push(problem);
    }
}

fn parse(key: &Key, value: &[u8]) -> Result<ValueKind, String> {
    let Ok(text) = std::str::from_utf8(value) else {
        return Err(key.wrong_value("bytes that are not UTF-8"));
    };
    let read = |text: &str| {
        let value = (key.kind.value_of)(text);
        key.check(&value).map(|()| value)
    };
    if !key.kind.is_list {
        return read(text).map_err(|found| key.wrong_value(&found));
    }
    let items = text.split(',').map(str::trim);
    let items = items.filter(|item| !item.is_empty()).map(read);
    let items: Result<Vec<ValueKind>, String> = items.collect();
    items.map(ValueKind::from).map_err(|found| {
        let wrong = key.wrong_value(&found);
        format!("{wrong} (items are separated by commas)")
    })
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
