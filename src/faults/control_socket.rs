//! The control socket: takes commands for faults, one a line, and answers each with a line.
//!
//! The answer is `ok`, or `error: ` and the reason. A connection may send many lines. Refuses lines
//! that are too long. Only the gateway's own user can connect: the socket has mode 0600.

use super::enabled::{accept_packets, panic_on_packets};
use super::{FaultKind, InjectFault, Target, command};
use crate::private_files::bind_socket;
use actix::{MailboxError, Recipient};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Listens on the socket that `POSTERN_FAULTS` names and sends each fault to `supervisor`, for as
/// long as it is polled. Returns immediately when the variable is not set, or, with a line in the
/// log, when the socket cannot be created.
pub async fn listen(supervisor: Recipient<InjectFault>) {
    let Some(path) = std::env::var_os("POSTERN_FAULTS").map(PathBuf::from) else {
        return;
    };
    if let Err(error) = listen_at(&path, supervisor).await {
        tracing::error!(path = %path.display(), %error, "POSTERN_FAULTS: faults cannot be injected");
    }
}

/// Listens on this socket, as [`listen`]. Returns only when it cannot be created.
pub(super) async fn listen_at(path: &Path, supervisor: Recipient<InjectFault>) -> io::Result<()> {
    let listener = UnixListener::from_std(bind_socket(path)?)?;
    tracing::warn!(path = %path.display(), "whoever may write to this socket can break the gateway");
    serve(listener, supervisor).await
}

async fn serve(listener: UnixListener, supervisor: Recipient<InjectFault>) -> ! {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let supervisor = supervisor.clone();
                actix_rt::spawn(async move {
                    // A peer that has closed the connection needs no answer.
                    let _ = serve_connection(stream, &supervisor).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "POSTERN_FAULTS: a connection is not accepted");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// Serves one connection until it ends.
async fn serve_connection(
    stream: UnixStream,
    supervisor: &Recipient<InjectFault>,
) -> io::Result<()> {
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
            Ok(command) => execute(command, supervisor).await,
            Err(_) => Err("not UTF-8".to_owned()),
        };
        let answer = match done {
            Ok(()) => "ok\n".to_owned(),
            Err(reason) => format!("error: {reason}\n"),
        };
        writer.write_all(answer.as_bytes()).await?;
        // The start of the next line is unknown.
        if is_too_long {
            return Ok(());
        }
    }
}

async fn execute(command: &str, supervisor: &Recipient<InjectFault>) -> Result<(), String> {
    let (target, kind) = command::parse(command)?;
    match (target, kind) {
        (Target::Connection(Some(client)), FaultKind::PanicOnPackets) => panic_on_packets(client),
        (Target::Connection(client), FaultKind::AcceptPackets) => accept_packets(client),
        (_, _) => {
            let sent = supervisor.send(InjectFault { target, kind });
            return match sent.timeout(ANSWER_WITHIN).await {
                Ok(result) => result,
                Err(MailboxError::Closed) => Err("the supervisor is gone".to_owned()),
                Err(MailboxError::Timeout) => Err("the supervisor does not answer".to_owned()),
            };
        }
    }
    Ok(())
}

/// The longest command has 62 bytes.
const LINE_BYTES_MAX: u64 = 256;
/// A chaos run uses one.
const CONNECTIONS_MAX: usize = 16;
/// The supervisor only passes faults on.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// After an error such as a lack of file descriptors.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(200);
