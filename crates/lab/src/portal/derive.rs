//! Values that the portal computes instead of storing: identifiers, preshared keys, ICE credentials
//! and the flow log ingest token.
//!
//! Everything here is a pure function of its arguments. Nothing is random and nothing is kept.
//! Source: docs/protocol.md 2.1 (ingest token), 3.1 (preshared key), 3.2 (ICE credentials).

use crate::secret::keyed;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use data_encoding::BASE32_NOPAD;
use postern_core::portal::wire::IceCredentials;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The identifier of an entry with a name but no id: the same name gives the same id, on every
/// machine and after every restart.
pub(super) fn uuid_of(kind: &str, name: &str) -> Uuid {
    let digest = Sha256::digest(format!("{kind}:{name}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_bytes(bytes)
        .with_variant(uuid::Variant::RFC4122)
        .with_version(uuid::Version::Sha1)
        .into_uuid()
}

/// The two devices of a grant, with the keys they have now: base64, as they were sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct DevicePair<'a> {
    pub(super) client_id: Uuid,
    pub(super) client_key: &'a str,
    pub(super) gateway_id: Uuid,
    pub(super) gateway_key: &'a str,
}

/// ICE credentials of both ends. The client controls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PairCredentials {
    pub(super) client: IceCredentials,
    pub(super) gateway: IceCredentials,
}

impl DevicePair<'_> {
    /// Equal for every grant between the same two key pairs, so that a repeated grant keeps the
    /// transport.
    pub(super) fn ice_credentials(&self) -> PairCredentials {
        let text = format!(
            "{}:{}:{}:{}",
            self.client_id, self.client_key, self.gateway_id, self.gateway_key
        );
        let code = BASE32_NOPAD
            .encode(&Sha256::digest(text))
            .to_ascii_lowercase();
        let credentials = |from: usize| IceCredentials {
            username: code[from..from + 4].to_owned(),
            password: code[from + 4..from + 26].to_owned(),
        };
        PairCredentials {
            client: credentials(0),
            gateway: credentials(26),
        }
    }

    /// Base64 with padding. Changes when either public key changes.
    pub(super) fn preshared_key(&self, client_base: &[u8; 32], gateway_base: &[u8; 32]) -> String {
        let password = [client_base.as_slice(), gateway_base.as_slice()].concat();
        let salt = format!(
            "WG_PSK|C_ID:{}|G_ID:{}|C_PK:{}|G_PK:{}",
            self.client_id, self.gateway_id, self.client_key, self.gateway_key
        );
        let mut key = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(&password, salt.as_bytes(), 1, &mut key);
        STANDARD.encode(key)
    }
}

/// A compact JWT, signed with HMAC-SHA256 (RFC 7515, 3.1).
pub(super) fn ingest_token(claims: &Value, key: &[u8; 32]) -> String {
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = keyed(key, &signed);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> DevicePair<'static> {
        DevicePair {
            client_id: Uuid::from_u128(0x11111111_1111_4111_8111_111111111111),
            client_key: "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
            gateway_id: Uuid::from_u128(0x22222222_2222_4222_8222_222222222222),
            gateway_key: "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
        }
    }

    #[test]
    fn ice_credentials_match_the_vector_of_the_protocol() {
        let credentials = pair().ice_credentials();
        assert_eq!(credentials.client.username, "eokn");
        assert_eq!(credentials.client.password, "5enp7ct6775ebzonvunxjy");
        assert_eq!(credentials.gateway.username, "6m26");
        assert_eq!(credentials.gateway.password, "gj5f2zjrxg6cwvtrtqgfva");
    }

    #[test]
    fn preshared_key_matches_the_vector_of_the_protocol() {
        let client_base = std::array::from_fn(|i| u8::try_from(i).expect("below 32"));
        let gateway_base = std::array::from_fn(|i| u8::try_from(i + 32).expect("below 64"));
        assert_eq!(
            pair().preshared_key(&client_base, &gateway_base),
            "dZODNf6dRtXPs3pKsRQfX5WCdxcAySPCr1lF2RWWJfA="
        );
    }

    #[test]
    fn a_new_key_of_the_client_changes_every_credential() {
        let old = pair();
        let new = DevicePair {
            client_key: "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
            ..old
        };
        assert_ne!(old.ice_credentials().client, new.ice_credentials().client);
        assert_ne!(old.ice_credentials().gateway, new.ice_credentials().gateway);
        let base = [7; 32];
        assert_ne!(
            old.preshared_key(&base, &base),
            new.preshared_key(&base, &base)
        );
    }

    #[test]
    fn derived_uuids_are_well_formed_and_differ_by_kind() {
        let site = uuid_of("site", "lab");
        assert_eq!(site, uuid_of("site", "lab"));
        assert_ne!(site, uuid_of("gateway", "lab"));
        assert_eq!(site.get_version_num(), 5);
        assert_eq!(site.get_variant(), uuid::Variant::RFC4122);
    }
}
