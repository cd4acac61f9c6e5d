//! One load on one arena: TCP, UDP at the highest rate that arrives, and the idle round trip.

use super::arena::{Arena, UDP_PORT};
use crate::measure::usage::{Cpu, Usage};
use crate::udp_load::Outcome;
use anyhow::{Context, Result, bail, ensure};
use postern_lab::playground::iperf::{self, Direction, Load};
use postern_lab::playground::programs::Programs;
use postern_lab::playground::{Playground, Role};
use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

/// Result of one TCP load.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpRun {
    pub(super) bits_per_second: f64,
    pub(super) bytes: u64,
    /// Processor time of the gateway; the kernel has no process.
    pub(super) cpu: Option<Cpu>,
}

impl TcpRun {
    /// Processor seconds of the gateway for each 10^9 bytes of payload.
    pub(super) fn cost(&self) -> Option<f64> {
        let per_gigabyte = |cpu: Cpu| cpu.total().as_secs_f64() / (self.bytes as f64 / 1e9);
        self.cpu.map(per_gigabyte)
    }
}

/// Runs a TCP load on an arena.
pub(super) fn tcp(arena: &mut Arena, target: IpAddr, load: Load, seconds: u32) -> Result<TcpRun> {
    let before = cpu(arena)?;
    let moved = iperf::run_between(arena.playground(), Arena::endpoints(target), load, seconds)?;
    Ok(TcpRun {
        bits_per_second: moved.bits_per_second,
        bytes: moved.bytes,
        cpu: since(before, cpu(arena)?),
    })
}

fn cpu(arena: &mut Arena) -> Result<Option<Cpu>> {
    let pid = arena.gateway_pid()?;
    pid.map(|pid| Ok(Usage::of(pid)?.cpu)).transpose()
}

fn since(before: Option<Cpu>, after: Option<Cpu>) -> Option<Cpu> {
    Some(after?.since(before?))
}

/// Parameters of a UDP load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::measure) struct UdpLoad {
    pub(in crate::measure) direction: Direction,
    pub(in crate::measure) payload_bytes: u16,
    /// Whether its ends pass datagrams in groups.
    pub(in crate::measure) is_grouped: bool,
}

impl UdpLoad {
    /// Sends datagrams singly, as applications without offloads do.
    pub(in crate::measure) const SINGLE: [Self; 4] = Self::all(false);
    /// Sends datagrams in groups, as QUIC does.
    pub(in crate::measure) const GROUPED: [Self; 4] = Self::all(true);

    const fn all(is_grouped: bool) -> [Self; 4] {
        [
            Self::new(Direction::Upload, 64, is_grouped),
            Self::new(Direction::Download, 64, is_grouped),
            Self::new(Direction::Upload, 1200, is_grouped),
            Self::new(Direction::Download, 1200, is_grouped),
        ]
    }

    const fn new(direction: Direction, payload_bytes: u16, is_grouped: bool) -> Self {
        Self {
            direction,
            payload_bytes,
            is_grouped,
        }
    }

    pub(in crate::measure) fn name(self) -> String {
        let direction = match self.direction {
            Direction::Upload => "upload",
            Direction::Download => "download",
        };
        let groups = match self.is_grouped {
            true => ", groups",
            false => "",
        };
        format!("{direction}, {} bytes{groups}", self.payload_bytes)
    }
}

/// Outcome of a UDP load at one rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Probe {
    /// Planned datagrams per second.
    pub(super) planned: u32,
    pub(super) outcome: Outcome,
    /// Processor time of the gateway.
    pub(super) cpu: Option<Duration>,
}

impl Probe {
    /// Received datagrams per second.
    pub(super) fn rate(&self) -> f64 {
        self.outcome.received as f64 / (f64::from(self.outcome.millis) / 1000.0)
    }

    /// Processor time of the gateway for each received datagram, in microseconds.
    pub(super) fn cost(&self) -> Option<f64> {
        let received = self.outcome.received.max(1) as f64;
        self.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / received)
    }

    /// Whether less than one in a hundred was lost.
    fn is_whole(&self) -> bool {
        self.outcome.sent > 0 && self.outcome.received * 100 > self.outcome.sent * 99
    }

    /// Whether the sender kept to its plan.
    fn is_kept(&self) -> bool {
        let planned = u64::from(self.planned) * u64::from(self.outcome.millis) / 1000;
        self.outcome.sent * 100 >= planned * 95
    }
}

/// Finds the highest rate with under 1 % loss.
pub(super) fn udp(
    arena: &mut Arena,
    target: IpAddr,
    load: UdpLoad,
    programs: &Programs,
) -> Result<Probe> {
    search(FIRST_RATE, |rate| {
        probe(arena, target, (load, rate), programs)
    })
}

fn probe(
    arena: &mut Arena,
    target: IpAddr,
    (load, rate): (UdpLoad, u32),
    programs: &Programs,
) -> Result<Probe> {
    let before = cpu(arena)?;
    let outcome = run_at(
        arena.playground(),
        (Role::Client, target),
        (load, rate),
        programs,
    )?;
    Ok(Probe {
        planned: rate,
        outcome,
        cpu: since(before, cpu(arena)?).map(Cpu::total),
    })
}

/// Runs a UDP load from a namespace to the server at an address, at a given rate.
pub(in crate::measure) fn run_at(
    playground: &Playground,
    (from, target): (Role, IpAddr),
    (load, rate): (UdpLoad, u32),
    programs: &Programs,
) -> Result<Outcome> {
    let mut command = playground.command(from, programs.bench());
    let to = SocketAddr::new(target, UDP_PORT).to_string();
    command.args(["udp-load", "--to", &to]);
    command.args(["--bytes", &load.payload_bytes.to_string()]);
    command.args(["--rate", &rate.to_string()]);
    command.args(["--millis", &PROBE_MS.to_string()]);
    if load.direction == Direction::Download {
        command.arg("--reverse");
    }
    if load.is_grouped {
        command.arg("--grouped");
    }
    let output = playground.run(command, PROBE_LIMIT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    serde_json::from_slice(&output.stdout).context("no outcome of a load")
}

/// Doubles the rate until datagrams are lost or the sender reaches its limit, then bisects. A rate
/// with loss is tried once more: one hiccup of the machine is not the limit.
fn search(first: u32, mut probe: impl FnMut(u32) -> Result<Probe>) -> Result<Probe> {
    let mut best: Option<Probe> = None;
    let mut attempt = |rate: u32| -> Result<bool> {
        for _ in 0..2 {
            let probe = probe(rate)?;
            if probe.is_whole() {
                let is_better = best.is_none_or(|it| probe.rate() > it.rate());
                best = if is_better { Some(probe) } else { best };
                return Ok(probe.is_kept());
            }
        }
        Ok(false)
    };
    let mut rate = first;
    let (mut low, mut high);
    if attempt(rate)? {
        loop {
            low = rate;
            rate = rate.saturating_mul(2);
            high = rate;
            if rate > RATE_MAX || !attempt(rate)? {
                break;
            }
        }
    } else {
        loop {
            high = rate;
            rate /= 2;
            low = rate;
            if rate < RATE_MIN {
                break;
            }
            if attempt(rate)? {
                break;
            }
        }
    }
    for _ in 0..HALVINGS {
        let middle = (f64::from(low) * f64::from(high)).sqrt() as u32;
        match attempt(middle.max(1))? {
            true => low = middle,
            false => high = middle,
        }
    }
    match best {
        Some(best) => Ok(best),
        None => bail!("at {RATE_MIN} datagrams a second more than 1 % is lost"),
    }
}

/// Median round trip of a ping every 10 ms without other traffic.
pub(super) fn round_trip(arena: &Arena, target: IpAddr) -> Result<Duration> {
    let playground = arena.playground();
    let mut command = playground.command(Role::Client, "ping");
    command.args(["-n", "-i", "0.01", "-c", &PINGS.to_string()]);
    command.arg(target.to_string());
    let output = playground.run(command, PING_LIMIT)?;
    let times = round_trips(&String::from_utf8_lossy(&output.stdout));
    ensure!(
        times.len() * 10 >= PINGS * 9,
        "only {} of {PINGS} pings came back",
        times.len()
    );
    let mut sorted = times;
    sorted.sort_unstable();
    Ok(sorted[sorted.len() / 2])
}

/// Parses `64 bytes from 10.20.0.100: icmp_seq=1 ttl=62 time=0.065 ms`.
fn round_trips(said: &str) -> Vec<Duration> {
    let time = |line: &str| {
        let (_, time) = line.rsplit_once(" time=")?;
        let ms: f64 = time.strip_suffix(" ms")?.parse().ok()?;
        Duration::try_from_secs_f64(ms / 1000.0).ok()
    };
    said.lines().filter_map(time).collect()
}

const FIRST_RATE: u32 = 50_000;
const RATE_MIN: u32 = 2_000;
/// Beyond what two cores can send.
const RATE_MAX: u32 = 4_000_000;
/// After this many steps the rate is known to 10 %.
const HALVINGS: u32 = 3;
const PROBE_MS: u32 = 1000;
const PROBE_LIMIT: Duration = Duration::from_secs(12);
const PINGS: usize = 500;
const PING_LIMIT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(sent: u64, received: u64) -> Outcome {
        Outcome {
            sent,
            received,
            reordered: 0,
            millis: 1000,
        }
    }

    fn probed(rate: u32, sent: u64, received: u64) -> Probe {
        Probe {
            planned: rate,
            outcome: outcome(sent, received),
            cpu: Some(Duration::from_millis(100)),
        }
    }

    /// A path that loses what exceeds its capacity, and a sender with a limit.
    fn found(capacity: u64, sender: u64) -> (Result<Probe>, usize) {
        let mut probes = 0;
        let found = search(FIRST_RATE, |rate| {
            probes += 1;
            let sent = u64::from(rate).min(sender);
            Ok(probed(rate, sent, sent.min(capacity)))
        });
        (found, probes)
    }

    #[test]
    fn the_highest_rate_without_loss_is_found_from_both_sides() {
        for capacity in [5_000, 49_000, 51_000, 120_000, 1_500_000] {
            let (best, probes) = found(capacity, u64::MAX);
            let rate = best.expect("found").rate();
            assert!(rate <= capacity as f64 * 1.01, "{capacity}: {rate}");
            assert!(rate >= capacity as f64 * 0.9, "{capacity}: {rate}");
            assert!(probes < 30, "{capacity}: {probes}");
        }
    }

    #[test]
    fn a_sender_at_its_limit_ends_the_search() {
        let (best, _) = found(10_000_000, 300_000);
        assert_eq!(best.expect("found").rate(), 300_000.0);
    }

    #[test]
    fn a_path_that_always_loses_is_an_error() {
        let (best, probes) = found(100, u64::MAX);
        assert!(best.expect_err("lost").to_string().contains("1 %"));
        assert!(probes < 30);
    }

    #[test]
    fn one_hiccup_is_forgiven() {
        let mut hiccups = 1;
        let best = search(FIRST_RATE, |rate| {
            let lost = u64::from(rate >= 100_000 && std::mem::take(&mut hiccups) > 0);
            let sent = u64::from(rate).min(200_000);
            Ok(probed(rate, sent, sent - lost * sent / 2))
        });
        assert_eq!(best.expect("found").rate(), 200_000.0);
    }

    #[test]
    fn costs_are_for_what_arrived() {
        let probe = probed(1000, 1000, 500);
        assert_eq!(probe.cost(), Some(200.0));
        let run = TcpRun {
            bits_per_second: 1.0,
            bytes: 500_000_000,
            cpu: Some(Cpu {
                user: Duration::from_millis(250),
                system: Duration::from_millis(750),
            }),
        };
        assert_eq!(run.cost(), Some(2.0));
    }

    /// As ping of iputils 20221126 prints it.
    #[test]
    fn round_trips_are_read_from_their_lines() {
        let said = "PING 10.20.0.100 (10.20.0.100) 56(84) bytes of data.\n\
                    64 bytes from 10.20.0.100: icmp_seq=1 ttl=62 time=0.404 ms\n\
                    64 bytes from 10.20.0.100: icmp_seq=2 ttl=62 time=12 ms\n\n\
                    --- 10.20.0.100 ping statistics ---\n\
                    2 packets transmitted, 2 received, 0% packet loss, time 10ms\n\
                    rtt min/avg/max/mdev = 0.404/6.2/12/5.8 ms\n";
        let expected = [404, 12_000].map(Duration::from_micros);
        assert_eq!(round_trips(said), expected);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(said in "\\PC*") {
            let _times = round_trips(&said);
        }
    }
}
