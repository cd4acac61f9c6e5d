//! The one privilege of the gateway, put to use for itself and for the program that it runs (nft).
//!
//! Where the file of the program carries the capability (the container image), it is permitted,
//! but not effective: a program that is started without it must be able to say so. Where systemd or
//! root give it, all of this is so already. Linux keeps capabilities for each thread, and hands
//! them on when one is started: whoever calls this calls it first of all. Source: capabilities(7).

use caps::errors::CapsError;
use caps::{CapSet, Capability};

/// Makes CAP_NET_ADMIN effective for this thread and for what it starts, if it is permitted; else
/// leaves it to [`super::preflight`] to say that it is missing.
///
/// # Errors
///
/// The kernel's, where security bits forbid what usually may be done.
pub fn raise_net_admin() -> Result<(), CapsError> {
    if !caps::has_cap(None, CapSet::Permitted, NET_ADMIN)? {
        return Ok(());
    }
    // In this order: only what may be inherited can become ambient.
    for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Ambient] {
        caps::raise(None, set, NET_ADMIN)?;
    }
    Ok(())
}

const NET_ADMIN: Capability = Capability::CAP_NET_ADMIN;

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const SETS: [CapSet; 3] = [CapSet::Effective, CapSet::Inheritable, CapSet::Ambient];

    fn held() -> [bool; 3] {
        SETS.map(|set| caps::has_cap(None, set, NET_ADMIN).expect("readable"))
    }

    /// On a thread that may be spoilt, as the container's program begins: permitted alone.
    fn begun_with_permitted_alone<T: Send>(test: impl FnOnce() -> T + Send) -> T {
        let spoilt = || {
            for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective] {
                caps::drop(None, set, NET_ADMIN).expect("dropping is allowed");
            }
            test()
        };
        thread::scope(|scope| scope.spawn(spoilt).join().expect("no panic"))
    }

    #[test]
    fn what_is_permitted_becomes_effective_and_is_handed_on_to_threads() {
        let (before, after, in_thread) = begun_with_permitted_alone(|| {
            let before = held();
            raise_net_admin().expect("permitted");
            let in_thread = thread::scope(|scope| scope.spawn(held).join().expect("no panic"));
            (before, held(), in_thread)
        });
        assert_eq!(before, [false; 3]);
        assert_eq!(after, [true; 3]);
        assert_eq!(in_thread, [true; 3]);
    }

    #[test]
    fn what_is_not_permitted_stays_missing_and_is_no_error() {
        let after = begun_with_permitted_alone(|| {
            caps::drop(None, CapSet::Permitted, NET_ADMIN).expect("dropping is allowed");
            raise_net_admin().expect("nothing to do");
            held()
        });
        assert_eq!(after, [false; 3]);
    }
}
