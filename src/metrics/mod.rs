//! Every Prometheus family, in one registry that is passed down. Methods are named after what
//! happened; label values come from closed sets or from bounded tables (see `labels`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus::{Result, TextEncoder};

use crate::config::MetricsLimits;
use crate::domain::{Call, Outcome, Summary};

mod evaluate;
mod exchange;
mod families;
mod index;
mod keeping;
mod labels;
mod monitors;
mod process;
mod receiving;
mod registry;
mod traffic;

use evaluate::Evaluation;
use exchange::Exchanges;
use index::Index;
use keeping::Keeping;
use monitors::Monitors;
use process::Process;
use receiving::Receiving;
use registry::Registrar;
use traffic::Traffic;

pub use registry::{Family, Kind};
pub use traffic::Gauge;

/// All metrics of the process. Clones share one registry.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registrar: Registrar,
    exchanges: Exchanges,
    traffic: Traffic,
    keeping: Keeping,
    evaluation: Evaluation,
    index: Index,
    monitors: Monitors,
    receiving: Receiving,
    process: Process,
    build_info: registry::Gauges<1>,
}

impl Metrics {
    /// A fresh registry with every family in it.
    #[expect(clippy::expect_used, reason = "names and labels are constants; the tests build them")]
    pub fn new(limits: &MetricsLimits) -> Self {
        let inner = Inner::register(limits).expect("the constants of `families` are well formed");
        Self { inner: Arc::new(inner) }
    }

    /// A tap was configured: its series of closed sets appear at zero, so that rates work from
    /// the first event on. Call it once a tap, at the start.
    pub fn tap_opened(&self, tap: &str) {
        self.inner.exchanges.tap_opened(tap);
        self.inner.traffic.tap_opened(tap);
        self.inner.keeping.tap_opened(tap);
    }

    /// An exchange ended and was understood. `error_type` as of
    /// [`crate::domain::semconv::error_type`]; what is neither a status nor an outcome's label
    /// counts as `_OTHER`. Call it for every exchange, once.
    pub fn exchange(&self, summary: &Summary, error_type: Option<&str>) {
        self.inner.exchanges.ended(summary, error_type, &[]);
    }

    /// [`Self::exchange`] of a flow whose usage is the sum of `calls`: its tokens are told by the
    /// calls' models, so that the sum over the models is the flow's own.
    pub fn exchange_of_calls(&self, summary: &Summary, error_type: Option<&str>, calls: &[Call]) {
        self.inner.exchanges.ended(summary, error_type, calls);
    }

    /// An exchange ended, but what was captured of it was dropped before it was understood. With
    /// [`Self::exchange`] it makes `flowtap_requests_total` equal the requests served.
    pub fn intake_only(
        &self,
        tap: &str,
        status: Option<u16>,
        outcome: Outcome,
        latency_seconds: f64,
    ) {
        self.inner.exchanges.unread(tap, status, outcome, latency_seconds);
    }

    /// The bounded label of the model that answered, else of the one asked for: empty where no
    /// name is known, `other` where it is not learnt. Learns from 2xx answers only.
    pub fn model_label(&self, summary: &Summary) -> Arc<str> {
        self.inner.exchanges.model_label(summary)
    }

    /// The bounded label of a deployment that the upstream accepted (2xx): learns it, or `other`.
    pub fn deployment_label(&self, raw: &str) -> Arc<str> {
        self.inner.exchanges.deployments.learn(raw)
    }

    /// The label of a deployment that the upstream did not accept: only if it is known already,
    /// else `other`.
    pub fn known_deployment_label(&self, raw: &str) -> Arc<str> {
        self.inner.exchanges.deployments.known(raw)
    }

    /// The running version.
    pub fn build_info(&self, version: &str) {
        self.inner.build_info.of([version]).set(1);
    }

    /// Everything in Prometheus' text format.
    pub fn encode(&self) -> String {
        self.inner.process.refresh();
        let families = self.inner.registrar.registry.gather();
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics could not be encoded");
            String::new()
        })
    }

    /// The media type of [`Self::encode`].
    pub fn content_type(&self) -> &'static str {
        prometheus::TEXT_FORMAT
    }

    /// The values of a family of counters or gauges, summed by one of its labels.
    pub fn sums(&self, family: &str, label: &str) -> BTreeMap<String, f64> {
        let families = self.inner.registrar.registry.gather();
        let series = families.iter().filter(|found| found.name() == family);
        let mut sums = BTreeMap::new();
        for metric in series.flat_map(|found| found.get_metric()) {
            let value = metric.get_label().iter().find(|pair| pair.name() == label);
            let value = value.map_or("", |pair| pair.value());
            let figure = metric.get_counter().get_value() + metric.get_gauge().get_value();
            *sums.entry(value.to_owned()).or_default() += figure;
        }
        sums
    }

    /// The mean of all values of a family of histograms; `None` before the first.
    pub fn mean(&self, family: &str) -> Option<f64> {
        let families = self.inner.registrar.registry.gather();
        let series = families.iter().filter(|found| found.name() == family);
        let (mut sum, mut count) = (0.0, 0);
        for metric in series.flat_map(|found| found.get_metric()) {
            sum += metric.get_histogram().get_sample_sum();
            count += metric.get_histogram().get_sample_count();
        }
        (count > 0).then(|| sum / count as f64)
    }

    /// Every family that is registered, in the order of docs/METRICS.md.
    pub fn families(&self) -> Vec<Family> {
        self.inner.registrar.families.clone()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Inner {
    fn register(limits: &MetricsLimits) -> Result<Self> {
        let mut registrar = Registrar::default();
        let reg = &mut registrar;
        Ok(Self {
            exchanges: Exchanges::register(reg, limits)?,
            traffic: Traffic::register(reg)?,
            keeping: Keeping::register(reg)?,
            evaluation: Evaluation::register(reg)?,
            index: Index::register(reg)?,
            monitors: Monitors::register(reg)?,
            receiving: Receiving::register(reg)?,
            process: Process::register(reg)?,
            build_info: reg.gauges(&families::BUILD_INFO)?,
            registrar,
        })
    }
}

#[cfg(test)]
mod tests;
