//! The files that a configuration was read from, and whether they have changed since.
//!
//! The file itself is compared by its content, so that a link that leads elsewhere counts as much
//! as a line that is rewritten. The files that it names hold secrets or a megabyte of certificates:
//! of those the kernel's marks are compared.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The content of the file and the marks of the files that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    path: PathBuf,
    /// `None` when it cannot be read.
    text: Option<Vec<u8>>,
    named: Vec<(PathBuf, Option<Mark>)>,
}

/// Differs after every change, also after one that leaves time and length alone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Sources {
    /// The file with this text, and the files that it names as they are now.
    pub(super) fn new(path: &Path, text: &str, named: Vec<PathBuf>) -> Self {
        Self {
            path: path.to_owned(),
            text: Some(text.as_bytes().to_vec()),
            named: named.into_iter().map(mark).collect(),
        }
    }

    /// The same files, as they are now.
    #[must_use]
    pub fn look_again(&self) -> Self {
        let named = self.named.iter().map(|(path, _)| mark(path.clone()));
        Self {
            path: self.path.clone(),
            text: read(&self.path),
            named: named.collect(),
        }
    }

    /// Whether a file that the configuration names has changed since then.
    #[must_use]
    pub fn differs_in(&self, earlier: &Self, path: &Path) -> bool {
        let of = |sources: &Self| {
            let found = sources.named.iter().find(|(named, _)| named == path);
            found.map(|(_, mark)| mark.clone())
        };
        of(self) != of(earlier)
    }
}

fn mark(path: PathBuf) -> (PathBuf, Option<Mark>) {
    let metadata = path.metadata().ok();
    let mark = metadata.map(|it| Mark {
        device: it.dev(),
        inode: it.ino(),
        length: it.len(),
        modified: (it.mtime(), it.mtime_nsec()),
        changed: (it.ctime(), it.ctime_nsec()),
    });
    (path, mark)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    // Reading anything but a file might wait.
    let is_file = path.metadata().is_ok_and(|it| it.is_file());
    let file = is_file.then(|| File::open(path).ok()).flatten()?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .ok()?;
    Some(content)
}

/// Largest configuration file that is read. A real one has a few kilobytes; the limit keeps a wrong
/// path (a device, an image) from filling the memory.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_that_is_led_elsewhere_is_a_change_and_one_to_the_same_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for (name, text) in [("one", "a = 1"), ("same", "a = 1"), ("other", "a = 2")] {
            fs::write(at(name), text).expect("written");
        }
        symlink(at("one"), at("gateway.toml")).expect("linked");
        let read = Sources::new(&at("gateway.toml"), "a = 1", Vec::new());
        assert_eq!(read.look_again(), read);
        for (target, is_same) in [("same", true), ("other", false), ("missing", false)] {
            symlink(at(target), at("next")).expect("linked");
            fs::rename(at("next"), at("gateway.toml")).expect("led elsewhere");
            assert_eq!(read.look_again() == read, is_same, "{target}");
        }
    }

    #[test]
    fn a_named_file_changes_with_its_content_its_inode_or_its_absence() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("gateway.toml"), "").expect("written");
        let named = at("token");
        let read = Sources::new(&at("gateway.toml"), "", vec![named.clone()]);
        fs::write(&named, "a").expect("written");
        let there = read.look_again();
        assert!(there.differs_in(&read, &named));
        fs::write(at("next"), "b").expect("written");
        fs::rename(at("next"), &named).expect("replaced");
        let replaced = there.look_again();
        assert!(replaced.differs_in(&there, &named));
        assert_eq!(replaced.look_again(), replaced);
        assert!(!replaced.differs_in(&there, &at("gateway.toml")));
    }
}
