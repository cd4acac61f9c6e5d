//! The actors: thin shells that carry messages to a core and what the core says back to others.

pub mod admin;
pub mod connection;
pub mod dns;
pub mod nat_table;
pub mod portal;
pub mod supervisor;
#[cfg(test)]
mod tests;
pub mod tun;
pub mod udp;
