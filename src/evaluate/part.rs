//! A part of a unit: read, drawn, graded, and stored at once.

use std::collections::BTreeSet;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::FutureExt;
use futures_util::future::join_all;
use jiff::Timestamp;

use super::Evaluator;
use super::case::{Case, Lines};
use super::claim::Claim;
use super::unit::{PART_LINES, Unit};
use crate::bucket::{BucketError, BucketErrorKind};
use crate::config::{SampleBy, SampleRates, Secret};
use crate::domain::{Outcome, Score};
use crate::sample::{SampleKeys, Sampler};

/// Between two attempts to store scores.
const STORE_AGAIN: Duration = Duration::from_secs(2);

/// Some lines of a unit.
pub(super) struct Part {
    held: Arc<Held>,
    /// Counted from 1.
    number: usize,
    lines: Vec<Option<Case>>,
}

/// The parts of a unit that are not done, read as they are asked for.
pub(super) struct Parts(Option<Opened>);

struct Opened {
    held: Arc<Held>,
    lines: Lines,
    next: usize,
    wanted: BTreeSet<usize>,
}

impl Iterator for Parts {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let opened = self.0.as_mut()?;
        while opened.next <= opened.held.parts {
            let number = opened.next;
            opened.next += 1;
            let lines: Vec<_> = opened.lines.by_ref().take(PART_LINES).collect();
            if opened.wanted.contains(&number) {
                return Some(Part { held: Arc::clone(&opened.held), number, lines });
            }
        }
        None
    }
}

/// A unit that is being worked on.
struct Held {
    unit: Unit,
    claim: Claim,
    parts: usize,
    left: AtomicUsize,
}

/// Draws the share `rate` of the samples: by their ids, so that every evaluator draws the same, and
/// apart from the draw that made them samples.
pub(super) fn drawer(rate: f64, key: Option<&Secret>) -> Sampler {
    let key = format!("evaluate {}", key.map_or("", Secret::expose));
    let key = Some(Secret::new(key));
    Sampler::new(&SampleRates { rate, errors: None, slow: None, by: SampleBy::Request, key })
}

impl Evaluator {
    /// Claims a unit and gives its parts that are not done; none where there is nothing to do.
    pub(super) async fn open(&self, unit: Unit) -> Parts {
        match self.opened(&unit).await {
            Ok(parts) => parts,
            Err(error) => {
                self.board.ended(&unit, error.kind != BucketErrorKind::NotFound);
                self.metrics.evaluate_failed(error.kind.label());
                tracing::warn!(object = unit.object(), %error, "samples cannot be read now");
                Parts(None)
            }
        }
    }

    async fn opened(&self, unit: &Unit) -> Result<Parts, BucketError> {
        let bucket = &*self.bucket;
        let claim = Claim::take(bucket, unit, &self.grader.instance, Timestamp::now()).await?;
        let Some(claim) = claim else {
            // Another evaluator has it; should that one fail, a later look finds it again.
            self.board.ended(unit, true);
            return Ok(Parts(None));
        };
        let done = unit.done(bucket).await?;
        let object = bucket.get(&unit.object()).await?;
        let parts = Lines::count_of(object.clone()).div_ceil(PART_LINES).max(1);
        let wanted: BTreeSet<usize> = (1..=parts).filter(|part| !done.contains(part)).collect();
        if wanted.is_empty() {
            claim.release(bucket).await;
            self.board.ended(unit, false);
            return Ok(Parts(None));
        }
        let left = AtomicUsize::new(wanted.len());
        let held = Arc::new(Held { unit: unit.clone(), claim, parts, left });
        Ok(Parts(Some(Opened { held, lines: Lines::of(object), next: 1, wanted })))
    }

    /// Grades a part and stores its scores. A panic costs the part: it is not tried again by this
    /// process.
    pub(super) async fn evaluate(&self, part: Part) {
        let held = Arc::clone(&part.held);
        let ended = AssertUnwindSafe(self.grade_and_store(part)).catch_unwind().await;
        if ended.is_err() {
            self.metrics.panicked("evaluate");
            return;
        }
        if held.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            held.claim.release(&*self.bucket).await;
            self.board.ended(&held.unit, false);
        }
    }

    async fn grade_and_store(&self, part: Part) {
        let Part { held, number, lines } = part;
        let read: Vec<&Case> = lines.iter().flatten().collect();
        let drawn: Vec<&Case> = read.iter().copied().filter(|case| self.draws(case)).collect();
        let (unreadable, passed) = (lines.len() - read.len(), read.len() - drawn.len());
        let grading = join_all(drawn.iter().map(|case| self.grader.grade(case)));
        let scores = self.while_claimed(&held.claim, grading).await.concat();
        let stored = self.store(&held, number, &scores).await;
        if !stored {
            return;
        }
        self.stored.notify_one();
        scores.iter().for_each(|score| self.metrics.judged(score));
        drawn.iter().for_each(|case| self.trace(case, &scores));
        self.metrics.evaluated(drawn.len() as u64);
        self.metrics.not_drawn(passed as u64);
        if unreadable > 0 {
            self.metrics.unreadable_samples(unreadable as u64);
            let object = held.unit.object();
            tracing::warn!(object, unreadable, "lines that are no samples were set aside");
        }
    }

    /// Puts what was judged of a case beside the span of its exchange.
    fn trace(&self, case: &Case, scores: &[Score]) {
        let (Some(tracer), Some(trace), Some(span)) = (&self.tracer, case.trace_id, case.span_id)
        else {
            return;
        };
        let judged =
            scores.iter().filter(|score| score.exchange == case.id && score.judge.is_some());
        judged.for_each(|score| tracer.score(score, trace, span));
    }

    fn draws(&self, case: &Case) -> bool {
        let keys =
            SampleKeys { request_id: None, exchange_id: case.id, trace_id: None, session: None };
        self.sampler.decide(&keys, Outcome::Ok, Duration::ZERO).is_some()
    }

    /// Renews the claim while `work` goes on.
    async fn while_claimed<T>(&self, claim: &Claim, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(Claim::renew_every()) => {
                    claim.renew(&*self.bucket, Timestamp::now()).await;
                }
            }
        }
    }

    /// Stores the scores of a part, however long the bucket is away; false where another evaluator
    /// has stored them before.
    async fn store(&self, held: &Held, number: usize, scores: &[Score]) -> bool {
        let (name, body) = match scores.is_empty() {
            true => (held.unit.empty(number, held.parts), Bytes::from_static(b"{}")),
            false => (held.unit.scores(number, held.parts), packed(scores)),
        };
        let mut unsure = false;
        loop {
            match self.bucket.put_if_absent(&name, body.clone()).await {
                // After a failure, what lies there may be our own.
                Ok(stored) => return stored || unsure,
                Err(error) => {
                    unsure = true;
                    self.metrics.evaluate_failed(error.kind.label());
                    tracing::warn!(object = name, %error, "scores cannot be stored now");
                }
            }
            self.while_claimed(&held.claim, tokio::time::sleep(STORE_AGAIN)).await;
        }
    }
}

/// Scores as JSON lines, gzip.
fn packed(scores: &[Score]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(3));
    for score in scores {
        // Writing to memory cannot fail, and a score is made of JSON types.
        let line = serde_json::to_vec(score).unwrap_or_default();
        let _in_memory = encoder.write_all(&line).and_then(|()| encoder.write_all(b"\n"));
    }
    Bytes::from(encoder.finish().unwrap_or_default())
}
