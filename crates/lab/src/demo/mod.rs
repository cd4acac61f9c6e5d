//! `postern-lab demo`: all of Postern on one machine, with real traffic and a timeline.
//!
//! Builds a playground, starts portal, relay, gateway and client as processes, fetches a page over
//! IPv4 and IPv6 through the tunnel, pings, is refused at a port that the policy does not permit,
//! and shows a timeline and the path of the packets; then lets the DNS server and the addresses of
//! names fail. Leaves nothing behind, whether it succeeds, fails, or is interrupted.

mod names;
mod report;
mod screen;
mod timeline;

use crate::clock::unix_ms;
use crate::playground::component::Component;
use crate::playground::icmp::{IcmpTap, Unreachable};
use crate::playground::lab::Lab;
use crate::playground::network::{WEB_V4, WEB_V6};
use crate::playground::programs::Programs;
use crate::playground::setup::{DENIED_PORT, RESOURCE_V4, Setup, WEB_PORT};
use crate::playground::traffic::{self, Fetched, Pinged};
use crate::playground::wait::{Interrupt, Interrupted, run_interruptibly};
use crate::playground::{Playground, Role};
use anyhow::{Context, Result, bail, ensure};
use report::Counters;
use screen::Screen;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Shows the gateway at work in private network namespaces.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// Stay up afterwards for your own experiments, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
}

/// Runs the demo; an error is reported after the logs of the step that failed.
pub async fn run(args: Args) -> Result<()> {
    run_interruptibly(move |interrupt| demonstrate(interrupt, args.keep)).await
}

/// How long one fetch may take, including the set-up of the tunnel.
const FETCH_LIMIT: Duration = Duration::from_secs(15);

/// Runs the whole demo, blocking; removes everything before it returns.
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
    if let Err(error) = show(&mut screen, &mut lab) {
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

/// Starts the programs, causes traffic and reports.
fn show(screen: &mut Screen, lab: &mut Lab) -> Result<()> {
    for (what, component) in [
        ("web server answers", Component::Web),
        ("name server answers", Component::Names),
        ("relay answers STUN", Component::Relay),
        ("portal listens", Component::Portal),
        ("gateway has joined", Component::Gateway),
        ("client has joined", Component::Client),
    ] {
        let begun = Instant::now();
        lab.start(component)?;
        screen.done(what, begun.elapsed(), "")?;
    }
    let before = Counters::read(lab.playground())?;
    screen.heading("Traffic through the tunnel")?;
    let begun_ms = unix_ms();
    let (v4, v6) = (IpAddr::from(WEB_V4), IpAddr::from(WEB_V6));
    let first = page(screen, lab, v4)?;
    page(screen, lab, v6)?;
    pinged(screen, lab, v4)?;
    pinged(screen, lab, v6)?;
    refused(screen, lab, v4)?;
    refused(screen, lab, v6)?;
    timeline::show(screen, lab, begun_ms, &first)?;
    report::paths(screen, lab)?;
    before.show_growth(screen, lab.playground())?;
    screen.heading("How fast the gateway answers the portal")?;
    let mut times = lab.control().authorize("v2", RESOURCE_V4, SET_UPS)?;
    report::answer_times(screen, &mut times)?;
    names::show(screen, lab)
}

/// Number of measured authorizations.
const SET_UPS: u32 = 200;

fn page(screen: &mut Screen, lab: &Lab, address: IpAddr) -> Result<Fetched> {
    let url = traffic::url(address, WEB_PORT, "/");
    let fetched = traffic::fetch(lab.playground(), Role::Client, &url, FETCH_LIMIT)?;
    let fetched = fetched.into_page(&url)?;
    let what = format!("page over {}", family(address));
    let detail = format!("{url}  status 200, {} bytes", fetched.body.len());
    screen.done(&what, fetched.first_byte, &detail)?;
    Ok(fetched)
}

fn pinged(screen: &mut Screen, lab: &Lab, address: IpAddr) -> Result<()> {
    let pinged = traffic::ping(lab.playground(), Role::Client, address)?;
    let Pinged { sent, received, .. } = pinged;
    let unanswered = || format!("no answer to a ping of {address}");
    let mean_ms = pinged.mean_ms.with_context(unanswered)?;
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

/// Tries a port that the policy does not permit: the gateway refuses it with an ICMP error.
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
    let message = format!("ICMP type {} code {}", error.kind, error.code);
    ensure!(
        error.is_prohibited(),
        "{url} was refused with {message}, not with \"prohibited\""
    );
    let what = format!("port {DENIED_PORT} refused over {}", family(address));
    let detail = format!("{message} \"prohibited\"; curl says: {}", fetched.refusal);
    screen.done(&what, fetched.total, &detail)
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}
