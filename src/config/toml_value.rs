//! Values of TOML as those of the `config` crate, and back.
//!
//! Only flags, whole numbers, texts and lists of them: no key takes anything else.

use config::{Value, ValueKind};
use toml::Spanned;
use toml::de::DeValue;

/// The value that TOML text in the list of keys stands for.
///
/// # Panics
///
/// When the text is none; a test reads the whole list.
pub(super) fn literal(toml: &str) -> ValueKind {
    let parsed = DeValue::parse(toml).expect("the list of keys holds TOML");
    plain(parsed.get_ref()).expect("the list of keys holds flags, numbers, texts and lists of them")
}

/// A TOML value as the list of keys sees it; else what it is, in words.
pub(super) fn plain(value: &DeValue<'_>) -> Result<ValueKind, String> {
    match value {
        DeValue::Boolean(flag) => Ok((*flag).into()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(ValueKind::I64)
            .map_err(|_| format!("the number {number}")),
        DeValue::String(text) => Ok(text.as_ref().into()),
        DeValue::Array(items) if items.iter().any(|item| plain(item.get_ref()).is_err()) => {
            Err(shape(value).to_owned())
        }
        DeValue::Array(items) => {
            let items = items.iter().flat_map(|item| plain(item.get_ref()));
            Ok(items.map(Value::from).collect::<Vec<_>>().into())
        }
        DeValue::Float(number) => Err(format!("the number {number}")),
        DeValue::Datetime(date) => Err(format!("the date {date}")),
        DeValue::Table(_) => Err(shape(value).to_owned()),
    }
}

/// The shape of a value, in words.
pub(super) fn shape(value: &DeValue<'_>) -> &'static str {
    let is_table = |item: &Spanned<DeValue<'_>>| item.get_ref().is_table();
    match value.as_array() {
        Some(items) if !items.is_empty() && items.iter().all(is_table) => "a list of tables",
        Some(_) => "a list",
        None if value.is_table() => "a table",
        None => "a single value",
    }
}

/// A value with the name of its type, cut to a readable length.
pub(super) fn described(value: &ValueKind) -> String {
    if let ValueKind::I64(number) = value {
        return format!("the number {number}");
    }
    if matches!(value, ValueKind::Array(_)) {
        return "a list".to_owned();
    }
    let ValueKind::String(text) = value else {
        return value.to_string();
    };
    if text.is_empty() {
        return "an empty text".to_owned();
    }
    let start: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let ellipsis = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{ellipsis}")
}

/// A value as written in TOML.
pub(super) fn as_toml(value: &ValueKind) -> String {
    if let ValueKind::Array(items) = value {
        let items: Vec<String> = items.iter().map(|item| as_toml(&item.kind)).collect();
        return format!("[{}]", items.join(", "));
    }
    if let ValueKind::String(text) = value {
        return toml::Value::from(text.as_str()).to_string();
    }
    value.to_string()
}

/// Longest part of a wrong value that a message repeats.
const SHOWN_CHARS_MAX: usize = 60;
