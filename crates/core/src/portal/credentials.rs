//! The gateway's own ICE credentials for a client that does not receive them from its portal.
//!
//! Only generation 0 needs them: later portals generate both sides' credentials. They are derived
//! instead of random, so that a repeated request leads to the same transport even if one side has
//! lost the first one. Source: RFC 8445, 5.3; docs/protocol.md 11.

use crate::grant::{ClientProfile, IceCredentials};
use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;
use zeroize::Zeroizing;

/// The key of the derivation: 32 random bytes that stay the same while the process runs. Never
/// printed.
#[derive(Clone)]
pub struct IceSecret(Zeroizing<[u8; 32]>);

impl IceSecret {
    /// A secret of 32 random bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The gateway's credentials for this client: equal for equal arguments, otherwise different.
    pub(super) fn credentials(
        &self,
        client: &ClientProfile,
        remote: &IceCredentials,
    ) -> IceCredentials {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice())
            .expect("HMAC takes keys of any length");
        for part in [
            CONTEXT,
            client.id.0.as_bytes().as_slice(),
            &client.public_key.0,
            client.preshared_key.0.as_slice(),
            remote.ufrag.as_bytes(),
            remote.password.as_bytes(),
        ] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let digest = Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
        let text = Zeroizing::new(BASE32_NOPAD.encode(digest.as_slice()).to_ascii_lowercase());
        let (ufrag, rest) = text.split_at(UFRAG_CHARS);
        IceCredentials {
            ufrag: ufrag.to_owned(),
            password: Zeroizing::new(rest[..PASSWORD_CHARS].to_owned()),
        }
    }
}

impl fmt::Debug for IceSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IceSecret(…)")
    }
}

/// Separates these bytes from any other use of the same secret.
const CONTEXT: &[u8] = b"postern: ICE credentials of the gateway";

/// 40 bits, where RFC 8445 requires 24: four characters would collide among a thousand clients.
const UFRAG_CHARS: usize = 8;

/// 130 bits, where RFC 8445, 5.3, requires 128.
const PASSWORD_CHARS: usize = 26;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::{PresharedKey, TunnelAddresses};
    use crate::ids::{ClientId, PublicKey};
    use std::collections::BTreeSet;
    use uuid::Uuid;

    fn client(number: u128) -> ClientProfile {
        ClientProfile {
            id: ClientId(Uuid::from_u128(number)),
            public_key: PublicKey([1; 32]),
            preshared_key: PresharedKey(Zeroizing::new([2; 32])),
            tunnel: TunnelAddresses {
                ipv4: [100, 64, 0, 5].into(),
                ipv6: [0xfd00, 0x2021, 0x1111, 0, 0, 0, 0, 5].into(),
            },
        }
    }

    fn remote(ufrag: &str, password: &str) -> IceCredentials {
        IceCredentials {
            ufrag: ufrag.into(),
            password: Zeroizing::new(password.into()),
        }
    }

    #[test]
    fn equal_requests_lead_to_equal_credentials_that_ice_accepts() {
        let secret = IceSecret::new([7; 32]);
        let first = secret.credentials(&client(1), &remote("abcd", "p"));
        let again = secret.clone().credentials(&client(1), &remote("abcd", "p"));
        assert_eq!(first, again);
        assert_eq!((first.ufrag.len(), first.password.len()), (8, 26));
        let is_ice_char = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
        assert!(first.ufrag.chars().all(is_ice_char));
        assert!(first.password.chars().all(is_ice_char));
    }

    #[test]
    fn each_different_argument_leads_to_different_credentials() {
        let secret = IceSecret::new([7; 32]);
        let base = client(1);
        let (mut other_key, mut other_shared) = (client(1), client(1));
        other_key.public_key = PublicKey([9; 32]);
        other_shared.preshared_key = PresharedKey(Zeroizing::new([9; 32]));
        let mine = remote("abcd", "pass");
        let made = [
            secret.credentials(&base, &mine),
            secret.credentials(&client(2), &mine),
            secret.credentials(&other_key, &mine),
            secret.credentials(&other_shared, &mine),
            secret.credentials(&base, &remote("abcx", "pass")),
            secret.credentials(&base, &remote("abcd", "passx")),
            secret.credentials(&base, &remote("abcdp", "ass")),
            IceSecret::new([8; 32]).credentials(&base, &mine),
        ];
        let distinct: BTreeSet<_> = made.iter().map(|ice| ice.ufrag.clone()).collect();
        assert_eq!(distinct.len(), made.len());
        let distinct: BTreeSet<_> = made.iter().map(|ice| ice.password.to_string()).collect();
        assert_eq!(distinct.len(), made.len());
    }

    #[test]
    fn the_secret_is_never_printed() {
        assert_eq!(format!("{:?}", IceSecret::new([7; 32])), "IceSecret(…)");
    }
}
