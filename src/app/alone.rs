//! What a build without a hub has beside the traffic: a queue that tells evaluators elsewhere of new
//! samples, if one is set. It stands in the place of `beside.rs`.

use std::time::Instant;

use super::{Ground, StartError};
use crate::console::Console;
use crate::drain::Drain;
use crate::queue::{self, Announcer};

/// Nothing that has to be ended.
pub(super) struct Beside;

impl Beside {
    /// Gives back whom the archive tells of new objects.
    pub(super) fn start(
        ground: &Ground<'_>,
        _console: &mut Console,
    ) -> Result<(Self, Option<Announcer>), StartError> {
        let announcer = ground.config.queue.as_ref().map(|settings| {
            let (announcer, told) = queue::within(ground.metrics.clone());
            ground.keeping.spawn(queue::publish(settings.clone(), told));
            announcer
        });
        Ok((Self, announcer))
    }

    /// There is no evaluator.
    pub(super) fn end_evaluating(&self) {}

    /// There is nobody to wait for.
    pub(super) fn stop(&self, _drain: &Drain, _deadline: Instant) -> Vec<String> {
        Vec::new()
    }

    /// There is no index.
    pub(super) fn close(self, _drain: &Drain, _deadline: Instant) -> Vec<String> {
        Vec::new()
    }
}
