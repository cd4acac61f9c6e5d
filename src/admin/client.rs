//! A client of the gateway on this host, over its unix socket.

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

/// Sends requests to the gateway at one socket.
#[derive(Clone, Debug)]
pub struct AdminClient {
    socket: PathBuf,
}

/// The gateway's answer to a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status code.
    pub status: StatusCode,
    body: Bytes,
}

impl Answer {
    /// The JSON of the answer, whatever its status.
    ///
    /// # Errors
    /// When it is something else: another text of the gateway, or of another program.
    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let parsed = serde_json::from_slice(&self.body);
        parsed.with_context(|| format!("the gateway said {} {}", self.status, self.text().trim()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl AdminClient {
    /// A client of the gateway with this `admin.socket`.
    pub fn new(socket: &Path) -> Self {
        let socket = socket.to_owned();
        Self { socket }
    }

    /// Gets `path`, with its query. Any status is an answer.
    ///
    /// # Errors
    /// When no gateway answers at the socket, with the remedy.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path).await
    }

    /// Sends a request that the gateway grants. Returns the JSON of the answer.
    ///
    /// # Errors
    /// Those of [`Self::get`], and the gateway's own text when the status is not success.
    pub async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> anyhow::Result<T> {
        let answer = self.send(method, path).await?;
        if !answer.status.is_success() {
            bail!("{}", answer.text());
        }
        answer.json()
    }

    async fn send(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        let answer = timeout(ANSWER_WITHIN, self.exchange(method, path)).await;
        answer.unwrap_or_else(|_| {
            bail!(
                "the gateway at {} does not answer within {} s",
                self.socket.display(),
                ANSWER_WITHIN.as_secs()
            )
        })
    }

    async fn exchange(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "no gateway answers at {}; is it running, and is this its configuration and user?",
                self.socket.display()
            )
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the answer.
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

/// Longer than the gateway itself waits for an actor.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
