//! All numbers as text for Prometheus (OpenMetrics 1.0). docs/metrics.md explains each of them; a
//! test compares the two.

mod page;

use super::control::{ActorCounters, DNS_RESULTS, RELOADS};
use super::counters::Counter;
use super::histogram::{Histogram, Reading};
use super::lag::Lag;
use super::mailboxes::Receiver;
use super::process::Process;
use super::{BatchCounters, Metrics, ShardMetrics, Volume};
use page::{Page, bytes, plain, seconds};
use postern_core::DropReason;
use postern_core::domains::HealSignal;
use postern_core::peer::PathKind;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn render(metrics: &Arc<Metrics>, now: Instant, process: Option<Process>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape {
        metrics: Arc::clone(metrics),
        now,
        process,
    }));
    let mut page = String::with_capacity(PAGE_BYTES);
    text::encode(&mut page, &registry).expect("writing to a string cannot fail");
    page
}

/// One reading of all numbers.
#[derive(Debug)]
struct Scrape {
    metrics: Arc<Metrics>,
    now: Instant,
    process: Option<Process>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let page = &mut Page(encoder);
        self.process(page)?;
        self.clients(page)?;
        self.traffic(page)?;
        self.nat(page)?;
        self.names(page)?;
        self.healing(page)?;
        self.actors(page)?;
        self.portal(page)?;
        self.event_loops(page)?;
        self.housekeeping(page)
    }
}

/// One of the volumes of a shard.
type VolumeOf = fn(&ShardMetrics) -> &Volume;
/// What a shard handed over, of one kind.
type BatchesOf = fn(&ShardMetrics) -> &BatchCounters;

impl Scrape {
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let build = plain("postern_build", "The version that runs.");
        page.info(build, "version", env!("CARGO_PKG_VERSION"))?;
        let Some(process) = self.process else {
            return Ok(());
        };
        let cpu = seconds("process_cpu", "Processor time of the process.");
        page.counter(cpu, process.cpu.as_secs_f64())?;
        let start = seconds("process_start_time", "When it started, since 1970.");
        page.gauge(start, process.started_at)?;
        let resident = bytes("process_resident_memory", "Memory that it has.");
        page.gauge(resident, process.resident_bytes)?;
        let virtual_bytes = bytes("process_virtual_memory", "Addresses that it has.");
        page.gauge(virtual_bytes, process.virtual_bytes)?;
        page.gauge(plain("process_threads", "Its threads."), process.threads)?;
        let open = plain("process_open_fds", "Its files and sockets.");
        page.gauge(open, process.open_fds)?;
        let max = plain("process_max_fds", "How many it may have.");
        page.gauge(max, process.max_fds)
    }

    fn clients(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = &self.metrics;
        let known = plain("postern_clients", "Clients that hold an authorization.");
        page.gauge(known, metrics.clients.get())?;
        let sessions = plain("postern_sessions", "Clients with a WireGuard session.");
        page.gauge(sessions, self.sum(|shard| shard.sessions.get()))?;
        let begun = plain("postern_sessions_begun", "Sessions where there was none.");
        page.counter(begun, self.sum(|shard| shard.sessions_begun.get()))?;
        let paths = PathKind::ALL.map(|kind| {
            let count = self.sum(|shard| shard.paths[kind as usize].get());
            (kind.label(), count)
        });
        page.gauges(
            plain(
                "postern_paths",
                "Clients with a path, by the client's end of it.",
            ),
            "kind",
            paths,
        )?;
        let refused = self.sum(|shard| shard.refused.get()) + metrics.turned_away.get();
        page.counters(
            plain("postern_authorizations", "Requests of the portal."),
            "result",
            [
                ("accepted", self.sum(|shard| shard.accepted.get())),
                ("refused", refused),
            ],
        )?;
        page.counters(
            plain("postern_handshakes", "WireGuard handshake messages."),
            "result",
            self.handshakes(),
        )
    }

    fn handshakes(&self) -> [(&'static str, u64); 4] {
        [
            ("answered", self.sum(|it| it.handshakes.answered.get())),
            ("confirmed", self.sum(|it| it.handshakes.confirmed.get())),
            ("rejected", self.sum(|it| it.handshakes.rejected.get())),
            (
                "limited",
                self.sum(|it| it.drops(DropReason::HandshakeLimited)),
            ),
        ]
    }

    fn traffic(&self, page: &mut Page<'_>) -> fmt::Result {
        let tun: [(_, VolumeOf); 2] = [
            ("inbound", |shard| &shard.tun_inbound),
            ("outbound", |shard| &shard.tun_outbound),
        ];
        let udp: [(_, VolumeOf); 2] = [
            ("received", |shard| &shard.udp_received),
            ("sent", |shard| &shard.udp_sent),
        ];
        let packets = plain("postern_tun_packets", "Packets to and from the TUN device.");
        page.counters(
            packets,
            "direction",
            tun.map(|(name, of)| (name, self.counted(of))),
        )?;
        let tun_bytes = bytes("postern_tun", "Bytes of these packets.");
        page.counters(
            tun_bytes,
            "direction",
            tun.map(|(name, of)| (name, self.weighed(of))),
        )?;
        let datagrams = plain("postern_udp_datagrams", "Datagrams from and to clients.");
        page.counters(
            datagrams,
            "direction",
            udp.map(|(name, of)| (name, self.counted(of))),
        )?;
        let udp_bytes = bytes("postern_udp", "Bytes of these datagrams.");
        page.counters(
            udp_bytes,
            "direction",
            udp.map(|(name, of)| (name, self.weighed(of))),
        )?;
        self.handed_over(page)?;
        let drops = DropReason::ALL.map(|reason| {
            let packets = self.sum(|shard| shard.drops(reason));
            (reason.label(), packets)
        });
        let dropped = plain("postern_dropped_packets", "Packets that went no further.");
        page.counters(dropped, "reason", drops)
    }

    fn handed_over(&self, page: &mut Page<'_>) -> fmt::Result {
        let kinds: [(_, BatchesOf); 2] = [
            ("udp", |shard| &shard.handed_over.udp),
            ("tun", |shard| &shard.handed_over.tun),
        ];
        let packets = kinds.map(|(kind, of)| (kind, self.sum(|shard| of(shard).packets.get())));
        page.counters(
            plain(
                "postern_handed_over_packets",
                "Packets that one shard read for a client of another.",
            ),
            "kind",
            packets,
        )?;
        let batches = kinds.map(|(kind, of)| (kind, self.sum(|shard| of(shard).batches.get())));
        page.counters(
            plain("postern_handed_over_batches", "Batches of these packets."),
            "kind",
            batches,
        )
    }

    fn counted(&self, of: VolumeOf) -> u64 {
        self.sum(|shard| of(shard).count.get())
    }

    fn weighed(&self, of: VolumeOf) -> u64 {
        self.sum(|shard| of(shard).bytes.get())
    }

    fn nat(&self, page: &mut Page<'_>) -> fmt::Result {
        let flows = plain("postern_nat_flows", "Flows to proxy IPs that live.");
        page.gauge(flows, self.sum(|shard| shard.nat.flows.get()))?;
        let mappings = plain("postern_nat_mappings", "Names that clients use.");
        page.gauge(mappings, self.sum(|shard| shard.nat.mappings.get()))?;
        let held = plain(
            "postern_nat_held_packets",
            "Packets that wait for an address.",
        );
        page.gauge(held, self.sum(|shard| shard.nat.held_packets.get()))?;
        let held = bytes("postern_nat_held", "Bytes of these packets.");
        page.gauge(held, self.sum(|shard| shard.nat.held_bytes.get()))
    }

    fn names(&self, page: &mut Page<'_>) -> fmt::Result {
        let dns = &self.metrics.dns;
        let readings = dns.results.each_ref().map(Histogram::read);
        let results = DNS_RESULTS.into_iter().zip(readings);
        let counts = results.clone().map(|(name, it)| (name, it.count()));
        let refused = [("quota", dns.refused.get())];
        page.counters(
            plain("postern_dns_lookups", "Lookups of one family of a name."),
            "result",
            counts.chain(refused),
        )?;
        page.histograms(
            seconds("postern_dns_lookup", "How long lookups took."),
            "result",
            results,
        )?;
        let cached = plain("postern_dns_cache_hits", "Lookups that the cache answered.");
        page.counter(cached, dns.cached.get())
    }

    fn healing(&self, page: &mut Page<'_>) -> fmt::Result {
        let raised = HealSignal::ALL.map(|signal| {
            let count = self.sum(|shard| shard.signals[signal as usize].get());
            (signal.label(), count)
        });
        page.counters(
            plain("postern_heal_signals", "Signs that a name is in trouble."),
            "signal",
            raised,
        )?;
        let healed = HealSignal::ALL.map(|signal| {
            let shards = self.metrics.shards.iter();
            let readings = shards.map(|shard| shard.heals[signal as usize].read());
            (signal.label(), Reading::total(readings))
        });
        page.histograms(
            seconds(
                "postern_time_to_heal",
                "From the first sign to traffic that works.",
            ),
            "signal",
            healed,
        )
    }

    fn actors(&self, page: &mut Page<'_>) -> fmt::Result {
        let counts = |of: fn(&ActorCounters) -> u64| {
            let actors = self.metrics.actors();
            actors.map(move |(kind, it)| (kind, of(it)))
        };
        let times = |of: fn(&ActorCounters) -> Duration| {
            let actors = self.metrics.actors();
            actors.map(move |(kind, it)| (kind, of(it).as_secs_f64()))
        };
        let deaths = plain("postern_actor_deaths", "Actors that died.");
        page.counters(deaths, "actor", counts(|it| it.deaths.get()))?;
        let recoveries = plain("postern_actor_recoveries", "Successors that work.");
        page.counters(recoveries, "actor", counts(|it| it.recoveries.get()))?;
        let recovery = seconds("postern_actor_recovery", "From deaths to recoveries.");
        page.counters(recovery, "actor", times(|it| it.recovery.get()))?;
        let longest = seconds(
            "postern_actor_recovery_longest",
            "The longest of these times.",
        );
        page.gauges(longest, "actor", times(|it| it.longest.get()))?;
        let actors = self.metrics.actors();
        let answers = actors.map(|(kind, it)| (kind, it.answers.read()));
        page.histograms(
            seconds(
                "postern_actor_answer",
                "How long actors took to answer the watchdog.",
            ),
            "actor",
            answers,
        )?;
        self.mailboxes(page)
    }

    fn mailboxes(&self, page: &mut Page<'_>) -> fmt::Result {
        let depths = Receiver::ALL.map(|receiver| {
            let depth = self.sum(|shard| shard.mailboxes.depth(receiver));
            (receiver.label(), depth)
        });
        page.gauges(
            plain("postern_mailbox_batches", "Batches that wait for an actor."),
            "actor",
            depths,
        )?;
        let overflows = Receiver::ALL.map(|receiver| {
            let packets = self.sum(|shard| shard.mailboxes.overflow(receiver));
            (receiver.label(), packets)
        });
        page.counters(
            plain(
                "postern_mailbox_full_packets",
                "Packets for which there was no room.",
            ),
            "actor",
            overflows,
        )
    }

    fn portal(&self, page: &mut Page<'_>) -> fmt::Result {
        let portal = &self.metrics.portal;
        let joined = plain("postern_portal_joined", "Whether the portal has let us in.");
        page.gauge(joined, u64::from(portal.is_joined()))?;
        let reconnects = plain("postern_portal_reconnects", "Joins after the first.");
        page.counter(reconnects, portal.joins.get().saturating_sub(1))?;
        let failures = plain(
            "postern_portal_failures",
            "Connections that failed or broke.",
        );
        page.counter(failures, portal.failures.get())?;
        let outage = seconds("postern_portal_outage", "Time in which we were not joined.");
        page.counter(outage, portal.outage(self.now).as_secs_f64())?;
        let relays = plain("postern_relays", "Relays that the portal named.");
        page.gauge(relays, portal.relays.get())
    }

    fn event_loops(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = &self.metrics;
        let shards = metrics.shard_lags.iter().enumerate();
        let shards = shards.map(|(number, lag)| (format!("shard_{number}"), lag));
        let single = [
            ("main", &metrics.main_lag),
            ("control", &metrics.control_lag),
            ("admin", &metrics.admin_lag),
        ];
        let single = single.map(|(name, lag)| (name.to_owned(), lag));
        let all: Vec<(String, &Lag)> = single.into_iter().chain(shards).collect();
        let of = |number: fn(&Lag, Instant) -> Duration| {
            let all = all.iter();
            all.map(move |(name, lag)| (&name[..], number(lag, self.now).as_secs_f64()))
        };
        let last = seconds("postern_event_loop_lag", "How late the last timer fired.");
        page.gauges(last, "thread", of(Lag::last))?;
        let longest = seconds(
            "postern_event_loop_lag_longest",
            "The longest lag of the last minute or two.",
        );
        page.gauges(longest, "thread", of(Lag::longest))
    }

    fn housekeeping(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = &self.metrics;
        page.counters(
            plain("postern_state_saves", "Attempts to save the state."),
            "result",
            [
                ("saved", metrics.saves.get()),
                ("failed", metrics.failed_saves.get()),
            ],
        )?;
        let reloads = metrics.reloads.iter().map(Counter::get);
        page.counters(
            plain(
                "postern_config_reloads",
                "Times the configuration was read again.",
            ),
            "outcome",
            RELOADS.into_iter().zip(reloads),
        )
    }

    fn sum(&self, number: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.metrics.sum(number)
    }
}

/// A page has some 25 kB; one allocation is cheaper than growing.
const PAGE_BYTES: usize = 48 << 10;
