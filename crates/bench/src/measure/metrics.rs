//! `postern-bench bench metrics`: the throughput that reading the gateway's metrics once a second
//! costs.
//!
//! Each load runs twice in a round, with and without a reader, in alternating order, so that a busy
//! phase of the machine affects both. Prints figures, not verdicts.

use super::usage::Usage;
use super::{FILTERS, concluded, debug_build, machine, print, report, time_to_first_byte};
use anyhow::{Context, Result, ensure};
use postern_lab::figures::{median, table};
use postern_lab::playground::component::Component;
use postern_lab::playground::iperf::{self, Load};
use postern_lab::playground::lab::Lab;
use postern_lab::playground::network::WEB_V4;
use postern_lab::playground::programs::Programs;
use postern_lab::playground::setup::Setup;
use postern_lab::playground::wait::Interrupt;
use postern_lab::playground::{Playground, Role};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;
use tokio::time::Instant;

/// Repetitions and durations.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Number of rounds, in each of which every load runs with and without a reader.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Duration of each load in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=60))]
    pub seconds: u32,
}

/// Default address of the gateway's metrics.
const PAGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9599);
/// Interval at which the reader reads.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Time limit for a single read.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Throughput and cost of one load.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    bits_per_second: f64,
    /// Processor time of the gateway, as a share of one core.
    busy: f64,
}

/// The same load, with and without a reader.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pair {
    read: Run,
    unread: Run,
}

/// Result of one read of the metrics.
#[derive(Clone, Copy, Debug)]
struct Reading {
    took: Duration,
    bytes: usize,
}

/// Runs the benchmark, blocking; removes everything before it returns.
pub(super) fn bench(interrupt: &Interrupt, args: Args) -> Result<()> {
    print(&format!(
        "Machine: {}\n{}\
         TCP through the tunnel, {} s each, with and without GET /metrics once a second, in\n\
         alternating order; rounds: {}.\n\n",
        machine::described(),
        debug_build(),
        args.seconds,
        args.rounds,
    ))?;
    let playground = Playground::with_interrupt(interrupt.clone())?;
    let programs = Programs::beside_this()?;
    let setup = Setup {
        filters: FILTERS,
        ..Setup::default()
    };
    let mut lab = Lab::new(playground, &programs, setup)?;
    let measured = measure(&mut lab, args);
    concluded(&lab, measured)
}

fn measure(lab: &mut Lab, args: Args) -> Result<()> {
    lab.start_all(&Component::ONE_CLIENT)?;
    time_to_first_byte(lab)?;
    let mut loads = Load::ALL.map(|load| (load, Vec::new()));
    let mut readings = Vec::new();
    for round in 1..=args.rounds {
        for (load, pairs) in &mut loads {
            let pair = pair(lab, (*load, args.seconds), round % 2 == 0, &mut readings)?;
            let (name, ratio) = (load.name(), pair.ratio());
            tracing::info!(round, load = name, ratio, "measured");
            pairs.push(pair);
        }
    }
    print(&throughput(&loads))?;
    print(LEGEND)?;
    let bytes = readings.iter().map(|it| it.bytes).max().unwrap_or_default();
    print(&format!("A page has {bytes} bytes.\n"))?;
    let times = readings.iter().map(|it| it.took).collect();
    print(&report::times(&[("a page under load", times)]))
}

/// Runs a pair; the order alternates with the round.
fn pair(
    lab: &mut Lab,
    load: (Load, u32),
    is_read_first: bool,
    readings: &mut Vec<Reading>,
) -> Result<Pair> {
    Ok(if is_read_first {
        let read = run_read(lab, load, readings)?;
        let unread = run(lab, load)?;
        Pair { read, unread }
    } else {
        let unread = run(lab, load)?;
        let read = run_read(lab, load, readings)?;
        Pair { read, unread }
    })
}

fn run(lab: &mut Lab, (load, seconds): (Load, u32)) -> Result<Run> {
    let gateway = lab.gateway()?.pid();
    let before = Usage::of(gateway)?;
    let begun = Instant::now();
    let moved = iperf::run(lab.playground(), Role::Client, WEB_V4.into(), load, seconds);
    let moved = moved.with_context(|| load.name())?;
    let cpu = Usage::of(gateway)?.cpu.since(before.cpu).total();
    Ok(Run {
        bits_per_second: moved.bits_per_second,
        busy: cpu.as_secs_f64() / begun.elapsed().as_secs_f64(),
    })
}

/// As [`run`], with a reader.
fn run_read(lab: &mut Lab, load: (Load, u32), readings: &mut Vec<Reading>) -> Result<Run> {
    let door = lab.playground().handle(Role::Gateway)?;
    std::thread::scope(|scope| {
        let (stop, stopped) = channel();
        let reader = scope.spawn(move || door.enter(move || read_until(&stopped)));
        let run = run(lab, load);
        drop(stop);
        let told = reader.join().ok().context("reading panicked")??;
        ensure!(!told.is_empty(), "the reader read nothing");
        readings.extend(told);
        run
    })
}

/// Reads immediately and then each second, until the sender of `stopped` is dropped.
fn read_until(stopped: &Receiver<()>) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    loop {
        readings.push(read()?);
        match stopped.recv_timeout(READ_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(readings),
        }
    }
}

fn read() -> Result<Reading> {
    let begun = Instant::now();
    let stream = TcpStream::connect_timeout(&PAGE, READ_LIMIT);
    let mut stream = stream.with_context(|| format!("no metrics at {PAGE}"))?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    ensure!(
        page.starts_with(b"HTTP/1.1 200 ") && page.ends_with(b"# EOF\n"),
        "not a page of numbers: {}",
        String::from_utf8_lossy(&page[..page.len().min(200)])
    );
    Ok(Reading {
        took: begun.elapsed(),
        bytes: page.len(),
    })
}

impl Pair {
    /// Throughput with a reader relative to that without.
    fn ratio(&self) -> f64 {
        self.read.bits_per_second / self.unread.bits_per_second
    }
}

fn throughput(loads: &[(Load, Vec<Pair>)]) -> String {
    let header = [
        "TCP payload",
        "unread",
        "read",
        "ratio",
        "min–max",
        "gw core, unread",
        "gw core, read",
    ];
    let rows = loads.iter().map(|(load, pairs)| row(&load.name(), pairs));
    let all: Vec<Pair> = loads.iter().flat_map(|(_, pairs)| pairs).copied().collect();
    let rows = rows.chain([row("all", &all)]);
    table(&header.map(str::to_owned), &rows.collect::<Vec<_>>())
}

const LEGEND: &str = "\
Medians over the rounds. unread, read: payload in Gbit/s, without and with a reader. ratio: with a
reader against without, of the two runs of a round, with its extremes. gw core: share of one core
that the gateway takes.

";

fn row(name: &str, pairs: &[Pair]) -> [String; 7] {
    let middle = |figure: &dyn Fn(&Pair) -> f64| {
        let mut figures: Vec<f64> = pairs.iter().map(figure).collect();
        median(&mut figures)
    };
    let ratios = pairs.iter().map(Pair::ratio);
    let least = ratios.clone().fold(f64::INFINITY, f64::min);
    let most = ratios.fold(0.0, f64::max);
    [
        name.to_owned(),
        format!("{:.2}", middle(&|it| it.unread.bits_per_second / 1e9)),
        format!("{:.2}", middle(&|it| it.read.bits_per_second / 1e9)),
        format!("{:.3}", middle(&Pair::ratio)),
        format!("{least:.3}–{most:.3}"),
        format!("{:.0} %", middle(&|it| it.unread.busy * 100.0)),
        format!("{:.0} %", middle(&|it| it.read.busy * 100.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_two_runs_of_a_round() {
        let run = |gbit: f64| Run {
            bits_per_second: gbit * 1e9,
            busy: 0.5,
        };
        let pair = |unread, read| Pair {
            unread: run(unread),
            read: run(read),
        };
        // The machine was slow in the second round, which affects both.
        let row = row("upload", &[pair(2.0, 2.0), pair(1.0, 0.99), pair(2.0, 1.9)]);
        assert_eq!(row[..2], ["upload", "2.00"]);
        assert_eq!(row[3..5], ["0.990", "0.950–1.000"]);
    }
}
