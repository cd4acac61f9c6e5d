//! Postern, a zero-trust gateway: actors around the sans-IO cores of `postern-core`.

pub mod cli;
pub mod config;
pub mod gateway;
pub mod logging;
pub mod messages;
pub mod shell;
pub mod system;
