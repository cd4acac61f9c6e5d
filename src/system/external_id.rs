//! The external id: the permanent name of this machine at the portal.
//!
//! Sources, in this order: the configuration; the id file, written by this program (64 hex digits)
//! or by a Firezone gateway (`{"id":"<64 hex>"}`, docs/protocol.md 7); the machine id of systemd,
//! hashed so that it cannot be derived from the external id; random bytes. A new id is kept in the
//! file.
//!
//! An id file that exists but cannot be used stops the start: with a new id, the portal would see a
//! new gateway. A directory that is not writable is only a warning.

use crate::config::PortalConfig;
use crate::private_files::{beside, create_directory_of};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tracing::{debug, warn};

/// The reason why there is no external id.
#[derive(Debug, thiserror::Error)]
pub enum ExternalIdError {
    /// The file exists, but cannot be read.
    #[error(
        "portal.id_file {path:?} cannot be read: {source}; make it readable for the gateway's user"
    )]
    Unreadable { path: PathBuf, source: io::Error },
    /// The file does not hold an id.
    #[error(
        "portal.id_file {path:?} holds no id (64 hex digits, or JSON with such an \"id\"); restore it, or remove it to \
         register as a new gateway"
    )]
    Invalid { path: PathBuf },
    /// The kernel gives no random bytes.
    #[error("no random id can be made: {0}; set portal.id")]
    NoRandomness(String),
}

/// The external id, as configured or as kept. Creates and keeps one if there is none yet.
pub fn external_id(config: &PortalConfig) -> Result<String, ExternalIdError> {
    if let Some(id) = &config.id {
        return Ok(id.clone());
    }
    from_file_or_new(&config.id_file, Path::new(MACHINE_ID))
}

fn from_file_or_new(id_file: &Path, machine_id: &Path) -> Result<String, ExternalIdError> {
    let path = id_file.to_owned();
    match fs::read_to_string(id_file) {
        Ok(text) => parse(&text).ok_or(ExternalIdError::Invalid { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = match from_machine_id(machine_id) {
                Some(id) => id,
                None => random()?,
            };
            keep(id_file, &id);
            Ok(id)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(ExternalIdError::Invalid { path })
        }
        Err(source) => Err(ExternalIdError::Unreadable { path, source }),
    }
}

/// Parses either format. Keeps the case, because the portal compares ids byte by byte.
fn parse(text: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Json {
        id: String,
    }
    let id = match serde_json::from_str::<Json>(text) {
        Ok(json) => json.id,
        Err(_) => text.trim().to_owned(),
    };
    let valid = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then_some(id)
}

/// `None` on systems without a machine id, and in container images with an empty or unset one.
fn from_machine_id(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let machine_id = text.trim();
    let valid = machine_id.len() == 32 && machine_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !valid {
        return None;
    }
    let mut hash = Sha256::new();
    hash.update(APPLICATION);
    hash.update(machine_id);
    Some(HEXLOWER.encode(&hash.finalize()))
}

fn random() -> Result<String, ExternalIdError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| ExternalIdError::NoRandomness(error.to_string()))?;
    Ok(HEXLOWER.encode(&bytes))
}

fn keep(path: &Path, id: &str) {
    match write(path, id) {
        Ok(()) => debug!(?path, "external id kept"),
        Err(error) => warn!(
            ?path,
            %error,
            "the external id cannot be kept: after a move to another machine or container the portal sees a new \
             gateway; make the directory of portal.id_file writable, or set portal.id"
        ),
    }
}

/// Writes another file and renames it, so that a crash leaves the whole id or none.
fn write(path: &Path, id: &str) -> io::Result<()> {
    create_directory_of(path)?;
    let new = beside(path, "new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new)?;
    writeln!(file, "{id}")?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// The file of machine-id(5).
const MACHINE_ID: &str = "/etc/machine-id";
/// Binds the hash to this program, as machine-id(5) requires. Must never change.
const APPLICATION: &[u8] = b"postern gateway external id 1:";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    struct Fixture {
        directory: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a temporary directory");
            Self { directory }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn id(&self) -> Result<String, ExternalIdError> {
            from_file_or_new(&self.path("state/id"), &self.path("machine-id"))
        }
    }

    #[test]
    fn a_random_id_is_kept_for_the_next_start_with_mode_0600() {
        let fixture = Fixture::new();
        let first = fixture.id().expect("an id");
        assert_eq!(parse(&first), Some(first.clone()));
        assert_eq!(fixture.id().expect("an id"), first);
        let mode = |name| {
            fixture
                .path(name)
                .metadata()
                .expect("exists")
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!((mode("state"), mode("state/id")), (0o700, 0o600));
        assert_ne!(Fixture::new().id().expect("an id"), first);
    }

    #[test]
    fn the_machine_id_determines_the_id_but_is_not_visible_in_it() {
        let (one, two) = (Fixture::new(), Fixture::new());
        let machine_id = "0123456789abcdef0123456789abcdef";
        for fixture in [&one, &two] {
            fs::write(fixture.path("machine-id"), format!("{machine_id}\n")).expect("writable");
        }
        let id = one.id().expect("an id");
        assert_eq!(two.id().expect("an id"), id);
        assert!(!id.contains(machine_id));
    }

    #[test]
    fn an_unset_machine_id_is_not_used() {
        let fixture = Fixture::new();
        for text in ["", "uninitialized\n", "0123"] {
            fs::write(fixture.path("machine-id"), text).expect("writable");
            assert_eq!(
                from_machine_id(&fixture.path("machine-id")),
                None,
                "{text:?}"
            );
        }
    }

    #[test]
    fn both_formats_of_the_file_are_read() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(parse(&format!("{id}\n")), Some(id.clone()));
        assert_eq!(parse(&format!("{{\"id\":\"{id}\"}}")), Some(id));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_a_new_gateway() {
        let fixture = Fixture::new();
        fs::create_dir(fixture.path("state")).expect("writable");
        for bytes in [b"".as_slice(), b"{}", b"\xff\xfe", b"not an id"] {
            fs::write(fixture.path("state/id"), bytes).expect("writable");
            let error = fixture.id().expect_err("no id");
            assert!(matches!(error, ExternalIdError::Invalid { .. }), "{error}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_created_is_not_fatal() {
        let fixture = Fixture::new();
        fs::write(
            fixture.path("state"),
            "a file where the directory should be",
        )
        .expect("writable");
        let below_a_file = fixture.id().expect_err("cannot even be looked at");
        assert!(matches!(below_a_file, ExternalIdError::Unreadable { .. }));
        // A file system that takes no files, even from root.
        let unwritable =
            from_file_or_new(Path::new("/proc/postern/id"), &fixture.path("machine-id"));
        assert!(unwritable.is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_files_never_panic(text in any::<String>()) {
            if let Some(id) = parse(&text) {
                prop_assert_eq!(id.len(), 64);
            }
        }
    }
}
