//! The listening sockets of the admin interface. Bound once, shared by all instances of the
//! AdminActor.

use crate::config::AdminConfig;
use crate::private_files::bind_socket;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// The unix socket and the TCP sockets, listening.
#[derive(Debug)]
pub struct AdminListeners {
    unix: UnixListener,
    tcp: Vec<TcpListener>,
    socket: PathBuf,
    is_owner: bool,
}

/// A socket that cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The socket of `admin.socket`.
    #[error("admin.socket {path} cannot be made: {source}; choose another place for it")]
    Unix { path: String, source: io::Error },
    /// An address of `admin.listen`.
    #[error(
        "admin.listen: {address} cannot be used: {source}; `ss -tlpn` shows who has it, another \
         address or an empty list helps"
    )]
    Tcp {
        address: SocketAddr,
        source: io::Error,
    },
}

impl AdminListeners {
    /// Listens as configured. Replaces the socket file of a process that has ended.
    pub fn bind(config: &AdminConfig) -> Result<Self, ListenError> {
        let unix = bind_socket(&config.socket).map_err(|source| ListenError::Unix {
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

    /// The same sockets for another instance.
    pub fn try_clone(&self) -> io::Result<Self> {
        let tcp = self.tcp.iter().map(TcpListener::try_clone);
        Ok(Self {
            unix: self.unix.try_clone()?,
            tcp: tcp.collect::<io::Result<_>>()?,
            socket: self.socket.clone(),
            is_owner: false,
        })
    }

    /// Registers duplicates of the sockets with this thread's event loop.
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
            // The next process replaces a socket file that is left.
            let _ = fs::remove_file(&self.socket);
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn config(directory: &Path) -> AdminConfig {
        AdminConfig {
            socket: directory.join("run/admin.sock"),
            listen: Vec::new(),
        }
    }

    #[test]
    fn only_its_owner_can_open_the_socket_and_it_ends_with_the_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(directory.path());
        let listeners = AdminListeners::bind(&config).expect("free");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&config.socket), 0o600);
        assert_eq!(mode(&directory.path().join("run")), 0o700);
        drop(listeners.try_clone().expect("descriptors are left"));
        assert!(config.socket.exists(), "an instance that ends leaves it");
        drop(listeners);
        assert!(!config.socket.exists());
    }

    #[test]
    fn a_running_gateway_keeps_its_socket_and_a_dead_one_loses_it() {
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
        AdminListeners::bind(&config).expect("no process answers there");
    }

    #[test]
    fn a_file_at_the_path_of_the_socket_is_kept() {
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
