//! What `flowtap run` has beside the traffic: an evaluator, an index of its bucket, and monitors over it.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::index::Index;
use super::monitors::Monitors;
use super::{Ground, StartError, evaluator};
use crate::console::Console;
use crate::drain::Drain;
use crate::queue::Announcer;

/// The workers; a sidecar (`flowtap proxy`) has none of them.
pub(super) struct Beside {
    evaluating: CancellationToken,
    index: Option<Index>,
    monitors: Monitors,
}

impl Beside {
    /// Starts what the role has, and lets the console show it. Gives back whom the archive tells of new
    /// objects. Without an index it goes on: traffic does not need it.
    pub(super) fn start(
        ground: &Ground<'_>,
        console: &mut Console,
    ) -> Result<(Self, Option<Announcer>), StartError> {
        let Ground { config, role, bucket, metrics, drain, .. } = *ground;
        let (announcer, evaluating) = evaluator::start(ground)?;
        let uploaded = Arc::clone(ground.uploaded);
        let index = Index::beside_traffic(role, config, bucket, uploaded, metrics, drain);
        index.iter().for_each(|index| console.show(index.view(Arc::clone(bucket))));
        let monitors = Monitors::of(ground, index.as_ref(), console)?;
        Ok((Self { evaluating, index, monitors }, announcer))
    }

    /// Samples that are not evaluated wait in the bucket: nothing is lost by ending early.
    pub(super) fn end_evaluating(&self) {
        self.evaluating.cancel();
    }

    /// Ends the workers that do not need the index; who is late.
    pub(super) fn stop(&self, drain: &Drain, deadline: Instant) -> Vec<String> {
        let mut late = drain.join("evaluate", deadline);
        late.extend(self.monitors.stop(drain, deadline));
        late
    }

    /// Ends the index; who is late. The console has to be gone.
    pub(super) fn close(self, drain: &Drain, deadline: Instant) -> Vec<String> {
        self.index.map_or_else(Vec::new, |index| index.stop(drain, deadline))
    }
}
