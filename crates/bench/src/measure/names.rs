//! `postern-bench bench names`: how fast names are served, and how fast they heal.
//!
//! One playground with a name server that becomes slow, silent or failing, and a web server whose
//! addresses move and fail. Every outage is limited in time. Prints figures, not verdicts.

use super::{FETCH_LIMIT, concluded, debug_build, machine, print, report};
use anyhow::{Context, Result, ensure};
use postern_lab::dns::mode::Mode;
use postern_lab::playground::component::Component;
use postern_lab::playground::download::Download;
use postern_lab::playground::faults::{HostFault, heal, inflict};
use postern_lab::playground::lab::Lab;
use postern_lab::playground::network::{WEB_V4, WEBS_V4, WEBS_V6};
use postern_lab::playground::programs::Programs;
use postern_lab::playground::scene::{APP, TTL, WILD};
use postern_lab::playground::setup::{Setup, WEB_PORT};
use postern_lab::playground::traffic::{self, Families, Fetched, connect_until};
use postern_lab::playground::wait::Interrupt;
use postern_lab::playground::{Playground, Role, lookup};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Repetitions and durations.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Number of repetitions of each outage and each move.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Number of authorizations that the portal requests in each condition.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub set_ups: u32,
    /// Seconds for which the name server is silent while a client connects.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub dead: u32,
    /// Seconds for which the name server fails during traffic.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(4..=600))]
    pub outage: u32,
}

/// Number of clients for the time to the first byte.
const FRESH_CLIENTS: u32 = 20;
/// Number of pages that are fetched during the outage.
const FETCHES: u32 = 45;
/// Interval between an application's attempts to connect.
const TRY_EVERY: Duration = Duration::from_millis(250);
/// Delay of a slow name server.
const SLOW: Mode = Mode::Slow(Duration::from_secs(2));
/// Limit for any healing.
const HEALING_LIMIT: Duration = Duration::from_secs(60);

type Times = Vec<(&'static str, Vec<Duration>)>;

/// Runs the benchmark, blocking; removes everything before it returns.
pub(super) fn bench(interrupt: &Interrupt, args: Args) -> Result<()> {
    print(&format!(
        "Machine: {}\n{}\n",
        machine::described(),
        debug_build()
    ))?;
    let playground = Playground::with_interrupt(interrupt.clone())?;
    let programs = Programs::beside_this()?;
    let mut lab = Lab::new(playground, &programs, Setup::default())?;
    let measured = measure(&mut lab, args);
    concluded(&lab, measured)
}

fn measure(lab: &mut Lab, args: Args) -> Result<()> {
    lab.start_all(&Component::WITH_NAMES)?;
    show(
        "The portal's request to the gateway's answer",
        &set_ups(lab, args.set_ups)?,
    )?;
    lab.names().set_mode(Mode::Healthy)?;
    lab.start(Component::Client)?;
    show("Connecting to the first byte", &first_bytes(lab)?)?;
    revivals(lab, args)?;
    outage(lab, args.outage)?;
    show(
        "A name moves: first attempt to connection",
        &moves(lab, args.rounds)?,
    )
}

fn show(title: &str, times: &Times) -> Result<()> {
    print(&format!("{title}\n{}\n", report::times(times)))
}

/// Times of authorizations for clients that do not exist, which the portal requests one after the
/// other. In generation 0 each client announces its own name, in generation 2 the gateway looks up
/// the resource's name at once.
fn set_ups(lab: &Lab, count: u32) -> Result<Times> {
    let conditions = [
        ("generation 0, DNS healthy", "v0", WILD, Mode::Healthy),
        ("generation 0, DNS slow (2 s)", "v0", WILD, SLOW),
        ("generation 0, DNS silent", "v0", WILD, Mode::Silent),
        ("generation 2, DNS healthy", "v2", APP, Mode::Healthy),
        ("generation 2, DNS slow (2 s)", "v2", APP, SLOW),
        ("generation 2, DNS silent", "v2", APP, Mode::Silent),
    ];
    let measured = conditions.map(|(what, generation, resource, mode)| {
        lab.names().set_mode(mode)?;
        let times = lab.control().authorize(generation, resource, count)?;
        Ok((what, times))
    });
    measured.into_iter().collect()
}

/// Times of a page as the first traffic of fresh clients, alternately by name and by address; and
/// as the first traffic to a name of clients with a tunnel.
fn first_bytes(lab: &mut Lab) -> Result<Times> {
    let by_address = traffic::url(WEB_V4.into(), WEB_PORT, "/");
    let by_name = format!("http://{APP}/");
    let (mut fresh_address, mut fresh_name) = (Vec::new(), Vec::new());
    for _ in 0..FRESH_CLIENTS {
        for (url, times) in [
            (&by_address, &mut fresh_address),
            (&by_name, &mut fresh_name),
        ] {
            lab.kill(Component::Client);
            lab.start(Component::Client)?;
            times.push(first_byte(lab, url)?);
        }
    }
    let (mut next_address, mut next_name) = (Vec::new(), Vec::new());
    for index in 0..FRESH_CLIENTS {
        next_address.push(first_byte(lab, &by_address)?);
        next_name.push(first_byte(
            lab,
            &format!("http://new-{index}.wild.lab.example/"),
        )?);
    }
    Ok(vec![
        ("fresh client, by address", fresh_address),
        ("fresh client, by name", fresh_name),
        ("connected client, by address", next_address),
        ("connected client, by a name new to the gateway", next_name),
    ])
}

/// Time from curl's first packet to the page's first byte, over IPv4.
fn first_byte(lab: &Lab, url: &str) -> Result<Duration> {
    let fetched = fetch(lab, url)?;
    ensure!(fetched.is_page(), "no page from {url}: {fetched:?}");
    Ok(fetched.wait())
}

fn fetch(lab: &Lab, url: &str) -> Result<Fetched> {
    traffic::fetch_over(
        lab.playground(),
        Role::Client,
        url,
        Families::V4,
        FETCH_LIMIT,
    )
}

/// The name server is silent while a client connects to a name, then recovers.
fn revivals(lab: &Lab, args: Args) -> Result<()> {
    let (mut healed, mut lookups) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        let name = format!("dead-{round}.wild.lab.example");
        let (took, asked) = revival(lab, &name, Duration::from_secs(args.dead.into()))?;
        healed.push(took);
        lookups.push(asked);
    }
    let title = format!("DNS silent for {} s while a client connects", args.dead);
    show(&title, &vec![("revival to connection", healed)])?;
    let per_minute = |asked: &usize| asked * 60 / args.dead as usize;
    let per_minute: Vec<usize> = lookups.iter().map(per_minute).collect();
    print(&format!(
        "Queries per minute of the outage, both families: {per_minute:?}\n\n"
    ))
}

/// Time from the recovery to the client's connection, and the number of queries until then.
fn revival(lab: &Lab, name: &str, dead: Duration) -> Result<(Duration, usize)> {
    let playground = lab.playground();
    let names = lab.names();
    names.set_mode(Mode::Silent)?;
    let proxy = proxy(lab, name)?;
    let begun = Instant::now();
    let limit = dead + HEALING_LIMIT;
    std::thread::scope(|scope| {
        let to = (proxy, WEB_PORT).into();
        let connecting =
            scope.spawn(move || connect_until(playground, Role::Client, to, TRY_EVERY, limit));
        playground.interrupt().pass(dead)?;
        let asked = names.lookups(name, 0.0)?;
        names.set_mode(Mode::Healthy)?;
        let revived = begun.elapsed();
        let connected = connecting.join().ok().context("connecting panicked")??;
        Ok((connected.after.saturating_sub(revived), asked))
    })
}

/// The first IPv4 proxy IP of a name.
fn proxy(lab: &Lab, name: &str) -> Result<IpAddr> {
    let proxies = lookup::proxies(lab.playground(), Role::Client, name, FETCH_LIMIT)?;
    let v4 = proxies.into_iter().find(IpAddr::is_ipv4);
    v4.with_context(|| format!("no IPv4 address stands for {name}"))
}

/// The name server answers SERVFAIL for a third of the time, then nothing, while pages are fetched
/// at a fixed rate. The records have a TTL of a second, so they are looked up again continuously.
fn outage(lab: &Lab, seconds: u32) -> Result<()> {
    const NAME: &str = "outage.wild.lab.example";
    let names = lab.names();
    names.set_addresses(NAME, 1, &[WEB_V4.into()])?;
    let url = format!("http://{NAME}/");
    ensure!(fetch(lab, &url)?.is_page(), "no page before the outage");
    names.forget()?;
    let (mut times, mut failed) = (Vec::new(), 0);
    let begun = Instant::now();
    for index in 0..FETCHES {
        names.set_mode(match index < FETCHES / 3 {
            true => Mode::Servfail,
            false => Mode::Silent,
        })?;
        let due = Duration::from_secs(seconds.into()) * index / FETCHES;
        let interrupt = lab.playground().interrupt();
        interrupt.pass(due.saturating_sub(begun.elapsed()))?;
        let fetched = fetch(lab, &url)?;
        match fetched.is_page() {
            true => times.push(fetched.wait()),
            false => failed += 1,
        }
    }
    let asked = names.lookups(NAME, 0.0)?;
    names.set_mode(Mode::Healthy)?;
    let title = format!("DNS SERVFAIL, then silent, for {seconds} s in the middle of traffic");
    show(&title, &vec![("fetches that succeeded", times)])?;
    print(&format!(
        "Failed: {failed} of {FETCHES}. Queries: {asked}.\n\n"
    ))
}

/// A name moves, and its old address accepts no new connections: either silently, with a download
/// from it that continues, or with an ICMP error.
fn moves(lab: &Lab, rounds: u32) -> Result<Times> {
    let (mut silent, mut unreachable) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let name = format!("silent-{round}.wild.lab.example");
        silent.push(a_move(lab, &name, HostFault::SilentToNew)?);
        let name = format!("gone-{round}.wild.lab.example");
        unreachable.push(a_move(lab, &name, HostFault::Unreachable)?);
    }
    Ok(vec![
        ("old address silent, a download on it goes on", silent),
        ("old address unreachable (ICMP)", unreachable),
    ])
}

/// Size of the download that must not break, over [`DOWNLOAD_SECONDS`].
const DOWNLOAD_BYTES: u64 = 2_000_000;
const DOWNLOAD_SECONDS: u64 = 12;

fn a_move(lab: &Lab, name: &str, fault: HostFault) -> Result<Duration> {
    let playground = lab.playground();
    let (old, new) = (
        [WEBS_V4[1].into(), WEBS_V6[1].into()],
        [WEBS_V4[2].into(), WEBS_V6[2].into()],
    );
    lab.names().set_addresses(name, TTL, &old)?;
    ensure!(
        fetch(lab, &format!("http://{name}/"))?.is_page(),
        "no page of {name}"
    );
    let url = format!("http://{name}/slow/{DOWNLOAD_BYTES}/{DOWNLOAD_SECONDS}");
    let limit = HEALING_LIMIT;
    let mut download = Download::start(playground, &url, Families::V4, limit)?;
    download.wait_more(playground, 10_000, FETCH_LIMIT)?;
    let proxy = proxy(lab, name)?;
    lab.names().set_addresses(name, TTL, &new)?;
    inflict(playground, old[0], fault)?;
    let to = (proxy, WEB_PORT).into();
    let connected = connect_until(playground, Role::Client, to, TRY_EVERY, HEALING_LIMIT);
    if fault == HostFault::SilentToNew {
        let whole = download.wait_whole(playground, DOWNLOAD_BYTES, limit);
        whole.context("the download on the old address")?;
    }
    heal(playground, old[0])?;
    Ok(connected?.after)
}
