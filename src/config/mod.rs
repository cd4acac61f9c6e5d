//! The gateway's configuration: one TOML file, environment overrides, one typed result.
//!
//! Reads, checks and types everything before anything starts, and reports all problems at once,
//! each with its place and its remedy. Refuses unknown keys, unknown `POSTERN__` variables, values
//! of the wrong type or out of range, and secrets inside the file. [`keys`] is the one list of
//! keys; everything else comes from it.
//!
//! Precedence of a key, strongest first: environment variable `POSTERN__SECTION__KEY`, the file,
//! the default. The log filter may also come from `RUST_LOG`, between the two first. For the token
//! see [`token`].

mod dns;
mod document;
mod environment;
pub mod keys;
mod kinds;
mod layers;
mod live;
mod load;
mod problem;
pub mod schema;
mod secret;
mod sources;
mod suggest;
#[cfg(test)]
mod tests;
pub mod token;
mod toml_value;
mod values;

pub use dns::{DnsServer, DnsSuffix, DnsTransport};
pub use environment::Environment;
pub use keys::{
    AdminConfig, Changes, DnsConfig, GatewayConfig, LimitsConfig, LogConfig, NetworkConfig,
    PortalConfig, StateConfig, TunnelConfig,
};
pub use kinds::{Generation, LogFormat};
pub use live::{LiveSettings, UseSettings};
pub use load::{Loaded, load, load_admin, load_state};
pub use sources::Sources;
pub use values::{InterfaceName, InterfacePattern, LogFilter};
