//! The HTTP upgrade: admits a device to a channel or refuses it with a problem document.
//!
//! Source: docs/protocol.md 1.1, 1.2 and 1.7.

use super::{Generation, Hub, MAX_SESSIONS, Session, Side};
use crate::portal::config::{Config, Device};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;
use url::form_urlencoded;
use uuid::Uuid;

/// The relevant parts of a websocket request.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'a> {
    pub path: &'a str,
    /// Without the question mark; empty when missing.
    pub query: &'a str,
    /// The header `X-Authorization`.
    pub authorization: Option<&'a str>,
    /// The header `User-Agent`; empty when missing.
    pub user_agent: &'a str,
    pub remote_ip: IpAddr,
}

/// The reason why a request is not upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// The member `code` of the problem document (RFC 9457).
    pub code: &'static str,
    /// The header `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

impl Refusal {
    fn new(status: u16, code: &'static str) -> Self {
        Self {
            status,
            code,
            retry_after: None,
        }
    }

    /// The problem document as JSON.
    #[must_use]
    pub fn body(&self) -> String {
        json!({
            "type": "about:blank",
            "title": self.code.replace('_', " "),
            "status": self.status,
            "code": self.code,
        })
        .to_string()
    }
}

/// The header `User-Agent`, as far as it is recognized.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserAgent {
    /// As sent, at most 256 characters.
    pub text: String,
    /// `gateway`, `headless-client`, …; empty when not recognized.
    pub component: String,
    /// The component's version: major, minor, patch.
    pub version: Option<Version>,
    /// The part before the first slash.
    pub os_name: Option<String>,
}

type Version = (u32, u32, u32);

impl UserAgent {
    /// `<os>/<version> <component>/<version>[ (<arch>; <kernel>)]`; anything else is kept as text
    /// only.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut tokens = text.split_whitespace().filter_map(|it| it.split_once('/'));
        let os_name = tokens.next().map(|(os, _)| os.to_owned());
        let known = |(name, _): &(&str, &str)| COMPONENTS.iter().any(|(known, _)| known == name);
        let (component, version) = tokens.find(known).unwrap_or_default();
        Self {
            text: text.chars().take(256).collect(),
            component: component.to_owned(),
            version: parse_version(version),
            os_name,
        }
    }

    /// The component's version as text.
    #[must_use]
    pub fn version_text(&self) -> Option<String> {
        let (major, minor, patch) = self.version?;
        Some(format!("{major}.{minor}.{patch}"))
    }

    /// Whether it is a client from before `gateway_groups` became `sites` (docs/protocol.md 2.4).
    #[must_use]
    pub fn uses_groups(&self) -> bool {
        let component = COMPONENTS.iter().find(|(name, _)| *name == self.component);
        let renamed_in = component.map(|(_, renamed_in)| *renamed_in);
        self.version
            .zip(renamed_in)
            .is_some_and(|(version, renamed_in)| version < renamed_in)
    }
}

/// The programs that connect, and the version of each that first used `sites`.
const COMPONENTS: [(&str, Version); 6] = [
    ("gateway", (0, 0, 0)),
    ("headless-client", (1, 5, 6)),
    ("gui-client", (1, 5, 10)),
    ("apple-client", (1, 5, 11)),
    ("android-client", (1, 5, 8)),
    ("connlib", (u32::MAX, 0, 0)),
];

fn parse_version(text: &str) -> Option<Version> {
    let release = text.split(['-', '+']).next()?;
    let mut numbers = release.split('.').map(str::parse);
    let version = (
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
    );
    numbers.next().is_none().then_some(version)
}

impl Hub {
    /// Decides on a request before it is upgraded. An admitted session goes to
    /// [`Self::handle_connected`].
    ///
    /// # Errors
    /// The answer instead of the upgrade.
    pub fn authorize_upgrade(&self, upgrade: &Upgrade<'_>) -> Result<Session, Refusal> {
        let (side, generation) = channel(upgrade.path).ok_or(Refusal::new(404, "not_found"))?;
        let query: BTreeMap<_, _> = form_urlencoded::parse(upgrade.query.as_bytes()).collect();
        let in_query = query.get("token").map(AsRef::as_ref);
        let token = upgrade.authorization.map_or(in_query, bearer);
        let token = token.ok_or(Refusal::new(401, "missing_token"))?;
        let devices = self.config.devices(side);
        let (id, device) = holder(devices, token).ok_or(Refusal::new(401, "invalid_token"))?;
        let public_key = query
            .get("public_key")
            .filter(|key| is_key(key))
            .ok_or(Refusal::new(400, "invalid_connect_params"))?;
        let connected = self.sessions.values().any(|it| it.device == id);
        let exclusive = connected && !self.config.service.takeover;
        if side == Side::Gateway && (exclusive || self.refused.contains(&id)) {
            return Err(Refusal::new(409, "gateway_already_connected"));
        }
        if self.sessions.len() >= MAX_SESSIONS && !connected {
            return Err(Refusal {
                retry_after: Some(1),
                ..Refusal::new(503, "rate_limit")
            });
        }
        Ok(Session {
            side,
            generation,
            device: id,
            name: device.name.clone(),
            public_key: public_key.to_string(),
            agent: UserAgent::parse(upgrade.user_agent),
            remote_ip: upgrade.remote_ip,
            joined: false,
            asks_in_generation_0: false,
        })
    }
}

impl Config {
    pub(super) fn devices(&self, side: Side) -> &BTreeMap<Uuid, Device> {
        match side {
            Side::Gateway => &self.gateways,
            Side::Client => &self.clients,
        }
    }
}

fn channel(path: &str) -> Option<(Side, Generation)> {
    Some(match path {
        "/gateway/v2/websocket" => (Side::Gateway, Generation::V2),
        "/gateway/websocket" => (Side::Gateway, Generation::V1),
        "/client/v2/websocket" => (Side::Client, Generation::V2),
        "/client/websocket" => (Side::Client, Generation::V1),
        _ => return None,
    })
}

fn bearer(header: &str) -> Option<&str> {
    let token = header.strip_prefix("Bearer ")?.trim();
    (!token.is_empty()).then_some(token)
}

/// Compares digests, so that the time it takes reveals nothing about a token.
fn holder<'a>(devices: &'a BTreeMap<Uuid, Device>, token: &str) -> Option<(Uuid, &'a Device)> {
    let digest = Sha256::digest(token);
    let mut devices = devices.iter();
    let found = devices.find(|(_, device)| Sha256::digest(&device.token) == digest);
    found.map(|(id, device)| (*id, device))
}

fn is_key(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agents_of_the_recording_are_recognized() {
        let agent = UserAgent::parse("Debian/12.0.0 headless-client/1.5.12 (x86_64; 6.18.0)");
        assert_eq!(agent.component, "headless-client");
        assert_eq!(agent.version, Some((1, 5, 12)));
        assert_eq!(agent.os_name.as_deref(), Some("Debian"));
        assert!(!agent.uses_groups());
    }

    #[test]
    fn clients_before_2026_use_groups() {
        for (agent, groups) in [
            ("Linux/6.8 headless-client/1.5.5", true),
            ("Linux/6.8 headless-client/1.5.6-dev", false),
            ("Mac OS/15 apple-client/1.5.10", true),
            ("Windows/11 gui-client/1.5.10", false),
            ("nonsense", false),
        ] {
            assert_eq!(UserAgent::parse(agent).uses_groups(), groups, "{agent}");
        }
    }

    #[test]
    fn user_agents_without_a_usable_version_have_none() {
        for agent in [
            "",
            "curl/8",
            "Linux/6.8 gateway/1.6",
            "Linux/6.8 gateway/x.y.z",
        ] {
            assert_eq!(UserAgent::parse(agent).version, None, "{agent}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_user_agents_never_panic(text in ".{0,80}") {
            let _ = UserAgent::parse(&text).uses_groups();
        }
    }
}
