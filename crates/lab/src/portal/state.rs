//! The portal's state file: the seed of all derived keys, and the grants.
//!
//! Without it a restarted portal would list no grants in `init`, and every gateway would rightly
//! cut off every client. The file is replaced as a whole, readable by its owner only.

use super::hub::SavedGrant;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// 64 hexadecimal digits.
    pub(super) seed: String,
    /// All grants that were given and not revoked.
    pub(super) grants: Vec<SavedGrant>,
}

impl State {
    /// The seed as bytes, or `None` when it is not 64 hexadecimal digits.
    pub(super) fn seed_bytes(&self) -> Option<[u8; 32]> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(self.seed.as_bytes());
        bytes.ok()?.try_into().ok()
    }
}

/// Reads the state, `None` when there is no file yet.
///
/// # Errors
/// When the file exists but cannot be read or is not a state file. Starting with an empty state
/// instead would cut off all clients.
pub(super) fn load(path: &Path) -> anyhow::Result<Option<State>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let state: State = serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is no state file; delete it to start anew",
            path.display()
        )
    })?;
    Ok(Some(state))
}

/// Replaces the state file.
///
/// # Errors
/// When the file or its directory cannot be written.
pub(super) fn save(path: &Path, state: &State) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(state)?;
    if let Some(directory) = path.parent()
        && !directory.as_os_str().is_empty()
    {
        std::fs::create_dir_all(directory)?;
    }
    let staging = with_suffix(path, ".new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staging)
        .with_context(|| format!("cannot write {}", staging.display()))?;
    file.write_all(text.as_bytes())?;
    drop(file);
    std::fs::rename(&staging, path).with_context(|| format!("cannot replace {}", path.display()))
}

/// `path` with `suffix` appended to its file name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portal::hub::{Grant, GrantKey};
    use std::os::unix::fs::PermissionsExt;
    use uuid::Uuid;

    #[test]
    fn a_saved_state_is_loaded_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run").join("portal.state");
        assert_eq!(load(&path).expect("no error"), None);
        let grant = SavedGrant {
            key: GrantKey {
                client: Uuid::from_u128(1),
                resource: Uuid::from_u128(2),
            },
            grant: Grant {
                gateway: Uuid::from_u128(3),
                granted_at: 4,
                expires_at: None,
            },
        };
        let state = State {
            seed: "0a".repeat(32),
            grants: vec![grant],
        };
        save(&path, &state).expect("saved");
        save(&path, &state).expect("saved again");
        assert_eq!(load(&path).expect("loaded"), Some(state.clone()));
        assert_eq!(state.seed_bytes(), Some([10; 32]));
        let text = std::fs::read_to_string(&path).expect("there");
        for key in [
            "client_id",
            "resource_id",
            "gateway_id",
            "granted_at",
            "expires_at",
        ] {
            assert!(text.contains(&format!("\"{key}\": ")), "{text}");
        }
        let mode = std::fs::metadata(&path).expect("there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn a_broken_state_file_is_an_error_and_not_an_empty_state() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("portal.state");
        std::fs::write(&path, "{").expect("written");
        let error = load(&path).expect_err("refused").to_string();
        assert!(error.contains("is no state file"), "{error}");
    }
}
