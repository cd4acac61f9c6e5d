//! The name service of a namespace: its own resolv.conf, hosts and nsswitch.conf instead of the
//! machine's.
//!
//! They are mounted over the machine's files in a mount namespace that begins and ends with the
//! program, so that nothing of it shows outside. nsswitch.conf matters as much as resolv.conf: on
//! many machines it sends lookups to a resolver of the machine, around resolv.conf.

use super::network::{NAME_SERVER_V4, STUB_V4};
use super::{Playground, Role};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// Server that the resolv.conf of a namespace names: the gateway asks the private network's,
/// applications beside the client ask the client. `None`: the machine's own files.
fn server(role: Role) -> Option<String> {
    match role {
        Role::Client => Some(STUB_V4.to_string()),
        Role::Gateway => Some(NAME_SERVER_V4.to_string()),
        // A member's applications ask its client by address.
        Role::Router | Role::Resource | Role::Member(_) => None,
    }
}

const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// `ip netns exec` gives the shell a mount namespace, whose mounts do not propagate.
const SCRIPT: &str = r#"
for file in resolv.conf hosts nsswitch.conf; do
    [ "$file" = resolv.conf ] || [ -e "/etc/$file" ] || continue
    mount --bind "$0/$file" "/etc/$file" || exit 1
done
exec "$@"
"#;

/// Writes the files of every namespace, and a script for each that runs a program there.
pub(super) fn prepare(playground: &Playground) -> Result<()> {
    for role in Role::ALL {
        let Some(server) = server(role) else {
            continue;
        };
        let seen = directory(playground, role);
        std::fs::create_dir(&seen)?;
        let resolv = format!("nameserver {server}\noptions timeout:2 attempts:2\n");
        for (file, text) in [
            ("resolv.conf", resolv.as_str()),
            ("hosts", HOSTS),
            ("nsswitch.conf", NSSWITCH),
        ] {
            let path = seen.join(file);
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        let script = format!(
            "exec ip netns exec {} sh -c '{SCRIPT}' {:?} \"$@\"\n",
            playground.namespace(role),
            seen
        );
        std::fs::write(launcher(playground, role), script)?;
    }
    Ok(())
}

/// Beginning of a command that runs in a namespace.
pub(super) fn command(playground: &Playground, role: Role) -> Command {
    match server(role) {
        Some(_) => {
            let mut command = Command::new("sh");
            command.arg(launcher(playground, role));
            command
        }
        None => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &playground.namespace(role)]);
            command
        }
    }
}

/// Script that runs a program in a namespace, also by hand: `sh <script> curl …`.
pub fn launcher(playground: &Playground, role: Role) -> PathBuf {
    playground.directory().join(format!("at-{role}"))
}

/// Changes a file (`resolv.conf`, `hosts`) for all programs in a namespace that has its own, those
/// that run already included.
pub fn rewrite(playground: &Playground, role: Role, file: &str, text: &str) -> Result<()> {
    let path = directory(playground, role).join(file);
    // In place: the mount shows this inode, not its name.
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn directory(playground: &Playground, role: Role) -> PathBuf {
    playground.directory().join(format!("etc-{role}"))
}
