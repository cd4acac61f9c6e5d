//! What measures, in private network namespaces: short chaos runs, the floor and the fast client.
//!
//! They need root and fail without it. Waits are for conditions, with deadlines.

mod chaos;
mod fast;
#[path = "../../../lab/tests/netns/trial.rs"]
mod trial;

use postern_lab::playground::programs::Programs;
use std::path::Path;

/// The programs under test.
fn programs() -> Programs {
    Programs::beside(Path::new(env!("CARGO_BIN_EXE_postern-bench")))
        .unwrap_or_else(|error| panic!("{error:#}"))
}
