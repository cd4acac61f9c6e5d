//! Licences, bans and origins of everything that is linked, against the lists of `deny.toml`.
//!
//! The same questions that cargo-deny asks, for checkouts that do not have it. Refuses a licence
//! expression that it cannot read.

use serde_json::Value;

/// A dependency as `cargo metadata` tells of it.
pub(crate) struct Package {
    pub(crate) name: String,
    /// The licence as an SPDX expression.
    pub(crate) licence: Option<String>,
    /// Where it comes from; `None` for members of the workspace.
    pub(crate) source: Option<String>,
}

/// Reads the output of `cargo metadata`.
pub(crate) fn packages(metadata: &Value) -> Vec<Package> {
    let text = |package: &Value, key: &str| package[key].as_str().map(str::to_owned);
    let all = metadata["packages"]
        .as_array()
        .expect("cargo metadata lists packages");
    all.iter()
        .map(|package| Package {
            name: text(package, "name").expect("packages have names"),
            licence: text(package, "license"),
            source: text(package, "source"),
        })
        .collect()
}

/// What is wrong with a package.
pub(crate) fn objections(package: &Package, allowed: &[String], banned: &[String]) -> Vec<String> {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let mut objections = Vec::new();
    match &package.licence {
        Some(licence) if permits(licence, allowed) => {}
        Some(licence) => objections.push(format!("its licence is {licence}")),
        None => objections.push("it names no licence".to_owned()),
    }
    if banned.contains(&package.name) {
        objections.push("it is banned".to_owned());
    }
    if let Some(source) = package.source.as_ref().filter(|source| *source != REGISTRY) {
        objections.push(format!("it comes from {source}"));
    }
    objections
}

/// Whether an SPDX expression can be satisfied by the allowed licences alone.
fn permits(expression: &str, allowed: &[String]) -> bool {
    // The old notation for OR.
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader {
        words,
        at: 0,
        allowed,
    };
    reader.alternatives().unwrap_or(false) && reader.at == reader.words.len()
}

/// Reads an expression from left to right; `None` when it makes no sense.
struct Reader<'a> {
    words: Vec<&'a str>,
    at: usize,
    allowed: &'a [String],
}

impl Reader<'_> {
    fn accept(&mut self, word: &str) -> bool {
        let accepted = self.words.get(self.at) == Some(&word);
        self.at += usize::from(accepted);
        accepted
    }

    fn alternatives(&mut self) -> Option<bool> {
        let mut any = self.conjunction()?;
        while self.accept("OR") {
            any |= self.conjunction()?;
        }
        Some(any)
    }

    fn conjunction(&mut self) -> Option<bool> {
        let mut all = self.licence()?;
        while self.accept("AND") {
            all &= self.licence()?;
        }
        Some(all)
    }

    fn licence(&mut self) -> Option<bool> {
        if self.accept("(") {
            let inner = self.alternatives()?;
            return self.accept(")").then_some(inner);
        }
        let mut name = (*self.words.get(self.at)?).to_owned();
        self.at += 1;
        if self.accept("WITH") {
            name = format!("{name} WITH {}", self.words.get(self.at)?);
            self.at += 1;
        }
        Some(self.allowed.contains(&name))
    }
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    for (expression, expected) in [
        ("MIT", true),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(GPL-3.0 OR MIT) AND ISC", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("GPL-3.0", false),
        ("(MIT", false),
        ("MIT ISC", false),
        ("", false),
    ] {
        assert_eq!(permits(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn objects_to_foreign_banned_and_unlicensed_packages() {
    let package = Package {
        name: "openssl-sys".to_owned(),
        licence: None,
        source: Some("git+https://example.invalid/openssl".to_owned()),
    };
    let found = objections(&package, &["MIT".to_owned()], &["openssl-sys".to_owned()]);
    assert_eq!(found.len(), 3, "{found:?}");
    let ours = Package {
        name: "postern".to_owned(),
        licence: Some("MIT".to_owned()),
        source: None,
    };
    assert_eq!(objections(&ours, &["MIT".to_owned()], &[]), [""; 0]);
}
