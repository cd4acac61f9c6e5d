//! A control socket: one JSON command a line, one JSON answer a line.
//!
//! Every answer has `ok`; a refused command has `error` beside it. Only the owner of the process
//! can connect (the socket has mode 0600). Refuses lines beyond a megabyte, and to replace a
//! socket on which another process answers.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, info};

/// The longest command; a tester may push large frames.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// The socket file, removed when dropped.
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Creates the socket. Replaces the stale one of a dead process.
    ///
    /// # Errors
    /// When `path` has another file or a socket with a process behind it, or cannot be created.
    pub(crate) fn bind(path: &Path) -> anyhow::Result<Self> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot make the control socket {}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        info!(path = %path.display(), "control socket");
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers each line with the result of `execute`: the members of an object, or an error.
    /// Returns only when the socket breaks.
    ///
    /// # Errors
    /// When the socket breaks.
    pub(crate) async fn serve<S, E, F>(&self, shared: &Arc<S>, execute: E) -> anyhow::Result<()>
    where
        S: Send + Sync + 'static,
        E: Fn(Vec<u8>, Arc<S>) -> F + Copy + Send + Sync + 'static,
        F: Future<Output = Result<Value, String>> + Send + 'static,
    {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                let answer = |line| execute(line, Arc::clone(&shared));
                if let Err(error) = converse(stream, answer).await {
                    debug!(%error, "control connection failed");
                }
            });
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // After a failure the next process finds a stale socket.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        bail!("{} is in the way of the control socket", path.display());
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another process answers on {}", path.display());
    }
    std::fs::remove_file(path)
        .with_context(|| format!("cannot remove the stale socket {}", path.display()))
}

async fn converse<F>(stream: UnixStream, execute: impl Fn(Vec<u8>) -> F) -> anyhow::Result<()>
where
    F: Future<Output = Result<Value, String>>,
{
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(MAX_LINE_BYTES);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        let answer = match whole {
            true => execute(line).await,
            false => Err("the line is too long or not ended".to_owned()),
        };
        let answer = match answer {
            Ok(mut members) => {
                members["ok"] = json!(true);
                members
            }
            Err(error) => json!({ "ok": false, "error": error }),
        };
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
        if !whole {
            return Ok(());
        }
    }
}
