//! `postern-lab demo`: the whole of Postern on one machine, with real traffic and a timeline.
//!
//! Builds a playground, starts portal, relay, gateway and client as processes of their own, fetches
//! a page over IPv4 and IPv6 through the tunnel, pings, is refused at a port that the policy does
//! not name, and shows when what happened and where the packets went; then, in a second act, lets
//! the DNS server and the addresses of names fail. Refuses to leave anything behind: whether it
//! ends well, fails, or is interrupted.

mod names;
mod report;
mod screen;
mod timeline;

use crate::playground::icmp::{IcmpTap, Unreachable};
use crate::playground::lab::{DENIED_PORT, Lab, RESOURCE_V4, Setup, WEB_PORT};
use crate::playground::network::{WEB_V4, WEB_V6};
use crate::playground::programs::Programs;
use crate::playground::traffic::{self, Fetched, Pinged};
use crate::playground::wait::{Interrupt, Interrupted, run_interruptibly};
use crate::playground::{Playground, Role};
use crate::clock::unix_ms;
use anyhow::{Result, bail, ensure};
use report::Counters;
use screen::Screen;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Shows the gateway at work in private network namespaces.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Stay up afterwards, to play with it, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
}

/// Runs the demo.
///
/// # Errors
/// Not root, a tool is missing, a step failed (its logs are shown before), or it was interrupted.
pub async fn run(args: Args) -> Result<()> {
    run_interruptibly(move |interrupt| demonstrate(interrupt, args.keep)).await
}

/// How long one fetch may take: the set-up of the tunnel included.
const FETCH_LIMIT: Duration = Duration::from_secs(15);

/// Everything, blocking; everything that it made is gone when it returns.
fn demonstrate(interrupt: &Interrupt, keep: bool) -> Result<()> {
    let mut screen = Screen::of_stdout();
    let begun = Instant::now();
    let playground = Playground::with_interrupt(interrupt.clone())?;
    report::map(&mut screen, &playground)?;
    screen.done("namespaces and links", begun.elapsed(), "")?;
    let programs = Programs::beside_this()?;
    let setup = Setup {
        shards: None,
        ..Setup::default()
    };
    let mut lab = Lab::new(playground, &programs, setup)?;
    let shown = show(&mut screen, &mut lab);
    if let Err(error) = shown {
        if error.is::<Interrupted>() {
            bail!("interrupted; everything was removed");
        }
        screen.failed(&error)?;
        screen.plain(&lab.log_tails(20))?;
        bail!("the demo failed");
    }
    if keep {
        report::how_to_play(&mut screen, lab.playground())?;
        interrupt.wait();
    }
    drop(lab);
    screen.plain("\nAll namespaces, processes and files of this run are removed.\n")
}

/// Starts a program and waits until it is ready.
type Start = fn(&mut Lab) -> Result<()>;

/// The programs, the traffic, the report.
fn show(screen: &mut Screen, lab: &mut Lab) -> Result<()> {
    let starts: [(&str, Start); 6] = [
        ("web server answers", Lab::start_web),
        ("name server answers", Lab::start_names),
        ("relay answers STUN", Lab::start_relay),
        ("portal listens", Lab::start_portal),
        ("gateway has joined", Lab::start_gateway),
        ("client has joined", Lab::start_client),
    ];
    for (what, start) in starts {
        let begun = Instant::now();
        start(lab)?;
        screen.done(what, begun.elapsed(), "")?;
    }
    let before = Counters::read(lab.playground())?;
    screen.heading("Traffic through the tunnel")?;
    let begun_ms = unix_ms();
    let first = page(screen, lab, WEB_V4.into())?;
    page(screen, lab, WEB_V6.into())?;
    for address in [IpAddr::from(WEB_V4), IpAddr::from(WEB_V6)] {
        pinged(screen, lab, address)?;
    }
    for address in [IpAddr::from(WEB_V4), IpAddr::from(WEB_V6)] {
        refused(screen, lab, address)?;
    }
    timeline::show(screen, lab, begun_ms, &first)?;
    report::paths(screen, lab)?;
    before.show_growth(screen, lab.playground())?;
    screen.heading("How fast the gateway answers the portal")?;
    let mut times = lab.control().authorize(RESOURCE_V4, SET_UPS)?;
    report::answer_times(screen, &mut times)?;
    names::show(screen, lab)
}

/// How many set-ups are measured.
const SET_UPS: u32 = 200;

fn page(screen: &mut Screen, lab: &Lab, address: IpAddr) -> Result<Fetched> {
    let url = traffic::url(address, WEB_PORT, "/");
    let fetched = traffic::fetch(lab.playground(), Role::Client, &url, FETCH_LIMIT)?;
    ensure!(
        fetched.is_page(),
        "no page from {url}: curl ended with {}, status {} {}",
        fetched.exit,
        fetched.status,
        fetched.refusal
    );
    let what = format!("page over {}", family(address));
    let told = format!("{url}  status 200, {} bytes", fetched.body.len());
    screen.done(&what, fetched.first_byte, &told)?;
    Ok(fetched)
}

fn pinged(screen: &mut Screen, lab: &Lab, address: IpAddr) -> Result<()> {
    let pinged = traffic::ping(lab.playground(), Role::Client, address)?;
    let Pinged {
        sent,
        received,
        mean_ms: Some(mean_ms),
    } = pinged
    else {
        bail!("no answer to a ping of {address}");
    };
    ensure!(
        sent == received,
        "{address} answered {received} of {sent} pings"
    );
    let mean = Duration::from_secs_f64(mean_ms / 1000.0);
    let what = format!("ping over {}", family(address));
    screen.done(
        &what,
        mean,
        &format!("{address}  {received} of {sent} answered"),
    )
}

/// A port that the policy does not name: refused by the gateway, at once and in so many words.
fn refused(screen: &mut Screen, lab: &Lab, address: IpAddr) -> Result<()> {
    let playground = lab.playground();
    let tap = IcmpTap::open(playground, Role::Client, address)?;
    let url = traffic::url(address, DENIED_PORT, "/");
    let fetched = traffic::fetch(playground, Role::Client, &url, FETCH_LIMIT)?;
    ensure!(
        fetched.exit == 7,
        "{url} should be refused, but curl ended with {}",
        fetched.exit
    );
    let limit = Duration::from_secs(2);
    let error: Unreachable = tap.wait_for(playground, address, DENIED_PORT, limit)?;
    let words = format!("ICMP type {} code {}", error.kind, error.code);
    ensure!(
        error.is_prohibited(),
        "{url} was refused with {words}, not with \"prohibited\""
    );
    let what = format!("port {DENIED_PORT} refused over {}", family(address));
    let told = format!("{words} \"prohibited\"; curl says: {}", fetched.refusal);
    screen.done(&what, fetched.total, &told)
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}
