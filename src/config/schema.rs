//! The facts about a key of the configuration, and the macro that reads the list of keys.
//!
//! The list itself is in `keys.rs`; the types of values are in `kinds.rs`.

use super::kinds::{Kind, Refusal, Setting};
use config::ValueKind;
use std::ops::RangeInclusive;

/// One key of the configuration, as the list has it.
#[derive(Debug)]
pub struct Key {
    /// `section.name`, as in TOML.
    pub path: &'static str,
    /// The type of the field: how a value is read, and what is expected.
    pub kind: Kind,
    /// What happens when the key is not set.
    pub presence: Presence,
    /// What it takes to change it while the gateway runs.
    pub change: Change,
    /// The range of an integer, both ends included.
    pub range: Option<RangeInclusive<i64>>,
    /// The unit of the value; empty where the type says it all.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test holds config/gateway.toml against it")
    )]
    pub unit: &'static str,
    /// A value as written in TOML; empty where the default is the example.
    pub example: &'static str,
    /// The meaning in one sentence, from the doc comment of the field.
    pub doc: &'static str,
}

/// What it takes to change a key while the gateway runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A reload takes the new value over.
    InPlace,
    /// A reload names the key and keeps the old value.
    Restart,
}

/// What happens when a key is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has this value, written as in TOML.
    Default(&'static str),
    /// The gateway does not start.
    Required,
    /// The words say what happens instead.
    Optional(&'static str),
    /// It is never in the file, only in the environment.
    EnvironmentOnly,
}

impl Key {
    /// The facts that the list leaves out.
    pub(super) const PLAIN: Self = Self {
        path: "",
        kind: <String as Setting>::KIND,
        presence: Presence::Required,
        change: Change::Restart,
        range: None,
        unit: "",
        example: "",
        doc: "",
    };

    /// The environment variable that overrides it.
    #[must_use]
    pub fn variable(&self) -> String {
        let name = self.path.replace('.', "__").to_ascii_uppercase();
        format!("{VARIABLE_PREFIX}{name}")
    }

    /// The two parts of the path: section and name.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &'static str) {
        self.path.split_once('.').expect("every path has a section")
    }

    /// A value as written in TOML.
    #[must_use]
    pub fn example(&self) -> &'static str {
        match self.presence {
            Presence::Default(default) if self.example.is_empty() => default,
            Presence::Default(_)
            | Presence::Required
            | Presence::Optional(_)
            | Presence::EnvironmentOnly => self.example,
        }
    }

    /// Checks a value, or one item of a list. The error says what was found and why that will not
    /// do, and never more of it than may be shown.
    pub(super) fn check(&self, value: &ValueKind) -> Result<(), String> {
        let is_in_range = match (&self.range, value) {
            (Some(range), ValueKind::I64(number)) => range.contains(number),
            (Some(_) | None, _) => true,
        };
        let checked = if is_in_range {
            (self.kind.check)(value)
        } else {
            Err(Refusal::Plain)
        };
        checked.map_err(|refusal| refusal.found(value))
    }

    /// The message for a refused value; the same for files and variables.
    pub(super) fn wrong_value(&self, found: &str) -> String {
        let (_, name) = self.parts();
        let mut expected = self.kind.expects.to_owned();
        if let Some(range) = &self.range {
            expected += &format!(" from {} to {}", range.start(), range.end());
        }
        if self.kind.is_list {
            expected = format!("a list; each item: {expected}");
        }
        let (path, example) = (self.path, self.example());
        format!("{path}: found {found}, expected {expected}; for example {name} = {example}")
    }
}

/// The prefix of the variables that override keys.
pub const VARIABLE_PREFIX: &str = "POSTERN__";

/// Reads the list of keys, once, and makes of it
///
/// * a struct for each section, which serde fills from what the `config` crate has merged,
/// * `GatewayConfig` with a field for each section,
/// * `KEYS`, the table with the facts of each key,
/// * `GatewayConfig::differing` and `GatewayConfig::adopt`, for a reload.
///
/// A key is `name: Type = default, Change { facts }`. The default is a literal as in TOML,
/// `(required)`, `(unset: "what happens instead")` or `(environment)`; the facts are fields of
/// [`Key`].
macro_rules! settings {
    ($(
        $(#[$section_doc:meta])*
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])+
                $name:ident: $type:ty = $default:tt, $change:ident { $($facts:tt)* }
            )*
        }
    )*) => {
        $(
            $(#[$section_doc])*
            #[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $Section {
                $(
                    $(#[doc = $doc])+
                    #[serde(deserialize_with = "super::kinds::deserialize")]
                    pub $name: $type,
                )*
            }
        )*

        /// The typed configuration: every section of the list.
        #[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct GatewayConfig {
            $($(#[$section_doc])* pub $section: $Section,)*
        }

        /// Every key, in the order of `config/gateway.toml`.
        #[expect(clippy::needless_update, reason = "one key has every fact")]
        pub static KEYS: &[Key] = &[$($(
            Key {
                path: concat!(stringify!($section), ".", stringify!($name)),
                kind: <$type as Setting>::KIND,
                presence: $crate::config::schema::presence!($default),
                change: Change::$change,
                doc: concat!($($doc),+).trim_ascii(),
                $($facts)*
                ..Key::PLAIN
            },
        )*)*];

        impl GatewayConfig {
            /// For each key, in the order of `KEYS`, whether its value differs from `other`.
            fn differing(&self, other: &Self) -> impl Iterator<Item = bool> {
                [$($(self.$section.$name != other.$section.$name),*),*].into_iter()
            }

            /// Takes over what changes in place, and keeps the rest.
            pub fn adopt(&mut self, wanted: &Self) {
                $($(
                    if Change::$change == Change::InPlace {
                        self.$section.$name.clone_from(&wanted.$section.$name);
                    }
                )*)*
            }
        }
    };
}

/// The default of a key in the list, see [`settings`].
macro_rules! presence {
    ((required)) => {
        Presence::Required
    };
    ((environment)) => {
        Presence::EnvironmentOnly
    };
    ((unset: $instead:literal)) => {
        Presence::Optional($instead)
    };
    ($default:tt) => {
        Presence::Default(stringify!($default))
    };
}

pub(super) use {presence, settings};
