//! Secrets of the lab's programs: random bytes, keys derived from a seed, and the secret file that
//! portal and relay share.
//!
//! It refuses a secret file that is empty.

use anyhow::{Context, bail};
use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// 32 bytes from the kernel.
///
/// # Errors
/// When the kernel has no randomness.
pub(crate) fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// 32 bytes that only a holder of `seed` can compute, different for each `label`.
pub(crate) fn keyed(seed: &[u8; 32], label: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(seed).expect("HMAC takes keys of every length");
    mac.update(label.as_bytes());
    mac.finalize().into_bytes().into()
}

/// Reads a secret file; makes a random one (mode 0600) when there is none. Portal and relay may
/// start in any order: the first creates the secret, the other finds it whole.
///
/// # Errors
/// When the file or its directory cannot be read or written, or the file holds only white space.
pub(crate) fn read_or_create(path: &Path) -> anyhow::Result<String> {
    let read = |path| std::fs::read_to_string(path);
    let text = match read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(path).with_context(|| format!("cannot create {}", path.display()))?;
            read(path)
        }
        other => other,
    };
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let secret = text.trim();
    if secret.is_empty() {
        bail!(
            "{} is empty; delete it to have a new secret made",
            path.display()
        );
    }
    Ok(secret.to_owned())
}

/// Writes a staging file and links it into place: the link fails when the other program was
/// faster, and no reader sees half a secret.
fn create(path: &Path) -> anyhow::Result<()> {
    let mut staging = path.as_os_str().to_owned();
    staging.push(format!(".{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staging)?;
    writeln!(file, "{}", HEXLOWER.encode(&random()?))?;
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

    #[test]
    fn a_missing_secret_is_made_once_and_for_the_owner_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("relay.secret");
        let first = read_or_create(&path).expect("created");
        let second = read_or_create(&path).expect("read");
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
        let error = read_or_create(&path).expect_err("refused");
        assert!(error.to_string().contains("is empty"), "{error}");
    }
}
