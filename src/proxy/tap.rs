//! What all connections of one tap share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::capture::{BodyLimits, HeaderSelection, Recorder};
use crate::config;
use crate::domain::MemoryBudget;
use crate::metrics::{Gauge, Metrics};
use crate::pipeline::Intake;

use super::connect::Connector;
use super::governor::Governor;
use super::include_usage::Injection;
use super::route::Route;

/// What all connections of one tap share; read-only but for counters.
pub struct TapShared {
    /// The tap's name.
    pub name: Arc<str>,
    /// Its settings.
    pub settings: config::Tap,
    /// How requests are addressed upstream.
    pub route: Route,
    /// How the upstream is reached.
    pub connector: Connector,
    /// Whether usage is asked for on the client's behalf.
    pub injection: Injection,
    /// Where finished exchanges go.
    pub intake: Intake,
    /// What memory recording may take.
    pub budget: MemoryBudget,
    /// What our own work may take.
    pub governor: Arc<Governor>,
    /// How much of a body is recorded.
    pub body_limits: BodyLimits,
    /// Which headers are looked at.
    pub selection: HeaderSelection,
    /// Counters.
    pub metrics: Metrics,
    /// Exchanges under way.
    pub in_flight: Gauge,
    /// Exchanges under way at every other tap.
    pub others_in_flight: Vec<Gauge>,
    /// Open client connections.
    pub connections: Gauge,
    /// The drain deadline has passed: what is under way ends by our own doing.
    pub cut: AtomicBool,
    /// Spans are exported, so that our own `traceparent` goes upstream.
    pub tracing: bool,
}

impl TapShared {
    /// A recorder for one body; it records nothing where bodies are not looked at for now.
    pub fn recorder(&self) -> Recorder {
        let mut recorder = Recorder::new(self.body_limits, &self.budget);
        if !self.budget.shedding().is_full() {
            recorder.stop();
        }
        recorder
    }
}
