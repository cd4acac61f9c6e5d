//! `postern-bench bench`: the gateway beside other programs that do the same.
//!
//! Each program is the gateway between a client and a resource in its own playground; all are up at
//! the same time and take turns, so that a busy phase of the machine affects all. The client end is
//! the fast client, for the floor the floor; so only the gateways differ. A program that is not
//! installed is listed and skipped.

pub(super) mod arena;
mod contender;
pub(super) mod load;
mod report;

use super::{debug_build, machine, print};
use anyhow::{Context, Result, bail};
use arena::Arena;
use contender::Contender;
use load::UdpLoad;
use postern_lab::playground::iperf::Load;
use postern_lab::playground::is_installed;
use postern_lab::playground::programs::Programs;
use postern_lab::playground::wait::{Interrupt, Interrupted};
use report::Runs;

/// Loads, repetitions and gateways.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Number of rounds, in each of which every load runs once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Duration of each TCP load in seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Only these kinds of load, separated by commas or in repeated options.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<LoadKind>,
    /// Only these gateways: postern, postern-name, floor, boringtun-1, boringtun, gotatun,
    /// wireguard-go, kernel.
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<Contender>,
}

/// A kind of measured load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum LoadKind {
    /// CPU and rate of TCP, 1 and 4 streams, both directions.
    Tcp,
    /// CPU and rate of UDP, 64 and 1200 bytes, both directions.
    Udp,
    /// The same, sent and received in groups of up to 16 datagrams, as QUIC does.
    UdpGroups,
    /// Round-trip time without other traffic.
    Rtt,
}

impl Args {
    fn measures(&self, kind: LoadKind) -> bool {
        self.only.is_empty() || self.only.contains(&kind)
    }
}

/// Runs the benchmark, blocking; removes everything before it returns.
pub(super) fn bench(interrupt: &Interrupt, args: &Args) -> Result<()> {
    let Args {
        rounds, seconds, ..
    } = args;
    print(&format!(
        "Machine: {}\n{}Over IPv4, MTU 1280; rounds: {rounds}; TCP by iperf3, {seconds} s each.\n",
        machine::described(),
        debug_build()
    ))?;
    let programs = Programs::beside_this()?;
    let mut field = Field {
        arenas: Vec::new(),
        programs: &programs,
    };
    for contenders in groups(&args.contenders) {
        field.add(&contenders, interrupt)?;
    }
    print("\n")?;
    let measured = field.measure(args);
    match measured {
        Err(error) if error.is::<Interrupted>() => bail!("interrupted; everything was removed"),
        measured => measured.context("the benchmark failed"),
    }
}

/// Groups the contenders that share an arena.
fn groups(wanted: &[Contender]) -> Vec<Vec<Contender>> {
    let is_wanted = |it: &Contender| wanted.is_empty() || wanted.contains(it);
    let is_postern = |it: &Contender| matches!(it, Contender::Postern | Contender::PosternByName);
    let all = Contender::ALL.into_iter().filter(is_wanted);
    let (postern, others): (Vec<_>, Vec<_>) = all.partition(is_postern);
    let groups = others.into_iter().map(|it| vec![it]);
    std::iter::once(postern)
        .chain(groups)
        .filter(|it| !it.is_empty())
        .collect()
}

/// Arenas and results of all measured contenders.
struct Field<'a> {
    arenas: Vec<Arena>,
    programs: &'a Programs,
}

impl Field<'_> {
    fn add(&mut self, contenders: &[Contender], interrupt: &Interrupt) -> Result<()> {
        let names: Vec<String> = contenders.iter().map(Contender::to_string).collect();
        let program = contenders.iter().find_map(|it| it.wireguard());
        let tools = program.map(|program| [program[0], "wg"]);
        let missing = tools.and_then(|it| it.into_iter().find(|it| !is_installed(it)));
        if let Some(missing) = missing {
            return print(&format!(
                "{}: left out, {missing} is not installed\n",
                names[0]
            ));
        }
        tracing::info!(gateway = names.join(", "), "setting up");
        match Arena::build(contenders, self.programs, interrupt) {
            Ok(arena) => self.arenas.push(arena),
            Err(error) if program.is_some() && !error.is::<Interrupted>() => {
                print(&format!("{}: left out, {error:#}\n", names[0]))?;
            }
            Err(error) => return Err(error.context(names.join(", "))),
        }
        Ok(())
    }

    fn measure(&mut self, args: &Args) -> Result<()> {
        if args.measures(LoadKind::Rtt) {
            print(&report::round_trips(&self.round_trips(args)?))?;
            print("\n")?;
        }
        if args.measures(LoadKind::Tcp) {
            print(&report::tcp(&self.tcp(args)?))?;
            print(report::TCP_LEGEND)?;
        }
        for (kind, loads) in [
            (LoadKind::Udp, UdpLoad::SINGLE),
            (LoadKind::UdpGroups, UdpLoad::GROUPED),
        ] {
            if args.measures(kind) {
                print(&report::udp(&self.udp(args, loads)?))?;
                print(report::UDP_LEGEND)?;
            }
        }
        Ok(())
    }

    fn round_trips(&mut self, args: &Args) -> Result<Runs<std::time::Duration>> {
        let mut runs = Runs::new();
        for _ in 0..args.rounds {
            self.each(&mut runs, |arena, target, _| {
                load::round_trip(arena, target)
            })?;
        }
        Ok(runs)
    }

    fn tcp(&mut self, args: &Args) -> Result<Vec<(String, Runs<load::TcpRun>)>> {
        let mut loads = Load::ALL.map(|load| (load.name(), Runs::new()));
        for _ in 0..args.rounds {
            for (load, (_, runs)) in Load::ALL.into_iter().zip(&mut loads) {
                self.each(runs, |arena, target, _| {
                    load::tcp(arena, target, load, args.seconds)
                })?;
            }
        }
        Ok(loads.into())
    }

    fn udp(
        &mut self,
        args: &Args,
        kinds: [UdpLoad; 4],
    ) -> Result<Vec<(String, Runs<load::Probe>)>> {
        let mut loads = kinds.map(|load| (load.name(), Runs::new()));
        for _ in 0..args.rounds {
            for (load, (_, runs)) in kinds.into_iter().zip(&mut loads) {
                self.each(runs, |arena, target, programs| {
                    load::udp(arena, target, load, programs)
                })?;
            }
        }
        Ok(loads.into())
    }

    /// Measures each contender once. Reports a failure of one of the others and skips its turn; a
    /// failure of Postern or the floor ends the benchmark.
    fn each<T: std::fmt::Debug>(
        &mut self,
        runs: &mut Runs<T>,
        mut run: impl FnMut(&mut Arena, std::net::IpAddr, &Programs) -> Result<T>,
    ) -> Result<()> {
        for arena in &mut self.arenas {
            for (contender, target) in arena.contenders.clone() {
                match run(arena, target, self.programs) {
                    Ok(figures) => {
                        tracing::info!(gateway = %contender, ?figures, "measured");
                        runs.entry(contender).or_default().push(figures);
                    }
                    Err(error) if contender.wireguard().is_some() && !error.is::<Interrupted>() => {
                        print(&format!("{contender}: {error:#}\n"))?;
                    }
                    Err(error) => {
                        print(&arena.log_tails())?;
                        return Err(error.context(contender.to_string()));
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_postern_share_an_arena() {
        let all = groups(&[]);
        assert_eq!(all.len(), Contender::ALL.len() - 1);
        assert_eq!(all[0], [Contender::Postern, Contender::PosternByName]);
        let some = groups(&[Contender::Floor, Contender::PosternByName]);
        assert_eq!(
            some,
            [vec![Contender::PosternByName], vec![Contender::Floor]]
        );
    }
}
