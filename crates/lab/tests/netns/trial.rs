//! A running set-up that prints its logs when its test fails; for the namespace tests of the lab
//! and of the bench.

use postern_lab::playground::Role;
use postern_lab::playground::lab::{Lab, WEB_PORT};
use postern_lab::playground::traffic::{fetch, url};
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// Limit for what takes milliseconds on an idle machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The programs of a test.
pub(crate) struct Trial(Lab);

impl Trial {
    pub(crate) fn up(lab: anyhow::Result<Lab>) -> Self {
        match lab {
            Ok(lab) => Self(lab),
            Err(error) => panic!("the set-up does not come up: {error:#}"),
        }
    }

    /// Fetches the page at `address` and insists that it comes.
    #[track_caller]
    pub(crate) fn expect_page(&self, address: IpAddr) -> String {
        let url = url(address, WEB_PORT, "/");
        let fetched = fetch(self.playground(), Role::Client, &url, LIMIT).expect("curl runs");
        assert!(fetched.is_page(), "no page from {url}: {fetched:?}");
        fetched.body
    }
}

impl Deref for Trial {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl DerefMut for Trial {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.0
    }
}

impl Drop for Trial {
    #[expect(
        clippy::print_stderr,
        reason = "the harness captures it and shows it on failure"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.log_tails(40));
        }
    }
}
