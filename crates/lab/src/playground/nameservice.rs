//! What programs at a place see of names: a resolv.conf, hosts and nsswitch.conf of the playground
//! instead of the machine's own.
//!
//! They are laid over the machine's files in a mount namespace that begins and ends with the
//! program, so that nothing of it shows outside. nsswitch.conf matters as much as resolv.conf: on
//! many machines it sends lookups to a resolver of the machine, around resolv.conf.

use super::network::{NAME_SERVER_V4, STUB_V4};
use super::{Playground, Role};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// The places that have a name service, and the server that their resolv.conf names: the gateway
/// asks the private network's, applications beside the client ask the client.
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

/// `ip netns exec` has given the shell a mount namespace of its own from which nothing comes back.
const SCRIPT: &str = r#"
for file in resolv.conf hosts nsswitch.conf; do
    [ "$file" = resolv.conf ] || [ -e "/etc/$file" ] || continue
    mount --bind "$0/$file" "/etc/$file" || exit 1
done
exec "$@"
"#;

/// Writes what every place sees, and a script for each that runs a program there.
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

/// The beginning of a command at a place.
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

/// The script that runs a program at a place, for people too: `sh <script> curl …`.
#[must_use]
pub fn launcher(playground: &Playground, role: Role) -> PathBuf {
    playground.directory().join(format!("at-{role}"))
}

/// Changes a file (`resolv.conf`, `hosts`) that programs at a place see, those that run already
/// included.
///
/// # Errors
/// The place sees the machine's own, or the file cannot be written.
pub fn rewrite(playground: &Playground, role: Role, file: &str, text: &str) -> Result<()> {
    let path = directory(playground, role).join(file);
    // In place: what is laid over the machine's file is this one, not its name.
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn directory(playground: &Playground, role: Role) -> PathBuf {
    playground.directory().join(format!("etc-{role}"))
}
