//! Where the state file may be, and which files there are trusted.

use super::StateError;
use crate::private_files::{create_directory_of, directory_of};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::unistd::geteuid;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Makes sure that the directory of `path` exists, is in memory and is writable for this user
/// alone.
pub(super) fn prepare(path: &Path) -> Result<(), StateError> {
    let directory = directory_of(path);
    // Checked before anything is created, so that nothing is left on a disk.
    let existing = directory.ancestors().find(|directory| directory.exists());
    require_memory(path, existing.unwrap_or(Path::new(".")))?;
    create_directory_of(path).map_err(StateError::io(directory))?;
    require_memory(path, directory)?;
    require_own_directory(directory)
}

fn require_memory(path: &Path, directory: &Path) -> Result<(), StateError> {
    let found = statfs(directory).map_err(|error| StateError::io(directory)(error.into()))?;
    match found.filesystem_type() {
        TMPFS_MAGIC | RAMFS_MAGIC => Ok(()),
        _ => Err(StateError::NotInMemory {
            path: path.to_owned(),
            directory: directory.to_owned(),
        }),
    }
}

/// Refuses a directory in which another user may replace the state file.
fn require_own_directory(directory: &Path) -> Result<(), StateError> {
    let metadata = directory.metadata().map_err(StateError::io(directory))?;
    let refuse = |why| Err(StateError::refused(directory, why));
    if ![0, geteuid().as_raw()].contains(&metadata.uid()) {
        return refuse("the directory belongs to another user");
    }
    if metadata.mode() & 0o022 != 0 && metadata.mode() & STICKY == 0 {
        return refuse("others may replace files in the directory");
    }
    Ok(())
}

/// Opens a file that no other user can have written or can read. A new file gets mode 0600.
pub(super) fn open(options: &OpenOptions, path: &Path) -> Result<File, StateError> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let opened = options.clone().mode(0o600).custom_flags(flags).open(path);
    let refuse = |why| StateError::refused(path, why);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ELOOP) => refuse("it is a symbolic link"),
        Some(_) | None => StateError::io(path)(error),
    })?;
    let metadata = file.metadata().map_err(StateError::io(path))?;
    if !metadata.is_file() {
        return Err(refuse("it is no regular file"));
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(refuse("it belongs to another user"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refuse(
            "others may read or write it (its mode must be 0600)",
        ));
    }
    Ok(file)
}

/// Opens a file for reading, as [`open`]; `None` if there is no such file.
pub(super) fn open_existing(path: &Path) -> Result<Option<File>, StateError> {
    match open(OpenOptions::new().read(true), path) {
        Ok(file) => Ok(Some(file)),
        Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The value in linux/magic.h.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
const STICKY: u32 = 0o1000;
