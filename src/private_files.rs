//! Files, directories and sockets that only the gateway's user can open.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The path of a file that belongs to the one at `path`: its name with `.suffix`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = [path.as_os_str(), OsStr::new("."), OsStr::new(suffix)];
    name.into_iter().collect::<std::ffi::OsString>().into()
}

/// The directory of the file at `path`; `.` where the path has no other.
pub(crate) fn directory_of(path: &Path) -> &Path {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

/// Creates the directory of the file at `path` and those above it, where they are missing, with
/// mode 0700.
pub(crate) fn create_directory_of(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(directory_of(path))
}

/// Removes a file; it is no error when there is none.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Listens on a socket of mode 0600 at `path`, and creates its directory if need be. Replaces the
/// socket of a process that has ended, and nothing else.
pub(crate) fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    create_directory_of(path)?;
    refuse_occupied(path)?;
    // Bound under another name, so that no other user can connect before the mode is set.
    let unready = beside(path, "new");
    remove_if_there(&unready)?;
    let listener = UnixListener::bind(&unready)?;
    fs::set_permissions(&unready, Permissions::from_mode(0o600))?;
    fs::rename(&unready, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn refuse_occupied(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("something that is no socket is there"));
    }
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::other("another gateway answers there"));
    }
    Ok(())
}
