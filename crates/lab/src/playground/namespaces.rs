//! Names of the namespaces, and removal of those whose makers are dead.
//!
//! Touches only namespaces that carry our prefix and the id of a dead process.

use super::Role;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Directory of iproute2's named namespaces.
pub(super) const DIRECTORY: &str = "/run/netns";

/// Prefix of all our namespaces and directories.
const PREFIX: &str = "pst-";

/// The common part of the names of one playground: `pst-<pid>`, and for the second and later
/// playground of one process `pst-<pid>-<number>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunName(String);

impl RunName {
    /// Returns a name that no other playground has.
    pub(super) fn next() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        Self::numbered(std::process::id(), MADE.fetch_add(1, Ordering::Relaxed))
    }

    fn numbered(pid: u32, number: u32) -> Self {
        Self(match number {
            0 => format!("{PREFIX}{pid}"),
            _ => format!("{PREFIX}{pid}-{number}"),
        })
    }

    pub(super) fn namespace(&self, role: Role) -> String {
        format!("{}-{role}", self.0)
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Id of the process that made a namespace or directory of this name, if it is one of ours.
fn maker(name: &str) -> Option<u32> {
    let (pid, _rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    pid.parse().ok()
}

/// Removes the remains of runs that were killed together with their cleanup shell. Best effort:
/// remains do not disturb later runs.
pub(super) fn sweep() {
    for path in left_behind(Path::new(DIRECTORY)) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let script =
            r#"for p in $(ip netns pids "$0"); do kill -KILL "$p"; done; ip netns del "$0""#;
        let _best_effort = Command::new("sh")
            .args(["-c", script, name])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
    let directories = [std::env::temp_dir(), super::MEMORY.into()];
    for path in directories.iter().flat_map(|it| left_behind(it)) {
        let _best_effort = std::fs::remove_dir_all(path);
    }
}

/// Entries of `directory` that carry our prefix and the id of a dead process.
fn left_behind(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let dead = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(maker)
            .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(dead)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_contain_their_maker() {
        let first = RunName::numbered(4711, 0);
        assert_eq!(first.namespace(Role::Client), "pst-4711-client");
        let second = RunName::numbered(4711, 1);
        assert_eq!(second.namespace(Role::Router), "pst-4711-1-router");
        assert_eq!(first.namespace(Role::Member(7)), "pst-4711-member-7");
        for name in [first, second] {
            for role in [Role::Gateway, Role::Member(7)] {
                assert_eq!(maker(&name.namespace(role)), Some(4711));
            }
        }
    }

    #[test]
    fn foreign_names_have_no_maker() {
        for name in [
            "client",
            "pst-",
            "pst-client",
            "pst-12x-client",
            "xpst-1-client",
            "pst-1",
        ] {
            assert_eq!(maker(name), None, "{name}");
        }
    }

    #[test]
    fn only_entries_of_dead_processes_are_left_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        // Process ids end at 2^22 (PID_MAX_LIMIT), so this one never exists.
        let mine = format!("pst-{}-client", std::process::id());
        for name in ["pst-99999999-client", "other-99999999-client", &mine] {
            std::fs::write(directory.path().join(name), "").expect("a file");
        }
        let found = left_behind(directory.path());
        assert_eq!(found, [directory.path().join("pst-99999999-client")]);
    }
}
