//! Helpers shared by the tests of several modules.

use std::time::Instant;

/// Start of virtual time.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made from nothing; tests only ever add to this one"
)]
pub(crate) fn beginning() -> Instant {
    Instant::now()
}
