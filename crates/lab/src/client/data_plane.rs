//! The parts of the data plane that the application loop, the connections and the DNS stub share.

use super::counters::Counters;
use super::router::Router;
use super::tunnel::PacketSink;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// The router behind a lock. Unlike [`DataPlane`] it does not keep the interface alive.
#[derive(Clone, Default)]
pub struct SharedRouter {
    router: Arc<Mutex<Router>>,
    /// Wakes the tasks that wait for a grant.
    pub granted: Arc<Notify>,
}

impl SharedRouter {
    /// Must not be held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Router> {
        self.router.lock().expect("the router does not panic")
    }
}

pub struct DataPlane {
    pub routes: SharedRouter,
    /// Receives the packets for applications.
    pub sink: Arc<dyn PacketSink>,
    pub counters: Counters,
}

impl DataPlane {
    /// Starts with an empty router.
    pub fn new(sink: Arc<dyn PacketSink>) -> Self {
        Self {
            routes: SharedRouter::default(),
            sink,
            counters: Counters::default(),
        }
    }

    /// Must not be held across an await.
    pub fn router(&self) -> MutexGuard<'_, Router> {
        self.routes.lock()
    }
}
