//! Loads the configuration: reads and checks every source, merges them and types the result.

use super::document;
use super::environment::{self, Environment};
use super::keys::{
    AdminConfig, DnsConfig, GatewayConfig, LimitsConfig, LogConfig, NetworkConfig, StateConfig,
    TunnelConfig,
};
use super::layers::Merged;
use super::problem::{ConfigError, Findings, unreadable};
use super::sources::{FILE_BYTES_MAX, Sources};
use super::token;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Everything that loading yields.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration to run with.
    pub config: GatewayConfig,
    /// Every value with its origin, as `postern check` shows them.
    pub effective: String,
    /// Things that look like mistakes but are not refused; to be shown once.
    pub warnings: Vec<String>,
    /// The files that were read, to be looked at again later.
    pub sources: Sources,
}

/// Loads the gateway's configuration from `path` and `environment`.
///
/// # Errors
///
/// [`ConfigError`] with every problem of the file, the environment and the token.
pub fn load(path: &Path, environment: &Environment) -> Result<Loaded, ConfigError> {
    let text = read_file(path)?;
    let (merged, is_toml, mut findings) = merge(path, &text, environment)?;
    // The intent of a file that is not even TOML is unknown.
    if is_toml {
        let refused = &findings.refused;
        let missing = merged.missing().filter(|(key, _)| !refused.contains(key));
        findings
            .problems
            .extend(missing.map(|(_, problem)| problem));
        findings.problems.extend(merged.conflict());
    }
    // Before the files it names are read: a change in between counts as one that came later.
    let sources = Sources::new(path, &text, merged.paths_read());
    let token = token::resolve(&merged, environment).map_err(|problem| {
        let keys = ["portal.token_file", "portal.token"];
        let is_known = keys.iter().any(|key| findings.refused.contains(key));
        let is_new = is_toml && !is_known;
        findings.problems.extend(is_new.then_some(problem));
    });
    let problems = findings.problems;
    let Some((token, token_origin)) = token.ok().filter(|_| problems.is_empty()) else {
        return Err(ConfigError { problems });
    };
    let config = merged.typed::<GatewayConfig>();
    let mut config = config.map_err(|error| ConfigError::of_file(path, error))?;
    config.portal.token = token;
    Ok(Loaded {
        config,
        effective: merged.effective(&token_origin),
        warnings: findings.warnings,
        sources,
    })
}

/// Loads `[state]` alone, for `postern handover`: a process that ends the gateway need not know the
/// token, which systemd may show to the gateway only.
///
/// # Errors
///
/// [`ConfigError`] with every problem of the file and the environment; nothing that is missing is
/// one.
pub fn load_state(path: &Path, environment: &Environment) -> Result<StateConfig, ConfigError> {
    load_section(path, environment, "state")
}

/// Loads `[admin]` alone, for the commands that speak to a running gateway.
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
    let text = read_file(path)?;
    let (merged, _, Findings { problems, .. }) = merge(path, &text, environment)?;
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    let section = merged.section(section);
    section.map_err(|error| ConfigError::of_file(path, error))
}

/// All sources in one, whether the file is TOML, and what was found wrong.
fn merge(
    path: &Path,
    text: &str,
    environment: &Environment,
) -> Result<(Merged, bool, Findings), ConfigError> {
    let mut findings = Findings::default();
    let file = document::read(path, text, &mut findings);
    let is_toml = file.is_some();
    let variables = environment::read(environment, &mut findings);
    let layers = vec![file.unwrap_or_default(), variables];
    let merged = Merged::new(path.display().to_string(), layers);
    let merged = merged.map_err(|error| ConfigError::of_file(path, error))?;
    Ok((merged, is_toml, findings))
}

macro_rules! defaults {
    ($($Section:ident: $name:literal),*) => {$(
        /// As in the list of keys.
        impl Default for $Section {
            fn default() -> Self {
                let defaults = Merged::new(String::new(), Vec::new());
                let section = defaults.and_then(|defaults| defaults.section($name));
                section.expect("every key of the section has a default or is optional")
            }
        }
    )*};
}

defaults! {
    NetworkConfig: "network", TunnelConfig: "tunnel", DnsConfig: "dns", LimitsConfig: "limits",
    StateConfig: "state", AdminConfig: "admin", LogConfig: "log"
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let fail = |error: io::Error| {
        ConfigError::of_file(path, format_args!("{}; {FILE_REMEDY}", unreadable(&error)))
    };
    let file = File::open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    let mut limited = file.take(FILE_BYTES_MAX + 1);
    limited.read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message = format!("is larger than {FILE_BYTES_MAX} bytes; is it the configuration?");
        return Err(ConfigError::of_file(path, message));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let message = format!(
            "is not UTF-8 text (byte {at}); save it as UTF-8 or name another file with --config"
        );
        ConfigError::of_file(path, message)
    })
}

const FILE_REMEDY: &str = "name a readable configuration with --config \
     (config/gateway.toml in the source tree documents every key)";
