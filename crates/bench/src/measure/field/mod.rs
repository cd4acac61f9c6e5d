//! `postern-bench bench`: the gateway beside other programs that do the same.
//!
//! Each stands as gateway between a client and a resource in a playground of its own; all are up at
//! the same time and take turns, so that a busy moment of the machine hits all. The client end is
//! the fast client, for the floor the floor; so only the gateways differ. A program that is not
//! installed is named and left out.

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

/// What is measured, and whom.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// How often each load is put on.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How many seconds each TCP load lasts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Only this kind of load.
    #[arg(long, value_enum)]
    only: Option<Kind>,
    /// Only these gateways: postern, postern-name, floor, boringtun-1, boringtun, gotatun,
    /// wireguard-go, kernel.
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<Contender>,
}

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// CPU and rate of TCP, 1 and 4 streams, both directions.
    Tcp,
    /// CPU and rate of UDP, 64 and 1200 bytes, both directions.
    Udp,
    /// The same, sent and received in groups of up to 16 datagrams, as QUIC does.
    UdpGroups,
    /// The idle round trip.
    Rtt,
}

impl Args {
    fn measures(&self, kind: Kind) -> bool {
        self.only.is_none_or(|only| only == kind)
    }
}

/// Everything, blocking; everything that it made is gone when it returns.
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
        field.enter(&contenders, interrupt)?;
    }
    print("\n")?;
    let measured = field.measure(args);
    match measured {
        Err(error) if error.is::<Interrupted>() => bail!("interrupted; everything was removed"),
        measured => measured.context("the benchmark failed"),
    }
}

/// Those who share an arena together.
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

/// All who are measured.
struct Field<'a> {
    arenas: Vec<Arena>,
    programs: &'a Programs,
}

impl Field<'_> {
    fn enter(&mut self, contenders: &[Contender], interrupt: &Interrupt) -> Result<()> {
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
        if args.measures(Kind::Rtt) {
            print(&report::round_trips(&self.round_trips(args)?))?;
            print("\n")?;
        }
        if args.measures(Kind::Tcp) {
            print(&report::tcp(&self.tcp(args)?))?;
            print(report::TCP_LEGEND)?;
        }
        for (kind, loads) in [
            (Kind::Udp, UdpLoad::SINGLE),
            (Kind::UdpGroups, UdpLoad::GROUPED),
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

    /// Lets each contender have its turn. One of the others that fails is named, and its turn is
    /// lost; Postern or the floor failing ends the benchmark.
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
