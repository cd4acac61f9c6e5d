//! A web server for the lab's private network: a page, bytes by the number, and a trickle; and a
//! UDP echo beside it.
//!
//! | path              | what comes                                                      |
//! |-------------------|-----------------------------------------------------------------|
//! | `/`               | a page that names both ends of the connection and the host      |
//! |                   | that was asked for                                              |
//! | `/bytes/N`        | N bytes, byte i being i modulo 251, at most 4 GiB               |
//! | `/slow/N/SECONDS` | the same, evenly over that time, at most an hour                |
//! | `/paced/N/MS`     | N such bytes every MS milliseconds, for an hour                 |
//! | `/drip/SECONDS`   | one short line every 20 ms, at most for an hour                 |
//!
//! HTTP/1.0 (RFC 1945): one request per connection; `X-Host` in every answer repeats what the host
//! was called. Refuses request heads beyond 8 KiB or 5 s, methods other than GET, and more than 256
//! connections at a time (the next ones wait).

use anyhow::{Context, Result};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

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
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
const BYTES_MAX: u64 = 4 << 30;
const SECONDS_MAX: u64 = 3600;
/// How often `/slow` sends a piece.
const SLOW_INTERVAL: Duration = Duration::from_millis(10);
/// The most that `/paced` sends at once.
const PIECE_BYTES_MAX: u64 = 64 * 1024;
/// How often `/drip` sends a line.
pub const DRIP_INTERVAL: Duration = Duration::from_millis(20);
/// The period of the bytes of `/bytes`: a prime, so that a shift by a power of two shows.
const BYTE_PERIOD: u8 = 251;

/// The bytes that `/bytes` and `/slow` send, without end.
pub fn pattern() -> impl Iterator<Item = u8> {
    (0..BYTE_PERIOD).cycle()
}

/// The byte of [`pattern`] at an offset.
#[must_use]
pub fn pattern_at(offset: u64) -> u8 {
    // The remainder is less than the period, which is a byte.
    u8::try_from(offset % u64::from(BYTE_PERIOD)).unwrap_or_default()
}

/// Sends every datagram back to where it came from.
async fn echo(socket: UdpSocket) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        // An error here is about an earlier datagram, whose sender is gone.
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _sender_gone = socket.send_to(&buffer[..length], from).await;
        }
    }
}

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
    Slow { bytes: u64, seconds: u64 },
    Paced { bytes: u64, millis: u64 },
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
        let number = |text: &str, max| text.parse().ok().filter(|number: &u64| *number <= max);
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let found = match parts[..] {
            [""] => Some(Self::Page),
            ["bytes", count] => number(count, BYTES_MAX).map(Self::Bytes),
            ["slow", bytes, seconds] => number(bytes, BYTES_MAX)
                .zip(number(seconds, SECONDS_MAX))
                .map(|(bytes, seconds)| Self::Slow { bytes, seconds }),
            ["paced", bytes, millis] => number(bytes, PIECE_BYTES_MAX)
                .zip(number(millis, SECONDS_MAX * 1000).filter(|millis| *millis > 0))
                .map(|(bytes, millis)| Self::Paced { bytes, millis }),
            ["drip", seconds] => number(seconds, SECONDS_MAX).map(Self::Drip),
            _ => None,
        };
        found.unwrap_or(Self::NotFound)
    }

    fn status(self) -> &'static str {
        match self {
            Self::Page
            | Self::Bytes(_)
            | Self::Slow { .. }
            | Self::Paced { .. }
            | Self::Drip(_) => "200 OK",
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
    let host = host(&head);
    let header = |length: Option<u64>| {
        let mut header = format!(
            "HTTP/1.0 {}\r\nContent-Type: text/plain\r\nX-Host: {host}\r\n",
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
        Request::Slow { bytes, seconds } => {
            stream.write_all(header(Some(bytes)).as_bytes()).await?;
            send_slowly(&mut stream, bytes, Duration::from_secs(seconds)).await?;
        }
        Request::Paced { bytes, millis } => {
            stream.write_all(header(None).as_bytes()).await?;
            send_paced(&mut stream, bytes, Duration::from_millis(millis)).await?;
        }
        Request::Drip(seconds) => {
            stream.write_all(header(None).as_bytes()).await?;
            drip(&mut stream, seconds).await?;
        }
        Request::Page => {
            let page = page(stream.local_addr()?, stream.peer_addr()?, &host);
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

/// What the request calls the host; a dash when it does not say.
fn host(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let host = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host")
            .then(|| value.trim().to_owned())
    });
    host.unwrap_or_else(|| "-".to_owned())
}

fn page(here: SocketAddr, there: SocketAddr, host: &str) -> String {
    format!(
        "Hello from the private network.\n\
         This page is at {here}; the request came from {there}.\n\
         It was asked for as {host}.\n\
         Nobody reaches it but through the gateway.\n"
    )
}

async fn send_bytes(stream: &mut TcpStream, count: u64) -> Result<()> {
    // A whole number of periods, so that every chunk begins alike.
    let chunk: Vec<u8> = pattern().take(usize::from(BYTE_PERIOD) * 256).collect();
    let mut left = count;
    while left > 0 {
        let length = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        stream.write_all(&chunk[..length]).await?;
        left -= u64::try_from(length)?;
    }
    Ok(())
}

/// A piece every 10 ms; what a late piece owes, the next one brings.
async fn send_slowly(stream: &mut TcpStream, bytes: u64, over: Duration) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut source = pattern();
    let mut sent = 0;
    let begun = tokio::time::Instant::now();
    let mut interval = tokio::time::interval(SLOW_INTERVAL);
    while sent < bytes {
        interval.tick().await;
        let passed = begun.elapsed().as_secs_f64() / over.as_secs_f64();
        // Without a duration the quotient is no number, and everything is due.
        let due = match passed < 1.0 {
            true => (bytes as f64 * passed) as u64,
            false => bytes,
        };
        let length = usize::try_from(due.saturating_sub(sent))?.min(64 * 1024);
        let piece: Vec<u8> = source.by_ref().take(length).collect();
        stream.write_all(&piece).await?;
        sent += u64::try_from(length)?;
    }
    Ok(())
}

/// A piece every `every`, each of the same length, for an hour. A piece that is late delays those
/// that follow: a path that comes back is not met by all that it missed.
async fn send_paced(stream: &mut TcpStream, bytes: u64, every: Duration) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut source = pattern();
    let length = usize::try_from(bytes)?;
    let begun = tokio::time::Instant::now();
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while begun.elapsed() < Duration::from_secs(SECONDS_MAX) {
        interval.tick().await;
        let piece: Vec<u8> = source.by_ref().take(length).collect();
        stream.write_all(&piece).await?;
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

    #[test]
    fn refuses_what_it_does_not_serve() {
        for (head, expected) in [
            ("POST / HTTP/1.0\r\n", Request::WrongMethod),
            ("GET /bytes/-1 HTTP/1.0\r\n", Request::NotFound),
            ("GET /bytes/99999999999 HTTP/1.0\r\n", Request::NotFound),
            ("GET /drip/3601 HTTP/1.0\r\n", Request::NotFound),
            ("GET /drip/ HTTP/1.0\r\n", Request::NotFound),
            ("GET /slow/1 HTTP/1.0\r\n", Request::NotFound),
            ("GET /slow/1/3601 HTTP/1.0\r\n", Request::NotFound),
            ("GET /paced/1/0 HTTP/1.0\r\n", Request::NotFound),
            ("GET /paced/65537/1 HTTP/1.0\r\n", Request::NotFound),
            ("GET", Request::Malformed),
            ("", Request::Malformed),
            ("GET /drip/3600 HTTP/1.0\r\n", Request::Drip(3600)),
        ] {
            assert_eq!(Request::parse(head.as_bytes()), expected, "{head}");
        }
    }
}
