//! What tests of several modules share.

use std::time::Instant;

/// Where virtual time begins.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made from nothing; tests only ever add to this one"
)]
pub(crate) fn beginning() -> Instant {
    Instant::now()
}
