//! The gateway's dealings with its host.
