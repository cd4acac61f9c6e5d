//! Removing the playground, whatever ends the process that made it.
//!
//! The janitor is a shell that blocks on a pipe whose other end only the maker holds. When the
//! maker closes it, or dies of anything at all, the shell reads the end of the file and cleans up:
//! processes in the namespaces, the namespaces, the directories. So there is one way to clean up,
//! and every run tries it. It sits in a process group of its own and ignores the polite signals, so
//! that a Ctrl-C at the terminal does not reach it before its work is done.

use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$0` is the directory, `$MEMORY` the one in memory or empty, the arguments are the namespaces.
///
/// Processes are told by the namespace that they are in, not by its name: one that was just being
/// started when its maker died may enter while the cleaning is under way, so it is looked for until
/// there is none, before and after the names are gone. At most a hundred times: a process that the
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

/// The cleaner of one playground. Dropping it cleans, and waits until that is done.
pub(super) struct Janitor {
    shell: Child,
}

impl Janitor {
    /// To be started before the first namespace is made.
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

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.shell.id()
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // It can only fail for a shell that is gone, and then there is nothing to wait for.
        let _cleaned = self.shell.wait();
    }
}
