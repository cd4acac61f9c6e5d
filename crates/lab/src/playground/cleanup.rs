//! Removes the playground, whatever ends the process that made it.
//!
//! A shell blocks on a pipe whose other end only that process holds. When the process closes it or
//! dies, the shell reads the end of the file and cleans up: processes in the namespaces, the
//! namespaces, the directories. So there is one way to clean up, and every run exercises it. The
//! shell runs in its own process group and ignores SIGHUP, SIGINT and SIGTERM, so that a Ctrl-C at
//! the terminal does not end it before its work is done.

use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$0` is the directory, `$MEMORY` the one in memory or empty, the arguments are the namespaces.
///
/// Finds processes by the namespace that they are in, not by its name: a process that was being
/// started when its parent died may enter while the cleaning runs, so the script looks until there
/// is none, before and after it removes the names. At most a hundred times: a process that the
/// kernel cannot kill must not keep the rest from being removed.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
while read -r line; do :; done
inodes=$(cd /run/netns && stat -L -c %i "$@" | tr '\n' '|')
members() {
    ls -l /proc/[0-9]*/ns/net | sed -nE "s,^.*/proc/([0-9]+)/ns/net -> net:\[(${inodes%|})\]$,\1,p"
}
empty() {
    looks=0
    while pids=$(members) && [ -n "$pids" ] && [ $((looks += 1)) -le 100 ]; do
        kill -KILL $pids
    done
}
empty
for namespace in "$@"; do ip netns del "$namespace"; done
rm -rf -- "$0" ${MEMORY:+"$MEMORY"}
empty
"#;

/// The shell that removes one playground. Dropping it cleans up, and waits until that is done.
pub(super) struct Cleanup {
    shell: Child,
}

impl Cleanup {
    /// Must be called before the first namespace is made.
    pub(super) fn start(
        namespaces: impl Iterator<Item = String>,
        directory: &Path,
        memory: Option<&Path>,
    ) -> Result<Self> {
        let shell = Command::new("sh")
            .arg("-c")
            .arg(SCRIPT)
            .arg(directory)
            .args(namespaces)
            .env("MEMORY", memory.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .context("cannot start the shell that cleans up")?;
        Ok(Self { shell })
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Fails only for a shell that has ended, which needs no wait.
        let _cleaned = self.shell.wait();
    }
}
