//! Asks a gateway that runs on this host, over its unix socket.

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A gateway that can be asked.
#[derive(Clone, Debug)]
pub struct AdminClient {
    socket: PathBuf,
}

/// What it said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP's.
    pub status: StatusCode,
    body: Bytes,
}

impl Answer {
    /// Its JSON.
    ///
    /// # Errors
    ///
    /// When it is something else: the gateway's own words, or those of another program.
    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let said = serde_json::from_slice(&self.body);
        said.with_context(|| format!("the gateway said {} {}", self.status, self.text().trim()))
    }

    /// As it came.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl AdminClient {
    /// Of the gateway with this `admin.socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks for `path`, with its query.
    ///
    /// # Errors
    ///
    /// When no gateway answers there, with the remedy.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.request(Method::GET, path).await
    }

    /// As [`Self::get`], with another method.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub async fn request(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        match timeout(PATIENCE, self.exchange(method, path)).await {
            Ok(answer) => answer,
            Err(_) => bail!(
                "the gateway at {} does not answer within {} s",
                self.socket.display(),
                PATIENCE.as_secs()
            ),
        }
    }

    async fn exchange(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "no gateway answers at {}; is it running, and is this its configuration and user?",
                self.socket.display()
            )
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its end comes with the answer's.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "postern")
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok(Answer { status, body })
    }
}

/// Longer than the gateway itself waits for anybody.
const PATIENCE: Duration = Duration::from_secs(5);
