//! What actors say to each other: plain, owned data; one file for each receiving actor.
//!
//! Commands are imperative (`OpenConnection`), events are past tense (`ConnectionAccepted`).
//! Packets travel only in batches. *Inbound* is from the tunnel towards the resource, *outbound*
//! the reverse.

pub mod connection;
pub mod diagnosis;
pub mod dns;
pub mod nat_table;
pub mod operator;
pub mod packets;
pub mod portal;
pub mod successors;
pub mod supervisor;
pub mod tun;
pub mod udp;
