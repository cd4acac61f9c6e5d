//! The control socket: one JSON command a line, one JSON answer a line.
//!
//! Tells what the client knows and changes nothing. Every answer has `ok`; a refused command has
//! `error` beside it. Only the owner of the process can connect (the socket has mode 0600).
//!
//! * `{"op":"names"}`: `names`, each with `name`, `proxy_ips`, `resources` (the narrowest first)
//!   and `announced`: for each `gateway` and `resource` a `state` (`pending`, `confirmed`,
//!   `failed`) and how many packets are `held`.

use super::SharedRouter;
use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    Names,
}

/// The socket. Dropping it removes its file.
pub struct Inspector {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Inspector {
    /// Makes the socket and answers on it. The file of a dead client is replaced.
    ///
    /// # Errors
    /// When something else is at `path`, another client answers there, or it cannot be made.
    pub fn start(path: &Path, routes: SharedRouter) -> anyhow::Result<Self> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path)
            .with_context(|| format!("cannot make the control socket {}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            path: path.to_owned(),
            task: tokio::spawn(serve(listener, routes)),
        })
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        self.task.abort();
        // Nothing to be done about a failure: the next client finds a stale socket.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    anyhow::ensure!(
        metadata.file_type().is_socket(),
        "{} is in the way of the control socket",
        path.display()
    );
    anyhow::ensure!(
        std::os::unix::net::UnixStream::connect(path).is_err(),
        "another client answers on {}",
        path.display()
    );
    std::fs::remove_file(path)
        .with_context(|| format!("cannot remove the stale socket {}", path.display()))
}

async fn serve(listener: UnixListener, routes: SharedRouter) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tracing::warn!("the control socket is broken");
            return;
        };
        let routes = routes.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &routes).await {
                tracing::debug!(%error, "a control connection failed");
            }
        });
    }
}

async fn converse(stream: UnixStream, routes: &SharedRouter) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(MAX_LINE_BYTES);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        let answer = execute(&line, routes);
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}

fn execute(line: &[u8], routes: &SharedRouter) -> Value {
    match serde_json::from_slice(line) {
        Ok(Command::Names) => json!({"ok": true, "names": routes.lock().names()}),
        Err(error) => json!({"ok": false, "error": error.to_string()}),
    }
}

/// The longest command.
const MAX_LINE_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::super::wire::{Resource, ResourceId, ResourceKind};
    use super::*;

    async fn tell(path: &Path, line: &str) -> Value {
        let mut stream = UnixStream::connect(path).await.expect("connects");
        let line = format!("{line}\n");
        stream.write_all(line.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        let mut reader = BufReader::new(stream);
        reader.read_line(&mut answer).await.expect("reads");
        serde_json::from_str(&answer).expect("JSON")
    }

    #[tokio::test]
    async fn lists_names_and_leaves_no_file_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("client.sock");
        let routes = SharedRouter::default();
        let id = ResourceId(uuid::Uuid::from_u128(1));
        routes.lock().replace_resources(vec![Resource {
            id,
            name: String::new(),
            kind: ResourceKind::Dns("*.lab.example".into()),
            filters: Vec::new(),
        }]);
        let asked_at = tokio::time::Instant::now().into_std();
        routes.lock().handle_question("app.lab.example", asked_at);
        // One that a dead client left behind does not stand in the way.
        drop(UnixListener::bind(&path).expect("binds"));
        let inspector = Inspector::start(&path, routes.clone()).expect("starts");
        assert!(Inspector::start(&path, routes).is_err());
        let answer = tell(&path, r#"{"op":"names"}"#).await;
        assert_eq!(answer["ok"], true);
        let name = &answer["names"][0];
        assert_eq!(name["name"], "app.lab.example");
        assert_eq!(name["proxy_ips"][0], "100.96.0.1");
        assert_eq!(name["proxy_ips"].as_array().map(Vec::len), Some(8));
        assert_eq!(name["resources"], json!([id]));
        assert_eq!(name["announced"], json!([]));
        let refusal = tell(&path, r#"{"op":"nonsense"}"#).await;
        assert_eq!(refusal["ok"], false);
        drop(inspector);
        assert!(!path.exists());
    }
}
