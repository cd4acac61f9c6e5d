//! Identifiers: one newtype for each kind, so that two kinds cannot be confused.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use uuid::Uuid;

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

uuid_newtype! {
    /// Identifies a client. Assigned by the portal, stable while the client's keys change
    /// (roaming).
    ClientId
}
uuid_newtype! {
    /// Identifies a resource. Assigned by the portal.
    ResourceId
}

uuid_newtype! {
    /// Identifies a relay. Assigned by the portal and opaque: see [`RelayId::of`].
    RelayId
}

impl RelayId {
    /// The identifier that the portal writes as `text`. Real portals write UUIDs, which keep their
    /// value. Any other text becomes a UUID made of its SHA-256 digest (RFC 9562, 5.8), so that an
    /// identifier has a fixed size, and two processes derive the same one.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let parsed = Uuid::try_parse(text).ok();
        // Another spelling of a UUID is another text, and a text is opaque.
        let canonical = parsed.filter(|uuid| uuid.to_string() == text);
        Self(canonical.unwrap_or_else(|| {
            let digest: [u8; 32] = Sha256::digest(text).into();
            let head = std::array::from_fn(|at| digest[at]);
            uuid::Builder::from_custom_bytes(head).into_uuid()
        }))
    }
}

/// Wall-clock time in whole seconds since 1970-01-01T00:00:00Z, as the portal writes it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

/// A 32-byte X25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "PublicKey({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_keeps_its_uuid_and_two_texts_are_two_relays() {
        let uuid = "7c9f6b2e-0d5b-4f5e-9a50-3f7f3d0b7a11";
        assert_eq!(RelayId::of(uuid).to_string(), uuid);
        assert_eq!(RelayId::of("r1"), RelayId::of("r1"));
        let texts = [
            uuid,
            &uuid.to_uppercase(),
            &uuid.replace('-', ""),
            "r1",
            "r2",
            "",
        ];
        let distinct: std::collections::BTreeSet<_> = texts.map(RelayId::of).into();
        assert_eq!(distinct.len(), texts.len());
    }
}
