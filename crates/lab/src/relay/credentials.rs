//! TURN credentials that a relay can check without remembering anything, and the secret they rest
//! on.
//!
//! The portal hands out `<expiry>:<salt>` and a password that only a holder of the relay's secret
//! can compute. It refuses a secret file that is empty or readable only in part.
//! Source: docs/protocol.md 3.6; long-term credentials are RFC 8489, section 9.2.

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The realm is never transmitted by the portal: every party assumes this one.
pub const REALM: &str = "firezone";

/// User name and password of one peer at one relay.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnCredentials {
    /// `<expiry>:<salt>`, expiry in UNIX seconds.
    pub username: String,
    /// Base64 without padding, 43 characters.
    pub password: String,
}

/// What the portal gives to the peer whose base64 public key is `public_key`.
#[must_use]
pub fn issue(public_key: &str, expiry: u64, secret: &str) -> TurnCredentials {
    let salt = STANDARD_NO_PAD.encode(Sha256::digest(public_key));
    TurnCredentials {
        username: format!("{expiry}:{salt}"),
        password: password(expiry, &salt, secret),
    }
}

/// The password that belongs to `username`, or `None` when it is not `<expiry>:<salt>` or has
/// expired by `unix_now`.
#[must_use]
pub fn verify(username: &str, secret: &str, unix_now: u64) -> Option<String> {
    let (expiry, salt) = username.split_once(':')?;
    let expiry = expiry.parse().ok()?;
    (expiry > unix_now).then(|| password(expiry, salt, secret))
}

fn password(expiry: u64, salt: &str, secret: &str) -> String {
    STANDARD_NO_PAD.encode(Sha256::digest(format!("{expiry}:{secret}:{salt}")))
}

/// Reads the secret that portal and relay share; makes a random one (mode 0600) when there is none,
/// so that whichever of the two starts first creates it and the other finds it whole.
///
/// # Errors
/// When the file or its directory cannot be read or written, or the file holds only white space.
pub fn read_or_create_secret(path: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => return trimmed(&text, path),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    }
    create_secret(path).with_context(|| format!("cannot create {}", path.display()))?;
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    trimmed(&text, path)
}

fn trimmed(text: &str, path: &Path) -> anyhow::Result<String> {
    let secret = text.trim();
    if secret.is_empty() {
        bail!(
            "{} is empty; delete it to have a new secret made",
            path.display()
        );
    }
    Ok(secret.to_owned())
}

/// Writes beside the target and links it into place: the link fails when the other program was
/// faster, and nobody ever sees half a secret.
fn create_secret(path: &Path) -> anyhow::Result<()> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let mut staging = path.as_os_str().to_owned();
    staging.push(format!(".{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staging)?;
    writeln!(file, "{}", data_encoding::HEXLOWER.encode(&random))?;
    let linked = std::fs::hard_link(&staging, path);
    std::fs::remove_file(&staging)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const GATEWAY_KEY: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

    #[test]
    fn credentials_match_the_protocol_pages_vector() {
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

    #[test]
    fn a_missing_secret_is_made_once_and_for_the_owner_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("relay.secret");
        let first = read_or_create_secret(&path).expect("created");
        let second = read_or_create_secret(&path).expect("read");
        assert_eq!(first, second);
        assert_eq!(first.len(), 64);
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let entries = std::fs::read_dir(dir.path()).expect("readable").count();
        assert_eq!(entries, 1, "no staging file stays behind");
    }

    #[test]
    fn an_empty_secret_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("relay.secret");
        std::fs::write(&path, " \n").expect("written");
        let error = read_or_create_secret(&path).expect_err("refused");
        assert!(error.to_string().contains("is empty"), "{error}");
    }
}
