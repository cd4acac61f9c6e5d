//! Log lines: `tracing` events, as text or JSON, to stderr.
//!
//! Installs the subscriber and keeps chatty libraries quiet. docs/style.md has the rules of what is
//! logged at which level; [`LogFilter`] refuses filters that would silently show nothing.

use crate::config::{LogConfig, LogFilter, LogFormat};
use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

/// Installs the subscriber of the process. To be called once.
///
/// # Errors
///
/// When `tracing` refuses the filter or a subscriber is installed already.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(directives(config.filter.as_str()))?)
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
pub fn use_filter(filter: &LogFilter) -> Result<(), String> {
    let filter = directives(filter.as_str());
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
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
