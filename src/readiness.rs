//! Registers a file descriptor with the current thread's event loop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches for readiness of `of` through a duplicate of the descriptor, so the original may be
/// closed.
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
