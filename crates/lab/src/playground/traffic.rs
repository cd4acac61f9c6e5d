//! Real traffic from one place to another: curl, ping, connections, datagrams, and a download that
//! trickles.
//!
//! Refuses to judge: it reports what the standard programs saw. Proxies and curl's own
//! configuration are switched off, so that only the playground decides.

use super::{Playground, Role};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a program may take beyond the time that it was itself told.
const GRACE: Duration = Duration::from_secs(3);

/// The URL of `path` at an address of either family; port 80 goes without saying.
#[must_use]
pub fn url(address: IpAddr, port: u16, path: &str) -> String {
    let port = match port {
        80 => String::new(),
        other => format!(":{other}"),
    };
    match address {
        IpAddr::V4(address) => format!("http://{address}{port}{path}"),
        IpAddr::V6(address) => format!("http://[{address}]{port}{path}"),
    }
}

/// Which kinds of addresses a name may be reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// Both, whichever is faster.
    Any,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

impl Families {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Any, Self::V4, Self::V6];

    /// How curl is told.
    pub(super) fn option(self) -> Option<&'static str> {
        match self {
            Self::Any => None,
            Self::V4 => Some("-4"),
            Self::V6 => Some("-6"),
        }
    }
}

/// What curl saw.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// curl's exit code: 0 when the page came whole, 7 when it could not connect, 28 when too late.
    pub exit: i32,
    /// The HTTP status, 0 without one.
    pub status: u16,
    /// The page.
    pub body: String,
    /// The address that it connected to last; `None` when it never tried.
    pub remote: Option<IpAddr>,
    /// From curl's start to its first packet to the page: a name has been looked up by then.
    pub first_packet: Duration,
    /// From curl's start to the first byte.
    pub first_byte: Duration,
    /// From curl's start to its end.
    pub total: Duration,
    /// Why curl could not connect, in the kernel's words; empty when it could.
    pub refusal: String,
}

impl Fetched {
    /// Whether the whole page came with status 200.
    #[must_use]
    pub fn is_page(&self) -> bool {
        self.exit == 0 && self.status == 200
    }
}

/// A command that runs curl at a place, without proxies and personal configuration.
pub(super) fn curl(playground: &Playground, role: Role, limit: Duration) -> Command {
    let mut command = playground.command(role, "curl");
    // -q must come first; -g leaves the brackets of IPv6 addresses alone.
    command.args(["-q", "-g", "-sS", "--noproxy", "*", "--max-time"]);
    command.arg(limit.as_secs_f32().to_string());
    command
}

/// A running curl whose output is read as it comes. Dropping it ends the download.
pub(super) struct Stream(Child);

impl Stream {
    /// Starts to fetch a URL at the client; curl gives up after `limit`.
    pub(super) fn start(
        playground: &Playground,
        url: &str,
        families: Families,
        limit: Duration,
    ) -> Result<(Self, ChildStdout)> {
        let mut curl = curl(playground, Role::Client, limit)
            .args(families.option())
            .args(["-N", url])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start curl")?;
        let output = curl.stdout.take().context("curl has an output")?;
        Ok((Self(curl), output))
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Both fail only for a curl that is gone already.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Fetches a URL, at most for `limit`.
///
/// # Errors
/// curl cannot be run, or the wait was called off. A failed fetch is a result, not an error.
pub fn fetch(playground: &Playground, role: Role, url: &str, limit: Duration) -> Result<Fetched> {
    fetch_over(playground, role, url, Families::Any, limit)
}

/// As [`fetch`], for a name that is to be reached at addresses of these families only.
///
/// # Errors
/// Those of [`fetch`].
pub fn fetch_over(
    playground: &Playground,
    role: Role,
    url: &str,
    families: Families,
    limit: Duration,
) -> Result<Fetched> {
    let mut command = curl(playground, role, limit);
    let figures =
        "\n%{http_code} %{time_namelookup} %{time_starttransfer} %{time_total} %{remote_ip}";
    command.args(families.option());
    command.args(["-v", "-w", figures, url]);
    let output = playground.run(command, limit + GRACE)?;
    let written = String::from_utf8_lossy(&output.stdout);
    let (body, figures) = written
        .rsplit_once('\n')
        .with_context(|| format!("curl {url} wrote no figures"))?;
    let figures: Vec<&str> = figures.split(' ').collect();
    let [status, first_packet, first_byte, total, remote] = figures[..] else {
        bail!("curl {url} wrote unknown figures: {figures:?}");
    };
    Ok(Fetched {
        exit: output.status.code().unwrap_or(-1),
        status: status.parse()?,
        body: body.to_owned(),
        remote: remote.parse().ok(),
        first_packet: Duration::from_secs_f64(first_packet.parse()?),
        first_byte: Duration::from_secs_f64(first_byte.parse()?),
        total: Duration::from_secs_f64(total.parse()?),
        refusal: refusal(&String::from_utf8_lossy(&output.stderr)),
    })
}

/// The kernel's words in what curl told: `* connect to … failed: No route to host`.
fn refusal(told: &str) -> String {
    let words = told.lines().find_map(|line| {
        let told = line.strip_prefix("* ")?;
        let told = told
            .strip_prefix("connect to ")
            .or(told.strip_prefix("Immediate connect fail"))?;
        Some(told.rsplit_once(": ")?.1.trim().to_owned())
    });
    words.unwrap_or_default()
}

/// When a connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Since the first attempt.
    pub after: Duration,
    /// How many attempts it took.
    pub attempts: u32,
}

/// Tries to connect again and again, each attempt for `every`, until one succeeds.
///
/// # Errors
/// None succeeds within `limit`, or the wait was called off.
pub fn connect_until(
    playground: &Playground,
    role: Role,
    address: SocketAddr,
    every: Duration,
    limit: Duration,
) -> Result<Connected> {
    let begun = Instant::now();
    let mut attempts = 0;
    let what = format!("a connection to {address}");
    playground.interrupt().until_ok(&what, limit, || {
        // An attempt that is refused at once must not be followed by the next at once.
        if begun.elapsed() < every * attempts {
            return Ok(None);
        }
        attempts += 1;
        let connected = playground.enter(role, || {
            Ok(TcpStream::connect_timeout(&address, every).is_ok())
        })?;
        let after = begun.elapsed();
        Ok(connected.then_some(Connected { after, attempts }))
    })
}

/// Sends a datagram to an echo server, and says how long it took to come back; `None` when it did
/// not within `limit`.
///
/// # Errors
/// The place cannot be entered.
pub fn udp_echo(
    playground: &Playground,
    role: Role,
    address: SocketAddr,
    limit: Duration,
) -> Result<Option<Duration>> {
    const PAYLOAD: &[u8] = b"postern lab";
    playground.enter(role, || {
        let any = match address {
            SocketAddr::V4(_) => "0.0.0.0:0",
            SocketAddr::V6(_) => "[::]:0",
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(limit))?;
        let begun = Instant::now();
        let mut buffer = [0; 64];
        let came_back = socket
            .connect(address)
            .and_then(|()| socket.send(PAYLOAD))
            .and_then(|_| socket.recv(&mut buffer));
        let same = came_back.is_ok_and(|length| &buffer[..length] == PAYLOAD);
        Ok(same.then(|| begun.elapsed()))
    })
}

/// What ping saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pinged {
    /// Requests.
    pub sent: u32,
    /// Replies.
    pub received: u32,
    /// Mean round trip; `None` without replies.
    pub mean_ms: Option<f64>,
}

/// Pings an address three times.
///
/// # Errors
/// ping cannot be run, or the wait was called off. Lost replies are a result, not an error.
pub fn ping(playground: &Playground, role: Role, address: IpAddr) -> Result<Pinged> {
    let mut command = playground.command(role, "ping");
    command.args(["-n", "-q", "-c", "3", "-i", "0.2", "-W", "2"]);
    command.arg(address.to_string());
    let output = playground.run(command, Duration::from_secs(5) + GRACE)?;
    let told = String::from_utf8_lossy(&output.stdout);
    parse_ping(&told).with_context(|| format!("ping {address} told: {told}"))
}

/// `3 packets transmitted, 3 received, …` and `rtt min/avg/max/mdev = 0.1/0.2/0.3/0.0 ms`.
fn parse_ping(told: &str) -> Option<Pinged> {
    let counts = told
        .lines()
        .find(|line| line.contains(" packets transmitted"))?;
    let count = |unit: &str| -> Option<u32> {
        let part = counts.split(", ").find(|part| part.ends_with(unit))?;
        part.split(' ').next()?.parse().ok()
    };
    let mean = told.lines().find_map(|line| {
        let (_, figures) = line.strip_prefix("rtt ")?.split_once(" = ")?;
        figures.split('/').nth(1)?.parse().ok()
    });
    Some(Pinged {
        sent: count("packets transmitted")?,
        received: count("received")?,
        mean_ms: mean,
    })
}

/// When the lines of a trickling download came.
struct Arrivals {
    started: Instant,
    lines: u64,
    last: Option<Instant>,
    ended: bool,
}

/// A download of `/drip/<seconds>`: a short line every 20 ms, each noted when it arrives. Dropping
/// it ends the download.
pub struct Drip {
    _running: Stream,
    arrivals: Arc<Mutex<Arrivals>>,
}

impl Drip {
    /// Starts a download of `seconds` at the client.
    ///
    /// # Errors
    /// curl cannot be started.
    pub fn start(playground: &Playground, address: IpAddr, seconds: u32) -> Result<Self> {
        let limit = Duration::from_secs(seconds.into()) + GRACE;
        let url = url(address, 80, &format!("/drip/{seconds}"));
        let (running, output) = Stream::start(playground, &url, Families::Any, limit)?;
        let arrivals = Arc::new(Mutex::new(Arrivals {
            started: Instant::now(),
            lines: 0,
            last: None,
            ended: false,
        }));
        let noted = Arc::clone(&arrivals);
        std::thread::spawn(move || {
            for _line in BufReader::new(output).lines().map_while(Result::ok) {
                let mut arrivals = lock(&noted);
                arrivals.lines += 1;
                arrivals.last = Some(Instant::now());
            }
            lock(&noted).ended = true;
        });
        Ok(Self {
            _running: running,
            arrivals,
        })
    }

    /// How many lines have come.
    #[must_use]
    pub fn lines(&self) -> u64 {
        lock(&self.arrivals).lines
    }

    /// Waits until `more` further lines have come.
    ///
    /// # Errors
    /// They did not come within `limit`, the download ended, or the wait was called off.
    pub fn wait_more(&self, playground: &Playground, more: u64, limit: Duration) -> Result<()> {
        let target = self.lines() + more;
        let what = format!("{more} more lines of a download");
        playground.interrupt().until_ok(&what, limit, || {
            let arrivals = lock(&self.arrivals);
            if arrivals.lines >= target {
                return Ok(Some(()));
            }
            if arrivals.ended {
                bail!("the download ended after {} lines", arrivals.lines);
            }
            Ok(None)
        })
    }

    /// Waits until nothing has come for `quiet`, and returns when the last line came.
    ///
    /// # Errors
    /// It goes on for `limit`, or the wait was called off.
    pub fn wait_silence(
        &self,
        playground: &Playground,
        quiet: Duration,
        limit: Duration,
    ) -> Result<Instant> {
        let interrupt = playground.interrupt();
        interrupt.until("a download to fall silent", limit, || {
            let arrivals = lock(&self.arrivals);
            let last = arrivals.last.unwrap_or(arrivals.started);
            (last.elapsed() >= quiet).then_some(last)
        })
    }
}

fn lock(arrivals: &Mutex<Arrivals>) -> MutexGuard<'_, Arrivals> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_put_brackets_around_ipv6() {
        let v6 = IpAddr::from(super::super::network::WEB_V6);
        assert_eq!(url(v6, 8080, "/"), "http://[fd20::100]:8080/");
        assert_eq!(
            url([10, 20, 0, 100].into(), 80, "/x"),
            "http://10.20.0.100/x"
        );
    }

    #[test]
    fn finds_the_kernels_words_in_what_curl_told() {
        let told = "*   Trying 10.20.0.100:8080...\n\
                    * connect to 10.20.0.100 port 8080 failed: No route to host\n\
                    * Closing connection 0\n";
        assert_eq!(refusal(told), "No route to host");
        let newer = "* connect to fd20::100 port 8080 from :: port 0 failed: Permission denied\n";
        assert_eq!(refusal(newer), "Permission denied");
        assert_eq!(refusal("* Connected to 10.20.0.100\n"), "");
    }

    #[test]
    fn reads_what_ping_tells() {
        let told = "PING 10.20.0.100 (10.20.0.100) 56(84) bytes of data.\n\n\
                    --- 10.20.0.100 ping statistics ---\n\
                    3 packets transmitted, 2 received, 33% packet loss, time 402ms\n\
                    rtt min/avg/max/mdev = 0.400/0.500/0.600/0.081 ms\n";
        let pinged = parse_ping(told).expect("ping told");
        assert_eq!((pinged.sent, pinged.received), (3, 2));
        assert_eq!(pinged.mean_ms, Some(0.5));
    }

    #[test]
    fn an_unanswered_ping_has_no_mean() {
        let told = "3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 402ms\n";
        let pinged = parse_ping(told).expect("ping told");
        assert_eq!((pinged.received, pinged.mean_ms), (0, None));
        assert_eq!(parse_ping("ping: unknown host"), None);
    }
}
