//! Writes the few shapes of our numbers with `prometheus-client`.

use crate::metrics::histogram::Reading;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use std::fmt;

pub(super) struct Page<'a>(pub(super) DescriptorEncoder<'a>);

/// A number with its help text. The name is without the suffixes for unit and kind.
pub(super) struct Family {
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
}

pub(super) fn plain(name: &'static str, help: &'static str) -> Family {
    let unit = None;
    Family { name, unit, help }
}

pub(super) fn seconds(name: &'static str, help: &'static str) -> Family {
    let unit = Some(Unit::Seconds);
    Family { name, unit, help }
}

pub(super) fn bytes(name: &'static str, help: &'static str) -> Family {
    let unit = Some(Unit::Bytes);
    Family { name, unit, help }
}

impl Page<'_> {
    pub(super) fn counter(
        &mut self,
        family: Family,
        value: impl EncodeCounterValue,
    ) -> fmt::Result {
        let mut family = self.begin(&family, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn counters<'a, V: EncodeCounterValue>(
        &mut self,
        family: Family,
        label: &str,
        series: impl IntoIterator<Item = (&'a str, V)>,
    ) -> fmt::Result {
        let mut family = self.begin(&family, MetricType::Counter)?;
        for (name, value) in series {
            let labels = [(label, name)];
            let mut one = family.encode_family(&labels)?;
            one.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    pub(super) fn gauge(&mut self, family: Family, value: impl EncodeGaugeValue) -> fmt::Result {
        let mut family = self.begin(&family, MetricType::Gauge)?;
        family.encode_gauge(&value)
    }

    pub(super) fn gauges<'a, V: EncodeGaugeValue>(
        &mut self,
        family: Family,
        label: &str,
        series: impl IntoIterator<Item = (&'a str, V)>,
    ) -> fmt::Result {
        let mut family = self.begin(&family, MetricType::Gauge)?;
        for (name, value) in series {
            family
                .encode_family(&[(label, name)])?
                .encode_gauge(&value)?;
        }
        Ok(())
    }

    pub(super) fn histograms<'a>(
        &mut self,
        family: Family,
        label: &str,
        series: impl IntoIterator<Item = (&'a str, Reading)>,
    ) -> fmt::Result {
        let mut family = self.begin(&family, MetricType::Histogram)?;
        for (name, reading) in series {
            let labels = [(label, name)];
            let mut one = family.encode_family(&labels)?;
            let (sum, count) = (reading.sum.as_secs_f64(), reading.count());
            one.encode_histogram::<NoLabelSet>(sum, count, &reading.buckets, None)?;
        }
        Ok(())
    }

    /// A constant of the process.
    pub(super) fn info(&mut self, family: Family, label: &str, value: &str) -> fmt::Result {
        let mut family = self.begin(&family, MetricType::Info)?;
        family.encode_info(&[(label, value)])
    }

    fn begin<'s>(
        &'s mut self,
        family: &'s Family,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        let Family { name, unit, help } = family;
        self.0.encode_descriptor(name, help, unit.as_ref(), kind)
    }
}
