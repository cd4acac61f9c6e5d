//! Parameters that are tuples: two values under no name, which pass for one argument.

use super::source::{Source, line_of};
use super::{Finding, enforce, finding, found, is_rust};

#[test]
fn no_parameter_is_a_tuple() {
    let remedy = "give the values a struct with a meaning, or pass them one by one";
    let concerns = |path: &str| {
        let ours = path.starts_with("src/") || path.starts_with("crates/core/src/");
        ours && is_rust(path)
    };
    enforce("tuple parameters", remedy, concerns, tuple_parameters);
}

/// The parameters of named functions that are tuples by pattern or by type. Closures are free: an
/// iterator over pairs gives them one.
fn tuple_parameters(source: &Source) -> Vec<Finding> {
    let code = source.shipped();
    let mut findings = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = at.checked_sub(1).map(|before| code.as_bytes()[before]);
        if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let Some((name, parameters)) = signature(&code[at + 3..]) else {
            continue;
        };
        for parameter in split(parameters).into_iter().filter(|it| is_tuple(it)) {
            let parameter: Vec<_> = parameter.split_whitespace().collect();
            let what = format!("{name} takes {}", parameter.join(" "));
            findings.push(finding(line_of(&code, at), what));
        }
    }
    findings
}

/// The name of a function and what is between its parentheses; `None` for a type (`fn(u8) -> u8`).
fn signature(code: &str) -> Option<(&str, &str)> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'#';
    let name_end = code.bytes().position(|byte| !is_word(byte))?;
    let mut open = name_end;
    if code[open..].starts_with('<') {
        open = closing(code, open)? + 1;
    }
    let is_function = name_end > 0 && code[open..].starts_with('(');
    let close = is_function.then(|| closing(code, open))??;
    Some((&code[..name_end], &code[open + 1..close]))
}

/// Where the bracket at `open` is closed.
fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        depth += turn(code, at, byte);
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// By how much a byte changes the depth of brackets. The arrow of a return type closes nothing.
fn turn(code: &str, at: usize, byte: u8) -> i32 {
    match byte {
        b'(' | b'[' | b'{' | b'<' => 1,
        b'>' if code[..at].ends_with(['-', '=']) => 0,
        b')' | b']' | b'}' | b'>' => -1,
        _ => 0,
    }
}

/// The parts of a list, at commas outside brackets.
fn split(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, byte) in list.bytes().enumerate() {
        depth += turn(list, at, byte);
        if depth == 0 && byte == b',' {
            parts.push(&list[from..at]);
            from = at + 1;
        }
    }
    parts.push(&list[from..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn is_tuple(parameter: &str) -> bool {
    let pattern = parameter.trim_start();
    let kind = pattern.split_once(':').map_or("", |(_, kind)| kind);
    let kind = kind.trim_start().trim_start_matches('&').trim_start();
    let kind = match kind.strip_prefix('\'') {
        Some(lifetime) => lifetime.split_once(' ').map_or("", |(_, kind)| kind),
        None => kind,
    };
    let kind = kind.strip_prefix("mut ").unwrap_or(kind);
    [pattern, kind].into_iter().any(|it| {
        let end = it.starts_with('(').then(|| closing(it, 0)).flatten();
        end.is_some_and(|end| it[1..end].contains(','))
    })
}

#[test]
fn a_tuple_is_found_by_pattern_and_by_type() {
    let text = "fn a((b, c): (u8, u8)) {}\n\
                fn d<F: Fn(u8) -> u8>(\n    e: F,\n    f: &mut (u8, u8),\n) {}\n\
                fn g(h: &'a (u8, u8)) {}\n\
                fn i(x: Option<(u8, u8)>, y: fn((u8, u8)) -> u8, z: ()) {}\n\
                fn j() { k.map(|(l, m)| l) }\nfn n(o: &(dyn P + Q)) -> (u8, u8) {}\n\
                #[cfg(test)]\nmod tests {\n    fn p((q, r): (u8, u8)) {}\n}\n";
    assert_eq!(found(tuple_parameters, "src/a.rs", text), [1, 2, 6]);
}
