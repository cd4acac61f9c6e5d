//! The sources of values, and what the `config` crate makes of them: for each key the value that
//! wins, with its origin.
//!
//! The environment beats the file, the file beats the default. Each value is a [`config::Value`]
//! with its origin; a key that no source sets is merged as nil.

use super::keys::KEYS;
use super::kinds::Setting;
use super::problem::{Place, Problem};
use super::schema::{Change, Key, Presence};
use super::toml_value::{as_toml, literal};
use config::{Config, Map, Source, Value, ValueKind};
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;

/// What one source sets: the file, or the environment.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    pub(super) entries: Vec<Entry>,
}

/// A key with a checked value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: &'static Key,
    pub(super) value: ValueKind,
    pub(super) place: Place,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        let entry = |entry: &Entry| {
            let value = Value::new(Some(&entry.place.origin()), entry.value.clone());
            (entry.key.path.to_owned(), value)
        };
        Ok(self.entries.iter().map(entry).collect())
    }
}

/// All sources in one, and where each value came from.
pub(super) struct Merged {
    config: Config,
    layers: Vec<Layer>,
    /// The file, as the user named it.
    pub(super) file: String,
}

impl Merged {
    /// Merges the layers, the strongest last, over the defaults of the list.
    pub(super) fn new(file: String, layers: Vec<Layer>) -> Result<Self, config::ConfigError> {
        let mut builder = Config::builder();
        for key in KEYS {
            let default = match key.presence {
                Presence::Default(toml) => literal(toml),
                Presence::Required | Presence::Optional(_) | Presence::EnvironmentOnly => {
                    ValueKind::Nil
                }
            };
            let default = Value::new(Some(&"default".to_owned()), default);
            builder = builder.set_default(key.path, default)?;
        }
        for layer in &layers {
            builder = builder.add_source(layer.clone());
        }
        Ok(Self {
            config: builder.build()?,
            layers,
            file,
        })
    }

    /// The whole configuration, typed. After all checks this does not fail, unless the list of keys
    /// contradicts itself; a test looks for that.
    pub(super) fn typed<T: DeserializeOwned>(&self) -> Result<T, config::ConfigError> {
        self.config.clone().try_deserialize()
    }

    /// One section, typed, whether the rest is complete or not.
    pub(super) fn section<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<T, config::ConfigError> {
        self.config.get(name)
    }

    /// One key, typed; `None` when it is not set.
    pub(super) fn get<T: Setting>(&self, path: &str) -> Option<T> {
        let value: Option<Value> = self.config.get(path).ok()?;
        T::read(Some(&value?)).ok()
    }

    /// The value of a key, with its origin.
    fn value(&self, key: &Key) -> Value {
        let (section, name) = key.parts();
        let section = self.config.get_table(section);
        let value = section.ok().and_then(|mut section| section.remove(name));
        value.unwrap_or_default()
    }

    /// Where to put right the value of a key.
    pub(super) fn place(&self, path: &str) -> Place {
        let entries = self.layers.iter().rev().flat_map(|layer| &layer.entries);
        let mut found = entries.filter(|entry| entry.key.path == path);
        let whole = || Place::Whole(self.file.clone());
        found.next().map_or_else(whole, |entry| entry.place.clone())
    }

    /// The files that the gateway reads because a key names them.
    pub(super) fn paths_read(&self) -> Vec<PathBuf> {
        let named = ["portal.token_file", "dns.ca_file"].map(|path| self.get(path));
        named.into_iter().flatten().collect()
    }

    /// One problem for each required key that is not set.
    pub(super) fn missing(&self) -> impl Iterator<Item = (&'static str, Problem)> {
        let is_missing = |key: &&'static Key| {
            key.presence == Presence::Required && self.value(key).kind == ValueKind::Nil
        };
        let problem = |key: &'static Key| {
            let (section, name) = key.parts();
            let (path, doc, example, variable) = (key.path, key.doc, key.example(), key.variable());
            let message = format!(
                "{path} is missing: {doc} Write {name} = {example} under [{section}], or set {variable}"
            );
            (path, Problem::new(Place::Whole(self.file.clone()), message))
        };
        KEYS.iter().filter(is_missing).map(problem)
    }

    /// What is wrong with two values together, each of which is right.
    pub(super) fn conflict(&self) -> Option<Problem> {
        let (shorter, longer) = ("dns.min_ttl", "dns.max_ttl");
        if self.get::<Duration>(shorter)? <= self.get::<Duration>(longer)? {
            return None;
        }
        let written = [longer, shorter].map(|path| self.place(path)).into_iter();
        let place = written.reduce(|place, next| match place {
            Place::Whole(_) => next,
            Place::File { .. } | Place::Environment(_) | Place::Credential(_) => place,
        })?;
        let shown = |path| Some(as_toml(&self.value(super::keys::find(path)?).kind));
        let (min, max) = (shown(shorter)?, shown(longer)?);
        let message = format!(
            "dns.min_ttl = {min} is longer than dns.max_ttl = {max}; raise dns.max_ttl or lower dns.min_ttl"
        );
        Some(Problem::new(place, message))
    }

    /// Every key, its value and where it came from, as `postern check` shows them. It is TOML
    /// again: one dotted key a line, with the origin as a comment, and whether a change of it takes
    /// a restart; keys without a value are comments altogether. The secret is hidden.
    pub(super) fn effective(&self, token_origin: &str) -> String {
        let line = |key: &Key| {
            let (path, value) = (key.path, self.value(key));
            let (shown, origin) = match (key.presence, &value.kind) {
                (Presence::EnvironmentOnly, _) => (format!("# {path} = (hidden)"), token_origin),
                (Presence::Optional(instead), ValueKind::Nil) => {
                    (format!("# {path} is not set"), instead)
                }
                (_, kind) => {
                    let origin = value.origin().unwrap_or_default();
                    (format!("{path} = {}", as_toml(kind)), origin)
                }
            };
            let change = match key.change {
                Change::InPlace => "",
                Change::Restart => " (restart)",
            };
            (shown, format!("{origin}{change}"))
        };
        let lines: Vec<(String, String)> = KEYS.iter().map(line).collect();
        let widths = lines.iter().map(|(shown, _)| shown.chars().count());
        let aligned = widths.filter(|width| *width <= ALIGNED_MAX);
        let width = aligned.max().unwrap_or(0);
        let lines = lines.iter();
        let lines = lines.map(|(shown, origin)| format!("{shown:width$}  # {origin}\n"));
        lines.collect::<String>() + LEGEND
    }
}

const LEGEND: &str =
    "# (restart): takes effect at the next start; all others when the file changes\n";
/// Longer values stand out instead of pushing every comment to the right.
const ALIGNED_MAX: usize = 64;
