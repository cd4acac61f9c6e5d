//! The reference client for Linux: real software for small set-ups, and the other end of every
//! test.
//!
//! Built on other stacks than the gateway (`webrtc-ice` as the controlling agent,
//! `defguard_boringtun` as the initiator) and written from docs/protocol.md, so that the two check
//! each other. It serves networks and names (CIDR and DNS resources) over IPv4 and IPv6. It refuses
//! to be clever: filters are the gateway's business (a packet that they forbid is sent and answered
//! with ICMP), and a lost gateway is asked for again by the next packet. Source: docs/protocol.md
//! 1 to 6 and 12.
//!
//! Reading order: `app` wires everything; `router` decides, with `names` for what belongs to names;
//! `gateways` holds a `connection` for each gateway; `stub` answers applications' DNS queries.

pub mod app;
pub mod config;
pub mod connection;
pub mod control;
pub mod counters;
pub mod gateways;
pub mod generation0;
pub mod ice;
pub mod inspect;
pub mod names;
pub mod packet;
pub mod portal;
pub mod router;
pub mod stub;
#[cfg(test)]
mod testing;
pub mod timeline;
pub mod tunnel;
pub mod wire;
pub mod wireguard;

pub use app::{Args, run};

use counters::Counters;
use router::Router;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;
use tunnel::PacketSink;

/// The router, for all who have to do with it. Unlike [`Shared`] it does not keep the interface.
#[derive(Clone, Default)]
pub struct SharedRouter {
    router: Arc<Mutex<Router>>,
    /// Wakes those who wait for a grant.
    pub granted: Arc<Notify>,
}

impl SharedRouter {
    /// The router. Not to be held across an await.
    ///
    /// # Panics
    /// Never: the router does not panic.
    pub fn lock(&self) -> MutexGuard<'_, Router> {
        self.router.lock().expect("the router does not panic")
    }
}

/// What the wiring and the connections share.
pub struct Shared {
    /// What to do with packets and questions.
    pub routes: SharedRouter,
    /// Where packets for applications go.
    pub sink: Arc<dyn PacketSink>,
    /// What is counted.
    pub counters: Counters,
}

impl Shared {
    /// With an empty router.
    #[must_use]
    pub fn new(sink: Arc<dyn PacketSink>) -> Self {
        Self {
            routes: SharedRouter::default(),
            sink,
            counters: Counters::default(),
        }
    }

    /// The router. Not to be held across an await.
    ///
    /// # Panics
    /// Never: the router does not panic.
    pub fn router(&self) -> MutexGuard<'_, Router> {
        self.routes.lock()
    }
}
