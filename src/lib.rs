//! Postern, a zero-trust gateway: actors around the sans-IO cores of `postern-core`.

mod actors;
mod admin;
pub mod cli;
mod config;
mod faults;
mod gateway;
mod handover;
mod heartbeat;
mod link;
mod logging;
mod messages;
mod metrics;
mod post;
mod private_files;
mod readiness;
mod reload;
mod service_manager;
mod shell;
mod sockets;
mod spawner;
mod state;
mod supervision;
mod system;
mod tunnel;
