//! The sockets at which an operator asks. Bound once, shared by all lives of the AdminActor.

use crate::config::AdminConfig;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Bound and listening.
#[derive(Debug)]
pub struct AdminListeners {
    unix: UnixListener,
    tcp: Vec<TcpListener>,
    socket: PathBuf,
    is_owner: bool,
}

/// Nobody could ask.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The unix socket.
    #[error("admin.socket {path} cannot be made: {source}; choose another place for it")]
    Unix {
        /// As configured.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A TCP address.
    #[error(
        "admin.listen: {address} cannot be used: {source}; `ss -tlpn` shows who has it, another \
         address or an empty list helps"
    )]
    Tcp {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl AdminListeners {
    /// Listens as configured. A socket file that a dead process left is replaced.
    ///
    /// # Errors
    ///
    /// [`ListenError`], with the remedy.
    pub fn bind(config: &AdminConfig) -> Result<Self, ListenError> {
        let unix = bind_unix(&config.socket).map_err(|source| ListenError::Unix {
            path: config.socket.display().to_string(),
            source,
        })?;
        let tcp = config.listen.iter().map(|address| {
            bind_tcp(*address).map_err(|source| ListenError::Tcp {
                address: *address,
                source,
            })
        });
        Ok(Self {
            unix,
            tcp: tcp.collect::<Result<_, _>>()?,
            socket: config.socket.clone(),
            is_owner: true,
        })
    }

    /// The same sockets for another life.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let tcp = self.tcp.iter().map(TcpListener::try_clone);
        Ok(Self {
            unix: self.unix.try_clone()?,
            tcp: tcp.collect::<io::Result<_>>()?,
            socket: self.socket.clone(),
            is_owner: false,
        })
    }

    /// For this thread's event loop.
    ///
    /// # Errors
    ///
    /// When the event loop does not take them.
    pub(super) fn register(
        &self,
    ) -> io::Result<(tokio::net::UnixListener, Vec<tokio::net::TcpListener>)> {
        let unix = tokio::net::UnixListener::from_std(self.unix.try_clone()?)?;
        let tcp = self.tcp.iter();
        let tcp = tcp.map(|tcp| tokio::net::TcpListener::from_std(tcp.try_clone()?));
        Ok((unix, tcp.collect::<io::Result<_>>()?))
    }
}

impl Drop for AdminListeners {
    fn drop(&mut self) {
        if self.is_owner {
            // Whoever comes next replaces what is left.
            let _ = fs::remove_file(&self.socket);
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Made under another name and renamed when only its owner can open it.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    make_directory(path)?;
    refuse_occupied(path)?;
    let mut unready = path.as_os_str().to_owned();
    unready.push(".new");
    let unready = PathBuf::from(unready);
    let _left_by_a_dead_process = fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready)?;
    fs::set_permissions(&unready, fs::Permissions::from_mode(0o600))?;
    fs::rename(&unready, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent().filter(|it| !it.as_os_str().is_empty()) {
        Some(directory) => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory),
        None => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(directory: &Path) -> AdminConfig {
        AdminConfig {
            socket: directory.join("run/admin.sock"),
            listen: Vec::new(),
        }
    }

    #[test]
    fn only_its_owner_can_open_the_socket_and_it_goes_with_the_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(directory.path());
        let listeners = AdminListeners::bind(&config).expect("free");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&config.socket), 0o600);
        assert_eq!(mode(&directory.path().join("run")), 0o700);
        drop(listeners.try_clone().expect("descriptors are left"));
        assert!(config.socket.exists(), "a life that ends leaves it");
        drop(listeners);
        assert!(!config.socket.exists());
    }

    #[test]
    fn a_living_gateway_keeps_its_socket_and_a_dead_one_loses_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(directory.path());
        let listeners = AdminListeners::bind(&config).expect("free");
        let error = AdminListeners::bind(&config).expect_err("taken");
        assert!(error.to_string().contains("another gateway"), "{error}");
        // A process that is killed removes nothing.
        let left = directory.path().join("left.sock");
        drop(UnixListener::bind(&left).expect("free"));
        drop(listeners);
        let config = AdminConfig {
            socket: left,
            listen: Vec::new(),
        };
        AdminListeners::bind(&config).expect("nobody answers there");
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = AdminConfig {
            socket: directory.path().join("precious"),
            listen: Vec::new(),
        };
        fs::write(&config.socket, "data").expect("writable");
        let error = AdminListeners::bind(&config).expect_err("no socket");
        assert!(error.to_string().contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&config.socket).expect("there"), "data");
    }

    #[test]
    fn a_taken_address_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
        let address = taken.local_addr().expect("bound");
        let config = AdminConfig {
            socket: directory.path().join("admin.sock"),
            listen: vec![address],
        };
        let error = AdminListeners::bind(&config).expect_err("taken");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
