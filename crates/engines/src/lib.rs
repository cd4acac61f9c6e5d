//! Nothing: what is measured is in `benches/engines.rs`.
