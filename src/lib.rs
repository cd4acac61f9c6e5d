//! Postern, a zero-trust gateway: actors around the sans-IO cores of `postern-core`.

pub mod actors;
pub mod admin;
pub mod cli;
pub mod config;
pub mod faults;
pub mod gateway;
pub mod handover;
mod heartbeat;
pub mod link;
pub mod logging;
pub mod messages;
pub mod metrics;
mod private_files;
mod readiness;
pub mod reload;
pub mod service_manager;
pub mod shell;
pub mod sockets;
pub mod spawner;
pub mod state;
pub mod supervision;
pub mod system;
pub mod tunnel;
