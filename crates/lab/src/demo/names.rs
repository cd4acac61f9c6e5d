//! The second part of the demo: names, while their DNS server and their addresses fail.

use super::screen::Screen;
use super::{FETCH_LIMIT, family};
use crate::dns::mode::Mode;
use crate::playground::download::Download;
use crate::playground::faults::{HostFault, heal, inflict};
use crate::playground::lab::Lab;
use crate::playground::lookup;
use crate::playground::network::{WEB_V4, WEB_V6, WEBS_V4, WEBS_V6};
use crate::playground::scene::{APP, LATE, TTL};
use crate::playground::setup::WEB_PORT;
use crate::playground::traffic::{Families, Fetched, connect_until, fetch_over};
use crate::playground::{Playground, Role};
use anyhow::{Context, Result, bail, ensure};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// How long the DNS server does not answer.
const OUTAGE: Duration = Duration::from_secs(4);
/// How long anything may take to heal before the demo fails.
const HEALING_LIMIT: Duration = Duration::from_secs(15);
/// Interval between two attempts of an application.
const TRY_EVERY: Duration = Duration::from_millis(250);
/// Size and duration of the download that must not break.
const DOWNLOAD_BYTES: u64 = 2_000_000;
const DOWNLOAD_SECONDS: u64 = 10;

/// Shows names that work, a DNS server that does not answer, and a name that moves.
pub(super) fn show(screen: &mut Screen, lab: &Lab) -> Result<()> {
    screen.heading("Names")?;
    for families in [Families::V4, Families::V6] {
        let fetched = page_of(lab, APP, families)?.into_page(APP)?;
        let proxy = fetched.remote.context("curl did not connect")?;
        let detail = format!(
            "http://{APP}/  at {proxy}, which is {}",
            address_behind(proxy)
        );
        screen.done(
            &format!("page by name, {}", family(proxy)),
            fetched.wait(),
            &detail,
        )?;
    }
    dead_dns(screen, lab)?;
    moving_name(screen, lab)
}

fn page_of(lab: &Lab, name: &str, families: Families) -> Result<Fetched> {
    let url = format!("http://{name}/");
    fetch_over(lab.playground(), Role::Client, &url, families, FETCH_LIMIT)
}

/// The web server's first address in the family of a proxy IP.
fn address_behind(proxy: IpAddr) -> IpAddr {
    match proxy {
        IpAddr::V4(_) => WEB_V4.into(),
        IpAddr::V6(_) => WEB_V6.into(),
    }
}

/// The DNS server fails before the client asks for a name, and recovers while the client waits.
fn dead_dns(screen: &mut Screen, lab: &Lab) -> Result<()> {
    screen.heading("The gateway's DNS server is dead, and the client asks for another name")?;
    let names = lab.names();
    names.set_mode(Mode::Silent)?;
    names.forget()?;
    let acks = lab.control().ack_times()?.len();
    let begun = Instant::now();
    let (page, revived) = std::thread::scope(|scope| {
        let fetching = scope.spawn(|| page_eventually(lab, LATE, OUTAGE + HEALING_LIMIT));
        let ack = wait_ack(lab, acks)?;
        screen.done(
            "accepted all the same",
            ack,
            "the portal's request to the gateway's answer",
        )?;
        let interrupt = lab.playground().interrupt();
        interrupt.pass(OUTAGE.saturating_sub(begun.elapsed()))?;
        let lookups = names.lookups(LATE, 0.0)?;
        let detail = format!("{lookups} queries for {LATE} so far, none answered");
        screen.done("still dead", begun.elapsed(), &detail)?;
        names.set_mode(Mode::Healthy)?;
        let revived = Instant::now();
        let page = fetching.join().ok().context("fetching panicked")??;
        anyhow::Ok((page, revived))
    })?;
    let took = page.saturating_duration_since(revived);
    screen.done("page", took, "since the DNS server is back")
}

/// Waits for one more acknowledgement; returns how long the portal waited for it.
fn wait_ack(lab: &Lab, before: usize) -> Result<Duration> {
    let interrupt = lab.playground().interrupt();
    interrupt.until_ok("the gateway to accept", FETCH_LIMIT, || {
        Ok(lab.control().ack_times()?.get(before).copied())
    })
}

/// Fetches repeatedly, as an impatient user does, until the page comes; returns that time.
fn page_eventually(lab: &Lab, name: &str, limit: Duration) -> Result<Instant> {
    let begun = Instant::now();
    loop {
        let fetched = page_of(lab, name, Families::V4)?;
        if fetched.is_page() {
            return Ok(Instant::now());
        }
        if begun.elapsed() > limit {
            bail!("no page of {name} in {limit:?}: {fetched:?}");
        }
        lab.playground().interrupt().pass(TRY_EVERY)?;
    }
}

/// A name moves during a download from its old address.
fn moving_name(screen: &mut Screen, lab: &Lab) -> Result<()> {
    let (old, new) = (IpAddr::from(WEB_V4), IpAddr::from(WEBS_V4[1]));
    screen.heading(&format!(
        "{APP} moves to {new}; {old} takes no new connections"
    ))?;
    let playground = lab.playground();
    let url = format!("http://{APP}/slow/{DOWNLOAD_BYTES}/{DOWNLOAD_SECONDS}");
    let limit = Duration::from_secs(DOWNLOAD_SECONDS) + HEALING_LIMIT;
    let mut download = Download::start(playground, &url, Families::V4, limit)?;
    let begun = Instant::now();
    download.wait_more(playground, DOWNLOAD_BYTES / 20, FETCH_LIMIT)?;
    let detail = format!("{DOWNLOAD_BYTES} bytes in {DOWNLOAD_SECONDS} s, from {old}");
    screen.done("a download has begun", begun.elapsed(), &detail)?;
    lab.names()
        .set_addresses(APP, TTL, &[new, WEBS_V6[1].into()])?;
    inflict(playground, old, HostFault::SilentToNew)?;
    let connected = {
        let to = (proxy(playground, APP)?, WEB_PORT).into();
        connect_until(playground, Role::Client, to, TRY_EVERY, HEALING_LIMIT)?
    };
    let detail = format!("since the first attempt; {} attempts", connected.attempts);
    screen.done("a new connection moves", connected.after, &detail)?;
    let fetched = page_of(lab, APP, Families::V4)?;
    let at = format!("at {new}:");
    ensure!(
        fetched.is_page() && fetched.body.contains(&at),
        "not {at} {fetched:?}"
    );
    screen.done("page", fetched.wait(), &format!("http://{APP}/  at {new}"))?;
    let whole = download.wait_whole(playground, DOWNLOAD_BYTES, limit)?;
    let pause = whole.longest_pause.as_secs_f64() * 1000.0;
    let detail = format!("every byte right, longest pause {pause:.0} ms, still from {old}");
    screen.done("the download was not cut", begun.elapsed(), &detail)?;
    heal(playground, old)
}

/// The first IPv4 proxy IP of a name at the client.
fn proxy(playground: &Playground, name: &str) -> Result<IpAddr> {
    let proxies = lookup::proxies(playground, Role::Client, name, FETCH_LIMIT)?;
    let v4 = proxies.into_iter().find(IpAddr::is_ipv4);
    v4.with_context(|| format!("no IPv4 address stands for {name}"))
}
