//! The actors: thin shells around the cores of `postern-core`.
//!
//! An actor translates messages into calls of its core and what the core wants into messages; it
//! decides nothing. One file for each, named as its messages and its core.

pub mod portal;
