//! Where the state file may be, and what a file there must look like to be trusted.

use super::StateError;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::unistd::geteuid;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The path of a file that goes with the state file.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Makes sure that the directory of `path` exists, is in memory and is nobody else's.
pub(super) fn prepare(path: &Path) -> Result<(), StateError> {
    let directory = directory_of(path);
    // Looked at before anything is created, so that nothing is left on a disk.
    let existing = directory.ancestors().find(|directory| directory.exists());
    require_memory(path, existing.unwrap_or(Path::new("/")))?;
    let mut builder = DirBuilder::new();
    let created = builder.recursive(true).mode(0o700).create(directory);
    created.map_err(StateError::io(directory))?;
    require_memory(path, directory)?;
    require_own_directory(directory)
}

fn directory_of(path: &Path) -> &Path {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
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

/// Whoever may replace files in the directory can replace ours.
fn require_own_directory(directory: &Path) -> Result<(), StateError> {
    let metadata = directory.metadata().map_err(StateError::io(directory))?;
    let refuse = |why| {
        Err(StateError::Unsafe {
            path: directory.to_owned(),
            why,
        })
    };
    if ![0, geteuid().as_raw()].contains(&metadata.uid()) {
        return refuse("the directory belongs to another user");
    }
    if metadata.mode() & 0o022 != 0 && metadata.mode() & STICKY == 0 {
        return refuse("others may replace files in the directory");
    }
    Ok(())
}

/// Opens a file that only we may have touched; one that is created is for us alone.
pub(super) fn open(options: &OpenOptions, path: &Path) -> Result<File, StateError> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let opened = options.clone().mode(0o600).custom_flags(flags).open(path);
    let refuse = |why| StateError::Unsafe {
        path: path.to_owned(),
        why,
    };
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

/// As [`open`], for reading; `None` if there is no such file.
pub(super) fn open_existing(path: &Path) -> Result<Option<File>, StateError> {
    match open(OpenOptions::new().read(true), path) {
        Ok(file) => Ok(Some(file)),
        Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// From linux/magic.h.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
const STICKY: u32 = 0o1000;
