//! The tables: medians over the rounds, and ratios of runs of the same round.

use super::contender::Contender;
use super::load::{Probe, TcpRun};
use postern_lab::figures::{median, table};
use std::collections::BTreeMap;
use std::time::Duration;

/// The runs of each contender under one load, one for each round.
pub(super) type Runs<T> = BTreeMap<Contender, Vec<T>>;

/// What the table's columns mean.
pub(super) const TCP_LEGEND: &str = "\
Medians over the rounds. Gbit/s: payload that arrived, with its extremes. gw s/GB: processor seconds
of the gateway for each 10^9 bytes of payload, user its own code among them. cost / floor, cost /
boringtun-1: the same against these, of the runs of a round. rate / floor: Gbit/s against its.

";

/// As [`TCP_LEGEND`].
pub(super) const UDP_LEGEND: &str = "\
Medians over the rounds. packets/s: the highest rate found with under 1 % loss. gw us: processor
time of the gateway for each packet that arrived at that rate. The ratios are of the same round.

";

/// All TCP loads.
pub(super) fn tcp(loads: &[(String, Runs<TcpRun>)]) -> String {
    let header = [
        "TCP",
        "gateway",
        "Gbit/s",
        "min–max",
        "gw s/GB",
        "user",
        "cost / floor",
        "cost / boringtun-1",
        "rate / floor",
    ];
    let rows = loads.iter().flat_map(|(name, runs)| {
        runs.iter()
            .map(|(contender, own)| tcp_row(name, *contender, own, runs))
    });
    table(&header.map(str::to_owned), &rows.collect::<Vec<_>>())
}

fn tcp_row(load: &str, contender: Contender, own: &[TcpRun], all: &Runs<TcpRun>) -> [String; 9] {
    let rate = |run: &TcpRun| Some(run.bits_per_second / 1e9);
    let user = |run: &TcpRun| {
        let cpu = run.cpu?;
        Some(cpu.user.as_secs_f64() / (run.bytes as f64 / 1e9))
    };
    [
        load.to_owned(),
        contender.to_string(),
        shown(middle(own, rate), 2),
        extremes(own.iter().filter_map(rate), 2),
        shown(middle(own, TcpRun::cost), 2),
        shown(middle(own, user), 2),
        shown(ratio(own, all.get(&Contender::Floor), TcpRun::cost), 2),
        shown(
            ratio(own, all.get(&Contender::BoringtunOne), TcpRun::cost),
            2,
        ),
        shown(ratio(own, all.get(&Contender::Floor), rate), 2),
    ]
}

/// All UDP loads.
pub(super) fn udp(loads: &[(String, Runs<Probe>)]) -> String {
    let header = [
        "UDP payload",
        "gateway",
        "packets/s",
        "min–max",
        "gw us",
        "cost / floor",
        "rate / boringtun-1",
        "reordered",
    ];
    let rows = loads.iter().flat_map(|(name, runs)| {
        runs.iter()
            .map(|(contender, own)| udp_row(name, *contender, own, runs))
    });
    table(&header.map(str::to_owned), &rows.collect::<Vec<_>>())
}

fn udp_row(load: &str, contender: Contender, own: &[Probe], all: &Runs<Probe>) -> [String; 8] {
    let rate = |probe: &Probe| Some(probe.rate());
    let reordered: u64 = own.iter().map(|it| u64::from(it.outcome.reordered)).sum();
    [
        load.to_owned(),
        contender.to_string(),
        shown(middle(own, rate), 0),
        extremes(own.iter().filter_map(rate), 0),
        shown(middle(own, Probe::cost), 2),
        shown(ratio(own, all.get(&Contender::Floor), Probe::cost), 2),
        shown(ratio(own, all.get(&Contender::BoringtunOne), rate), 2),
        reordered.to_string(),
    ]
}

/// The idle round trips.
pub(super) fn round_trips(runs: &Runs<Duration>) -> String {
    let header = ["idle round trip", "ms", "min–max", "added"];
    let ms = |time: &Duration| Some(time.as_secs_f64() * 1000.0);
    let without = runs.get(&Contender::Kernel);
    let without = without.and_then(|it| middle(it, ms));
    let rows = runs.iter().map(|(contender, own)| {
        let with = middle(own, ms);
        [
            contender.to_string(),
            shown(with, 3),
            extremes(own.iter().filter_map(ms), 3),
            shown(with.zip(without).map(|(with, without)| with - without), 3),
        ]
    });
    table(&header.map(str::to_owned), &rows.collect::<Vec<_>>())
}

fn middle<T>(runs: &[T], figure: impl Fn(&T) -> Option<f64>) -> Option<f64> {
    let mut figures: Vec<f64> = runs.iter().filter_map(figure).collect();
    (!figures.is_empty()).then(|| median(&mut figures))
}

/// The median of the ratios of the runs of each round.
fn ratio<T>(own: &[T], other: Option<&Vec<T>>, figure: impl Fn(&T) -> Option<f64>) -> Option<f64> {
    let pairs = own.iter().zip(other?);
    let ratios = pairs.filter_map(|(own, other)| Some(figure(own)? / figure(other)?));
    let mut ratios: Vec<f64> = ratios.collect();
    (!ratios.is_empty()).then(|| median(&mut ratios))
}

fn extremes(figures: impl Iterator<Item = f64> + Clone, digits: usize) -> String {
    let least = figures.clone().fold(f64::INFINITY, f64::min);
    let most = figures.fold(0.0, f64::max);
    match least <= most {
        true => format!("{least:.digits$}–{most:.digits$}"),
        false => "-".to_owned(),
    }
}

fn shown(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "-".to_owned(), |it| format!("{it:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::usage::Cpu;
    use crate::udp_load::Outcome;

    fn run(gbit: f64, seconds_per_gb: Option<f64>) -> TcpRun {
        let cpu = |seconds| Cpu {
            user: Duration::from_secs_f64(seconds / 4.0),
            system: Duration::from_secs_f64(seconds * 3.0 / 4.0),
        };
        TcpRun {
            bits_per_second: gbit * 1e9,
            bytes: 1_000_000_000,
            cpu: seconds_per_gb.map(cpu),
        }
    }

    #[test]
    fn ratios_are_those_of_the_runs_of_a_round() {
        let runs: Runs<TcpRun> = [
            // The machine was slow in the second round, which says nothing about anybody.
            (
                Contender::Postern,
                vec![run(3.0, Some(2.0)), run(1.5, Some(4.0))],
            ),
            (
                Contender::Floor,
                vec![run(3.0, Some(2.0)), run(1.5, Some(4.0))],
            ),
            (
                Contender::BoringtunOne,
                vec![run(0.6, Some(8.0)), run(0.3, Some(16.0))],
            ),
            (Contender::Kernel, vec![run(15.0, None), run(10.0, None)]),
        ]
        .into();
        let own = &runs[&Contender::Postern];
        let cells = tcp_row("upload", Contender::Postern, own, &runs);
        let expected = [
            "upload",
            "postern",
            "2.25",
            "1.50–3.00",
            "3.00",
            "0.75",
            "1.00",
            "0.25",
            "1.00",
        ];
        assert_eq!(cells, expected);
        let own = &runs[&Contender::Kernel];
        let cells = tcp_row("upload", Contender::Kernel, own, &runs);
        assert_eq!(cells[4..], ["-", "-", "-", "-", "5.83"]);
    }

    #[test]
    fn packets_cost_microseconds() {
        let probe = |received, cpu_ms| Probe {
            planned: 1000,
            outcome: Outcome {
                sent: received,
                received,
                reordered: 1,
                millis: 1000,
            },
            cpu: Some(Duration::from_millis(cpu_ms)),
        };
        let runs: Runs<Probe> = [
            (Contender::Postern, vec![probe(400_000, 800)]),
            (Contender::BoringtunOne, vec![probe(100_000, 1000)]),
        ]
        .into();
        let cells = udp_row("x", Contender::Postern, &runs[&Contender::Postern], &runs);
        let expected = [
            "x",
            "postern",
            "400000",
            "400000–400000",
            "2.00",
            "-",
            "4.00",
            "1",
        ];
        assert_eq!(cells, expected);
    }

    #[test]
    fn what_a_tunnel_adds_is_told() {
        let us = |micros| vec![Duration::from_micros(micros)];
        let runs = [(Contender::Postern, us(300)), (Contender::Kernel, us(65))];
        let text = round_trips(&runs.into());
        assert!(text.contains("0.300  0.300–0.300  0.235"), "{text}");
    }
}
