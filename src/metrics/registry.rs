//! Families with their labels counted at compile time, so that a wrong number of label values
//! cannot be written, and the list of what was registered, which docs/METRICS.md is held to.

use std::collections::HashMap;

use prometheus::core::{Collector as _, MetricVec, MetricVecBuilder};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result,
};

/// A family as it appears on `/metrics` and in docs/METRICS.md.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// The full name.
    pub name: &'static str,
    /// The Prometheus type.
    pub kind: Kind,
    /// The labels' names; `le` of histograms not among them.
    pub labels: Vec<&'static str>,
    /// The unit of its value; empty for plain counts and states.
    pub unit: &'static str,
    /// What it says: the `HELP` line.
    pub help: &'static str,
    /// What to do when it moves.
    pub advice: &'static str,
}

/// The Prometheus types in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets.
    Histogram,
}

impl Kind {
    /// The word of the `TYPE` line.
    pub fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One family as it is written down in `families`.
pub(super) struct Spec<const N: usize> {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) labels: [&'static str; N],
    pub(super) help: &'static str,
    pub(super) advice: &'static str,
}

/// Registers families and remembers them.
#[derive(Default)]
pub(super) struct Registrar {
    pub(super) registry: Registry,
    pub(super) families: Vec<Family>,
}

impl Registrar {
    pub(super) fn counters<const N: usize>(&mut self, spec: &Spec<N>) -> Result<Counters<N>> {
        let vec = IntCounterVec::new(Opts::new(spec.name, spec.help), &spec.labels)?;
        self.registry.register(Box::new(vec.clone()))?;
        self.remember(spec, Kind::Counter);
        Ok(Counters(vec))
    }

    pub(super) fn gauges<const N: usize>(&mut self, spec: &Spec<N>) -> Result<Gauges<N>> {
        let vec = IntGaugeVec::new(Opts::new(spec.name, spec.help), &spec.labels)?;
        self.registry.register(Box::new(vec.clone()))?;
        self.remember(spec, Kind::Gauge);
        Ok(Gauges(vec))
    }

    pub(super) fn histograms<const N: usize>(
        &mut self,
        spec: &Spec<N>,
        buckets: &[f64],
    ) -> Result<Histograms<N>> {
        let opts = HistogramOpts::new(spec.name, spec.help).buckets(buckets.to_vec());
        let vec = HistogramVec::new(opts, &spec.labels)?;
        self.registry.register(Box::new(vec.clone()))?;
        self.remember(spec, Kind::Histogram);
        Ok(Histograms(vec))
    }

    /// A counter without labels: there from the start, at zero.
    pub(super) fn counter(&mut self, spec: &Spec<0>) -> Result<IntCounter> {
        self.counters(spec).map(|family| family.of([]))
    }

    /// A gauge without labels: there from the start, at zero.
    pub(super) fn gauge(&mut self, spec: &Spec<0>) -> Result<IntGauge> {
        self.gauges(spec).map(|family| family.of([]))
    }

    /// A gauge of fractions, without labels.
    pub(super) fn fraction(&mut self, spec: &Spec<0>) -> Result<prometheus::Gauge> {
        let gauge = prometheus::Gauge::new(spec.name, spec.help)?;
        self.registry.register(Box::new(gauge.clone()))?;
        self.remember(spec, Kind::Gauge);
        Ok(gauge)
    }

    /// A counter of fractions, without labels.
    pub(super) fn fraction_counter(&mut self, spec: &Spec<0>) -> Result<prometheus::Counter> {
        let counter = prometheus::Counter::new(spec.name, spec.help)?;
        self.registry.register(Box::new(counter.clone()))?;
        self.remember(spec, Kind::Counter);
        Ok(counter)
    }

    fn remember<const N: usize>(&mut self, spec: &Spec<N>, kind: Kind) {
        self.families.push(Family {
            name: spec.name,
            kind,
            labels: spec.labels.to_vec(),
            unit: spec.unit,
            help: spec.help,
            advice: spec.advice,
        });
    }
}

/// A counter family of `N` labels.
pub(super) struct Counters<const N: usize>(IntCounterVec);

impl<const N: usize> Counters<N> {
    pub(super) fn of(&self, values: [&str; N]) -> IntCounter {
        self.0.with_label_values(&values)
    }

    /// Takes away all series whose label `name` is `value`.
    pub(super) fn forget(&self, name: &str, value: &str) {
        forget(&self.0, name, value);
    }
}

/// A gauge family of `N` labels.
pub(super) struct Gauges<const N: usize>(IntGaugeVec);

impl<const N: usize> Gauges<N> {
    pub(super) fn of(&self, values: [&str; N]) -> IntGauge {
        self.0.with_label_values(&values)
    }

    /// Takes away all series whose label `name` is `value`.
    pub(super) fn forget(&self, name: &str, value: &str) {
        forget(&self.0, name, value);
    }
}

fn forget<T: MetricVecBuilder>(family: &MetricVec<T>, name: &str, value: &str) {
    for series in family.collect().iter().flat_map(|family| family.get_metric()) {
        let labels: HashMap<&str, &str> =
            series.get_label().iter().map(|label| (label.name(), label.value())).collect();
        if labels.get(name) == Some(&value) {
            // Nothing to take away is as good.
            drop(family.remove(&labels));
        }
    }
}

/// A histogram family of `N` labels.
pub(super) struct Histograms<const N: usize>(HistogramVec);

impl<const N: usize> Histograms<N> {
    pub(super) fn of(&self, values: [&str; N]) -> Histogram {
        self.0.with_label_values(&values)
    }
}
