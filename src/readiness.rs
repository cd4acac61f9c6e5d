//! The one door by which a descriptor of ours comes into an event loop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the current thread's event loop tell when `of` can be read or written. It watches a
/// duplicate of the descriptor, so it does not matter what becomes of that one.
///
/// # Errors
/// When the process has no descriptor left, or the kernel refuses.
pub(crate) fn watch(of: impl AsFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let duplicate = of.as_fd().try_clone_to_owned()?;
    // SAFETY: an OwnedFd is open and the same as long as it lives, and it lives in the AsyncFd.
    #[expect(
        unsafe_code,
        reason = "tokio asks its caller to vouch for the descriptor"
    )]
    let watched = unsafe { AsyncFd::register_with_interest(duplicate, interest) };
    Ok(watched?)
}
