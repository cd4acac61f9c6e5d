//! Registers our descriptors with the event loop of the current thread, and reads from them in
//! turns with the other actors of the thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a duplicate of `of`, so that the original may be closed at any time.
pub(crate) fn watch(of: impl AsFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let duplicate = of.as_fd().try_clone_to_owned()?;
    // SAFETY: an OwnedFd stays open and the same until it is dropped, and the AsyncFd owns it.
    #[expect(
        unsafe_code,
        reason = "tokio requires its caller to guarantee that the descriptor stays open"
    )]
    let watched = unsafe { AsyncFd::register_with_interest(duplicate, interest) };
    Ok(watched?)
}

/// Counts the reads from one descriptor.
pub(crate) struct ReadTurns {
    reads: usize,
    errors: usize,
    /// Completes log lines: "… fails for good".
    what: &'static str,
    /// Reads in a row, after which the other actors of the thread get their turn: a flood cannot
    /// keep them from emptying their mailboxes.
    reads_max: usize,
    /// Errors in a row, after which reading ends.
    errors_max: usize,
}

impl ReadTurns {
    pub(crate) fn new(what: &'static str, reads_max: usize, errors_max: usize) -> Self {
        let (reads, errors) = (0, 0);
        Self {
            reads,
            errors,
            what,
            reads_max,
            errors_max,
        }
    }

    /// Calls `read` until it returns something. It also returns whether there may be more to read;
    /// [`io::ErrorKind::WouldBlock`] means that there is not. The stream ends after too many
    /// errors.
    pub(crate) fn poll<T>(
        &mut self,
        descriptor: &AsyncFd<OwnedFd>,
        cx: &mut Context<'_>,
        mut read: impl FnMut() -> (Option<T>, io::Result<bool>),
    ) -> Poll<Option<T>> {
        if self.reads >= self.reads_max {
            self.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            let Ok(mut ready) = ready!(descriptor.poll_read_ready(cx)) else {
                return Poll::Ready(None);
            };
            let (item, has_more) = read();
            match has_more {
                Ok(true) => self.reads += 1,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    let what = self.what;
                    tracing::debug!(%error, "{what}");
                    self.errors += 1;
                    if self.errors >= self.errors_max {
                        tracing::error!(%error, "{what} fails for good");
                        return Poll::Ready(None);
                    }
                }
                Ok(false) | Err(_) => {
                    ready.clear_ready();
                    self.reads = 0;
                }
            }
            if item.is_some() {
                self.errors = 0;
                return Poll::Ready(item);
            }
        }
    }
}
