//! The figures as aligned tables: medians over rounds, and percentiles of times.
//!
//! Shows the extremes beside each median of a rate.

use super::MEBI;
use super::usage::Cpu;
use postern_lab::figures::{median, percentile, table};
use postern_lab::playground::iperf::{Load, Transfer};
use std::time::Duration;

/// One load in one round, through the tunnel and by the kernel alone.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Result of the load through the tunnel.
    pub(super) tunnel: Transfer,
    /// Result of the load without the tunnel.
    pub(super) kernel: Transfer,
    /// Duration of iperf3 at the tunnel.
    pub(super) elapsed: Duration,
    /// Processor time of the gateway during the load.
    pub(super) gateway_cpu: Cpu,
    /// Processor time of the client during the load.
    pub(super) client_cpu: Cpu,
    /// The gateway's resident memory afterwards.
    pub(super) resident_bytes: u64,
}

impl Run {
    /// Processor seconds for each 10^9 bytes of payload.
    fn per_gigabyte(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() / (self.tunnel.bytes as f64 / 1e9)
    }

    /// Processor time as a share of one core, in percent.
    fn busy_percent(&self, cpu: Cpu) -> f64 {
        cpu.total().as_secs_f64() / self.elapsed.as_secs_f64() * 100.0
    }
}

/// Table of all loads, each with its runs over all rounds.
pub(super) fn throughput(loads: &[(Load, Vec<Run>)]) -> String {
    let header = [
        "TCP payload",
        "Gbit/s",
        "min–max",
        "kernel",
        "gw s/GB",
        "user",
        "gw core",
        "client s/GB",
        "client core",
        "gw RSS",
        "resent",
    ];
    let rows = loads.iter().map(|(load, runs)| row(*load, runs));
    table(&header.map(str::to_owned), &rows.collect::<Vec<_>>())
}

/// Explanation of the columns of [`throughput`].
pub(super) const LEGEND: &str = "\
Medians over the rounds. Gbit/s: payload that arrived through the tunnel, with its extremes.
kernel: the same way in Gbit/s, forwarded by the kernel without a tunnel. gw, client: processor
seconds for each GB (10^9 bytes) of payload, and share of one core, of the gateway and of the
reference client; user: the gateway's own code, the rest is the kernel at its calls, which here
includes forwarding and a part of the resource's TCP. gw RSS: the gateway's resident memory
afterwards, MiB. resent: TCP segments.
";

fn row(load: Load, runs: &[Run]) -> [String; 11] {
    let middle = |figure: &dyn Fn(&Run) -> f64| {
        let mut figures: Vec<f64> = runs.iter().map(figure).collect();
        median(&mut figures)
    };
    let rate = |transfer: &Transfer| transfer.bits_per_second / 1e9;
    let rates = runs.iter().map(|run| rate(&run.tunnel));
    let least = rates.clone().fold(f64::INFINITY, f64::min);
    let most = rates.fold(0.0, f64::max);
    [
        load.name(),
        format!("{:.2}", middle(&|run| rate(&run.tunnel))),
        format!("{least:.2}–{most:.2}"),
        format!("{:.2}", middle(&|run| rate(&run.kernel))),
        format!(
            "{:.2}",
            middle(&|run| run.per_gigabyte(run.gateway_cpu.total()))
        ),
        format!(
            "{:.2}",
            middle(&|run| run.per_gigabyte(run.gateway_cpu.user))
        ),
        format!("{:.0} %", middle(&|run| run.busy_percent(run.gateway_cpu))),
        format!(
            "{:.2}",
            middle(&|run| run.per_gigabyte(run.client_cpu.total()))
        ),
        format!("{:.0} %", middle(&|run| run.busy_percent(run.client_cpu))),
        format!("{:.1}", middle(&|run| run.resident_bytes as f64 / MEBI)),
        format!("{:.0}", middle(&|run| run.tunnel.retransmits as f64)),
    ]
}

/// Table of named lists of times.
pub(super) fn times(lists: &[(&str, Vec<Duration>)]) -> String {
    let header = ["ms", "count", "least", "median", "95 %", "99 %", "most"];
    let rows = lists.iter().map(|(name, times)| {
        let mut sorted = times.clone();
        sorted.sort_unstable();
        let at = |percent| format!("{:.2}", percentile(&sorted, percent).as_secs_f64() * 1000.0);
        let count = sorted.len().to_string();
        [
            (*name).to_owned(),
            count,
            at(0),
            at(50),
            at(95),
            at(99),
            at(100),
        ]
    });
    table(&header.map(str::to_owned), &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(gbit_per_s: f64) -> Transfer {
        Transfer {
            bytes: 500_000_000,
            bits_per_second: gbit_per_s * 1e9,
            retransmits: 7,
            congestion: "cubic".to_owned(),
        }
    }

    fn cpu(user_ms: u64, system_ms: u64) -> Cpu {
        Cpu {
            user: Duration::from_millis(user_ms),
            system: Duration::from_millis(system_ms),
        }
    }

    fn run(gbit_per_s: f64) -> Run {
        Run {
            tunnel: transfer(gbit_per_s),
            kernel: transfer(10.0),
            elapsed: Duration::from_secs(4),
            gateway_cpu: cpu(500, 1500),
            client_cpu: cpu(2500, 500),
            resident_bytes: 12 << 20,
        }
    }

    #[test]
    fn a_row_holds_medians_extremes_and_processor_time_for_each_gigabyte() {
        let runs = [run(1.0), run(3.0), run(1.5)];
        let cells = row(Load::ALL[1], &runs);
        let expected = [
            "download, 1 stream",
            "1.50",
            "1.00–3.00",
            "10.00",
            "4.00",
            "1.00",
            "50 %",
            "6.00",
            "75 %",
            "12.0",
            "7",
        ];
        assert_eq!(cells, expected);
    }

    #[test]
    fn times_are_shown_from_the_least_to_the_most() {
        let list: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let text = times(&[("acks", list)]);
        let cells: Vec<&str> = text
            .lines()
            .nth(1)
            .expect("a row")
            .split_whitespace()
            .collect();
        assert_eq!(
            cells,
            [
                "acks", "200", "1.00", "100.00", "190.00", "198.00", "200.00"
            ]
        );
    }
}
