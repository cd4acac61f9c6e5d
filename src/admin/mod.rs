//! The operator's interface to the gateway: HTTP over a unix socket and over TCP.
//!
//! The unix socket belongs to the gateway's user and serves every request. TCP has no password, so
//! it serves only what is not secret: health, metrics, and on a loopback address the status.
//! Nothing here computes an answer: the SupervisorActor does.

pub mod client;
mod listeners;
mod routes;
mod server;

pub use listeners::AdminListeners;
pub use routes::AdminState;
pub(crate) use server::serve;
