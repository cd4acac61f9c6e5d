//! Real traffic from one namespace to another: curl, ping, connections and datagrams.
//!
//! Reports the results of the standard programs, and does not judge them. Ignores proxies and
//! curl's own configuration, so that only the playground decides.

use super::{Playground, Role};
use anyhow::{Context, Result, bail, ensure};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;
use tokio::time::Instant;

/// How long a program may take beyond its own limit.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// URL of `path` at an address of either family; leaves out port 80.
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

/// Address families over which curl may reach a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// Both: curl takes the faster one.
    Any,
    V4,
    V6,
}

impl Families {
    pub const ALL: [Self; 3] = [Self::Any, Self::V4, Self::V6];

    pub(super) fn option(self) -> Option<&'static str> {
        match self {
            Self::Any => None,
            Self::V4 => Some("-4"),
            Self::V6 => Some("-6"),
        }
    }
}

/// Result of a run of curl.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// curl's exit code: 0 for a complete page, 7 when it could not connect, 28 for a timeout.
    pub exit: i32,
    /// The HTTP status, 0 without one.
    pub status: u16,
    pub body: String,
    /// Address of the last connection; `None` without one.
    pub remote: Option<IpAddr>,
    /// From curl's start to its first packet to the page, after the lookup of a name.
    pub first_packet: Duration,
    /// From curl's start to the first byte.
    pub first_byte: Duration,
    pub total: Duration,
    /// The kernel's error of a failed connection, else empty.
    pub refusal: String,
}

impl Fetched {
    /// Whether the page is complete and the status 200.
    pub fn is_page(&self) -> bool {
        self.exit == 0 && self.status == 200
    }

    /// The result, if it is a page; else an error for people.
    pub fn into_page(self, url: &str) -> Result<Self> {
        ensure!(
            self.is_page(),
            "no page from {url}: curl ended with {}, status {} {}",
            self.exit,
            self.status,
            self.refusal
        );
        Ok(self)
    }

    /// Time from curl's first packet to the page to the first byte.
    pub fn wait(&self) -> Duration {
        self.first_byte.saturating_sub(self.first_packet)
    }
}

/// A command that runs curl in a namespace, without proxies and personal configuration.
pub(super) fn curl(playground: &Playground, role: Role, limit: Duration) -> Command {
    let mut command = playground.command(role, "curl");
    // -q must come first; -g leaves the brackets of IPv6 addresses alone.
    command.args(["-q", "-g", "-sS", "--noproxy", "*", "--max-time"]);
    command.arg(limit.as_secs_f32().to_string());
    command
}

/// Fetches a URL, at most for `limit`. A failed fetch is a result, not an error.
pub fn fetch(playground: &Playground, role: Role, url: &str, limit: Duration) -> Result<Fetched> {
    fetch_over(playground, role, url, Families::Any, limit)
}

/// As [`fetch`], restricted to addresses of these families.
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

/// The kernel's error in curl's output: `* connect to … failed: No route to host`.
fn refusal(output: &str) -> String {
    let error = output.lines().find_map(|line| {
        let line = line.strip_prefix("* ")?;
        let line = line
            .strip_prefix("connect to ")
            .or(line.strip_prefix("Immediate connect fail"))?;
        Some(line.rsplit_once(": ")?.1.trim().to_owned())
    });
    error.unwrap_or_default()
}

/// Duration until a connection was established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Time since the first attempt.
    pub after: Duration,
    pub attempts: u32,
}

/// Repeats attempts to connect, each with the timeout `every`, until one succeeds.
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
        // After an immediate refusal, the next attempt waits for its turn.
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

/// Sends a datagram to an echo server and returns the round-trip time; `None` when no echo comes
/// within `limit`.
pub fn udp_echo(
    playground: &Playground,
    role: Role,
    address: SocketAddr,
    limit: Duration,
) -> Result<Option<Duration>> {
    const PAYLOAD: &[u8] = b"postern lab";
    let echo = playground.exchange(role, address, PAYLOAD, limit)?;
    Ok(echo
        .ok()
        .and_then(|(echo, took)| (echo == PAYLOAD).then_some(took)))
}

/// Result of a run of ping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pinged {
    pub sent: u32,
    pub received: u32,
    /// Mean round-trip time; `None` without replies.
    pub mean_ms: Option<f64>,
}

/// Pings an address three times. Lost replies are a result, not an error.
pub fn ping(playground: &Playground, role: Role, address: IpAddr) -> Result<Pinged> {
    let mut command = playground.command(role, "ping");
    command.args(["-n", "-q", "-c", "3", "-i", "0.2", "-W", "2"]);
    command.arg(address.to_string());
    let output = playground.run(command, Duration::from_secs(5) + GRACE)?;
    let output = String::from_utf8_lossy(&output.stdout);
    parse_ping(&output).with_context(|| format!("ping {address} told: {output}"))
}

/// `3 packets transmitted, 3 received, …` and `rtt min/avg/max/mdev = 0.1/0.2/0.3/0.0 ms`.
fn parse_ping(output: &str) -> Option<Pinged> {
    let counts = output
        .lines()
        .find(|line| line.contains(" packets transmitted"))?;
    let count = |unit: &str| -> Option<u32> {
        let part = counts.split(", ").find(|part| part.ends_with(unit))?;
        part.split(' ').next()?.parse().ok()
    };
    let mean = output.lines().find_map(|line| {
        let (_, figures) = line.strip_prefix("rtt ")?.split_once(" = ")?;
        figures.split('/').nth(1)?.parse().ok()
    });
    Some(Pinged {
        sent: count("packets transmitted")?,
        received: count("received")?,
        mean_ms: mean,
    })
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
    fn finds_the_kernels_error_in_curls_output() {
        let output = "*   Trying 10.20.0.100:8080...\n\
                    * connect to 10.20.0.100 port 8080 failed: No route to host\n\
                    * Closing connection 0\n";
        assert_eq!(refusal(output), "No route to host");
        let newer = "* connect to fd20::100 port 8080 from :: port 0 failed: Permission denied\n";
        assert_eq!(refusal(newer), "Permission denied");
        assert_eq!(refusal("* Connected to 10.20.0.100\n"), "");
    }

    #[test]
    fn parses_the_output_of_ping() {
        let output = "PING 10.20.0.100 (10.20.0.100) 56(84) bytes of data.\n\n\
                    --- 10.20.0.100 ping statistics ---\n\
                    3 packets transmitted, 2 received, 33% packet loss, time 402ms\n\
                    rtt min/avg/max/mdev = 0.400/0.500/0.600/0.081 ms\n";
        let pinged = parse_ping(output).expect("a summary");
        assert_eq!((pinged.sent, pinged.received), (3, 2));
        assert_eq!(pinged.mean_ms, Some(0.5));
    }

    #[test]
    fn an_unanswered_ping_has_no_mean() {
        let output = "3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 402ms\n";
        let pinged = parse_ping(output).expect("a summary");
        assert_eq!((pinged.received, pinged.mean_ms), (0, None));
        assert_eq!(parse_ping("ping: unknown host"), None);
    }
}
