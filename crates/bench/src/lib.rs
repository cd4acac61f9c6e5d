//! What measures the gateway: the bench beside other programs, the floor, loads, and chaos runs.

pub mod chaos;
pub mod fast_client;
pub mod floor;
pub mod measure;
pub mod udp_load;
