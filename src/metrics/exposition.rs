//! The counters as text that Prometheus reads (OpenMetrics 1.0).

use super::Metrics;
use postern_core::DropReason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What [`Metrics::render`] is served as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn render(metrics: &Arc<Metrics>, now: Instant) -> String {
    let mut registry = Registry::default();
    let metrics = Arc::clone(metrics);
    registry.register_collector(Box::new(Reading { metrics, now }));
    let mut page = String::with_capacity(PAGE_BYTES);
    text::encode(&mut page, &registry).expect("a string takes whatever is written to it");
    page
}

/// One look at the counters.
#[derive(Debug)]
struct Reading {
    metrics: Arc<Metrics>,
    now: Instant,
}

impl Collector for Reading {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let page = &mut Page(encoder);
        self.drops(page)?;
        self.lives(page)
    }
}

impl Reading {
    fn drops(&self, page: &mut Page<'_>) -> fmt::Result {
        let counts = DropReason::ALL.map(|reason| {
            let count = self.metrics.drops[reason as usize].get();
            (reason.label(), count)
        });
        page.counters(
            ("postern_dropped_packets", "Packets that went no further"),
            ("reason", counts),
        )
    }

    fn lives(&self, page: &mut Page<'_>) -> fmt::Result {
        let lives = self.metrics.lives();
        let of = |number: fn(&super::LifeCounts) -> u64| {
            let counts = lives
                .iter()
                .map(move |(kind, counts)| (*kind, number(counts)));
            ("actor", counts)
        };
        page.counters(
            ("postern_actor_deaths", "Actors that died"),
            of(|it| it.deaths),
        )?;
        page.counters(
            (
                "postern_actor_recoveries",
                "Actors that were built anew and work",
            ),
            of(|it| it.recoveries),
        )
    }
}

/// The text as it grows.
struct Page<'a>(DescriptorEncoder<'a>);

/// Its name, without the suffix that its kind or unit brings, and what it is.
type Family<'a> = (&'a str, &'a str);

impl Page<'_> {
    fn counters<'a>(
        &mut self,
        (name, help): Family<'_>,
        (label, samples): (&str, impl IntoIterator<Item = (&'a str, u64)>),
    ) -> fmt::Result {
        let kind = MetricType::Counter;
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (value, count) in samples {
            let labels = [(label, value)];
            let mut series = family.encode_family(&labels)?;
            series.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}

/// A page is some 40 kB; asking once is cheaper than growing.
const PAGE_BYTES: usize = 64 << 10;
