//! A Rust file as the rules read it: with comments and literals blanked out, line for line.
//!
//! A scanner, not a parser: it knows comments, strings, characters and braces. It refuses to
//! understand macros; what is inside them counts as code.

/// One file of the repository.
pub(crate) struct Source {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Comments and the insides of literals replaced by spaces; same length, same lines.
    pub(crate) code: String,
}

impl Source {
    /// Reads `text`; only `.rs` files are blanked.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") {
            blank(text)
        } else {
            text.to_owned()
        };
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
        }
    }

    /// The code without what only tests see.
    pub(crate) fn shipped(&self) -> String {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let only_tests = name == "tests.rs" || name.ends_with("_tests.rs");
        if only_tests || self.path.split('/').any(|part| part == "tests") {
            return String::new();
        }
        without_tests(&self.code)
    }
}

/// The line (from 1) of a byte.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// The lines (from 1) on which `word` stands as a word or a path of words.
pub(crate) fn lines_with(code: &str, word: &str) -> Vec<usize> {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let bytes = code.as_bytes();
    code.match_indices(word)
        .filter(|(at, _)| {
            let before = at.checked_sub(1).and_then(|before| bytes.get(before));
            !is_part(before) && !is_part(bytes.get(at + word.len()))
        })
        .map(|(at, _)| line_of(code, at))
        .collect()
}

/// Replaces comments and the insides of literals by spaces.
fn blank(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(text, at);
        if let Some((inside, end)) = end {
            for byte in &mut bytes[inside.min(end)..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
            at = end.max(at + 1);
        } else {
            at += 1;
        }
    }
    String::from_utf8(bytes).expect("whole literals are replaced, so no character is cut")
}

/// If a comment or literal begins at `at`: where its inside begins, and where it ends.
fn literal_end(text: &str, at: usize) -> Option<(usize, usize)> {
    let rest = &text.as_bytes()[at..];
    let word_before = at.checked_sub(1).is_some_and(|before| {
        let byte = text.as_bytes()[before];
        byte.is_ascii_alphanumeric() || byte == b'_'
    });
    match rest {
        [b'/', b'/', ..] => {
            let length = rest
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(rest.len());
            Some((at, at + length))
        }
        [b'/', b'*', ..] => Some((at, at + block_comment(rest))),
        [b'"', ..] => Some((at + 1, at + quoted(rest, b'"'))),
        [b'r', b'"' | b'#', ..] if !word_before => raw_string(rest).map(|end| (at, at + end)),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !word_before => {
            raw_string(&rest[1..]).map(|end| (at, at + 1 + end))
        }
        [b'\'', b'\\', ..] => Some((at + 1, at + quoted(rest, b'\''))),
        [b'\'', ..] => {
            let character = text[at + 1..].chars().next()?;
            let quote = at + 1 + character.len_utf8();
            (text.as_bytes().get(quote) == Some(&b'\'')).then_some((at + 1, quote + 1))
        }
        _ => None,
    }
}

/// The length of a block comment, which nests.
fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a literal with escapes, without its closing quote, so that the quote stays.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a raw string; `None` when it is a raw identifier.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let mut closing = vec![b'"'];
    closing.extend(std::iter::repeat_n(b'#', hashes));
    let inside = 2 + hashes;
    let end = rest[inside..]
        .windows(closing.len())
        .position(|window| window == closing);
    Some(end.map_or(rest.len(), |end| inside + end + closing.len()))
}

/// Blanks every item that carries `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find(MARK) {
        let mark = from + found;
        let end = item_end(code, mark + MARK.len());
        for byte in &mut kept[mark..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        from = end;
    }
    String::from_utf8(kept).expect("items begin and end at ASCII characters")
}

/// Where the item that begins at `from` ends: after its `;` or its closing brace.
fn item_end(code: &str, from: usize) -> usize {
    match code[from..].find(['{', ';']) {
        Some(at) if code.as_bytes()[from + at] == b';' => from + at + 1,
        Some(at) => closing_brace(code, from + at),
        None => code.len(),
    }
}

/// Just behind the brace that closes the one at `open`.
fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// A function: its name, its first and its last line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// All functions with a body, nested ones too.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = at.checked_sub(1).map(|before| code.as_bytes()[before]);
        if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        let name: String = code[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let Some(open) = body(code, at) else { continue };
        if !name.is_empty() {
            functions.push(Function {
                name,
                first: line_of(code, at),
                last: line_of(code, closing_brace(code, open) - 1),
            });
        }
    }
    functions
}

/// Where the body of the function at `at` opens: the first brace outside its parentheses.
fn body(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

#[test]
fn comments_and_literals_are_blanked_and_lines_stay() {
    let text = "let a = \"x // \\\" y\"; // c\nlet b = 'q'; /* d /* e */ f */ let c: &'a str;\n\
                let d = r#\"g \" h\"#; let e = b\"i\"; let r#fn = '\\'';";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(code.lines().count(), text.lines().count());
    for gone in ["x", "y", "// c", "q", "d /*", "e */", "g ", " h", "i\""] {
        assert!(!code.contains(gone), "{gone} in {code}");
    }
    for kept in [
        "let a",
        "let b",
        "let c: &'a str;",
        "let d",
        "let e",
        "let r#fn",
    ] {
        assert!(code.contains(kept), "{kept} not in {code}");
    }
}

#[test]
fn test_items_are_not_shipped() {
    let text = "fn a() { b(); }\n#[cfg(test)]\nmod tests {\n fn c() { d(); }\n}\nfn e() {}\n\
                #[cfg(test)]\nmod more;\nfn f() {}\n";
    let shipped = Source::new("src/x.rs", text).shipped();
    for kept in ["a()", "b()", "e()", "f()"] {
        assert!(shipped.contains(kept), "{kept}");
    }
    for gone in ["c()", "d()", "more"] {
        assert!(!shipped.contains(gone), "{gone}");
    }
    assert_eq!(Source::new("src/x/tests.rs", text).shipped(), "");
    assert_eq!(Source::new("tests/x.rs", text).shipped(), "");
}

#[test]
fn functions_are_found_with_their_lines() {
    let text =
        "fn a() {\n}\ntrait T {\n fn b();\n fn c(x: fn(u8) -> [u8; 2]) -> u8 {\n  1\n }\n}\n";
    let found = functions(&blank(text));
    let lines: Vec<_> = found.iter().map(|f| (&*f.name, f.first, f.last)).collect();
    assert_eq!(lines, [("a", 1, 2), ("c", 5, 7)]);
}

#[test]
fn words_are_whole() {
    assert_eq!(
        lines_with("tokio::x\nmy_tokio\ntokio_y\n(tokio)", "tokio"),
        [1, 4]
    );
}
