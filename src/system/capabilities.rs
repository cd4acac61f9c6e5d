//! CAP_NET_ADMIN, the one privilege of the gateway, for itself and for the program that it runs
//! (nft).
//!
//! Where the file of the program carries the capability (the container image), it is permitted, but
//! not effective: a program that is started without it must be able to say so. Where systemd or
//! root give it, it is effective already. Linux keeps capabilities for each thread and passes them
//! on to the threads that it starts: call [`raise_net_admin`] before any thread is started. Source:
//! capabilities(7).

use rustix::io::Result;
use rustix::thread::{self, CapabilitySet};

/// Makes CAP_NET_ADMIN effective for this thread and for what it starts, if it is permitted; else
/// leaves it to [`super::preflight`] to say that it is missing.
///
/// # Errors
/// Those of the kernel, where security bits forbid what is usually allowed.
pub fn raise_net_admin() -> Result<()> {
    let mut sets = thread::capabilities(None)?;
    if !sets.permitted.contains(NET_ADMIN) {
        return Ok(());
    }
    sets.effective |= NET_ADMIN;
    // Only an inheritable capability can become ambient.
    sets.inheritable |= NET_ADMIN;
    thread::set_capabilities(None, sets)?;
    thread::configure_capability_in_ambient_set(NET_ADMIN, true)
}

/// Whether this thread has the capability, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NetAdmin {
    Effective,
    /// The file of the program or its parent could give it, but `no_new_privs` prevents that.
    HeldBack,
    Missing,
}

impl NetAdmin {
    /// Of this thread. What the kernel does not say is not there.
    pub(super) fn of_this_thread() -> Self {
        let sets = thread::capabilities(None);
        let is_effective = sets.is_ok_and(|sets| sets.effective.contains(NET_ADMIN));
        let is_bounding = thread::capability_is_in_bounding_set(NET_ADMIN);
        let no_new_privs = thread::no_new_privs();
        Self::judge(
            is_effective,
            is_bounding == Ok(true),
            no_new_privs == Ok(true),
        )
    }

    fn judge(is_effective: bool, is_bounding: bool, no_new_privs: bool) -> Self {
        match (is_effective, is_bounding && no_new_privs) {
            (true, _) => Self::Effective,
            (false, true) => Self::HeldBack,
            (false, false) => Self::Missing,
        }
    }
}

const NET_ADMIN: CapabilitySet = CapabilitySet::NET_ADMIN;

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::scope;

    fn held() -> [bool; 3] {
        let sets = thread::capabilities(None).expect("readable");
        let is_ambient = thread::capability_is_in_ambient_set(NET_ADMIN).expect("readable");
        let [effective, inheritable] =
            [sets.effective, sets.inheritable].map(|set| set.contains(NET_ADMIN));
        [effective, inheritable, is_ambient]
    }

    /// Drops the capability from some of this thread's sets.
    fn drop_from(change: impl FnOnce(&mut thread::CapabilitySets)) {
        let mut sets = thread::capabilities(None).expect("readable");
        change(&mut sets);
        thread::set_capabilities(None, sets).expect("dropping is allowed");
    }

    /// On a thread of its own, as the container's program begins: permitted alone.
    fn begun_with_permitted_alone<T: Send>(test: impl FnOnce() -> T + Send) -> T {
        let spoilt = || {
            thread::configure_capability_in_ambient_set(NET_ADMIN, false).expect("allowed");
            drop_from(|sets| {
                sets.inheritable.remove(NET_ADMIN);
                sets.effective.remove(NET_ADMIN);
            });
            test()
        };
        scope(|scope| scope.spawn(spoilt).join().expect("no panic"))
    }

    #[test]
    fn a_permitted_capability_becomes_effective_and_passes_on_to_threads() {
        let (before, after, in_thread) = begun_with_permitted_alone(|| {
            let before = held();
            raise_net_admin().expect("permitted");
            let in_thread = scope(|scope| scope.spawn(held).join().expect("no panic"));
            (before, held(), in_thread)
        });
        assert_eq!(before, [false; 3]);
        assert_eq!(after, [true; 3]);
        assert_eq!(in_thread, [true; 3]);
    }

    #[test]
    fn a_capability_that_is_not_permitted_stays_missing_and_is_no_error() {
        let after = begun_with_permitted_alone(|| {
            drop_from(|sets| sets.permitted.remove(NET_ADMIN));
            raise_net_admin().expect("nothing to do");
            assert_eq!(NetAdmin::of_this_thread(), NetAdmin::Missing);
            held()
        });
        assert_eq!(after, [false; 3]);
    }

    #[test]
    fn the_reason_why_it_is_missing_follows_from_the_sets_of_the_thread() {
        let (with, without) = (true, false);
        for (no_new_privs, bounding, effective, expected) in [
            (false, with, with, NetAdmin::Effective),
            (true, with, with, NetAdmin::Effective),
            (true, with, without, NetAdmin::HeldBack),
            (false, with, without, NetAdmin::Missing),
            (true, without, without, NetAdmin::Missing),
        ] {
            assert_eq!(NetAdmin::judge(effective, bounding, no_new_privs), expected);
        }
    }
}
