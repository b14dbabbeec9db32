//! What happens on the way between clients and upstreams.

use prometheus::{IntGauge, Result};

use super::Metrics;
use super::families as f;
use super::registry::{Counters, Gauges, Registrar};

/// A figure that goes up and down. Clones share it; resolve it once, keep it.
#[derive(Clone, Debug)]
pub struct Gauge(IntGauge);

impl Gauge {
    /// One more.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// One less.
    pub fn dec(&self) {
        self.0.dec();
    }

    /// The figure now.
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// The families of the traffic.
pub(super) struct Traffic {
    in_flight: Gauges<1>,
    connections: Gauges<1>,
    rejected: Counters<2>,
    upstream_connects: Counters<2>,
    retries: Counters<1>,
    attested: Counters<1>,
    altered: Counters<2>,
    informational_dropped: Counters<1>,
}

impl Traffic {
    pub(super) fn register(reg: &mut Registrar) -> Result<Self> {
        Ok(Self {
            in_flight: reg.gauges(&f::IN_FLIGHT)?,
            connections: reg.gauges(&f::CONNECTIONS)?,
            rejected: reg.counters(&f::REJECTED)?,
            upstream_connects: reg.counters(&f::UPSTREAM_CONNECTS)?,
            retries: reg.counters(&f::RETRIES)?,
            attested: reg.counters(&f::ATTESTED)?,
            altered: reg.counters(&f::ALTERED)?,
            informational_dropped: reg.counters(&f::INFORMATIONAL_DROPPED)?,
        })
    }

    pub(super) fn tap_opened(&self, tap: &str) {
        self.in_flight.of([tap]);
        self.connections.of([tap]);
        self.retries.of([tap]);
        self.attested.of([tap]);
        for direction in ["up", "down"] {
            self.altered.of([tap, direction]);
        }
        self.informational_dropped.of([tap]);
    }
}

impl Metrics {
    /// Exchanges under way at `tap`.
    pub fn in_flight(&self, tap: &str) -> Gauge {
        Gauge(self.inner.traffic.in_flight.of([tap]))
    }

    /// Open client connections of `tap`.
    pub fn connections(&self, tap: &str) -> Gauge {
        Gauge(self.inner.traffic.connections.of([tap]))
    }

    /// A malformed request was refused.
    pub fn rejected(&self, tap: &str, reason: &'static str) {
        self.inner.traffic.rejected.of([tap, reason]).inc();
    }

    /// An attempt to connect upstream ended with `result`: `ok`, `refused`, `timeout`, ...
    pub fn upstream_connect(&self, tap: &str, result: &'static str) {
        self.inner.traffic.upstream_connects.of([tap, result]).inc();
    }

    /// A request was sent again after a stale pooled connection.
    pub fn retried(&self, tap: &str) {
        self.inner.traffic.retries.of([tap]).inc();
    }

    /// The bodies of an exchange were held against what went on; `altered` says of each, up and down,
    /// whether it differed.
    pub fn attested(&self, tap: &str, altered: [bool; 2]) {
        self.inner.traffic.attested.of([tap]).inc();
        for (direction, _) in ["up", "down"].into_iter().zip(altered).filter(|(_, is)| *is) {
            self.inner.traffic.altered.of([tap, direction]).inc();
        }
    }

    /// A 1xx answer was not passed on.
    pub fn informational_dropped(&self, tap: &str) {
        self.inner.traffic.informational_dropped.of([tap]).inc();
    }
}
