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

/// What an evaluator counts with, tells with, and is waited for by.
pub(super) struct Tools<'a> {
    pub(super) tracer: Option<&'a Tracer>,
    pub(super) metrics: &'a Metrics,
    pub(super) drain: &'a Drain,
}

/// Starts the evaluator on a thread of its own, where one is configured and `role` has one (a sidecar
/// has none); `stored` is woken when it has stored scores. Gives back whom the archive tells of new
/// objects (an evaluator within the process, or a queue to those elsewhere, carried by `keeping`), and
/// what stops the evaluator.
pub(super) fn start(
    config: &Config,
    role: Role,
    bucket: &Arc<dyn Bucket>,
    stored: &Arc<Notify>,
    keeping: &Runtime,
    tools: &Tools<'_>,
) -> Result<(Option<Announcer>, CancellationToken), StartError> {
    let metrics = tools.metrics.clone();
    let (announcer, told) = queue::within(metrics.clone());
    let here = config.evaluate.is_some() && role != Role::Proxy;
    let wanted = here || config.queue.is_some();
    let stop = CancellationToken::new();
    let (inbox, work) = match &config.queue {
        None => ((role != Role::Hub).then_some(told), None),
        Some(settings) => {
            keeping.spawn(queue::publish(settings.clone(), told));
            let (inbox, work) = queue::consume(settings.clone(), metrics.clone());
            (Some(inbox), Some(work))
        }
    };
    if here {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (bucket, stored) = (Arc::clone(bucket), Arc::clone(stored));
        let tracer = tools.tracer.cloned();
        let outlets = evaluate::Outlets { bucket, inbox, stored, tracer, metrics };
        let evaluator = {
            let _entered = runtime.enter();
            evaluate::from_bucket(config, judge_marker(config.sample.key.as_ref()), outlets)?
        };
        work.into_iter().for_each(|work| drop(runtime.spawn(work)));
        let until = stop.clone();
        let work = move || evaluator.map_or((), |one| runtime.block_on(one.run(until)));
        tools.drain.thread("evaluate", work)?;
    }
    Ok((wanted.then_some(announcer), stop))
}
