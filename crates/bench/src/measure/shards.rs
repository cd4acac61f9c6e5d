//! `postern-bench bench shards`: two clients at a gateway with one shard and at one with two.
//!
//! Both gateways are up at the same time and take turns. Both clients load at once: TCP for the
//! rate, then UDP in both directions, whose numbers tell whether packets of a flow overtook each
//! other. Where all that loads them shares the machine's cores, no core is left for a second shard;
//! so each shard can be held to a part of a core, as if its cores were slower and there were more.

use super::field::arena::{serve_udp_at, succeed};
use super::field::load::{UdpLoad, put_on};
use super::{FILTERS, debug_build, machine, print, soak};
use crate::fast_client::{Admitted, Place};
use anyhow::{Context, Result, anyhow, ensure};
use postern_lab::figures::{median, table};
use postern_lab::playground::iperf::{self, Load, Way};
use postern_lab::playground::lab::{Lab, RESOURCE_V4, Setup};
use postern_lab::playground::network::{RESOURCE_NET_V4, WEBS_V4};
use postern_lab::playground::process::Process;
use postern_lab::playground::programs::Programs;
use postern_lab::playground::wait::Interrupt;
use postern_lab::playground::{Plan, Playground, Role};
use std::process::Command;
use std::time::Duration;

/// How much.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// How often each load is put on.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How many seconds each TCP load lasts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// How much of a core each shard may use, in per cent.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    share: u32,
    /// Datagrams per second of each client in the test of order.
    #[arg(long, default_value_t = 20_000)]
    rate: u32,
}

/// Everything, blocking; everything that it made is gone when it returns.
pub(super) fn bench(interrupt: &Interrupt, args: Args) -> Result<()> {
    print(&format!(
        "Machine: {}\n{}Two clients at once; each shard has {} % of a core.\n\n",
        machine::described(),
        debug_build(),
        args.share
    ))?;
    let programs = Programs::beside_this()?;
    let mut gateways = Vec::new();
    for shards in SHARDS {
        let gateway = Gateway::start(shards, &programs, interrupt);
        let mut gateway = gateway.with_context(|| format!("a gateway with {shards} shards"))?;
        if args.share < 100 {
            gateway.hold(args.share)?;
        }
        gateways.push(gateway);
    }
    let mut rows = Vec::new();
    for load in Load::ALL {
        let mut rates = SHARDS.map(|_| Vec::new());
        for _ in 0..args.rounds {
            for (gateway, rates) in gateways.iter().zip(&mut rates) {
                rates.push(gateway.tcp(load, args.seconds)?);
            }
        }
        rows.push(row(&load.name(), &mut rates));
    }
    let header = ["TCP", "1 shard, Gbit/s", "2 shards, Gbit/s", "ratio"];
    print(&table(&header.map(str::to_owned), &rows))?;
    for gateway in &gateways {
        let reordered = gateway.reordered(args.rate, &programs)?;
        print(&format!(
            "tunnel.shards = {}: {reordered} datagrams overtaken in their flow\n{}",
            gateway.shards,
            handed_over(&soak::page(&gateway.lab)?)
        ))?;
    }
    Ok(())
}

const SHARDS: [u32; 2] = [1, 2];
/// Short, so that a packet never waits for long.
const PERIOD: Duration = Duration::from_millis(5);
const CLIENTS: [Role; 2] = [Role::Client, Role::Member(0)];

/// A gateway with two clients. What is declared first is stopped first.
struct Gateway {
    shards: u32,
    _clients: Vec<Process>,
    _servers: Vec<Process>,
    lab: Lab,
}

impl Gateway {
    fn start(shards: u32, programs: &Programs, interrupt: &Interrupt) -> Result<Self> {
        let plan = Plan {
            interrupt: interrupt.clone(),
            crowd: 1,
            ..Plan::default()
        };
        let setup = Setup {
            filters: FILTERS,
            relay: false,
            gateway_environment: vec![("POSTERN__TUNNEL__SHARDS", shards.to_string())],
            ..Setup::default()
        };
        let mut lab = Lab::new(Playground::planned(plan)?, programs, setup)?;
        lab.start_portal()?;
        lab.start_gateway()?;
        let (mut clients, mut servers) = (Vec::new(), Vec::new());
        for (number, (role, server)) in CLIENTS.into_iter().zip(WEBS_V4).enumerate() {
            let mut guest = Admitted::new(number)?;
            guest.admit(&lab, RESOURCE_V4, None)?;
            let place = Place {
                playground: lab.playground(),
                role,
                address: guest.address(),
                routes: &[RESOURCE_NET_V4],
            };
            clients.push(place.start(programs, guest.peer()?)?);
            servers.push(serve_udp_at(server, lab.playground(), programs)?);
        }
        Ok(Self {
            shards,
            _clients: clients,
            _servers: servers,
            lab,
        })
    }

    /// Lets each shard have no more than this of a core: the kernel's deadline scheduler gives its
    /// thread so much of each period, and no more (sched(7)).
    fn hold(&mut self, percent: u32) -> Result<()> {
        let threads = self.lab.gateway()?.threads()?;
        let shards = threads
            .iter()
            .filter(|(_, name)| name.starts_with("shard-"));
        let shards: Vec<_> = shards.map(|(id, _)| id).collect();
        ensure!(
            shards.len() == self.shards as usize,
            "of {} shards there are threads {shards:?}",
            self.shards
        );
        let period = PERIOD.as_nanos().to_string();
        let runtime = (PERIOD.as_nanos() * u128::from(percent) / 100).to_string();
        for id in shards {
            let mut chrt = Command::new("chrt");
            chrt.args(["--deadline", "--sched-runtime", &runtime]);
            chrt.args(["--sched-deadline", &period, "--sched-period", &period]);
            chrt.args(["--pid", "0", id]);
            succeed(self.lab.playground(), chrt)
                .context("a shard cannot be held by `chrt` (package util-linux)")?;
        }
        Ok(())
    }

    /// What both clients move together, in Gbit/s.
    fn tcp(&self, load: Load, seconds: u32) -> Result<f64> {
        let rates = self.each(|role, server| {
            let way = Way {
                from: role,
                to: server,
                server,
            };
            let moved = iperf::run_on(self.lab.playground(), way, load, seconds)?;
            Ok(moved.bits_per_second / 1e9)
        })?;
        Ok(rates.iter().sum())
    }

    /// How many datagrams came after one with a higher number, in all flows.
    fn reordered(&self, rate: u32, programs: &Programs) -> Result<u64> {
        let mut all = 0;
        for load in UdpLoad::SINGLE {
            let counts = self.each(|role, server| {
                let playground = self.lab.playground();
                put_on(playground, (role, server), (load, rate), programs)
            })?;
            all += counts.iter().map(|it| u64::from(it.reordered)).sum::<u64>();
        }
        Ok(all)
    }

    /// Lets both clients do the same at the same time.
    fn each<T: Send>(
        &self,
        run: impl Fn(Role, std::net::IpAddr) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        std::thread::scope(|scope| {
            let ends = CLIENTS.into_iter().zip(WEBS_V4);
            let running: Vec<_> = ends
                .map(|(role, server)| {
                    let run = &run;
                    scope.spawn(move || run(role, server.into()))
                })
                .collect();
            let results = running.into_iter().map(|it| {
                let result = it.join();
                result.map_err(|_| anyhow!("a load panicked"))?
            });
            results.collect()
        })
    }
}

fn row(name: &str, rates: &mut [Vec<f64>; 2]) -> [String; 4] {
    let [one, two] = &*rates;
    let mut ratios: Vec<f64> = two.iter().zip(one).map(|(two, one)| two / one).collect();
    let ratio = median(&mut ratios);
    let [one, two] = rates.each_mut().map(|it| median(it));
    [
        name.to_owned(),
        format!("{one:.2}"),
        format!("{two:.2}"),
        format!("{ratio:.2}"),
    ]
}

/// Which part of what was read met another shard than its client's, of both ways in.
fn handed_over(page: &str) -> String {
    let ways = [
        (
            "datagrams from clients",
            r#"{kind="udp"}"#,
            r#"postern_udp_datagrams_total{direction="received"}"#,
        ),
        (
            "packets from the tunnel interface",
            r#"{kind="tun"}"#,
            r#"postern_tun_packets_total{direction="outbound"}"#,
        ),
    ];
    let told = ways.map(|(what, kind, all)| {
        let handed = sample(page, &format!("postern_handed_over_packets_total{kind}"));
        match (handed, sample(page, all)) {
            (Some(handed), Some(all)) => {
                let percent = handed / all.max(1.0) * 100.0;
                format!(
                    "  {percent:.2} % of {all:.0} {what} were read by another shard than their \
                     client's\n"
                )
            }
            _ => format!("  it does not count which {what} met another shard\n"),
        }
    });
    told.concat()
}

/// The value of a sample with exactly these labels.
fn sample(page: &str, name: &str) -> Option<f64> {
    let mut lines = page.lines();
    lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_those_of_a_round() {
        let cells = row("upload", &mut [vec![2.0, 1.0], vec![3.0, 1.6]]);
        assert_eq!(cells, ["upload", "1.50", "2.30", "1.55"]);
    }

    #[test]
    fn hand_overs_are_a_part_of_what_was_read() {
        let page = "# TYPE postern_handed_over_packets counter\n\
                    postern_handed_over_packets_total{kind=\"udp\"} 5\n\
                    postern_udp_datagrams_total{direction=\"received\"} 1000\n\
                    postern_udp_datagrams_total{direction=\"sent\"} 7\n";
        let text = handed_over(page);
        assert!(
            text.contains("0.50 % of 1000 datagrams from clients were read"),
            "{text}"
        );
        assert!(text.contains("does not count which packets"), "{text}");
    }
}
