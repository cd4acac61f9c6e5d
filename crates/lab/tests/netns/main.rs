//! The real programs in private network namespaces: portal, relay, gateway, client and a web
//! server.
//!
//! Each test builds its own playground, so they run in parallel. They need root and fail without
//! it. A failed test prints the ends of the programs' logs. Tests wait for conditions, with
//! deadlines.

mod admin;
mod demo;
mod faults;
mod generations;
mod healing;
mod metrics;
mod names;
mod playground;
mod policy;
mod reload;
mod restarts;
mod scene;
mod shards;
mod shutdown;
mod traffic;
mod trial;
mod why;

use postern_lab::playground::Playground;
use postern_lab::playground::component::Component;
use postern_lab::playground::lab::Lab;
use postern_lab::playground::network::{WEB_V4, WEB_V6};
use postern_lab::playground::programs::Programs;
use postern_lab::playground::setup::Setup;
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
    /// Starts all programs, as the demo does.
    fn start() -> Self {
        Self::with(Setup::default())
    }

    fn with(setup: Setup) -> Self {
        Self::up(Lab::complete(&programs(), setup))
    }

    /// Starts web server and name server only, without gateway and client.
    fn names_only() -> Self {
        let lab = Playground::new()
            .and_then(|playground| Lab::new(playground, &programs(), Setup::default()));
        Self::up(lab.and_then(|mut lab| {
            lab.start_all(&[Component::Web, Component::Names])?;
            Ok(lab)
        }))
    }
}
