//! Configuration of the portal protocol: the portal's URL, the gateway's identity, and limits.
//!
//! Values are checked on construction, so that a wrong URL or token is refused before the first
//! connection. Source: docs/protocol.md 1.1 – 1.3.

use super::credentials::IceSecret;
use crate::backoff::BackoffConfig;
use crate::ids::PublicKey;
use std::fmt;
use std::time::Duration;
use url::Url;
use zeroize::Zeroizing;

/// A generation of the signalling; the two differ in the endpoint's path and in event names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// `authorize_flow` and `flow_authorized`.
    V1,
    /// `create_authorization` and `authorization_created`.
    V2,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// The generations that a connection attempt tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GenerationChoice {
    /// The second; the first if the portal does not serve the second's endpoint (404).
    #[default]
    Auto,
    /// Only this one, with no fallback.
    Only(Generation),
}

impl GenerationChoice {
    /// The generation with which an attempt starts.
    pub(super) fn first(self) -> Generation {
        match self {
            Self::Auto => Generation::V2,
            Self::Only(generation) => generation,
        }
    }
}

/// Why a value is unusable, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortalConfigError {
    /// The text is not a URL.
    #[error(
        "the portal's URL {url:?} cannot be read ({why}); write it as wss://host[:port][/path]"
    )]
    UnreadableUrl {
        /// The text as configured.
        url: String,
        /// The parser's reason, in words.
        why: String,
    },
    /// A URL with another scheme than ws, wss, http and https.
    #[error("the portal's URL starts with {0:?}; use wss, ws, https or http")]
    UnknownScheme(String),
    /// A URL without a host.
    #[error("the portal's URL names no host; write it as wss://host[:port][/path]")]
    NoHost,
    /// The text contains only white space.
    #[error("the portal token is empty; create a gateway token in the portal and copy all of it")]
    EmptyToken,
    /// The text contains characters that no token has.
    #[error("the portal token has characters that no token has; copy it again from the portal")]
    UnprintableToken,
}

/// The portal's base URL: a `ws` or `wss` URL with a host and without user, query and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalUrl(Url);

impl PortalUrl {
    /// Reads a base URL; `http` and `https` become `ws` and `wss`.
    ///
    /// # Errors
    ///
    /// `UnreadableUrl`, `UnknownScheme` or `NoHost`, depending on the error.
    pub fn parse(text: &str) -> Result<Self, PortalConfigError> {
        let unreadable = |why: &dyn fmt::Display| PortalConfigError::UnreadableUrl {
            url: text.to_owned(),
            why: why.to_string(),
        };
        // A host without scheme ("portal:8081") parses as the scheme "portal"; the message for an
        // unknown scheme then states the correct form.
        let mut url = Url::parse(text.trim()).map_err(|error| unreadable(&error))?;
        let scheme = match url.scheme() {
            "ws" | "http" => "ws",
            "wss" | "https" => "wss",
            other => return Err(PortalConfigError::UnknownScheme(other.to_owned())),
        };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(PortalConfigError::NoHost);
        }
        let cannot = |()| unreadable(&"it has no authority");
        url.set_scheme(scheme).map_err(cannot)?;
        url.set_username("").map_err(cannot)?;
        url.set_password(None).map_err(cannot)?;
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// The validated base URL.
    pub(super) fn as_url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for PortalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The gateway's token, opaque to the gateway. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Accepts a token as pasted: white space anywhere in it is dropped.
    ///
    /// # Errors
    ///
    /// `EmptyToken` if nothing is left; `UnprintableToken` if it would not fit into a header.
    pub fn new(text: &str) -> Result<Self, PortalConfigError> {
        let token: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let token = Zeroizing::new(token);
        if token.is_empty() {
            return Err(PortalConfigError::EmptyToken);
        }
        if !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(PortalConfigError::UnprintableToken);
        }
        Ok(Self(token))
    }

    /// The token's text, for the one header that carries it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Settings of the portal protocol.
#[derive(Clone, Debug)]
pub struct PortalConfig {
    /// The portal's base URL.
    pub url: PortalUrl,
    /// Credential with which the gateway joins.
    pub token: Token,
    /// The gateway's stable id, as configured; sent as it is, or hashed when it is a UUID.
    pub id: String,
    /// Display name of the gateway.
    pub name: String,
    /// The gateway's WireGuard public key; constant while the process runs.
    pub public_key: PublicKey,
    /// Key for the derivation of ICE credentials where the portal generates none (generation 0).
    pub ice_secret: IceSecret,
    /// The generations to try.
    pub generation: GenerationChoice,
    /// The kernel's release, as in `uname -r`; sent in the user agent.
    pub kernel: String,
    /// The machine's architecture, as in `uname -m`; sent in the user agent.
    pub arch: String,
    /// Time without the portal after which the gateway stops.
    pub max_outage: Duration,
    /// Delays between attempts.
    pub backoff: BackoffConfig,
    /// Bounds on the memory in use.
    pub limits: PortalLimits,
}

/// Bounds on the state that the portal protocol keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortalLimits {
    /// Clients with candidates held while the portal is unreachable. Beyond that, those of further
    /// clients are dropped and reported; such a client finds a path with the candidates it has.
    pub held_clients: usize,
    /// Candidates held for one client, in each direction. Beyond that, the newest is dropped and
    /// reported.
    pub held_candidates: usize,
    /// Authorizations not yet acknowledged. Beyond that, the oldest is forgotten, and its later
    /// acknowledgement dropped; the portal waits 15 s for one at most. Also the number of messages
    /// that may wait for the reply to a join; beyond that the newest is dropped and reported.
    pub pending_authorizations: usize,
}

impl Default for PortalLimits {
    fn default() -> Self {
        Self {
            held_clients: 10_000,
            held_candidates: 64,
            pending_authorizations: 4_096,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn http_becomes_ws_and_extras_are_dropped() {
        let url = PortalUrl::parse("https://user:secret@portal.example/api?x=1#y").unwrap();
        assert_eq!(url.to_string(), "wss://portal.example/api");
        let url = PortalUrl::parse(" http://192.0.2.1:8081 ").unwrap();
        assert_eq!(url.to_string(), "ws://192.0.2.1:8081/");
    }

    #[test]
    fn a_wrong_url_names_the_remedy() {
        let says = |text| PortalUrl::parse(text).unwrap_err().to_string();
        assert!(says("ftp://portal.example").contains("use wss"));
        assert!(says("portal.example:8081").contains("use wss"));
        assert!(says("portal").contains("wss://host"));
        assert!(says("wss://").contains("wss://host"));
    }

    #[test]
    fn a_pasted_token_loses_its_white_space() {
        assert_eq!(Token::new(" .ab\ncd\t ").unwrap().reveal(), ".abcd");
        assert_eq!(Token::new(" \n"), Err(PortalConfigError::EmptyToken));
        assert_eq!(
            Token::new("ab\0c"),
            Err(PortalConfigError::UnprintableToken)
        );
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = Token::new("very-secret").unwrap();
        assert!(!format!("{token:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parsers(text: String) {
            let _ = PortalUrl::parse(&text);
            let _ = Token::new(&text);
        }

        #[test]
        fn no_url_with_a_good_scheme_panics(text in "(ws|http)s?:/{0,3}[ -~]{0,40}") {
            let _ = PortalUrl::parse(&text);
        }
    }
}
