//! The control socket: takes orders for faults, one a line, and answers each with a line.
//!
//! The answer is `ok`, or `error: ` and the reason. A connection may send many lines. Refuses lines
//! that are too long, and whoever is not the gateway's own user: the socket has mode 0600.

use super::armed::{calm, poison};
use super::{FaultKind, InjectFault, Target, line};
use actix::{MailboxError, Recipient};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Takes orders on the socket that `POSTERN_FAULTS` names for as long as it is polled, and has
/// `supervisor` carry them out. Ends at once when the variable is not set; when the socket cannot
/// be made, with a line in the log.
pub async fn listen(supervisor: Recipient<InjectFault>) {
    let Some(path) = std::env::var_os("POSTERN_FAULTS").map(PathBuf::from) else {
        return;
    };
    if let Err(error) = listen_at(&path, supervisor).await {
        tracing::error!(path = %path.display(), %error, "POSTERN_FAULTS: faults cannot be injected");
    }
}

/// As [`listen`], on this socket. Returns only when it cannot be made.
pub(super) async fn listen_at(path: &Path, supervisor: Recipient<InjectFault>) -> io::Result<()> {
    let listener = open(path)?;
    tracing::warn!(path = %path.display(), "whoever may write to this socket can break the gateway");
    serve(listener, supervisor).await
}

/// Nobody can connect before `listen`, and the mode is set by then.
fn open(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

/// Removes the socket of a process that is gone; nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type().is_socket(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !is_socket {
        return Err(io::Error::other("there is something else than a socket"));
    }
    match BlockingStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("another process listens there")),
    }
}

async fn serve(listener: UnixListener, supervisor: Recipient<InjectFault>) -> ! {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let seat = Arc::clone(&seats).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let supervisor = supervisor.clone();
                actix_rt::spawn(async move {
                    // Whoever hangs up does not want to hear why.
                    let _ = talk(stream, &supervisor).await;
                    drop(seat);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "POSTERN_FAULTS: a connection is not accepted");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// One connection, until it ends.
async fn talk(stream: UnixStream, supervisor: &Recipient<InjectFault>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let mut limited = (&mut reader).take(LINE_BYTES_MAX + 1);
        limited.read_until(b'\n', &mut bytes).await?;
        if bytes.is_empty() {
            return Ok(());
        }
        let is_too_long = bytes.len() as u64 > LINE_BYTES_MAX;
        let done = match str::from_utf8(&bytes) {
            _ if is_too_long => Err(format!("a line of more than {LINE_BYTES_MAX} bytes")),
            Ok(order) => carry_out(order, supervisor).await,
            Err(_) => Err("not UTF-8".to_owned()),
        };
        let answer = match done {
            Ok(()) => "ok\n".to_owned(),
            Err(reason) => format!("error: {reason}\n"),
        };
        writer.write_all(answer.as_bytes()).await?;
        // Where the next line would begin, nobody knows.
        if is_too_long {
            return Ok(());
        }
    }
}

async fn carry_out(order: &str, supervisor: &Recipient<InjectFault>) -> Result<(), String> {
    let (target, kind) = line::parse(order)?;
    match (target, kind) {
        (Target::Connection(Some(client)), FaultKind::PanicOnPackets) => poison(client),
        (Target::Connection(client), FaultKind::Calm) => calm(client),
        (_, _) => {
            let order = supervisor.send(InjectFault { target, kind });
            return order
                .timeout(ANSWER_WITHIN)
                .await
                .unwrap_or_else(|error| match error {
                    MailboxError::Closed => Err("the supervisor is gone".to_owned()),
                    MailboxError::Timeout => Err("the supervisor does not answer".to_owned()),
                });
        }
    }
    Ok(())
}

/// The longest order has 62 bytes.
const LINE_BYTES_MAX: u64 = 256;
/// A chaos run needs one.
const CONNECTIONS_MAX: usize = 16;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;
/// The supervisor only passes orders on.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// For want of file descriptors, say.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(200);
