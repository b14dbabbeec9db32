//! The judging side: the evaluator, and how it is told of new samples.

use std::sync::Arc;

use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use super::{Ground, StartError};
use crate::config::Role;
use crate::drain;
use crate::evaluate;
use crate::queue::{self, Announcer};
use crate::sample::judge_marker;

/// Starts the evaluator on a thread of its own, where one is configured and the role has one (a sidecar
/// has none); `uploaded` is woken when it has stored scores. Gives back whom the archive tells of new
/// objects (an evaluator within the process, or a queue to those elsewhere, carried by `keeping`), and
/// what stops the evaluator.
pub(super) fn start(
    ground: &Ground<'_>,
) -> Result<(Option<Announcer>, CancellationToken), StartError> {
    let Ground { config, role, bucket, uploaded, keeping, .. } = *ground;
    let metrics = ground.metrics.clone();
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
        let runtime = drain::runtime(Builder::new_current_thread())?;
        let (bucket, stored) = (Arc::clone(bucket), Arc::clone(uploaded));
        let tracer = ground.tracer.cloned();
        let outlets = evaluate::Outlets { bucket, inbox, stored, tracer, metrics };
        let evaluator = {
            let _entered = runtime.enter();
            evaluate::from_bucket(config, judge_marker(config.sample.key.as_ref()), outlets)?
        };
        work.into_iter().for_each(|work| drop(runtime.spawn(work)));
        let until = stop.clone();
        let work = move || evaluator.map_or((), |one| runtime.block_on(one.run(until)));
        ground.drain.thread("evaluate", work)?;
    }
    Ok((wanted.then_some(announcer), stop))
}
