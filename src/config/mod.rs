//! The gateway's configuration: one TOML file, environment overrides, one typed result.
//!
//! Reads, checks and types everything before anything starts, and reports all problems at once,
//! each with its place and its remedy. Refuses unknown keys, unknown `POSTERN__` variables, values
//! of the wrong type or out of range, and secrets inside the file. [`keys`] is the one list of
//! keys: the checks, `postern check` and the test of `config/gateway.toml` all read it.
//!
//! Precedence of a key, strongest first: environment variable `POSTERN__SECTION__KEY`, the file,
//! the default. The log filter may also come from `RUST_LOG`, between the two first. For the token
//! see [`token`].

pub mod changes;
mod dns;
mod document;
mod effective;
mod environment;
pub mod keys;
mod problem;
pub mod schema;
mod secret;
mod settings;
mod sources;
mod suggest;
#[cfg(test)]
mod tests;
pub mod token;
mod types;
mod values;

pub use dns::{DnsConfig, DnsServer, DnsSuffix, DnsTransport};
pub use effective::Effective;
pub use environment::Environment;
pub use problem::{ConfigError, Place, Problem};
pub use secret::Secret;
pub use sources::Sources;
pub use types::{
    AdminConfig, GatewayConfig, Generation, LimitsConfig, LogConfig, LogFormat, NetworkConfig,
    PortalConfig, StateConfig, TunnelConfig,
};
pub use values::{InterfaceName, InterfacePattern};

use changes::Values;
use serde::de::DeserializeOwned;
use settings::Settings;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Everything that loading yields.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration to run with.
    pub config: GatewayConfig,
    /// Where each value came from, for `postern check`.
    pub effective: Effective,
    /// Things that look like mistakes but are not refused; to be shown once.
    pub warnings: Vec<String>,
    /// Every value, to be compared with those of a later load.
    pub values: Values,
    /// What was read, to be looked at again later.
    pub sources: Sources,
}

/// Loads the gateway's configuration from `path` and `environment`.
///
/// # Errors
///
/// [`ConfigError`] with every problem of the file, the environment and the token.
pub fn load(path: &Path, environment: &Environment) -> Result<Loaded, ConfigError> {
    let shown = path.display().to_string();
    let text = read_file(path)?;
    let mut problems = Vec::new();
    let entries = document::read(&shown, &text, &mut problems);
    let mut overrides = environment::read(environment, &mut problems);
    let parsed = entries.is_some();
    let warnings = std::mem::take(&mut overrides.warnings);
    let settings = Settings::merge(path, entries.unwrap_or_default(), overrides);
    // What a file that is not even TOML was meant to say, nobody knows.
    if parsed {
        problems.extend(settings.missing());
        problems.extend(settings.conflict());
    }
    // Before the files it names are read: a change in between is seen as one that came later.
    let sources = Sources::new(path, &text, settings.paths_read());
    let token = token::resolve(&settings, environment);
    let token = token.map_err(|problem| {
        let known = settings.is_refused("portal.token_file") || settings.is_refused("portal.token");
        problems.extend((parsed && !known).then_some(problem));
    });
    let Some((token, token_origin)) = token.ok().filter(|_| problems.is_empty()) else {
        return Err(ConfigError { problems });
    };
    let values = Values::new(&settings, token.clone());
    let config = types::build(&settings, token).map_err(|message| ConfigError {
        problems: vec![Problem::new(Place::Whole(shown), message)],
    })?;
    Ok(Loaded {
        config,
        effective: Effective::new(&settings, token_origin),
        warnings,
        values,
        sources,
    })
}

/// Loads `[state]` alone, for `postern handover`: whoever ends a gateway need not know its token,
/// which systemd may have shown to the gateway only.
///
/// # Errors
///
/// [`ConfigError`] with every problem of the file and the environment; nothing that is missing is
/// one.
pub fn load_state(path: &Path, environment: &Environment) -> Result<StateConfig, ConfigError> {
    load_section(path, environment, "state")
}

/// Loads `[admin]` alone, for those who speak to a gateway.
///
/// # Errors
///
/// As [`load_state`].
pub fn load_admin(path: &Path, environment: &Environment) -> Result<AdminConfig, ConfigError> {
    load_section(path, environment, "admin")
}

fn load_section<T: DeserializeOwned>(
    path: &Path,
    environment: &Environment,
    section: &str,
) -> Result<T, ConfigError> {
    let shown = path.display().to_string();
    let text = read_file(path)?;
    let mut problems = Vec::new();
    let entries = document::read(&shown, &text, &mut problems);
    let overrides = environment::read(environment, &mut problems);
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    let settings = Settings::merge(path, entries.unwrap_or_default(), overrides);
    types::build_section(&settings, section).map_err(|message| ConfigError {
        problems: vec![Problem::new(Place::Whole(shown), message)],
    })
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let shown = path.display().to_string();
    let fail = |message: String| ConfigError {
        problems: vec![Problem::new(Place::Whole(shown.clone()), message)],
    };
    let unreadable =
        |error: std::io::Error| fail(format!("{}; {FILE_REMEDY}", problem::unreadable(&error)));
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fail(format!(
            "is larger than {FILE_BYTES_MAX} bytes; is it the configuration?"
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        fail(format!(
            "is not UTF-8 text (byte {at}); save it as UTF-8 or name another file with --config"
        ))
    })
}

/// Largest configuration file that is read. A real one has a few kilobytes; the limit keeps a wrong
/// path (a device, an image) from filling the memory.
const FILE_BYTES_MAX: u64 = 1 << 20;

const FILE_REMEDY: &str = "name a readable configuration with --config \
     (config/gateway.toml in the source tree documents every key)";
