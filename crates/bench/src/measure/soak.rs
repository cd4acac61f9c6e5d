//! `postern-bench bench soak`: full load both ways for minutes, and the gateway's memory over time.
//!
//! Sessions are renewed meanwhile. Reports drops as the gateway counts them.

use super::usage::Usage;
use super::{FILTERS, MEBI, concluded, debug_build, machine, print};
use crate::fast_client::{Admitted, Place};
use anyhow::{Result, anyhow};
use postern_lab::playground::component::Component;
use postern_lab::playground::iperf::{self, Direction, Load, Transfer};
use postern_lab::playground::lab::Lab;
use postern_lab::playground::network::{RESOURCE_NET_V4, WEBS_V4};
use postern_lab::playground::programs::Programs;
use postern_lab::playground::setup::{RESOURCE_V4, Setup};
use postern_lab::playground::traffic;
use postern_lab::playground::wait::Interrupt;
use postern_lab::playground::{Playground, Role};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Duration of the benchmark.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Duration of the load in minutes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    minutes: u32,
}

/// Runs the benchmark, blocking; removes everything before it returns.
pub(super) fn bench(interrupt: &Interrupt, args: Args) -> Result<()> {
    print(&format!(
        "Machine: {}\n{}{} minutes, 4 streams of TCP each way at the same time.\n",
        machine::described(),
        debug_build(),
        args.minutes
    ))?;
    let playground = Playground::with_interrupt(interrupt.clone())?;
    let programs = Programs::beside_this()?;
    let setup = Setup {
        filters: FILTERS,
        relay: false,
        ..Setup::default()
    };
    let mut lab = Lab::new(playground, &programs, setup)?;
    let measured = measure(&mut lab, args);
    concluded(&lab, measured)
}

fn measure(lab: &mut Lab, args: Args) -> Result<()> {
    lab.start_all(&[Component::Portal, Component::Gateway])?;
    let mut guest = Admitted::new(1)?;
    guest.admit(lab, RESOURCE_V4, None)?;
    let gateway = lab.gateway()?.pid();
    let place = Place {
        playground: lab.playground(),
        role: Role::Client,
        address: guest.address(),
        routes: &[RESOURCE_NET_V4],
    };
    let programs = Programs::beside_this()?;
    let _client = place.start(&programs, guest.peer()?)?;
    let slices = args.minutes * 60 / SLICE_S;
    let mut resident = Vec::new();
    let mut moved = [0.0, 0.0];
    for _ in 0..slices {
        let (up, down) = both_ways(lab.playground())?;
        moved[0] += gigabits(&up);
        moved[1] += gigabits(&down);
        resident.push(Usage::of(gateway)?.resident_bytes);
    }
    print(&memory(&resident))?;
    let seconds = f64::from(slices * SLICE_S);
    let [up, down] = moved.map(|it| it / seconds);
    print(&format!(
        "Upload {up:.2} Gbit/s, download {down:.2} Gbit/s on average.\n"
    ))?;
    print(&counted(&page(lab)?))
}

/// Runs one upload and one download at the same time, with separate servers.
fn both_ways(playground: &Playground) -> Result<(Transfer, Transfer)> {
    let run =
        |server: Ipv4Addr, load| iperf::run(playground, Role::Client, server.into(), load, SLICE_S);
    std::thread::scope(|scope| {
        let up = scope.spawn(|| run(WEBS_V4[0], UPLOAD));
        let down = run(WEBS_V4[1], DOWNLOAD);
        let up = up.join().map_err(|_| anyhow!("the upload panicked"))?;
        Ok((up?, down?))
    })
}

fn gigabits(transfer: &Transfer) -> f64 {
    transfer.bytes as f64 * 8.0 / 1e9
}

/// Description of the memory over time.
fn memory(resident: &[u64]) -> String {
    let mebi = |bytes: Option<&u64>| bytes.copied().unwrap_or_default() as f64 / MEBI;
    format!(
        "RSS in MiB: first {:.1}, last {:.1}, most {:.1}; every {SLICE_S} s: {}\n",
        mebi(resident.first()),
        mebi(resident.last()),
        mebi(resident.iter().max()),
        resident
            .iter()
            .map(|it| format!("{:.1}", mebi(Some(it))))
            .collect::<Vec<_>>()
            .join(" ")
    )
}

/// Reads the gateway's metrics.
pub(super) fn page(lab: &Lab) -> Result<String> {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    let url = traffic::url(loopback, METRICS_PORT, "/metrics");
    let fetched = traffic::fetch(lab.playground(), Role::Gateway, &url, PAGE_LIMIT)?;
    Ok(fetched.body)
}

/// Samples of drops and handshakes that are not zero.
fn counted(page: &str) -> String {
    let is_told = |line: &&str| {
        let is_counted = COUNTED.iter().any(|it| line.starts_with(it));
        is_counted && !line.ends_with(" 0")
    };
    let told: Vec<&str> = page.lines().filter(is_told).collect();
    match told.is_empty() {
        true => "Nothing was dropped, and no handshake counted.\n".to_owned(),
        false => format!("{}\n", told.join("\n")),
    }
}

/// Metrics that the report lists at its end.
const COUNTED: [&str; 2] = ["postern_dropped_packets_total", "postern_handshakes"];
const SLICE_S: u32 = 10;
const UPLOAD: Load = Load {
    direction: Direction::Upload,
    streams: 4,
};
const DOWNLOAD: Load = Load {
    direction: Direction::Download,
    streams: 4,
};
const METRICS_PORT: u16 = 9599;
const PAGE_LIMIT: Duration = Duration::from_secs(5);
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_last_and_maximum_are_shown() {
        let text = memory(&[10 << 20, 30 << 20, 20 << 20]);
        assert!(text.contains("first 10.0, last 20.0, most 30.0"), "{text}");
        assert!(text.ends_with("10.0 30.0 20.0\n"), "{text}");
    }

    #[test]
    fn only_nonzero_counters_are_shown() {
        let page = "# TYPE x\npostern_dropped_packets_total{reason=\"a\"} 0\n\
                    postern_dropped_packets_total{reason=\"b\"} 7\npostern_up 1\n";
        assert_eq!(
            counted(page),
            "postern_dropped_packets_total{reason=\"b\"} 7\n"
        );
        assert!(counted("").starts_with("Nothing"));
    }
}
