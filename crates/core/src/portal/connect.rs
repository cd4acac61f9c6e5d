//! The websocket upgrade: the request, and the meaning of a refusal.
//!
//! Builds URLs and headers and interprets HTTP responses; opens nothing. Source: docs/protocol.md
//! 1.1, 1.2 and 1.7; RFC 9457 for problem documents.

use super::config::{Generation, PortalConfig};
use super::{retry_after, wire};
use crate::ids::UnixTime;
use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest, Sha256};
use std::fmt;
use std::time::Duration;
use url::{Host, Url};
use uuid::Uuid;
use zeroize::Zeroizing;

/// The advertised gateway version. The portal offers a gateway of version `1.6` only to clients of
/// 1.5 to 1.7 (docs/protocol.md 0), so this is the version we are compatible with, not our own.
pub const COMPATIBLE_VERSION: &str = "1.6.1";

/// The parameters with which the shell opens the websocket.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// The complete URL, `ws` or `wss`, query included.
    pub url: String,
    /// Host name or literal address, without brackets.
    pub host: String,
    /// The port to dial: the URL's, else the scheme's own. (The reference gateway dials 443 for
    /// `ws` without a port; nothing can depend on that.)
    pub port: u16,
    /// The generation of the URL's path; to be passed back to `handle_connected`.
    pub generation: Generation,
    /// Headers beyond those of every websocket upgrade, and the `Host` that replaces the usual one.
    pub headers: Headers,
}

/// The headers of the upgrade. They contain the token: hence no derived `Debug` here or above.
#[derive(Clone, PartialEq, Eq)]
pub struct Headers {
    /// Value of `Host`, always without port.
    pub host: String,
    /// Value of `User-Agent`; the portal reads our version from it.
    pub user_agent: String,
    /// Value of `X-Authorization`, `Bearer <token>`.
    pub authorization: Zeroizing<String>,
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// The HTTP response that arrived instead of the upgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpgradeFailure {
    /// The HTTP status code.
    pub status: u16,
    /// The received part of the body; `application/problem+json` from a real portal.
    pub body: String,
    /// The unparsed `Retry-After` header.
    pub retry_after: Option<String>,
}

/// The reaction to an [`UpgradeFailure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UpgradeVerdict {
    /// No attempt can succeed until a person acts.
    Refused {
        /// The cause with its remedy.
        reason: String,
    },
    /// The endpoint of this generation does not exist.
    NotServed {
        /// The cause, in words for the log.
        reason: String,
    },
    /// A later attempt may succeed.
    Retry {
        /// The cause, in words for the log.
        reason: String,
        /// The delay that the portal requests, which replaces the backoff.
        after: Option<Duration>,
    },
}

/// The request for a websocket of `generation`.
pub(super) fn request(config: &PortalConfig, generation: Generation) -> ConnectRequest {
    let url = endpoint(config, generation);
    let (host, host_header) = match url.host() {
        Some(Host::Domain(name)) => (name.to_owned(), name.to_owned()),
        Some(Host::Ipv4(ip)) => (ip.to_string(), ip.to_string()),
        Some(Host::Ipv6(ip)) => (ip.to_string(), format!("[{ip}]")),
        None => (String::new(), String::new()), // PortalUrl has a host.
    };
    ConnectRequest {
        host,
        port: url.port_or_known_default().unwrap_or(443),
        generation,
        headers: Headers {
            host: host_header,
            user_agent: user_agent(&config.kernel, &config.arch),
            authorization: Zeroizing::new(format!("Bearer {}", config.token.reveal())),
        },
        url: url.into(),
    }
}

/// Base path, then the endpoint's segments, then the gateway's identity.
fn endpoint(config: &PortalConfig, generation: Generation) -> Url {
    let mut url = config.url.as_url().clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push("gateway");
        if generation == Generation::V2 {
            path.push("v2");
        }
        path.push("websocket");
    }
    url.query_pairs_mut()
        .append_pair("external_id", &external_id(&config.id))
        .append_pair("name", &config.name)
        .append_pair("public_key", &BASE64.encode(&config.public_key.0));
    url
}

/// A UUID is sent as the lowercase hex SHA-256 of its text as given, any other id unchanged.
fn external_id(id: &str) -> String {
    match Uuid::try_parse(id) {
        Ok(_) => HEXLOWER.encode(&Sha256::digest(id.as_bytes())),
        Err(_) => id.to_owned(),
    }
}

/// `Linux/<kernel> gateway/<version> (<arch>; <kernel>)`, without characters unfit for a header.
fn user_agent(kernel: &str, arch: &str) -> String {
    let printable = |text: &str| -> String {
        let kept = text.chars().filter(|c| c.is_ascii_graphic());
        kept.take(64).collect()
    };
    let (kernel, arch) = (printable(kernel), printable(arch));
    format!("Linux/{kernel} gateway/{COMPATIBLE_VERSION} ({arch}; {kernel})")
}

/// Interprets a response that is not an upgrade. `unix_now` is for a `Retry-After` date.
pub(super) fn judge(failure: &UpgradeFailure, unix_now: UnixTime) -> UpgradeVerdict {
    let code = wire::problem_code(&failure.body);
    let said = match &code {
        Some(code) => format!("HTTP {}, {code}", failure.status),
        None => format!("HTTP {}", failure.status),
    };
    match (failure.status, code.as_deref()) {
        (401, code) => UpgradeVerdict::Refused {
            reason: refusal(code, &said),
        },
        (404, _) => UpgradeVerdict::NotServed {
            reason: format!("the portal has no such endpoint ({said}); is portal.url right?"),
        },
        (_, code) => UpgradeVerdict::Retry {
            reason: format!("the portal did not let us in ({said}): {}", meaning(code)),
            after: failure
                .retry_after
                .as_deref()
                .and_then(|value| retry_after::parse(value, unix_now)),
        },
    }
}

/// The text for a 401, the only status that no retry can remedy.
fn refusal(code: Option<&str>, said: &str) -> String {
    let what = match code {
        Some("invalid_token") => "the portal does not accept the token",
        Some("missing_token") => "the portal did not see a token; does a proxy strip headers?",
        Some(_) | None => "the portal refused to authenticate us",
    };
    format!(
        "{what} ({said}); create a new gateway token in the portal, put it where portal.token_file \
         points, and restart"
    )
}

/// The portal's error codes in words for the log.
fn meaning(code: Option<&str>) -> &'static str {
    match code {
        Some("gateway_already_connected") => {
            "an earlier connection of this gateway is still open there, or another gateway uses \
             the same portal.id"
        }
        Some("limits_exceeded") => "the account has reached its limit of gateways",
        Some("account_disabled") => "the account is disabled",
        Some("unauthenticated" | "device_untrusted" | "certificate_revoked") => {
            "the portal does not trust this gateway"
        }
        Some("invalid_connect_params") => "it cannot read what we said about ourselves",
        Some("rate_limit") => "it is busy",
        Some(_) | None => "it may be restarting, or something else answers at portal.url",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::test_config;
    use crate::portal::{PortalUrl, Token};
    use proptest::prelude::*;

    fn url_of(base: &str, generation: Generation) -> String {
        let config = PortalConfig {
            url: PortalUrl::parse(base).unwrap(),
            ..test_config()
        };
        request(&config, generation).url
    }

    #[test]
    fn the_url_matches_the_recorded_one() {
        let recorded_key = BASE64
            .decode(b"1xTNNNGfWu4AzRjrokdms80NjSxLL5wkAC/x7EhgC1k=")
            .unwrap();
        let config = PortalConfig {
            url: PortalUrl::parse("ws://192.0.2.1:8081").unwrap(),
            id: "gw-1".into(),
            name: "lab-gw".into(),
            public_key: crate::ids::PublicKey(recorded_key.try_into().unwrap()),
            ..test_config()
        };
        assert_eq!(
            request(&config, Generation::V2).url,
            "ws://192.0.2.1:8081/gateway/v2/websocket?external_id=gw-1&name=lab-gw\
             &public_key=1xTNNNGfWu4AzRjrokdms80NjSxLL5wkAC%2Fx7EhgC1k%3D"
        );
    }

    #[test]
    fn generation_1_has_a_separate_path_and_the_base_path_is_kept() {
        assert!(url_of("wss://p.example", Generation::V1).contains("example/gateway/websocket?"));
        let with_path = url_of("wss://p.example/a/b/", Generation::V2);
        assert!(with_path.starts_with("wss://p.example/a/b/gateway/v2/websocket?external_id="));
    }

    #[test]
    fn a_uuid_is_hashed_and_another_id_is_sent_unchanged() {
        assert_eq!(
            external_id("123e4567-e89b-12d3-a456-426614174000"),
            "986c0dc956dc822b5d8f698661b9eb1ef880786ff9043c16744d2a420e99e9bb"
        );
        assert_eq!(external_id("gw-1"), "gw-1");
    }

    #[test]
    fn headers_carry_the_token_the_version_and_a_host_without_port() {
        let config = PortalConfig {
            url: PortalUrl::parse("ws://[2001:db8::1]:8081").unwrap(),
            token: Token::new("gwtok").unwrap(),
            kernel: "6.18.0 é\r\n".into(),
            arch: "x86_64".into(),
            ..test_config()
        };
        let request = request(&config, Generation::V2);
        assert_eq!(request.headers.host, "[2001:db8::1]");
        assert_eq!((request.host.as_str(), request.port), ("2001:db8::1", 8081));
        assert_eq!(request.headers.authorization.as_str(), "Bearer gwtok");
        assert_eq!(
            request.headers.user_agent,
            "Linux/6.18.0 gateway/1.6.1 (x86_64; 6.18.0)"
        );
        assert!(!format!("{request:?}").contains("gwtok"));
    }

    #[test]
    fn a_url_without_port_uses_the_default_of_its_scheme() {
        let port = |base| {
            let config = PortalConfig {
                url: PortalUrl::parse(base).unwrap(),
                ..test_config()
            };
            request(&config, Generation::V2).port
        };
        assert_eq!(port("wss://p.example"), 443);
        assert_eq!(port("ws://p.example"), 80);
    }

    fn verdict(status: u16, body: &str, retry_after: Option<&str>) -> UpgradeVerdict {
        let failure = UpgradeFailure {
            status,
            body: body.to_owned(),
            retry_after: retry_after.map(str::to_owned),
        };
        judge(&failure, UnixTime(784_111_777))
    }

    #[test]
    fn only_401_is_final_and_states_the_remedy() {
        let UpgradeVerdict::Refused { reason } =
            verdict(401, r#"{"status":401,"code":"invalid_token"}"#, None)
        else {
            panic!("a 401 is final");
        };
        assert!(reason.contains("invalid_token") && reason.contains("create a new gateway token"));
        assert!(matches!(
            verdict(401, "cut {", None),
            UpgradeVerdict::Refused { .. }
        ));
        for status in [400, 402, 403, 405, 408, 409, 429, 500, 502, 503] {
            assert!(matches!(
                verdict(status, "", None),
                UpgradeVerdict::Retry { .. }
            ));
        }
        assert!(matches!(
            verdict(404, "", None),
            UpgradeVerdict::NotServed { .. }
        ));
    }

    /// docs/lessons.md 28: 429 and Retry-After are honoured.
    #[test]
    fn retry_after_is_taken_from_429_and_503() {
        for status in [429, 503] {
            let UpgradeVerdict::Retry { after, .. } = verdict(status, "", Some("7")) else {
                panic!("retries");
            };
            assert_eq!(after, Some(Duration::from_secs(7)));
        }
        let date = Some("Sun, 06 Nov 1994 08:49:47 GMT");
        let UpgradeVerdict::Retry { after, .. } = verdict(503, "", date) else {
            panic!("retries");
        };
        assert_eq!(after, Some(Duration::from_secs(10)));
    }

    proptest! {
        #[test]
        fn no_answer_panics(status: u16, body: String, retry_after: Option<String>, now: u64) {
            judge(&UpgradeFailure { status, body, retry_after }, UnixTime(now));
        }

        #[test]
        fn no_identity_panics_or_breaks_a_header(id: String, name: String, kernel: String) {
            let config = PortalConfig { id, name, kernel, ..test_config() };
            let request = request(&config, Generation::V2);
            prop_assert!(request.headers.user_agent.is_ascii());
            prop_assert!(!request.headers.user_agent.contains(['\r', '\n']));
            prop_assert!(request.url.is_ascii());
        }
    }
}
