//! The control socket: one JSON command a line, one JSON answer a line.
//!
//! Every answer has `ok`; a refused command has `error` beside it. Only the owner of the portal's
//! process can connect (the socket has mode 0600).

use super::clock::Moment;
use super::hub::{Command, Load, Outcome};
use super::server::Shared;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, info};

/// The longest command; a pushed frame may be large on purpose.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// The socket file, removed when dropped.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Makes the socket. A stale one of a dead portal is replaced.
    ///
    /// # Errors
    /// When something else is at `path`, another portal answers there, or it cannot be made.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
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

    /// Answers commands. Never returns unless the socket breaks.
    ///
    /// # Errors
    /// When the socket breaks.
    pub async fn serve(&self, shared: &Arc<Shared>) -> anyhow::Result<()> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                if let Err(error) = converse(stream, &shared).await {
                    debug!(%error, "control connection failed");
                }
            });
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Nothing to be done about a failure: the next portal finds a stale socket.
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
        bail!("another portal answers on {}", path.display());
    }
    std::fs::remove_file(path)
        .with_context(|| format!("cannot remove the stale socket {}", path.display()))
}

async fn converse(stream: UnixStream, shared: &Shared) -> anyhow::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(MAX_LINE_BYTES);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let (mut answer, whole) = match line.last() {
            Some(b'\n') => (execute(&line, shared).await, true),
            _ => (Err("the line is too long or not ended".to_owned()), false),
        };
        let answer = match &mut answer {
            Ok(members) => {
                members["ok"] = json!(true);
                members.take()
            }
            Err(error) => json!({ "ok": false, "error": error }),
        };
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
        if !whole {
            return Ok(());
        }
    }
}

async fn execute(line: &[u8], shared: &Shared) -> Result<Value, String> {
    let command: Command = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if let Command::Authorize(load) = command {
        return measure(&load, shared).await;
    }
    let ticket = |outcome: &Outcome| match outcome {
        Outcome::Done(_) => None,
        Outcome::Later(ticket) => Some(*ticket),
    };
    let (outcome, settled) =
        shared.with_ticket(|hub| hub.handle_command(command, Moment::now()), ticket)?;
    match outcome {
        Outcome::Done(members) => Ok(members),
        Outcome::Later(_) => {
            let micros = settled.await.map_err(|_| "the portal stops".to_owned())??;
            Ok(json!({ "micros": micros }))
        }
    }
}

/// One set-up after another, so that each is measured alone. Stops at the first that fails.
async fn measure(load: &Load, shared: &Shared) -> Result<Value, String> {
    let mut micros = Vec::new();
    for index in 0..load.count {
        let (_, settled) = shared.with_ticket(
            |hub| hub.measure(load, index, Moment::now()),
            |ticket| Some(*ticket),
        )?;
        let settled = settled.await.map_err(|_| "the portal stops".to_owned())?;
        micros.push(settled.map_err(|error| format!("set-up {index}: {error}"))?);
    }
    Ok(json!({ "micros": micros }))
}
