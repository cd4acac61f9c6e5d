//! Which module imports which, and whether modules import each other in a circle.
//!
//! At every level of the module tree the modules beside each other, each with all that is below it,
//! form no circle. A module and the modules inside it are one thing: they may name each other.
//! Reads `crate::`, `super::` and `self::` paths of shipped code; refuses to expand macros.

use super::source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// A module's path below the crate root; empty for the root itself.
type Module = Vec<String>;

/// An import: the file that has it, and the module that it names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
struct Import {
    from: Module,
    to: Module,
}

/// Modules that import each other, with one import for each arrow between them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Circle {
    /// Paths from the crate root, in order.
    pub(crate) modules: Vec<String>,
    /// `from -> to`, the files' modules.
    pub(crate) imports: Vec<String>,
}

/// The circles of a crate, given its sources below `root` (`src/`).
pub(crate) fn circles(root: &str, sources: &[Source]) -> Vec<Circle> {
    let modules: BTreeMap<Module, &Source> = sources
        .iter()
        .filter(|source| !source.shipped().trim().is_empty())
        .map(|source| (module_of(root, &source.path), source))
        .collect();
    let known: BTreeSet<&Module> = modules.keys().collect();
    let imports: BTreeSet<Import> = modules
        .iter()
        .flat_map(|(module, source)| imports_of(module, &source.shipped(), &known))
        .collect();
    let mut levels: BTreeSet<Module> = BTreeSet::new();
    for module in &known {
        levels.extend((0..module.len()).map(|depth| module[..depth].to_vec()));
    }
    levels
        .iter()
        .flat_map(|level| circles_at(level, &imports))
        .collect()
}

/// `src/a/mod.rs`, `src/a.rs` and `src/a/b.rs` as modules.
fn module_of(root: &str, path: &str) -> Module {
    let path = path
        .strip_prefix(root)
        .unwrap_or(path)
        .trim_end_matches(".rs");
    let mut parts: Module = path.split('/').map(str::to_owned).collect();
    let last = parts.last().map(String::as_str);
    if matches!(last, Some("mod")) || (parts.len() == 1 && matches!(last, Some("lib" | "main"))) {
        parts.pop();
    }
    parts
}

fn imports_of(from: &Module, code: &str, known: &BTreeSet<&Module>) -> Vec<Import> {
    let paths = paths_in(code).into_iter();
    let imports = paths.filter_map(|path| {
        let to = resolve(from, &path, known)?;
        let is_own_tree = from.starts_with(&to) || to.starts_with(from);
        (!is_own_tree).then(|| Import {
            from: from.clone(),
            to,
        })
    });
    imports.collect()
}

/// The module that a path leads to: its longest beginning that is one.
fn resolve(from: &Module, path: &[String], known: &BTreeSet<&Module>) -> Option<Module> {
    let mut module = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => from.clone(),
        _ => return None,
    };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => drop(module.pop()),
            name => {
                module.push(name.to_owned());
                if !known.contains(&module) {
                    module.pop();
                    break;
                }
            }
        }
    }
    Some(module)
}

/// All paths that begin with `crate`, `super` or `self`, with their groups taken apart.
fn paths_in(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let before = at.checked_sub(1).map(|before| code.as_bytes()[before]);
            // `pub(in crate::x)` and `a::self::b` are not imports.
            if before.is_some_and(|byte| is_word(byte) || byte == b':' || byte == b'$') {
                continue;
            }
            let tree = code[at..].chars().take(TREE_CHARS).collect::<String>();
            // `a as b` ends like a statement: the new name is no part of the path.
            let tree = tree.replace(" as ", ";");
            let tree: String = tree.chars().filter(|c| !c.is_whitespace()).collect();
            expand(&tree, &[], &mut paths);
        }
    }
    paths
}

/// Longer than any list of imports.
const TREE_CHARS: usize = 4000;

/// Takes a tree of imports apart (`a::{b, c::d}`); returns what is behind it.
fn expand<'a>(tree: &'a str, prefix: &[String], paths: &mut Vec<Vec<String>>) -> &'a str {
    let end = tree
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(tree.len());
    let mut path = prefix.to_vec();
    if end > 0 {
        path.push(tree[..end].to_owned());
    }
    let rest = &tree[end..];
    let Some(below) = rest.strip_prefix("::") else {
        paths.push(path);
        return rest;
    };
    let Some(mut group) = below.strip_prefix('{') else {
        return expand(below, &path, paths);
    };
    while !group.is_empty() && !group.starts_with('}') {
        let behind = expand(group, &path, paths);
        let behind = behind.find([',', '}']).map_or("", |at| &behind[at..]);
        group = behind.trim_start_matches(',');
    }
    group.strip_prefix('}').unwrap_or(group)
}

/// An arrow from one module to another, both directly below one level, and an import that is in it.
type Arrows<'a> = BTreeMap<(String, String), &'a Import>;

/// The modules that arrows lead to from `from`, straight or through others.
fn reached<'a>(from: &'a str, arrows: &'a Arrows<'_>) -> BTreeSet<&'a str> {
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        let next = arrows.keys().filter(|(from, _)| from == at);
        open.extend(
            next.map(|(_, to)| to.as_str())
                .filter(|to| reached.insert(to)),
        );
    }
    reached
}

/// Circles among the modules directly below `level`.
fn circles_at(level: &Module, imports: &BTreeSet<Import>) -> Vec<Circle> {
    let depth = level.len();
    let below = |module: &Module| {
        let inside = module.len() > depth && module.starts_with(level);
        inside.then(|| module[depth].clone())
    };
    let mut arrows: Arrows<'_> = BTreeMap::new();
    for import in imports {
        if let (Some(from), Some(to)) = (below(&import.from), below(&import.to))
            && from != to
        {
            arrows.entry((from, to)).or_insert(import);
        }
    }
    let nodes: BTreeSet<&str> = arrows.keys().map(|(from, _)| from.as_str()).collect();
    let closures: BTreeMap<&str, BTreeSet<&str>> = nodes
        .iter()
        .map(|node| (*node, reached(node, &arrows)))
        .collect();
    let mut circles: BTreeMap<Vec<&str>, Circle> = BTreeMap::new();
    for (node, closure) in closures
        .iter()
        .filter(|(node, closure)| closure.contains(*node))
    {
        let together = closure
            .iter()
            .filter(|it| closures.get(*it).is_some_and(|back| back.contains(node)));
        let together: Vec<&str> = together.copied().collect();
        let inside = |name: &String| together.contains(&name.as_str());
        let between = arrows
            .iter()
            .filter(|((from, to), _)| inside(from) && inside(to));
        let imports =
            between.map(|(_, it)| format!("{} -> {}", it.from.join("::"), it.to.join("::")));
        let place = |name: &&str| {
            level
                .iter()
                .map(String::as_str)
                .chain([*name])
                .collect::<Vec<_>>()
                .join("::")
        };
        let circle = Circle {
            modules: together.iter().map(place).collect(),
            imports: imports.collect(),
        };
        circles.insert(together, circle);
    }
    circles.into_values().collect()
}

#[cfg(test)]
fn sources(files: &[(&str, &str)]) -> Vec<Source> {
    files
        .iter()
        .map(|(path, text)| Source::new(path, text))
        .collect()
}

#[test]
fn groups_of_imports_are_taken_apart() {
    let code =
        "use crate::a::{self, B, c::{D, e::*}};\nuse super::f as g;\nlet x = crate::h::I::new();";
    let found: Vec<String> = paths_in(code).iter().map(|path| path.join("/")).collect();
    let expected = [
        "crate/a/self",
        "crate/a/B",
        "crate/a/c/D",
        "crate/a/c/e",
        "crate/h/I/new",
        "super/f",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_circle_is_found_at_the_level_where_it_closes() {
    let files = [
        ("src/lib.rs", "mod a; mod b;"),
        ("src/a/mod.rs", "mod x; mod y; use x::X;"),
        ("src/a/x.rs", "use super::Parent; use crate::b::B;"),
        ("src/a/y.rs", "fn f() {}"),
        (
            "src/b.rs",
            "use crate::a::y::f;\n#[cfg(test)]\nmod tests { use crate::lib_only::X; }",
        ),
    ];
    let found = circles("src/", &sources(&files));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].modules, ["a", "b"]);
    assert_eq!(found[0].imports, ["a::x -> b", "b -> a::y"]);
    let files = [
        ("src/a/mod.rs", "mod x; mod y;"),
        ("src/a/x.rs", "use super::y::Y;"),
        ("src/a/y.rs", "use crate::a::{x::X};"),
    ];
    assert_eq!(
        circles("src/", &sources(&files))[0].modules,
        ["a::x", "a::y"]
    );
}

#[test]
fn a_module_and_what_is_inside_it_may_name_each_other() {
    let files = [
        ("src/a/mod.rs", "mod x; use x::X; use self::x::X;"),
        ("src/a/x.rs", "use super::A; use crate::a::A;"),
    ];
    assert_eq!(circles("src/", &sources(&files)), []);
}
