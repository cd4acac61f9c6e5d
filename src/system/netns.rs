//! For tests: runs code in its own network namespace.

use crate::config::TunnelConfig;
use nix::sched::{CloneFlags, unshare};
use std::process::Command;

/// Runs `test` on a new thread in a new network namespace, which ends with the thread. Without the
/// privilege to create one, tests nothing and says so on stderr.
pub(super) fn in_private_netns(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        #[expect(
            clippy::print_stderr,
            reason = "a test that cannot run must not look like one that did"
        )]
        {
            eprintln!("not root: not tested");
        }
        return;
    }
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        ip("link set lo up");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these arguments, which must succeed. Returns its output.
pub(super) fn ip(words: &str) -> String {
    run("ip", words)
}

/// Runs `nft` with these arguments, which must succeed. Returns its output.
pub(super) fn nft(words: &str) -> String {
    run("nft", words)
}

fn run(program: &str, words: &str) -> String {
    let output = Command::new(program)
        .args(words.split_ascii_whitespace())
        .output()
        .expect("the tests need iproute2 and nftables");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A configuration with this interface and the defaults otherwise.
pub(super) fn tunnel(interface: &str) -> TunnelConfig {
    TunnelConfig {
        interface: interface.to_owned().try_into().expect("a valid name"),
        ..TunnelConfig::default()
    }
}
