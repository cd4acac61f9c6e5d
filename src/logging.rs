//! Log lines: `tracing` events, as text or JSON, to stderr.
//!
//! The rules of who logs what at which level are in the house style; this file only installs the
//! subscriber, keeps chatty libraries quiet and refuses filters that would silently show nothing.

use crate::config::{LogConfig, LogFormat};
use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Installs the subscriber of the process. To be called once.
///
/// # Errors
///
/// When the filter is refused (see [`check_filter`]) or a subscriber is installed already.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    check_filter(&config.filter).map_err(anyhow::Error::msg)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(directives(&config.filter))?)
        .with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => {
            let builder = builder
                .with_ansi(std::io::stderr().is_terminal())
                .with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            keep(move |filter| handle.reload(filter));
        }
        LogFormat::Json => {
            let builder = builder
                .json()
                .flatten_event(true)
                .with_span_list(false)
                .with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            keep(move |filter| handle.reload(filter));
        }
    }
    Ok(())
}

/// Logs by another filter from now on.
///
/// # Errors
///
/// What is wrong with it, in words. The former filter stays.
pub fn use_filter(filter: &str) -> Result<(), String> {
    check_filter(filter)?;
    let filter = EnvFilter::try_new(directives(filter)).map_err(|error| error.to_string())?;
    match REPLACE.get() {
        Some(replace) => replace(filter).map_err(|error| error.to_string()),
        None => Err("nothing is logged".to_owned()),
    }
}

type Replace = dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync;

/// Where the filter of the one subscriber is replaced: its type depends on the format.
static REPLACE: OnceLock<Box<Replace>> = OnceLock::new();

fn keep(replace: impl Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync + 'static) {
    // There is one subscriber, so there was none before.
    let _ = REPLACE.set(Box::new(replace));
}

/// Whether `filter` consists of levels and `target=level` directives.
///
/// A bare word that is not a level is refused although `tracing` takes it: it would mean
/// "everything from this target, and nothing else", so that `inof` would end all logging.
///
/// # Errors
///
/// What is wrong, in words.
pub fn check_filter(filter: &str) -> Result<(), String> {
    if filter.trim().is_empty() {
        return Err("it would log nothing; \"off\" says so".to_owned());
    }
    // A span's fields may hold commas; tracing's own parser decides about those.
    if !filter.contains('[') {
        for directive in filter.split(',').map(str::trim) {
            let (target, level) = directive.split_once('=').unwrap_or(("", directive));
            let is_level = level.parse::<LevelFilter>().is_ok();
            if level.is_empty() || !is_level || (directive.contains('=') && target.is_empty()) {
                return Err(format!("{directive:?} is neither a level nor target=level"));
            }
        }
    }
    let parsed = EnvFilter::try_new(directives(filter));
    parsed.map(|_| ()).map_err(|error| error.to_string())
}

/// The user's directives come last and win over ours for the same target.
fn directives(filter: &str) -> String {
    format!("{QUIET},{filter}")
}

/// Libraries that log per packet, per check or per retry. Their troubles reach us as errors or
/// events, and are logged by us. A directive of the user for the same target wins; a mere level
/// does not.
const QUIET: &str = "boringtun=off,defguard_boringtun=off,defguard_wireguard_rs=warn,\
     is=warn,str0m=warn,webrtc_ice=error,webrtc_mdns=warn,webrtc_util=warn,turn=warn,stun=warn,\
     hickory=warn,hickory_resolver=warn,hickory_proto=warn,hickory_net=warn,\
     actix=warn,actix_rt=warn,tungstenite=warn,tokio_tungstenite=warn,rustls=warn,\
     tun_rs=warn,mio=warn,netlink_sys=warn,netlink_packet_route=warn";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_targets_are_taken() {
        for filter in [
            "info",
            "warn,postern=debug",
            "off",
            "postern::actors=trace, info",
        ] {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
    }

    #[test]
    fn filters_that_would_silence_everything_by_mistake_are_refused() {
        for filter in [
            "inof",
            "",
            "info,",
            "postern=",
            "=info",
            "postern=loud",
            "postern",
        ] {
            assert!(check_filter(filter).is_err(), "{filter:?}");
        }
    }

    #[test]
    fn the_users_directive_for_a_quiet_library_wins() {
        let filter = EnvFilter::try_new(directives("info,boringtun=debug")).expect("valid");
        let shown = filter.to_string();
        assert!(shown.contains("boringtun=debug"), "{shown}");
        assert!(
            !shown
                .split(',')
                .any(|directive| directive == "boringtun=off"),
            "{shown}"
        );
    }
}
