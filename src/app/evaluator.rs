//! The judging side: the evaluator, and how it is told of new samples.

use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::bucket::Bucket;
use crate::config::{Config, Role};
use crate::drain::Drain;
use crate::evaluate;
use crate::metrics::Metrics;
use crate::queue::{self, Announcer};
use crate::sample::judge_marker;
use crate::trace::Tracer;

/// What an evaluator is started among.
pub(super) struct Surroundings<'a> {
    pub(super) bucket: &'a Arc<dyn Bucket>,
    /// Woken when scores are stored.
    pub(super) stored: Arc<Notify>,
    pub(super) tracer: Option<&'a Tracer>,
    pub(super) metrics: &'a Metrics,
    pub(super) drain: &'a Drain,
    /// Where the carrying of news runs.
    pub(super) keeping: &'a Runtime,
    pub(super) stop: &'a CancellationToken,
}

/// Starts the evaluator on a thread of its own, where one is configured and `role` has one (a sidecar
/// has none). Gives back whom the archive tells of new objects: an evaluator within the process, or a
/// queue to those elsewhere.
pub(super) fn start(
    config: &Config,
    role: Role,
    around: &Surroundings<'_>,
) -> Result<Option<Announcer>, StartError> {
    let (announcer, told) = queue::within(around.metrics.clone());
    let here = config.evaluate.is_some() && role != Role::Proxy;
    let (inbox, work) = match &config.queue {
        None => (told, None),
        Some(settings) => {
            around.keeping.spawn(queue::publish(settings.clone(), told));
            let (inbox, work) = queue::consume(settings.clone(), around.metrics.clone());
            (inbox, Some(work))
        }
    };
    if here {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let told = role != Role::Hub || config.queue.is_some();
        let outlets = evaluate::Outlets {
            bucket: Arc::clone(around.bucket),
            inbox: told.then_some(inbox),
            stored: Arc::clone(&around.stored),
            tracer: around.tracer.cloned(),
            metrics: around.metrics.clone(),
        };
        let evaluator = {
            let _entered = runtime.enter();
            evaluate::from_bucket(config, judge_marker(config.sample.key.as_ref()), outlets)?
        };
        work.into_iter().for_each(|work| drop(runtime.spawn(work)));
        let stop = around.stop.clone();
        let evaluator = evaluator.into_iter();
        let work = move || evaluator.for_each(|one| runtime.block_on(one.run(stop.clone())));
        around.drain.thread("evaluate", work)?;
    }
    Ok((here || config.queue.is_some()).then_some(announcer))
}
