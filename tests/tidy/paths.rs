//! The paths that the documents name, and whether they lead anywhere.
//!
//! Reads what stands in back-ticks. Refuses to guess: words with wildcards, spaces or foreign roots
//! are not taken for paths.

/// Folders at the top of the repository that documents may name before they exist.
const ROOTS: [&str; 9] = [
    "crates", "src", "tests", "config", "docker", "benches", "fuzz", ".ci", ".config",
];
const EXTENSIONS: [&str; 4] = [".rs", ".toml", ".md", ".sh"];

/// A path in a document, with what it says is in there (`path.rs:name`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) line: usize,
    /// Relative to the repository, or the end of such a path.
    pub(crate) path: String,
    /// A function or type in the file.
    pub(crate) symbol: Option<String>,
}

/// The paths that a document names.
pub(crate) fn mentions(text: &str) -> Vec<Mention> {
    let mut mentions = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        let quoted = line.split('`').skip(1).step_by(2);
        mentions.extend(quoted.filter_map(|word| mention(number + 1, word)));
    }
    mentions
}

fn mention(line: usize, word: &str) -> Option<Mention> {
    if word.contains([' ', '*', '<', '{', '…', '$', '(']) || word.starts_with(['/', '~']) {
        return None;
    }
    let word = word.trim_start_matches("./");
    let (path, symbol) = match word.split_once(':') {
        Some((path, symbol)) => (path, Some(symbol.trim_start_matches(':').to_owned())),
        None => (word, None),
    };
    let path = path.trim_end_matches('/');
    let root = path.split('/').next()?;
    let rooted =
        path.contains('/') && ROOTS.contains(&root) || word.ends_with('/') && !root.is_empty();
    let named = EXTENSIONS.iter().any(|extension| path.ends_with(extension));
    (rooted || named).then(|| Mention {
        line,
        path: path.to_owned(),
        symbol,
    })
}

/// What is wrong with a mention, given all files of the repository and a way to read them.
pub(crate) fn objection(
    mention: &Mention,
    files: &[String],
    read: impl Fn(&str) -> String,
) -> Option<String> {
    let path = &mention.path;
    let inside = format!("{path}/");
    let below = format!("/{path}");
    let is_it = |file: &&String| {
        *file == path
            || file.ends_with(&below)
            || file.starts_with(&inside)
            || file.contains(&format!("/{inside}"))
    };
    let found: Vec<&String> = files.iter().filter(is_it).collect();
    if found.is_empty() {
        return Some(format!("there is no {path}"));
    }
    let symbol = mention.symbol.as_ref()?;
    let held = found
        .iter()
        .any(|file| read(file).contains(symbol.as_str()));
    (!held).then(|| format!("{path} has no {symbol}"))
}

/// A step of a walk in ARCHITECTURE.md: the files of its second column, the functions of its third.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// From 1, of the document.
    pub(crate) line: usize,
    pub(crate) files: Vec<String>,
    /// Without the type before `::`.
    pub(crate) functions: Vec<String>,
}

/// The rows of all tables that begin with the columns step, file and function.
pub(crate) fn walks(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        let is_head = line.starts_with("| step | file | function |");
        inside = is_head || (inside && line.starts_with('|'));
        if !inside || is_head || line.starts_with("|---") {
            continue;
        }
        let columns: Vec<&str> = line.split('|').collect();
        let words = |column: usize| {
            let column = columns.get(column).copied().unwrap_or_default();
            column
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let name = |path: String| path.rsplit("::").next().unwrap_or_default().to_owned();
        steps.push(Step {
            line: number + 1,
            files: words(2),
            functions: words(3).into_iter().map(name).collect(),
        });
    }
    steps
}

/// The functions of a step that none of its files defines.
pub(crate) fn missing_functions(step: &Step, read: impl Fn(&str) -> String) -> Vec<String> {
    let texts: Vec<String> = step.files.iter().map(|file| read(file)).collect();
    let defined = |name: &str| {
        let definitions = ["(", "<"].map(|open| format!("fn {name}{open}"));
        texts
            .iter()
            .any(|text| definitions.iter().any(|it| text.contains(it)))
    };
    let missing = step.functions.iter().filter(|name| !defined(name));
    missing.cloned().collect()
}

#[test]
fn the_functions_of_a_walk_are_looked_for_in_its_files() {
    let text = "| step | file | function | dropped |\n|---|---|---|---|\n\
                | read | `a.rs`, `b.rs` | `A::read`, `merge`, `gone` | `X` |\n\n| `x` | `y` | `z` |\n";
    let steps = walks(text);
    assert_eq!(steps.len(), 1);
    assert_eq!(steps[0].line, 3);
    let read = |file: &str| match file {
        "a.rs" => "pub fn read(&self) {}".to_owned(),
        _ => "fn merge<T>(t: T) {}".to_owned(),
    };
    assert_eq!(missing_functions(&steps[0], read), ["gone"]);
}

#[test]
fn paths_are_told_from_other_words() {
    let text = "`src/main.rs` and `crates/core/`, `./tests/tidy.rs`, `wire.rs:Frame`, `tcp/80`,\n\
                `cargo test`, `src/actors/*.rs`, `/etc/x.toml`, `postern_core::Verdict`\n\
                ```\n`docker/none`\n```\n`fuzz/x`";
    let found: Vec<_> = mentions(text)
        .into_iter()
        .map(|it| (it.line, it.path))
        .collect();
    let expected = [
        (1, "src/main.rs"),
        (1, "crates/core"),
        (1, "tests/tidy.rs"),
        (1, "wire.rs"),
        (6, "fuzz/x"),
    ];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}

#[test]
fn a_path_that_leads_nowhere_is_objected_to() {
    let files = ["src/main.rs", "crates/core/src/portal/wire.rs"].map(str::to_owned);
    let object = |word: &str| {
        let mention = mention(1, word).expect("a path");
        objection(&mention, &files, |_| "struct Frame;".to_owned())
    };
    for good in [
        "src/main.rs",
        "src/",
        "crates/core/src",
        "wire.rs",
        "portal/wire.rs:Frame",
    ] {
        assert_eq!(object(good), None, "{good}");
    }
    for bad in ["src/other.rs", "docker/x", "ire.rs", "wire.rs:Other"] {
        assert!(object(bad).is_some(), "{bad}");
    }
}
