//! Reads the file: which known keys it sets, where, and everything that is wrong with it.

use super::keys::{self, KEYS};
use super::problem::{Place, Problem};
use super::schema::{Key, Kind, Presence, Raw};
use super::suggest;
use std::collections::BTreeSet;
use std::ops::Range;
use toml_edit::{Document, Item, TableLike, Value};

/// A key that the file sets.
pub(super) struct Entry {
    pub(super) key: &'static Key,
    pub(super) raw: Raw,
    pub(super) line: usize,
}

/// What the file says.
#[derive(Default)]
pub(super) struct Entries {
    /// Keys with a good value.
    pub(super) set: Vec<Entry>,
    /// Paths of keys that the file means to set but whose value or spelling is refused; that they
    /// are missing is no further problem.
    pub(super) refused: BTreeSet<&'static str>,
}

/// Reads `text`; `None` when it is not TOML at all. Problems are added to `problems`.
pub(super) fn read(path: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Entries> {
    let mut reader = Reader {
        path,
        text,
        entries: Entries::default(),
        problems: Vec::new(),
    };
    let parsed = match Document::parse(text) {
        Ok(document) => {
            reader.read_root(document.as_table());
            true
        }
        Err(error) => {
            let message = error.message().trim().replace('\n', "; ");
            reader.refuse(error.span(), format!("not valid TOML: {message}"));
            false
        }
    };
    reader.problems.sort_by_key(|(offset, _)| *offset);
    problems.extend(reader.problems.into_iter().map(|(_, problem)| problem));
    parsed.then_some(reader.entries)
}

struct Reader<'t> {
    path: &'t str,
    text: &'t str,
    entries: Entries,
    /// With their offsets, because tables are visited by name.
    problems: Vec<(usize, Problem)>,
}

impl Reader<'_> {
    fn read_root(&mut self, root: &dyn TableLike) {
        let sections = keys::sections();
        for (name, item) in root.iter() {
            let at = root.key(name).and_then(toml_edit::Key::span);
            match item.as_table_like() {
                Some(section) if sections.contains(&name) => self.read_section(name, section),
                Some(section) => self.refuse_section(name, section, at),
                None if item.is_none() => {}
                None if sections.contains(&name) => {
                    let found = describe_other(item);
                    self.refuse(at, format!("\"{name}\" is a section, found {found}; write [{name}] and its keys below"));
                }
                None => self.refuse_unknown(name, at),
            }
        }
    }

    fn read_section(&mut self, section_name: &str, section: &dyn TableLike) {
        for (name, item) in section.iter() {
            let at = section.key(name).and_then(toml_edit::Key::span);
            let path = format!("{section_name}.{name}");
            match keys::find(&path) {
                Some(key) if key.presence == Presence::EnvironmentOnly => {
                    self.refuse_secret(key, at)
                }
                Some(key) => self.read_value(key, item, at),
                None => self.refuse_unknown(&path, at),
            }
        }
    }

    /// Every key of an unknown section is reported, each with its own suggestion.
    fn refuse_section(&mut self, name: &str, section: &dyn TableLike, at: Option<Range<usize>>) {
        if section.is_empty() {
            let hint = suggest::did_you_mean(name, keys::sections());
            self.refuse(at, format!("unknown section \"{name}\"{hint}"));
        }
        for (key, _) in section.iter() {
            let at = section.key(key).and_then(toml_edit::Key::span);
            self.refuse_unknown(&format!("{name}.{key}"), at);
        }
    }

    fn read_value(&mut self, key: &'static Key, item: &Item, at: Option<Range<usize>>) {
        let line = at.as_ref().map_or(1, |at| self.position(at.start).0);
        let raw = match item {
            Item::Value(value) => raw(value),
            Item::None | Item::Table(_) | Item::ArrayOfTables(_) => {
                Raw::Other(describe_other(item))
            }
        };
        let wrong = check(key, &raw, item);
        if wrong.is_empty() {
            self.entries.set.push(Entry { key, raw, line });
            return;
        }
        self.entries.refused.insert(key.path);
        for (found, span) in wrong {
            let at = span.or_else(|| item.span()).or(at.clone());
            self.refuse(at, wrong_value(key, &found));
        }
    }

    fn refuse_unknown(&mut self, path: &str, at: Option<Range<usize>>) {
        let near = suggest::nearest(path, KEYS.iter().map(|key| key.path));
        let hint = suggest::did_you_mean(path, near);
        self.entries.refused.extend(near);
        let at = at.map(|at| self.start_of_dotted(at));
        self.refuse(at, format!("unknown key \"{}\"{hint}", path.escape_debug()));
    }

    fn refuse_secret(&mut self, key: &'static Key, at: Option<Range<usize>>) {
        self.entries.refused.insert(key.path);
        self.refuse(at, format!(
            "{} must not be in this file; put the token into a file of its own (mode 0600) and name it with \
             token_file, or set {}",
            key.path, key.variable(),
        ));
    }

    fn refuse(&mut self, at: Option<Range<usize>>, message: String) {
        let offset = at.map_or(0, |at| at.start);
        let (line, column) = self.position(offset);
        let place = Place::File {
            path: self.path.to_owned(),
            line,
            column,
        };
        self.problems.push((offset, Problem::new(place, message)));
    }

    /// Line and column, both from 1, of a byte offset.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before[line_start..].chars().count() + 1)
    }

    /// `url` in `prtal.url = …` starts where `prtal` starts.
    fn start_of_dotted(&self, at: Range<usize>) -> Range<usize> {
        let before = self.text.get(..at.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let prefix = &before[line_start..];
        let dotted = prefix.trim_end().ends_with('.') && !prefix.contains(['{', ',', '=']);
        let indent = prefix.len() - prefix.trim_start().len();
        if dotted {
            line_start + indent..at.end
        } else {
            at
        }
    }
}

/// What was found instead of what the key takes, and where if that is an item of a list.
fn check(key: &Key, raw: &Raw, item: &Item) -> Vec<(String, Option<Range<usize>>)> {
    match (key.kind, raw) {
        (Kind::One(scalar), _) => {
            let found = scalar.check(raw).err();
            found.into_iter().map(|found| (found, None)).collect()
        }
        (Kind::List(scalar), Raw::List(items)) => {
            let wrong = |(index, raw): (usize, &Raw)| {
                let found = scalar.check(raw).err()?;
                Some((found, nth_span(item, index)))
            };
            items.iter().enumerate().filter_map(wrong).collect()
        }
        (Kind::List(_), Raw::Text(text)) => vec![(format!("the text {text:?}"), None)],
        (Kind::List(_), _) => vec![(raw.to_string(), None)],
    }
}

fn nth_span(item: &Item, index: usize) -> Option<Range<usize>> {
    item.as_array()?.get(index)?.span()
}

/// The message for a refused value; the same for files and variables.
pub(super) fn wrong_value(key: &Key, found: &str) -> String {
    let (_, name) = key.parts();
    let (kind, example) = (key.kind.expects(), key.example);
    format!(
        "{}: found {found}, expected {kind}; for example {name} = {example}",
        key.path
    )
}

/// A TOML value as the table of keys sees it.
pub(super) fn raw(value: &Value) -> Raw {
    match value {
        Value::Boolean(flag) => Raw::Flag(*flag.value()),
        Value::Integer(number) => Raw::Integer(*number.value()),
        Value::String(text) => Raw::Text(text.value().clone()),
        Value::Array(items) => Raw::List(items.iter().map(raw).collect()),
        Value::Float(number) => Raw::Other(format!("the number {}", number.value())),
        Value::Datetime(date) => Raw::Other(format!("the date {}", date.value())),
        Value::InlineTable(_) => Raw::Other("a table".to_owned()),
    }
}

fn describe_other(item: &Item) -> String {
    match item {
        Item::ArrayOfTables(_) => "a list of tables".to_owned(),
        Item::Value(Value::Array(_)) => "a list".to_owned(),
        Item::Value(Value::InlineTable(_)) | Item::Table(_) => "a table".to_owned(),
        Item::Value(
            Value::Boolean(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::String(_)
            | Value::Datetime(_),
        )
        | Item::None => "a single value".to_owned(),
    }
}
