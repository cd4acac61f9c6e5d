//! How an operator speaks to the gateway: HTTP over a unix socket and over TCP.
//!
//! The unix socket belongs to the gateway's user and takes every request. TCP has no password, so
//! it answers only what is no secret: health, metrics, and the status where the address is a
//! loopback one. Nothing here knows what the answers are made of; the AdminActor brings those who
//! know.

pub mod client;
mod listeners;
mod routes;
mod server;

pub use listeners::AdminListeners;
pub use routes::Desk;
pub(crate) use server::serve;
