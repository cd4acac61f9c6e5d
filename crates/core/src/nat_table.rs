//! Flows between proxy IPs and real IPs.
