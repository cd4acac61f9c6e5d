//! The state file itself: read once at the start, replaced as a whole at every save.

use super::lock::Lock;
use super::{StateError, location};
use crate::private_files::{beside, remove_if_there};
use postern_core::UnixTime;
use postern_core::ledger::LedgerLimits;
use postern_core::ledger::image::{self, ImageError, SavedState};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Upper limit of the file: far more than the largest number of clients takes, and little for the
/// memory of a host.
pub const MAX_STATE_BYTES: usize = 64 * 1024 * 1024;

/// The state file of this process. No other process writes it until this is dropped.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    key: Zeroizing<[u8; 32]>,
    lock: StateLock,
}

/// Keeps other processes from the state file until it and its clones are dropped; the file may be
/// dropped before.
#[derive(Debug, Clone)]
pub struct StateLock(#[expect(dead_code, reason = "it is held, not read")] Arc<Lock>);

impl StateFile {
    /// Claims the state file at `path`, sealed with `key` (see [`super::identity_key`]). Blocks for
    /// at most `patience` while another process still holds it.
    pub fn open(path: &Path, key: [u8; 32], patience: Duration) -> Result<Self, StateError> {
        let key = Zeroizing::new(key);
        location::prepare(path)?;
        location::open_existing(path)?;
        let lock = Lock::take(path, patience)?;
        Ok(Self {
            path: path.to_owned(),
            key,
            lock: StateLock(Arc::new(lock)),
        })
    }

    /// A clone of the lock, which may outlive the file.
    pub fn lock(&self) -> StateLock {
        self.lock.clone()
    }

    /// How many processes in a row have taken this state over, as noted by
    /// [`Self::note_attempts`].
    pub fn attempts(&self) -> u32 {
        let noted = fs::read_to_string(beside(&self.path, "attempts"));
        noted.map_or(0, |text| text.trim().parse().unwrap_or(0))
    }

    /// Notes the number of attempts; 0 removes the note. An attempt that cannot be noted does not
    /// count.
    pub fn note_attempts(&self, attempts: u32) {
        let path = beside(&self.path, "attempts");
        let _ = match attempts {
            0 => remove_if_there(&path),
            _ => fs::write(&path, attempts.to_string()),
        };
    }

    /// The saved state, if there is one that is at most `max_age` old.
    /// On an error, the file stays.
    pub fn load(
        &self,
        now: UnixTime,
        max_age: Duration,
        limits: LedgerLimits,
    ) -> Result<Option<SavedState>, StateError> {
        let Some(file) = location::open_existing(&self.path)? else {
            return Ok(None);
        };
        let bytes = self.read(file)?;
        let state = image::decode(&bytes, &self.key, limits);
        let state = state.map_err(|source| self.unusable(source))?;
        self.require_fresh(state.saved_at, now, max_age)?;
        Ok(Some(state))
    }

    fn read(&self, mut file: File) -> Result<Zeroizing<Vec<u8>>, StateError> {
        let metadata = file.metadata().map_err(StateError::io(&self.path))?;
        let bytes = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        if bytes > MAX_STATE_BYTES {
            let limit = MAX_STATE_BYTES;
            return Err(self.unusable(ImageError::TooLarge { bytes, limit }));
        }
        // Allocated once: a vector that grows leaves secrets behind in its former place.
        let mut image = Zeroizing::new(vec![0; bytes]);
        match file.read_exact(&mut image) {
            Ok(()) => Ok(image),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(self.unusable(ImageError::TooShort))
            }
            Err(error) => Err(StateError::io(&self.path)(error)),
        }
    }

    fn unusable(&self, source: ImageError) -> StateError {
        StateError::Unusable {
            path: self.path.clone(),
            source,
        }
    }

    fn require_fresh(
        &self,
        saved_at: UnixTime,
        now: UnixTime,
        max_age: Duration,
    ) -> Result<(), StateError> {
        let path = self.path.clone();
        let ahead = Duration::from_secs(saved_at.0.saturating_sub(now.0));
        if ahead > CLOCK_SKEW {
            return Err(StateError::FromTheFuture { path, ahead });
        }
        let age = Duration::from_secs(now.0.saturating_sub(saved_at.0));
        if age > max_age {
            return Err(StateError::Stale { path, age, max_age });
        }
        Ok(())
    }

    /// Replaces the file as a whole: a reader finds the former state or this one.
    ///
    /// # Errors
    /// Those of the file system, and [`ErrorKind::FileTooLarge`] beyond [`MAX_STATE_BYTES`]; the
    /// former state then stays as it is.
    pub fn save(&mut self, state: &SavedState) -> io::Result<()> {
        let image = image::encode(state, &self.key, MAX_STATE_BYTES)
            .map_err(|error| io::Error::new(ErrorKind::FileTooLarge, error))?;
        let new = beside(&self.path, "new");
        let saved = write_new(&new, &image).and_then(|()| fs::rename(&new, &self.path));
        if saved.is_err() {
            // Half a state is useless and takes the room that the next attempt needs.
            let _ = remove_if_there(&new);
        }
        saved
    }

    /// Removes the file: the next process begins without a state.
    pub fn remove(&mut self) -> io::Result<()> {
        remove_if_there(&beside(&self.path, "new"))?;
        self.note_attempts(0);
        remove_if_there(&self.path)
    }
}

/// Creates the file and never opens an existing one, so that no link leads elsewhere.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove_if_there(path)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path)?.write_all(bytes)
}

/// How far two clocks, or one clock before and after it was set, may disagree.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
