//! The lab: a portal, a relay, a reference client and a playground in network namespaces.

pub mod bench;
pub mod client;
pub mod demo;
pub mod playground;
pub mod portal;
pub mod relay;
pub mod web;
