//! The lab: a portal, a relay, a name server, a reference client and a playground in network
//! namespaces.

pub mod bench;
pub mod chaos;
pub mod client;
mod control_socket;
pub mod demo;
pub mod dns;
mod figures;
pub mod floor;
pub mod init;
pub mod playground;
pub mod portal;
pub mod relay;
pub mod udp_load;
pub mod web;
