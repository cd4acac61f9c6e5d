//! The real programs in private network namespaces: portal, relay, gateway, client and a web
//! server.
//!
//! Each test builds a playground of its own, so they run side by side. They need root and fail
//! without it. A failed test prints the ends of the programs' logs. Waits are for conditions, with
//! deadlines.

mod admin;
mod demo;
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
mod trial;
mod why;

use postern_lab::playground::Playground;
use postern_lab::playground::lab::{Lab, Setup};
use postern_lab::playground::network::{WEB_V4, WEB_V6};
use postern_lab::playground::programs::Programs;
use std::net::IpAddr;
use std::path::Path;
use trial::{LIMIT, Trial};

/// The two addresses of the web server.
const WEB: [IpAddr; 2] = [IpAddr::V4(WEB_V4), IpAddr::V6(WEB_V6)];

/// The programs under test.
fn programs() -> Programs {
    Programs::beside(Path::new(env!("CARGO_BIN_EXE_postern-lab")))
        .unwrap_or_else(|error| panic!("{error:#}"))
}

impl Trial {
    /// Everything up, in the way the demo does it.
    fn start() -> Self {
        Self::with(Setup::default())
    }

    fn with(setup: Setup) -> Self {
        Self::up(Lab::start(&programs(), setup))
    }

    /// The private network with its web server and its name server, without gateway and client.
    fn names_only() -> Self {
        let lab = Playground::new()
            .and_then(|playground| Lab::new(playground, &programs(), Setup::default()));
        Self::up(lab.and_then(|mut lab| {
            lab.start_web()?;
            lab.start_names()?;
            Ok(lab)
        }))
    }
}
