//! The real programs in private network namespaces: portal, relay, gateway, client and a web
//! server.
//!
//! Each test builds a playground of its own, so they run side by side. They need root and fail
//! without it. A failed test prints the ends of the programs' logs. Waits are for conditions, with
//! deadlines.

mod admin;
mod chaos;
mod demo;
mod fast;
mod faults;
mod generations;
mod healing;
mod lives;
mod metrics;
mod names;
mod playground;
mod policy;
mod reload;
mod scene;
mod shards;
mod shutdown;
mod traffic;
mod why;

use postern_lab::playground::lab::{Lab, Setup, WEB_PORT};
use postern_lab::playground::network::{WEB_V4, WEB_V6};
use postern_lab::playground::traffic::{fetch, url};
use postern_lab::playground::{Playground, Role};
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

/// The two addresses of the web server.
const WEB: [IpAddr; 2] = [IpAddr::V4(WEB_V4), IpAddr::V6(WEB_V6)];
/// How long something may take that is a matter of milliseconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(20);

/// The program under test.
fn postern() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_postern"))
}

/// A running set-up that shows its logs when its test fails.
struct Trial(Lab);

impl Trial {
    /// Everything up, in the way the demo does it.
    fn start() -> Self {
        Self::with(Setup::default())
    }

    fn with(setup: Setup) -> Self {
        Self::up(Lab::start(postern(), setup))
    }

    /// The private network with its web server and its name server, and nobody to reach them.
    fn names_only() -> Self {
        let lab = Playground::new()
            .and_then(|playground| Lab::new(playground, postern(), Setup::default()));
        Self::up(lab.and_then(|mut lab| {
            lab.start_web()?;
            lab.start_names()?;
            Ok(lab)
        }))
    }

    fn up(lab: anyhow::Result<Lab>) -> Self {
        match lab {
            Ok(lab) => Self(lab),
            Err(error) => panic!("the set-up does not come up: {error:#}"),
        }
    }

    /// Fetches the page at `address` and insists that it comes.
    #[track_caller]
    fn expect_page(&self, address: IpAddr) -> String {
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
