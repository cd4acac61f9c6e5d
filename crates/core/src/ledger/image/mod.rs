//! The saved ledger: everything that a new process needs to take over from another, as bytes.
//!
//! Header (magic, version, fingerprint of the key, length), body (`wire`), HMAC-SHA256 over both
//! with a key that only this gateway knows. The body is not parsed before the HMAC is verified, so
//! that the decoder never sees forged input. The current version and the one before it are read;
//! any other is refused: a client that is not taken over connects again, but a client that is taken
//! over wrongly does not.

#[cfg(test)]
mod tests;
mod wire;

use super::{Ledger, LedgerLimits};
use crate::ids::UnixTime;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;
use zeroize::Zeroizing;

/// The state that outlives the process. Its secrets must never reach a disk.
#[derive(Clone)]
pub struct SavedState {
    /// When the state was saved.
    pub saved_at: UnixTime,
    /// The gateway's WireGuard private key.
    pub gateway_key: Zeroizing<[u8; 32]>,
    /// The secret that the gateway derives its ICE credentials from.
    pub ice_secret: Zeroizing<[u8; 32]>,
    /// The port that clients send their datagrams to; 0 if there is none yet.
    pub udp_port: u16,
    /// When the process that wrote this took over from another, if it did.
    pub taken_over_at: Option<UnixTime>,
    /// The records of all clients and names.
    pub ledger: Ledger,
}

impl fmt::Debug for SavedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedState")
            .field("saved_at", &self.saved_at)
            .field("udp_port", &self.udp_port)
            .field("taken_over_at", &self.taken_over_at)
            .field("clients", &self.ledger.clients().len())
            .finish_non_exhaustive()
    }
}

/// Why bytes are no saved state, or a state cannot be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The bytes end too early.
    #[error("it is cut off")]
    TooShort,
    /// It is no saved state, or its HMAC is wrong.
    #[error("it is damaged")]
    Damaged,
    /// Written by another version of the program.
    #[error("it has format {found}, and this program reads {OLDEST_VERSION} to {VERSION}")]
    UnknownVersion {
        /// The version in the header.
        found: u16,
    },
    /// Written for another portal, gateway id or token.
    #[error("it belongs to another gateway (portal address, gateway id or token differ)")]
    Foreign,
    /// The state exceeds the size limit.
    #[error("it takes {bytes} bytes, and {limit} are allowed")]
    TooLarge {
        /// The size of the state.
        bytes: usize,
        /// The limit of the size.
        limit: usize,
    },
}

/// Encodes `state` in at most `max_bytes` bytes.
///
/// # Errors
///
/// [`ImageError::TooLarge`].
pub fn encode(
    state: &SavedState,
    key: &[u8; 32],
    max_bytes: usize,
) -> Result<Zeroizing<Vec<u8>>, ImageError> {
    let body = wire::State::from(state);
    let length = body.size();
    let bytes = length.saturating_add(HEADER_BYTES + MAC_BYTES);
    let limit = max_bytes.min(u32::MAX as usize);
    if bytes > limit {
        return Err(ImageError::TooLarge { bytes, limit });
    }
    // In one allocation: a vector that grows leaves copies of secrets behind.
    let mut image = Zeroizing::new(vec![0; bytes]);
    let (header, rest) = image.split_at_mut(HEADER_BYTES);
    header.copy_from_slice(&self::header(length, key));
    body.write(&mut rest[..length]);
    let mac = mac(key, &image[..HEADER_BYTES + length]).finalize();
    image[HEADER_BYTES + length..].copy_from_slice(&mac.into_bytes());
    Ok(image)
}

/// Decodes the output of [`encode`] with the same `key`. Omits records beyond `limits`.
///
/// # Errors
///
/// All of [`ImageError`] except [`ImageError::TooLarge`].
pub fn decode(
    image: &[u8],
    key: &[u8; 32],
    limits: LedgerLimits,
) -> Result<SavedState, ImageError> {
    let (version, body) = open(image, key)?;
    wire::restore(version, body, limits)
}

/// The version and the body, if header and HMAC are correct.
fn open<'a>(image: &'a [u8], key: &[u8; 32]) -> Result<(u16, &'a [u8]), ImageError> {
    let (magic, rest) = image.split_first_chunk().ok_or(ImageError::TooShort)?;
    let (version, rest) = rest.split_first_chunk().ok_or(ImageError::TooShort)?;
    if *magic != MAGIC {
        return Err(ImageError::Damaged);
    }
    let found = u16::from_le_bytes(*version);
    if !(OLDEST_VERSION..=VERSION).contains(&found) {
        return Err(ImageError::UnknownVersion { found });
    }
    let (claimed, rest) = rest.split_first_chunk().ok_or(ImageError::TooShort)?;
    if *claimed != fingerprint(key) {
        return Err(ImageError::Foreign);
    }
    let (length, rest) = rest.split_first_chunk().ok_or(ImageError::TooShort)?;
    let (sealed, claimed) = image
        .split_last_chunk::<MAC_BYTES>()
        .ok_or(ImageError::TooShort)?;
    let length = u32::from_le_bytes(*length) as usize;
    match rest.len().checked_sub(MAC_BYTES) {
        Some(found) if found == length => {}
        Some(found) if found > length => return Err(ImageError::Damaged),
        Some(_) | None => return Err(ImageError::TooShort),
    }
    let right = mac(key, sealed).verify(claimed.into());
    right.map_err(|_| ImageError::Damaged)?;
    Ok((found, &rest[..length]))
}

fn header(length: usize, key: &[u8; 32]) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(length).expect("an image has at most 2^32 bytes");
    let parts = [
        &MAGIC[..],
        &VERSION.to_le_bytes(),
        &fingerprint(key),
        &length.to_le_bytes(),
    ];
    let mut header = [0; HEADER_BYTES];
    header.copy_from_slice(&parts.concat());
    header
}

/// Identifies a key without revealing it.
fn fingerprint(key: &[u8; 32]) -> [u8; FINGERPRINT_BYTES] {
    let mac = mac(key, b"postern saved state: fingerprint").finalize();
    let mac: [u8; MAC_BYTES] = mac.into_bytes().into();
    std::array::from_fn(|at| mac[at])
}

fn mac(key: &[u8; 32], bytes: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.chain_update(bytes)
}

const MAGIC: [u8; 8] = *b"POSTERN\n";
/// A new field needs no new version: see `wire`. Any other change of the layout does.
const VERSION: u16 = 2;
/// The oldest version that is still read.
const OLDEST_VERSION: u16 = 1;
const FINGERPRINT_BYTES: usize = 16;
const HEADER_BYTES: usize = 8 + 2 + FINGERPRINT_BYTES + 4;
const MAC_BYTES: usize = 32;
