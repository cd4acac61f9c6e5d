//! The lab: a portal, a relay, a name server, a reference client and a playground in network
//! namespaces.

pub mod bench;
pub mod chaos;
pub mod client;
pub mod clock;
mod control_socket;
pub mod demo;
pub mod dns;
mod figures;
pub mod floor;
pub mod init;
pub mod playground;
pub mod portal;
pub mod relay;
mod secret;
pub mod udp_load;
pub mod web;
