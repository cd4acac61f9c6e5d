//! The control socket, which lists the client's state and changes nothing.
//!
//! * `{"op":"names"}`: `names`, each with `name`, `proxy_ips`, `resources` (the narrowest first)
//!   and `announced`: for each `gateway` and `resource` a `state` (`pending`, `confirmed`,
//!   `failed`) and how many packets are `held`.

use super::data_plane::SharedRouter;
use crate::control_socket::ControlSocket;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    Names,
}

/// Answers on the socket, if there is one. Never returns; dropping the future removes the file.
pub(super) async fn serve(socket: Option<ControlSocket>, routes: SharedRouter) {
    if let Some(socket) = &socket
        && let Err(error) = socket.serve(&Arc::new(routes), execute).await
    {
        tracing::warn!(%error, "the control socket is broken");
    }
    std::future::pending().await
}

async fn execute(line: Vec<u8>, routes: Arc<SharedRouter>) -> Result<Value, String> {
    match serde_json::from_slice(&line) {
        Ok(Command::Names) => Ok(json!({"names": routes.lock().names.list()})),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::now;
    use super::super::vocabulary::ResourceId;
    use super::super::wire::{Resource, ResourceKind};
    use super::*;
    use std::path::Path;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{UnixListener, UnixStream};

    async fn request(path: &Path, line: &str) -> Value {
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
        let routes = Arc::new(SharedRouter::default());
        let id = ResourceId(uuid::Uuid::from_u128(1));
        routes.lock().replace_resources(vec![Resource {
            id,
            kind: ResourceKind::Dns("*.lab.example".into()),
            filters: Vec::new(),
        }]);
        routes
            .lock()
            .names
            .handle_question("app.lab.example", now());
        // The socket file of a dead client is no obstacle.
        drop(UnixListener::bind(&path).expect("binds"));
        let socket = ControlSocket::bind(&path).expect("binds");
        assert!(ControlSocket::bind(&path).is_err());
        let server = tokio::spawn(async move { socket.serve(&routes, execute).await });
        let answer = request(&path, r#"{"op":"names"}"#).await;
        assert_eq!(answer["ok"], true);
        let name = &answer["names"][0];
        assert_eq!(name["name"], "app.lab.example");
        assert_eq!(name["proxy_ips"][0], "100.96.0.1");
        assert_eq!(name["proxy_ips"].as_array().map(Vec::len), Some(8));
        assert_eq!(name["resources"], json!([id]));
        assert_eq!(name["announced"], json!([]));
        let refusal = request(&path, r#"{"op":"nonsense"}"#).await;
        assert_eq!(refusal["ok"], false);
        server.abort();
        assert!(server.await.is_err_and(|error| error.is_cancelled()));
        assert!(!path.exists());
    }
}
