//! A web server for the lab's private network: a page, bytes by the number, and a trickle.
//!
//! | path            | what comes                                                        |
//! |-----------------|-------------------------------------------------------------------|
//! | `/`             | a page that names both ends of the connection                     |
//! | `/bytes/N`      | N bytes, byte i being i modulo 251, at most 4 GiB                 |
//! | `/drip/SECONDS` | one short line every 20 ms, at most for an hour                   |
//!
//! HTTP/1.0 (RFC 1945): one request per connection. Refuses request heads beyond 8 KiB or 5 s,
//! methods other than GET, and more than 256 connections at a time (the next ones wait).

use anyhow::{Context, Result};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

/// Serves the lab's web page.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address and port; may be repeated.
    #[arg(long, required = true)]
    pub listen: Vec<SocketAddr>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// An address cannot be bound.
pub async fn run(args: Args) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut servers = tokio::task::JoinSet::new();
    for address in args.listen {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        tracing::info!(%address, "serving the web page");
        servers.spawn(serve(listener, Arc::clone(&slots)));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}

const CONNECTIONS_MAX: usize = 256;
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
const BYTES_MAX: u64 = 4 << 30;
const DRIP_SECONDS_MAX: u64 = 3600;
/// How often `/drip` sends a line.
pub const DRIP_INTERVAL: Duration = Duration::from_millis(20);
/// The period of the bytes of `/bytes`: a prime, so that a shift by a power of two shows.
const BYTE_PERIOD: u64 = 251;

/// Accepts for ever.
async fn serve(listener: TcpListener, slots: Arc<Semaphore>) {
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    if let Err(error) = answer(stream).await {
                        tracing::debug!(%error, "a request was not served to its end");
                    }
                    drop(slot);
                });
            }
            // Out of file descriptors, or the peer was gone before we looked: the next may be well.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Page,
    Bytes(u64),
    Drip(u64),
    NotFound,
    WrongMethod,
    Malformed,
}

impl Request {
    /// Reads the request line; headers do not matter.
    fn parse(head: &[u8]) -> Self {
        let line = head.split(|byte| *byte == b'\r' || *byte == b'\n').next();
        let line = line.and_then(|line| std::str::from_utf8(line).ok());
        let mut words = line.unwrap_or_default().split(' ');
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Self::Malformed;
        };
        if method != "GET" {
            return Self::WrongMethod;
        }
        let number = |prefix, max| {
            let number: u64 = path.strip_prefix(prefix)?.parse().ok()?;
            (number <= max).then_some(number)
        };
        if path == "/" {
            return Self::Page;
        }
        if let Some(count) = number("/bytes/", BYTES_MAX) {
            return Self::Bytes(count);
        }
        number("/drip/", DRIP_SECONDS_MAX).map_or(Self::NotFound, Self::Drip)
    }

    fn status(self) -> &'static str {
        match self {
            Self::Page | Self::Bytes(_) | Self::Drip(_) => "200 OK",
            Self::NotFound => "404 Not Found",
            Self::WrongMethod => "405 Method Not Allowed",
            Self::Malformed => "400 Bad Request",
        }
    }
}

/// Serves one connection.
async fn answer(mut stream: TcpStream) -> Result<()> {
    let head = tokio::time::timeout(HEAD_TIME_MAX, read_head(&mut stream)).await??;
    let request = Request::parse(&head);
    let header = |length: Option<u64>| {
        let mut header = format!(
            "HTTP/1.0 {}\r\nContent-Type: text/plain\r\n",
            request.status()
        );
        if let Some(length) = length {
            // Writing to a String cannot fail.
            let _infallible = write!(header, "Content-Length: {length}\r\n");
        }
        header + "Connection: close\r\n\r\n"
    };
    match request {
        Request::Bytes(count) => {
            stream.write_all(header(Some(count)).as_bytes()).await?;
            send_bytes(&mut stream, count).await?;
        }
        Request::Drip(seconds) => {
            stream.write_all(header(None).as_bytes()).await?;
            drip(&mut stream, seconds).await?;
        }
        Request::Page => {
            let page = page(stream.local_addr()?, stream.peer_addr()?);
            let whole = header(Some(u64::try_from(page.len())?)) + &page;
            stream.write_all(whole.as_bytes()).await?;
        }
        Request::NotFound | Request::WrongMethod | Request::Malformed => {
            stream.write_all(header(Some(0)).as_bytes()).await?;
        }
    }
    Ok(stream.shutdown().await?)
}

/// Reads up to the empty line that ends the head, or to its limit, or to the end.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while head.len() < HEAD_BYTES_MAX && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut chunk).await?;
        if length == 0 {
            break;
        }
        head.extend_from_slice(&chunk[..length]);
    }
    Ok(head)
}

fn page(here: SocketAddr, there: SocketAddr) -> String {
    format!(
        "Hello from the private network.\n\
         This page is at {here}; the request came from {there}.\n\
         Nobody reaches it but through the gateway.\n"
    )
}

async fn send_bytes(stream: &mut TcpStream, count: u64) -> Result<()> {
    // A whole number of periods, so that every chunk begins alike.
    let chunk: Vec<u8> = (0..BYTE_PERIOD as u8).cycle().take(251 * 256).collect();
    let mut left = count;
    while left > 0 {
        let length = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        stream.write_all(&chunk[..length]).await?;
        left -= u64::try_from(length)?;
    }
    Ok(())
}

async fn drip(stream: &mut TcpStream, seconds: u64) -> Result<()> {
    stream.set_nodelay(true)?;
    let lines = u128::from(seconds) * 1000 / DRIP_INTERVAL.as_millis();
    let mut interval = tokio::time::interval(DRIP_INTERVAL);
    for line in 0..lines {
        interval.tick().await;
        stream
            .write_all(format!("drip {line}\n").as_bytes())
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server on loopback, and what it answers to `request`.
    async fn ask(request: &str) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(serve(listener, Arc::new(Semaphore::new(1))));
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("asks");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answers");
        server.abort();
        answer
    }

    #[tokio::test]
    async fn serves_the_page_with_both_ends() {
        let answer = ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
        assert!(answer.contains("came from 127.0.0.1:"), "{answer}");
    }

    #[tokio::test]
    async fn serves_exactly_the_bytes_asked_for() {
        let answer = ask("GET /bytes/200000 HTTP/1.0\r\n\r\n").await;
        let body = answer
            .windows(4)
            .position(|end| end == b"\r\n\r\n")
            .expect("a head")
            + 4;
        let body = &answer[body..];
        assert_eq!(body.len(), 200_000);
        let wrong = body
            .iter()
            .zip((0..251u8).cycle())
            .position(|(is, should)| *is != should);
        assert_eq!(wrong, None);
    }

    #[tokio::test(start_paused = true)]
    async fn drips_one_line_every_twenty_milliseconds() {
        let answer = ask("GET /drip/2 HTTP/1.0\r\n\r\n").await;
        let answer = String::from_utf8(answer).expect("text");
        assert_eq!(
            answer
                .lines()
                .filter(|line| line.starts_with("drip "))
                .count(),
            100
        );
    }

    #[test]
    fn refuses_what_it_does_not_serve() {
        for (head, expected) in [
            ("POST / HTTP/1.0\r\n", Request::WrongMethod),
            ("GET /bytes/-1 HTTP/1.0\r\n", Request::NotFound),
            ("GET /bytes/99999999999 HTTP/1.0\r\n", Request::NotFound),
            ("GET /drip/3601 HTTP/1.0\r\n", Request::NotFound),
            ("GET /drip/ HTTP/1.0\r\n", Request::NotFound),
            ("GET", Request::Malformed),
            ("", Request::Malformed),
            ("GET /drip/3600 HTTP/1.0\r\n", Request::Drip(3600)),
        ] {
            assert_eq!(Request::parse(head.as_bytes()), expected, "{head}");
        }
    }
}
