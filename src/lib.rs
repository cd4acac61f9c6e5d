//! Postern, a zero-trust gateway: actors around the sans-IO cores of `postern-core`.

pub mod actors;
pub mod messages;
pub mod shell;
