//! The lab: a portal, a relay, a name server, a reference client and a playground in network
//! namespaces.

pub mod client;
pub mod clock;
mod control_socket;
pub mod demo;
pub mod dns;
pub mod figures;
pub mod init;
pub mod playground;
pub mod portal;
pub mod program;
pub mod relay;
mod secret;
pub mod web;
