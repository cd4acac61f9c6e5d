//! The lab: a portal, a relay, a reference client and a playground in network namespaces.

pub mod portal;
pub mod relay;
