//! Reads the file: which known keys it sets, where, and everything that is wrong with it.

use super::keys::{self, KEYS};
use super::layers::{Entry, Layer};
use super::problem::{Findings, Place, Problem};
use super::schema::{Key, Presence};
use super::suggest;
use super::toml_value::{as_toml, plain, shape};
use config::ValueKind;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reads the `text` of the file at `path`; `None` when it is not TOML at all.
pub(super) fn read(path: &Path, text: &str, findings: &mut Findings) -> Option<Layer> {
    let mut reader = Reader {
        path,
        text,
        layer: Layer::default(),
        refused: Vec::new(),
        problems: Vec::new(),
    };
    let parsed = DeTable::parse(text);
    match &parsed {
        Ok(root) => reader.read_root(root.get_ref()),
        Err(error) => {
            let message = error.message().trim().replace('\n', "; ");
            let at = error.span().map_or(0, |span| span.start);
            reader.refuse(at, format!("not valid TOML: {message}"));
        }
    }
    reader.problems.sort_by_key(|(offset, _)| *offset);
    let problems = reader.problems.into_iter().map(|(_, problem)| problem);
    findings.problems.extend(problems);
    findings.refused.extend(reader.refused);
    parsed.is_ok().then_some(reader.layer)
}

struct Reader<'t> {
    path: &'t Path,
    text: &'t str,
    layer: Layer,
    refused: Vec<&'static str>,
    /// With their offsets, because tables are visited by name.
    problems: Vec<(usize, Problem)>,
}

impl Reader<'_> {
    fn read_root(&mut self, root: &DeTable<'_>) {
        let sections = keys::sections();
        for (name, value) in root {
            let (name, at) = (name.get_ref().as_ref(), name.span().start);
            let is_known = sections.contains(&name);
            match value.get_ref().as_table() {
                Some(section) if is_known => self.read_section(name, section),
                Some(section) => self.refuse_section(name, section, at),
                None if is_known => {
                    let found = shape(value.get_ref());
                    self.refuse(at, format!("\"{name}\" is a section, found {found}; write [{name}] and its keys below"));
                }
                None => self.refuse_unknown(name, at),
            }
        }
    }

    fn read_section(&mut self, section_name: &str, section: &DeTable<'_>) {
        for (name, value) in section {
            let at = name.span().start;
            let path = format!("{section_name}.{}", name.get_ref());
            match keys::find(&path) {
                Some(key) if key.presence == Presence::EnvironmentOnly => {
                    self.refuse_secret(key, at);
                }
                Some(key) => self.read_value(key, value, at),
                None => self.refuse_unknown(&path, at),
            }
        }
    }

    /// Every key of an unknown section is reported, each with its own suggestion.
    fn refuse_section(&mut self, name: &str, section: &DeTable<'_>, at: usize) {
        if section.is_empty() {
            let hint = suggest::did_you_mean(name, keys::sections());
            self.refuse(at, format!("unknown section \"{name}\"{hint}"));
        }
        for key in section.keys() {
            self.refuse_unknown(&format!("{name}.{}", key.get_ref()), key.span().start);
        }
    }

    fn read_value(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>, at: usize) {
        let items = value.get_ref().as_array().filter(|_| key.kind.is_list);
        let wrong: Vec<(usize, String)> = match items {
            Some(items) => items.iter().filter_map(|item| wrong(key, item)).collect(),
            None if key.kind.is_list => {
                let found = match plain(value.get_ref()) {
                    Ok(ValueKind::String(text)) => format!("the text {text:?}"),
                    Ok(other) => as_toml(&other),
                    Err(found) => found,
                };
                vec![(value.span().start, found)]
            }
            None => wrong(key, value).into_iter().collect(),
        };
        if let (true, Ok(value)) = (wrong.is_empty(), plain(value.get_ref())) {
            let place = self.place(at);
            let value = self.relative_to_file(key, value);
            self.layer.entries.push(Entry { key, value, place });
            return;
        }
        self.refused.push(key.path);
        for (start, found) in wrong {
            // A table without braces may be spread over the file; the key stands where it begins.
            let has_braces = self.text[start..].starts_with('{');
            let is_spread = value.get_ref().is_table() && !has_braces;
            let start = if is_spread { at } else { start };
            self.refuse(start, key.wrong_value(&found));
        }
    }

    /// A path in the file is relative to the file.
    fn relative_to_file(&self, key: &Key, value: ValueKind) -> ValueKind {
        match (value, self.path.parent()) {
            (ValueKind::String(path), Some(folder)) if key.kind.is_path => {
                folder.join(path).to_string_lossy().into_owned().into()
            }
            (value, _) => value,
        }
    }

    fn refuse_unknown(&mut self, path: &str, at: usize) {
        let near = suggest::nearest(path, KEYS.iter().map(|key| key.path));
        let hint = suggest::did_you_mean(path, near);
        self.refused.extend(near);
        let at = self.start_of_dotted(at);
        self.refuse(at, format!("unknown key \"{}\"{hint}", path.escape_debug()));
    }

    fn refuse_secret(&mut self, key: &'static Key, at: usize) {
        self.refused.push(key.path);
        self.refuse(at, format!(
            "{} must not be in this file; put the token into a file of its own (mode 0600) and name it with \
             token_file, or set {}",
            key.path, key.variable(),
        ));
    }

    fn refuse(&mut self, at: usize, message: String) {
        let place = self.place(at);
        self.problems.push((at, Problem::new(place, message)));
    }

    /// Line and column, both from 1, of a byte offset.
    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::File {
            path: self.path.display().to_string(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// `url` in `prtal.url = …` starts where `prtal` starts.
    fn start_of_dotted(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let prefix = &before[line_start..];
        let is_dotted = prefix.trim_end().ends_with('.') && !prefix.contains(['{', ',', '=']);
        let indent = prefix.len() - prefix.trim_start().len();
        if is_dotted { line_start + indent } else { at }
    }
}

/// Where a single value or an item is none that `key` takes, and what it is.
fn wrong(key: &Key, value: &Spanned<DeValue<'_>>) -> Option<(usize, String)> {
    let checked = plain(value.get_ref()).and_then(|value| key.check(&value));
    checked.err().map(|found| (value.span().start, found))
}
