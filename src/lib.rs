//! Postern, a zero-trust gateway: actors around the sans-IO cores of `postern-core`.

pub mod actors;
pub mod admin;
pub mod cli;
pub mod config;
pub mod faults;
pub mod gateway;
pub mod handover;
pub mod lifeline;
pub mod logging;
pub mod messages;
pub mod metrics;
pub mod nursery;
pub mod outlet;
mod readiness;
pub mod reload;
pub mod service_manager;
pub mod shell;
pub mod sockets;
pub mod state;
pub mod system;
pub mod tunnel;
mod watchman;
