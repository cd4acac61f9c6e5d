//! A UDP echo and an endless TCP transfer for each client, served by one thread.
//!
//! The sockets are made at the client's place and served here, so that twenty clients cost little
//! of the machine that they measure. Refuses to interpret: every probe's fate and every broken
//! transfer goes into the client's [`Trace`].

use super::trace::{At, Break, Trace};
use anyhow::{Result, anyhow, bail, ensure};
use postern_lab::playground::Door;
use postern_lab::web;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// A transfer that makes no progress for so long is broken.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// How long a new transfer waits after the last.
const PAUSE: Duration = Duration::from_millis(100);
/// The pace of a transfer: 4 KiB, three segments, every 50 ms.
const REQUEST: &[u8] = b"GET /paced/4096/50 HTTP/1.0\r\n\r\n";
/// How often bytes are due.
const PACE: Duration = Duration::from_millis(50);

/// What one client measures.
pub(super) struct Target {
    /// The client's place.
    pub(super) door: Door,
    /// Where datagrams come back from.
    pub(super) echo: SocketAddr,
    /// Where the web server is.
    pub(super) web: SocketAddr,
}

/// The running meters. Dropping them ends them.
pub(super) struct Meters {
    epoch: Instant,
    traces: Vec<SharedTrace>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

type SharedTrace = Arc<Mutex<Trace>>;

impl Meters {
    /// Starts them: `per_second` probes for each client.
    ///
    /// # Errors
    /// A place cannot be entered, or the thread cannot be started.
    pub(super) fn start(targets: Vec<Target>, per_second: u32) -> Result<Self> {
        let epoch = Instant::now();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let every = Duration::from_secs(1) / per_second;
        let clients = u32::try_from(targets.len())?.max(1);
        let (stop, stopping) = watch::channel(false);
        let mut traces = Vec::new();
        for (index, target) in (0u32..).zip(targets) {
            let trace = SharedTrace::default();
            traces.push(Arc::clone(&trace));
            let meter = Meter {
                target,
                trace,
                epoch,
            };
            let socket = meter.probe_socket()?;
            // Evenly over the interval, so that the probes of all clients are no burst.
            let first = epoch + every * index / clients;
            runtime.spawn(async move {
                tokio::join!(meter.probe(&socket, first, every), meter.transfer());
            });
        }
        let thread = std::thread::Builder::new()
            .name("meters".to_owned())
            .spawn(move || runtime.block_on(stopped(stopping)))?;
        Ok(Self {
            epoch,
            traces,
            stop,
            thread: Some(thread),
        })
    }

    /// The moment.
    pub(super) fn now(&self) -> At {
        self.epoch.elapsed()
    }

    /// How many clients are measured.
    pub(super) fn clients(&self) -> usize {
        self.traces.len()
    }

    /// What a client's meters have seen so far. Not to be held for long: the meter waits.
    pub(super) fn trace(&self, client: usize) -> MutexGuard<'_, Trace> {
        lock(&self.traces[client])
    }
}

impl Drop for Meters {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // It ends by a panic of a meter at worst, which has been told on standard error.
            let _ended = thread.join();
        }
    }
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the meters are gone altogether.
    let _stopped = stopping.wait_for(|stopping| *stopping).await;
}

fn lock(trace: &Mutex<Trace>) -> MutexGuard<'_, Trace> {
    trace.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The two meters of one client.
struct Meter {
    target: Target,
    trace: SharedTrace,
    epoch: Instant,
}

impl Meter {
    /// A socket for probes, made at the client's place.
    fn probe_socket(&self) -> Result<std::net::UdpSocket> {
        let echo = self.target.echo;
        let any = match echo {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.target.door.enter(|| {
            let socket = std::net::UdpSocket::bind((any, 0))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
    }

    /// Sends probes and notes their echoes, for ever.
    async fn probe(&self, socket: &std::net::UdpSocket, first: Instant, every: Duration) {
        let socket = socket.try_clone().and_then(UdpSocket::from_std);
        let Ok(socket) = socket else {
            tracing::error!("a socket cannot be served");
            return;
        };
        let mut ticks = interval_at(first, every);
        // Probes that this thread was too busy for are not made up for: a burst measures itself.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut echo = [0; 64];
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let number = lock(&self.trace).sent(self.epoch.elapsed());
                    let payload = number.to_be_bytes();
                    // An error is often about an earlier probe; then this one has not been sent.
                    if socket.send_to(&payload, self.target.echo).await.is_err() {
                        let _lost = socket.send_to(&payload, self.target.echo).await;
                    }
                }
                received = socket.recv_from(&mut echo) => {
                    let at = self.epoch.elapsed();
                    if let Ok((8, from)) = received
                        && from == self.target.echo
                        && let Some(number) = echo.first_chunk()
                    {
                        lock(&self.trace).came_back(u64::from_be_bytes(*number), at);
                    }
                }
            }
        }
    }

    /// Transfers for ever, beginning anew when a transfer breaks.
    async fn transfer(&self) {
        loop {
            let mut last = self.epoch.elapsed();
            let ended = match self.connect().await {
                Ok(stream) => self.receive(stream, &mut last).await,
                // What never began cannot break.
                Err(_) => Ok(()),
            };
            if let Err(error) = ended {
                let at = self.epoch.elapsed().min(last + PACE);
                let why = error.to_string();
                lock(&self.trace).broke(Break { at, why });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn connect(&self) -> Result<TcpStream> {
        let web = self.target.web;
        let socket = self.target.door.enter(|| {
            let domain = Domain::for_address(web);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })?;
        let socket = TcpSocket::from_std_stream(socket.into());
        let mut stream = timeout(STALLED_AFTER, socket.connect(web)).await??;
        stream.write_all(REQUEST).await?;
        Ok(stream)
    }

    /// Receives until the server is done (an hour later), or until something is wrong. `last` is
    /// when the last byte came.
    async fn receive(&self, mut stream: TcpStream, last: &mut At) -> Result<()> {
        let begun = Instant::now();
        let mut checker = Checker::default();
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let length = match timeout(STALLED_AFTER, stream.read(&mut chunk)).await {
                Ok(Ok(length)) => length,
                Ok(Err(error)) => return Err(anyhow!(error)),
                Err(_) => bail!("no byte for {} s", STALLED_AFTER.as_secs()),
            };
            if length == 0 {
                ensure!(begun.elapsed() >= LIFETIME, "the connection was closed");
                return Ok(());
            }
            let bytes = checker.check(&chunk[..length])?;
            *last = self.epoch.elapsed();
            lock(&self.trace).transferred(bytes);
        }
    }
}

/// How long the server sends.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Compares what comes with what should come: a head, then the pattern.
#[derive(Debug, Default)]
struct Checker {
    /// The end of the head so far; empty when it is over.
    head: Vec<u8>,
    in_body: bool,
    bytes: u64,
}

impl Checker {
    /// Checks the next bytes; returns how many of them belong to the body.
    fn check(&mut self, chunk: &[u8]) -> Result<u64> {
        let mut body = chunk;
        if !self.in_body {
            const END: &[u8] = b"\r\n\r\n";
            const HEAD_BYTES_MAX: usize = 4096;
            const BEGIN: &[u8] = b"HTTP/1.0 200 ";
            let before = self.head.len();
            self.head.extend_from_slice(chunk);
            let begun = self.head.iter().zip(BEGIN).all(|(is, should)| is == should);
            ensure!(begun, "not a page of the web server");
            let Some(end) = self.head.windows(END.len()).position(|it| it == END) else {
                ensure!(self.head.len() < HEAD_BYTES_MAX, "a head without an end");
                return Ok(0);
            };
            body = &chunk[end + END.len() - before..];
            self.in_body = true;
            self.head = Vec::new();
        }
        let wrong = body
            .iter()
            .zip(self.bytes..)
            .find(|(byte, at)| **byte != web::pattern_at(*at));
        if let Some((_, at)) = wrong {
            bail!("byte {at} was wrong");
        }
        let length = body.len() as u64;
        self.bytes += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.0 200 OK\r\nX-Host: -\r\n\r\n";

    fn stream(bytes: usize) -> Vec<u8> {
        HEAD.iter()
            .copied()
            .chain(web::pattern().take(bytes))
            .collect()
    }

    #[test]
    fn the_pattern_is_recognized_however_it_is_cut() {
        let whole = stream(2000);
        for size in [1, 7, 30, 31, 251, 5000] {
            let mut checker = Checker::default();
            let bytes = whole.chunks(size).map(|chunk| checker.check(chunk));
            let sum: u64 = bytes.map(|bytes| bytes.expect("right")).sum();
            assert_eq!(sum, 2000, "in pieces of {size}");
        }
    }

    #[test]
    fn a_wrong_byte_is_found_where_it_is() {
        let mut whole = stream(2000);
        whole[HEAD.len() + 1234] ^= 1;
        let error = Checker::default().check(&whole).expect_err("wrong");
        assert_eq!(error.to_string(), "byte 1234 was wrong");
        let mut missing = stream(2000);
        missing.remove(HEAD.len() + 100);
        let error = Checker::default().check(&missing).expect_err("wrong");
        assert_eq!(error.to_string(), "byte 100 was wrong");
    }

    #[test]
    fn an_answer_that_is_no_page_is_refused() {
        for answer in [&b"HTTP/1.0 404 Not Found\r\n\r\n"[..], b"x", &[b'H'; 5000]] {
            Checker::default().check(answer).expect_err("refused");
        }
    }
}
