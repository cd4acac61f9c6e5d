//! The portal protocol: join, heartbeat, reconnect, and the translation of messages.

pub mod wire;
