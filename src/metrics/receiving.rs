//! What is sent to the endpoints of `collector`.

use prometheus::Result;

use super::Metrics;
use super::families as f;
use super::registry::{Counters, Registrar};
use crate::domain::{Posted, Protocol, ToldFate};

/// The families of what is received.
pub(super) struct Receiving {
    posts: Counters<2>,
    spans: Counters<2>,
    told: Counters<1>,
}

impl Receiving {
    pub(super) fn register(reg: &mut Registrar) -> Result<Self> {
        let receiving = Self {
            posts: reg.counters(&f::COLLECTOR_POSTS)?,
            spans: reg.counters(&f::COLLECTOR_SPANS)?,
            told: reg.counters(&f::SPANS_TOLD)?,
        };
        ToldFate::ALL.iter().for_each(|fate| drop(receiving.told.of([fate.label()])));
        Ok(receiving)
    }
}

impl Metrics {
    /// An endpoint was configured: its series appear at zero.
    pub fn endpoint_opened(&self, protocol: Protocol) {
        for posted in Posted::ALL {
            self.inner.receiving.posts.of([protocol.label(), posted.label()]);
        }
        for result in ["taken", "refused"] {
            self.inner.receiving.spans.of([protocol.label(), result]);
        }
    }

    /// A post was answered.
    pub fn posted(&self, protocol: Protocol, posted: Posted) {
        self.inner.receiving.posts.of([protocol.label(), posted.label()]).inc();
    }

    /// Of the spans in a post `taken` were taken and `refused` were not.
    pub fn spans_received(&self, protocol: Protocol, taken: u64, refused: u64) {
        for (result, spans) in [("taken", taken), ("refused", refused)] {
            self.inner.receiving.spans.of([protocol.label(), result]).inc_by(spans);
        }
    }

    /// `n` spans met their fate.
    pub fn spans_told(&self, fate: ToldFate, n: u64) {
        self.inner.receiving.told.of([fate.label()]).inc_by(n);
    }
}
