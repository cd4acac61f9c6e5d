//! The lab: a portal, a relay, a reference client and a playground in network namespaces.

pub mod demo;
pub mod playground;
pub mod web;
