//! The reference client for Linux: real software for small set-ups, and the opposite end in every
//! test.
//!
//! It runs on other stacks than the gateway (`webrtc-ice` as the controlling agent,
//! `defguard_boringtun` as the initiator) and follows docs/protocol.md alone, so that client and
//! gateway check each other. It serves networks and names (CIDR and DNS resources) over IPv4 and
//! IPv6. It does not enforce filters: it sends a packet that a filter forbids, and the gateway
//! answers with ICMP. It does not reconnect to a lost gateway by itself: the next packet asks the
//! portal again. Source: docs/protocol.md 1 to 6 and 12.
//!
//! Reading order: `app` wires everything; `router` decides, with `names` for DNS resources;
//! `gateways` holds one `connection` per gateway; `stub` answers DNS queries of applications;
//! `vocabulary` has the types that all of them share.

pub mod addresses;
pub mod app;
pub mod clock;
pub mod config;
pub mod connection;
pub mod control;
pub mod counters;
pub mod data_plane;
pub mod gateways;
pub mod generation0;
pub mod ice;
pub mod inspect;
pub mod names;
pub mod packet;
pub mod portal;
pub mod router;
pub mod stub;
#[cfg(test)]
mod tests;
pub mod timeline;
pub mod tunnel;
pub mod vocabulary;
pub mod wire;
pub mod wireguard;

pub use app::{Args, run};
