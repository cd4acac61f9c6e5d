//! TURN credentials that a relay can check without state.
//!
//! The portal issues `<expiry>:<salt>` and a password that only a holder of the relay's secret can
//! compute. Source: docs/protocol.md 3.6; long-term credentials are RFC 8489, 9.2.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};

/// The portal never transmits the realm: every party assumes this one.
pub(crate) const REALM: &str = "firezone";

/// User name and password of one device at one relay.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TurnCredentials {
    /// `<expiry>:<salt>`, expiry in UNIX seconds.
    pub(crate) username: String,
    /// Base64 without padding, 43 characters.
    pub(crate) password: String,
}

/// The credentials of the device with this base64 public key, until `expiry`.
pub(crate) fn issue(public_key: &str, expiry: u64, secret: &str) -> TurnCredentials {
    let salt = STANDARD_NO_PAD.encode(Sha256::digest(public_key));
    TurnCredentials {
        username: format!("{expiry}:{salt}"),
        password: password(expiry, &salt, secret),
    }
}

/// The password that belongs to `username`, or `None` when it is not `<expiry>:<salt>` or has
/// expired by `unix_now`.
pub(crate) fn verify(username: &str, secret: &str, unix_now: u64) -> Option<String> {
    let (expiry, salt) = username.split_once(':')?;
    let expiry = expiry.parse().ok()?;
    (expiry > unix_now).then(|| password(expiry, salt, secret))
}

fn password(expiry: u64, salt: &str, secret: &str) -> String {
    STANDARD_NO_PAD.encode(Sha256::digest(format!("{expiry}:{secret}:{salt}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY_KEY: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

    #[test]
    fn credentials_match_the_vector_of_the_protocol() {
        let issued = issue(GATEWAY_KEY, 2_145_916_800, "stamp-secret-1");
        assert_eq!(
            issued.username,
            "2145916800:nXAyqBpHWYA/1G2XTllLzU96O4pcBycOWOnhLBT9TPA"
        );
        assert_eq!(
            issued.password,
            "xY1uFP9jjjAXJTSQh5GXbvAPv6XCpor+AP95KXVcPpw"
        );
    }

    #[test]
    fn the_relay_derives_the_password_from_the_user_name_alone() {
        let issued = issue(GATEWAY_KEY, 1000, "s");
        assert_eq!(verify(&issued.username, "s", 999), Some(issued.password));
    }

    #[test]
    fn expired_or_malformed_user_names_have_no_password() {
        let issued = issue(GATEWAY_KEY, 1000, "s");
        assert_eq!(verify(&issued.username, "s", 1000), None);
        assert_eq!(verify("no-colon", "s", 0), None);
        assert_eq!(verify("tomorrow:salt", "s", 0), None);
    }
}
