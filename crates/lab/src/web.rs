//! A web server for the lab's private network: a page, byte patterns and slow streams; and a UDP
//! echo.
//!
//! | path              | response                                                        |
//! |-------------------|-----------------------------------------------------------------|
//! | `/`               | a page with both addresses of the connection and the host name  |
//! |                   | of the request                                                  |
//! | `/bytes/N`        | N bytes, byte i being i modulo 251, at most 4 GiB               |
//! | `/slow/N/SECONDS` | the same, evenly over that time, at most an hour                |
//! | `/paced/N/MS`     | N such bytes every MS milliseconds, for an hour                 |
//! | `/drip/SECONDS`   | one short line every 20 ms, at most for an hour                 |
//!
//! It serves HTTP/1.0 and HTTP/1.1 with one request per connection; `X-Host` in every response
//! repeats the host name of the request. It refuses request heads beyond 8 KiB or 5 s and methods
//! other than GET and HEAD, and serves at most 256 connections at a time (further ones wait).

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use futures_util::{Stream, StreamExt, stream};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Serves the lab's web page.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Address and port; may be repeated.
    #[arg(long, required = true)]
    pub listen: Vec<SocketAddr>,
    /// Address and port where datagrams are sent back; may be repeated.
    #[arg(long)]
    pub echo: Vec<SocketAddr>,
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
    for address in args.echo {
        let socket = UdpSocket::bind(address)
            .await
            .with_context(|| format!("cannot echo on {address}"))?;
        servers.spawn(echo(socket));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}

const CONNECTIONS_MAX: usize = 256;
/// Also limits what a connection buffers of its response, so that a stalled client stops a stream.
const BUFFER_BYTES_MAX: usize = 8 * 1024;
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
const BYTES_MAX: u64 = 4 << 30;
const SECONDS_MAX: u64 = 3600;
/// Time between two pieces of `/slow`.
const SLOW_INTERVAL: Duration = Duration::from_millis(10);
/// Largest piece of a stream, and so of `/paced`.
const PIECE_BYTES_MAX: usize = 64 * 1024;
/// Time between two lines of `/drip`.
pub const DRIP_INTERVAL: Duration = Duration::from_millis(20);
/// The period of the bytes of `/bytes`: a prime, so that a shift by a power of two shows.
const BYTE_PERIOD: u8 = 251;

/// The endless byte sequence that `/bytes`, `/slow` and `/paced` send.
pub fn pattern() -> impl Iterator<Item = u8> {
    (0..BYTE_PERIOD).cycle()
}

/// The byte of [`pattern`] at an offset.
#[must_use]
pub fn pattern_at(offset: u64) -> u8 {
    // The remainder is less than the period, which is a byte.
    u8::try_from(offset % u64::from(BYTE_PERIOD)).unwrap_or_default()
}

/// `length` bytes of [`pattern`] from `offset` on, at most [`PIECE_BYTES_MAX`].
fn piece(offset: u64, length: usize) -> Bytes {
    static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
        let longest = PIECE_BYTES_MAX + usize::from(BYTE_PERIOD);
        pattern().take(longest).collect()
    });
    let start = usize::from(pattern_at(offset));
    PATTERN.slice(start..start + length)
}

/// Sends every datagram back to its sender.
async fn echo(socket: UdpSocket) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        // An error here belongs to an earlier datagram, the sender of which is gone.
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _sender_gone = socket.send_to(&buffer[..length], from).await;
        }
    }
}

/// Accepts connections and never returns.
async fn serve(mut listener: TcpListener, slots: Arc<Semaphore>) {
    let router = router();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let (stream, _) = Listener::accept(&mut listener).await;
        let router = router.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_connection(stream, router).await {
                tracing::debug!(%error, "a request was not served to its end");
            }
            drop(slot);
        });
    }
}

async fn serve_connection(stream: TcpStream, router: Router<Endpoints>) -> Result<()> {
    stream.set_nodelay(true)?;
    let endpoints = Endpoints {
        server: stream.local_addr()?,
        client: stream.peer_addr()?,
    };
    let service = TowerToHyperService::new(router.with_state(endpoints));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .keep_alive(false)
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    Ok(connection.await?)
}

/// The two addresses of a connection.
#[derive(Clone, Copy)]
struct Endpoints {
    server: SocketAddr,
    client: SocketAddr,
}

fn router() -> Router<Endpoints> {
    let page = |state, headers: HeaderMap| ready(page(state, &headers));
    Router::new()
        .route("/", get(page))
        .route("/bytes/{count}", get(|path| ready(bytes(path))))
        .route("/slow/{bytes}/{seconds}", get(|path| ready(slow(path))))
        .route("/paced/{bytes}/{millis}", get(|path| ready(paced(path))))
        .route("/drip/{seconds}", get(|path| ready(drip(path))))
        .layer(middleware::from_fn(repeat_host))
}

async fn repeat_host(request: Request, next: Next) -> Response {
    let host = host(request.headers());
    let mut response = next.run(request).await;
    response.headers_mut().insert("x-host", host);
    response
}

/// The host name of the request, or a dash.
fn host(headers: &HeaderMap) -> HeaderValue {
    let host = headers.get(HOST).cloned();
    host.unwrap_or(HeaderValue::from_static("-"))
}

fn page(State(endpoints): State<Endpoints>, headers: &HeaderMap) -> String {
    let Endpoints { server, client } = endpoints;
    let host = host(headers);
    format!(
        "Hello from the private network.\n\
         This page is at {server}; the request came from {client}.\n\
         It was asked for as {}.\n\
         Nobody reaches it but through the gateway.\n",
        String::from_utf8_lossy(host.as_bytes())
    )
}

/// The numbers in a path. A path with other text or with numbers out of range does not exist.
type Numbers<T> = Result<Path<T>, PathRejection>;
type Found = Result<Response, StatusCode>;

fn within<T>(numbers: Numbers<T>, in_range: impl FnOnce(&T) -> bool) -> Result<T, StatusCode> {
    let numbers = numbers.ok().map(|Path(numbers)| numbers);
    numbers.filter(in_range).ok_or(StatusCode::NOT_FOUND)
}

fn bytes(numbers: Numbers<u64>) -> Found {
    let count = within(numbers, |count| *count <= BYTES_MAX)?;
    let pieces = stream::unfold(0, move |sent| async move {
        let length = length_of_piece(count - sent);
        (sent < count).then(|| (piece(sent, length), sent + length as u64))
    });
    Ok(streamed(Some(count), pieces))
}

/// Sends a piece every 10 ms. A piece that follows a late one catches up.
fn slow(numbers: Numbers<(u64, u64)>) -> Found {
    let in_range = |(bytes, seconds): &(u64, u64)| *bytes <= BYTES_MAX && *seconds <= SECONDS_MAX;
    let (bytes, seconds) = within(numbers, in_range)?;
    let begun = Instant::now();
    let state = (interval(SLOW_INTERVAL), 0);
    let pieces = stream::unfold(state, move |(mut ticks, sent)| async move {
        if sent >= bytes {
            return None;
        }
        ticks.tick().await;
        let passed = begun.elapsed().as_secs_f64() / seconds as f64;
        // A duration of zero makes the quotient infinite or not a number: everything is due.
        let due = match passed < 1.0 {
            true => (bytes as f64 * passed) as u64,
            false => bytes,
        };
        let length = length_of_piece(due.saturating_sub(sent));
        Some((piece(sent, length), (ticks, sent + length as u64)))
    });
    Ok(streamed(Some(bytes), pieces))
}

/// Sends pieces of equal length for an hour. A late piece delays those that follow: a path that
/// recovers does not get a burst of all that it missed.
fn paced(numbers: Numbers<(u64, u64)>) -> Found {
    let in_range = |(bytes, millis): &(u64, u64)| {
        *bytes <= PIECE_BYTES_MAX as u64 && (1..=SECONDS_MAX * 1000).contains(millis)
    };
    let (bytes, millis) = within(numbers, in_range)?;
    let begun = Instant::now();
    let mut ticks = interval(Duration::from_millis(millis));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let pieces = stream::unfold((ticks, 0), move |(mut ticks, sent)| async move {
        if begun.elapsed() >= Duration::from_secs(SECONDS_MAX) {
            return None;
        }
        ticks.tick().await;
        let piece = piece(sent, length_of_piece(bytes));
        Some((piece, (ticks, sent + bytes)))
    });
    Ok(streamed(None, pieces))
}

fn drip(numbers: Numbers<u64>) -> Found {
    let seconds = within(numbers, |seconds| *seconds <= SECONDS_MAX)?;
    let lines = u128::from(seconds) * 1000 / DRIP_INTERVAL.as_millis();
    let state = (interval(DRIP_INTERVAL), 0);
    let lines = stream::unfold(state, move |(mut ticks, line)| async move {
        if line >= lines {
            return None;
        }
        ticks.tick().await;
        Some((format!("drip {line}\n").into(), (ticks, line + 1)))
    });
    Ok(streamed(None, lines))
}

fn length_of_piece(left: u64) -> usize {
    usize::try_from(left).map_or(PIECE_BYTES_MAX, |left| left.min(PIECE_BYTES_MAX))
}

/// A response with these pieces as its body. Without a length, the end of the connection or of
/// the chunks ends it.
fn streamed(length: Option<u64>, pieces: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(pieces.map(Ok::<_, Infallible>));
    let mut response = ([(CONTENT_TYPE, "text/plain")], body).into_response();
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A connection to a server on loopback that has sent `request`.
    async fn request(request: &str) -> (TcpStream, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(serve(listener, Arc::new(Semaphore::new(1))));
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("asks");
        (stream, server)
    }

    async fn ask(text: &str) -> Vec<u8> {
        let (mut stream, server) = request(text).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answers");
        server.abort();
        answer
    }

    #[tokio::test]
    async fn serves_the_page_with_both_ends() {
        let answer = ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert!(answer.contains("came from 127.0.0.1:"), "{answer}");
        assert!(answer.contains("asked for as x.\n"), "{answer}");
    }

    #[tokio::test]
    async fn serves_exactly_the_bytes_asked_for() {
        let answer = ask("GET /bytes/200000 HTTP/1.0\r\n\r\n").await;
        expect_pattern(&answer, 200_000);
    }

    #[track_caller]
    fn expect_pattern(answer: &[u8], bytes: usize) {
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
        let body = &answer[head.expect("a head") + 4..];
        assert_eq!(body.len(), bytes);
        let wrong = body
            .iter()
            .zip(0..251u8)
            .position(|(is, should)| *is != should);
        assert_eq!(wrong, None);
        let wrong = body
            .iter()
            .zip(pattern())
            .position(|(is, should)| *is != should);
        assert_eq!(wrong, None);
    }

    #[tokio::test(start_paused = true)]
    async fn sends_bytes_evenly_over_a_time() {
        let begun = tokio::time::Instant::now();
        let answer = ask("GET /slow/300001/3 HTTP/1.0\r\n\r\n").await;
        expect_pattern(&answer, 300_001);
        let took = begun.elapsed();
        assert!((2900..3100).contains(&took.as_millis()), "{took:?}");
        expect_pattern(&ask("GET /slow/1000/0 HTTP/1.0\r\n\r\n").await, 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn paces_pieces_for_an_hour() {
        let begun = tokio::time::Instant::now();
        let answer = ask("GET /paced/300/60000 HTTP/1.0\r\n\r\n").await;
        expect_pattern(&answer, 61 * 300);
        let took = begun.elapsed();
        assert!((3600..3601).contains(&took.as_secs()), "{took:?}");
    }

    #[tokio::test]
    async fn datagrams_come_back() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        let address = socket.local_addr().expect("an address");
        let server = tokio::spawn(echo(socket));
        let asker = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        asker.send_to(b"hello", address).await.expect("sent");
        let mut buffer = [0; 16];
        let (length, from) = asker.recv_from(&mut buffer).await.expect("comes back");
        assert_eq!((&buffer[..length], from), (&b"hello"[..], address));
        server.abort();
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

    #[tokio::test]
    async fn answers_requests_of_http_1_0_in_kind() {
        let answer = ask("GET /bytes/1 HTTP/1.0\r\n\r\n").await;
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
        assert!(answer.contains("\r\nContent-Length: 1\r\n"), "{answer}");
        assert!(answer.contains("\r\nX-Host: -\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn refuses_other_paths_methods_and_nonsense() {
        const NOT_FOUND: &str = "404 Not Found";
        for (head, expected) in [
            ("POST / HTTP/1.0\r\n", "405 Method Not Allowed"),
            ("GET /bytes/-1 HTTP/1.0\r\n", NOT_FOUND),
            ("GET /bytes/99999999999 HTTP/1.0\r\n", NOT_FOUND),
            ("GET /drip/3601 HTTP/1.0\r\n", NOT_FOUND),
            ("GET /drip/ HTTP/1.0\r\n", NOT_FOUND),
            ("GET /slow/1 HTTP/1.0\r\n", NOT_FOUND),
            ("GET /slow/1/3601 HTTP/1.0\r\n", NOT_FOUND),
            ("GET /paced/1/0 HTTP/1.0\r\n", NOT_FOUND),
            ("GET /paced/65537/1 HTTP/1.0\r\n", NOT_FOUND),
        ] {
            let answer = ask(&format!("{head}Host: x\r\n\r\n")).await;
            let answer = String::from_utf8(answer).expect("text");
            let status = format!("HTTP/1.0 {expected}\r\n");
            assert!(answer.starts_with(&status), "{head}: {answer}");
            assert!(answer.contains("\r\nX-Host: x\r\n"), "{head}: {answer}");
        }
        let answer = ask("GET\r\n\r\n").await;
        assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    }

    #[tokio::test]
    async fn drips_for_an_hour_at_most() {
        let (mut stream, server) = request("GET /drip/3600 HTTP/1.0\r\n\r\n").await;
        let mut status = [0; 15];
        stream.read_exact(&mut status).await.expect("answers");
        assert_eq!(&status, b"HTTP/1.0 200 OK");
        server.abort();
    }
}
