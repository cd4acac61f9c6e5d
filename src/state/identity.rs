//! The key by which a gateway recognises its own state file.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The key that seals the state of the gateway with this identity. Without the token, a state can
/// be neither forged nor attributed to a gateway.
pub fn identity_key(portal_url: &str, gateway_id: &str, token: &str) -> [u8; 32] {
    let mac = Hmac::<Sha256>::new_from_slice(token.as_bytes());
    let mut mac = mac.expect("HMAC takes keys of any length");
    mac.update(CONTEXT);
    // With their lengths, so that no two identities give the same bytes.
    for part in [portal_url, gateway_id, token] {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

const CONTEXT: &[u8] = b"postern state file 1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_and_its_length_counts() {
        let identities = [
            ("wss://portal.lab.example", "a", "token"),
            ("wss://portal.lab.example", "b", "token"),
            ("wss://portal.lab.example", "a", "token\0"),
            ("wss://portal.lab.example/", "a", "token"),
            ("wss://portal.lab.exampl", "ea", "token"),
            ("wss://portal.lab.examplea", "", "token"),
        ];
        let mut keys: Vec<_> = identities
            .map(|(url, id, token)| identity_key(url, id, token))
            .into();
        assert_eq!(
            keys[0],
            identity_key("wss://portal.lab.example", "a", "token")
        );
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), identities.len());
    }
}
