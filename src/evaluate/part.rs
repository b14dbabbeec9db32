//! A part of a unit: read, drawn, graded, and stored at once.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::FutureExt;
use futures_util::future::join_all;
use jiff::Timestamp;

use super::Evaluator;
use super::case::{self, Case, Lines};
use super::claim::Claim;
use super::draw::Drawn;
use super::grade::Chance;
use super::ration::Stratum;
use super::unit::{PART_LINES, Unit};
use crate::bucket::{BucketError, BucketErrorKind};
use crate::domain::{Judged, Score, ScoreError};

/// Between two attempts to store scores.
const STORE_AGAIN: Duration = Duration::from_secs(2);
/// Times that a sample or a part is tried that panics.
const ATTEMPTS_MAX: u32 = 3;
/// After its first panic; after the second twice as long.
const PANIC_WAIT: Duration = Duration::from_secs(1);

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

/// What came of a part's samples; those that are in neither count were set aside.
#[derive(Default)]
struct Graded {
    scores: Vec<Score>,
    /// Samples that the judge was to be asked about; all where there is none.
    drawn: u64,
    /// Samples that it was not to be asked about.
    passed_over: u64,
}

/// A unit that is being worked on.
struct Held {
    unit: Unit,
    claim: Claim,
    parts: usize,
    left: AtomicUsize,
    /// One of its parts was set aside.
    broken: AtomicBool,
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
        let (parts, strata) = self.parts_of(&object, &done);
        let wanted: BTreeSet<usize> = (1..=parts).filter(|part| !done.contains(part)).collect();
        if wanted.is_empty() {
            claim.release(bucket).await;
            self.board.ended(unit, false);
            return Ok(Parts(None));
        }
        if let Some(ration) = &self.drawer.ration {
            ration.opened(object.len() as u64, &strata);
        }
        let left = AtomicUsize::new(wanted.len());
        let broken = AtomicBool::new(false);
        let held = Arc::new(Held { unit: unit.clone(), claim, parts, left, broken });
        Ok(Parts(Some(Opened { held, lines: Lines::of(object), next: 1, wanted })))
    }

    /// How many parts an object has, and, with a budget, whose the lines are that are not done.
    fn parts_of(&self, object: &Bytes, done: &BTreeSet<usize>) -> (usize, HashMap<Stratum, u64>) {
        let mut strata: HashMap<Stratum, u64> = HashMap::new();
        let limited = self.drawer.ration.is_some();
        let lines = Lines::walk(object.clone(), |at, line| {
            if limited && !done.contains(&(at / PART_LINES + 1)) {
                let stratum = case::stratum_of(line);
                stratum.into_iter().for_each(|of| *strata.entry(of).or_default() += 1);
            }
        });
        (lines.div_ceil(PART_LINES).max(1), strata)
    }

    /// Grades a part and stores its scores. A sample that panics costs itself alone (`grade_surely`);
    /// where the part as a whole does, it is tried again, so often at most, and then its unit is set
    /// aside until the next start, counted and named.
    pub(super) async fn evaluate(&self, part: Part) {
        let held = Arc::clone(&part.held);
        for attempt in 1..=ATTEMPTS_MAX {
            let ended = AssertUnwindSafe(self.grade_and_store(&part)).catch_unwind().await;
            if ended.is_ok() {
                break;
            }
            self.metrics.panicked("evaluate");
            if attempt == ATTEMPTS_MAX {
                held.broken.store(true, Ordering::Release);
                self.metrics.samples_set_aside(part.lines.len() as u64);
                let object = held.unit.object();
                tracing::error!(object, part = part.number, "a part that panics is set aside");
            } else {
                self.while_claimed(&held.claim, tokio::time::sleep(PANIC_WAIT * attempt)).await;
            }
        }
        if held.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            held.claim.release(&*self.bucket).await;
            crate::capture::failpoint::hit("claim_released");
            match held.broken.load(Ordering::Acquire) {
                true => self.board.set_aside(&held.unit),
                false => self.board.ended(&held.unit, false),
            }
        }
    }

    async fn grade_and_store(&self, part: &Part) {
        let Part { held, number, lines } = part;
        crate::capture::failpoint::hit("evaluate");
        let read: Vec<&Case> = lines.iter().flatten().collect();
        let graded = self.while_claimed(&held.claim, self.graded(&held.unit, &read)).await;
        let Graded { scores, drawn, passed_over } = graded;
        if !self.store(held, *number, &scores).await {
            return;
        }
        crate::capture::failpoint::hit("scores_put");
        self.stored.notify_one();
        scores.iter().for_each(|score| self.metrics.judged(score));
        read.iter().for_each(|case| self.trace(case, &scores));
        self.metrics.evaluated(drawn);
        self.metrics.not_drawn(passed_over);
        self.metrics.samples_set_aside(read.len() as u64 - drawn - passed_over);
        let unreadable = lines.len() - read.len();
        if unreadable > 0 {
            self.metrics.unreadable_samples(unreadable as u64);
            let object = held.unit.object();
            tracing::warn!(object, unreadable, "lines that are no samples were set aside");
        }
    }

    /// The scores of `cases`.
    async fn graded(&self, unit: &Unit, cases: &[&Case]) -> Graded {
        let Drawn { chances, under_way } = self.draw(cases).await;
        let grading = cases.iter().zip(&chances);
        let grading = grading.map(|(case, chance)| self.grade_surely(unit, case, *chance));
        let ended = join_all(grading).await;
        let mut graded = Graded::default();
        for (end, chance) in ended.iter().zip(&chances) {
            let asked = chance.is_some() || self.grader.bench.is_none();
            match end {
                Ok(_) if asked => graded.drawn += 1,
                Ok(_) => graded.passed_over += 1,
                Err(_) => {}
            }
        }
        let rows = ended.into_iter().flat_map(|end| end.unwrap_or_else(|set_aside| set_aside));
        let scores: Vec<Score> = rows.collect();
        if let Some(under_way) = under_way {
            let spent = scores.iter().filter_map(|score| score.judge.as_ref());
            let tokens = |judged: &Judged| judged.input.unwrap_or(0) + judged.output.unwrap_or(0);
            under_way.cost(spent.map(tokens).sum());
        }
        Graded { scores, ..graded }
    }

    /// The rows of one sample. After a panic it is tried again, so often at most; then it is set aside,
    /// named, and its rows (the error) say so for good.
    async fn grade_surely(
        &self,
        unit: &Unit,
        case: &Case,
        chance: Option<Chance>,
    ) -> Result<Vec<Score>, Vec<Score>> {
        for attempt in 1..=ATTEMPTS_MAX {
            let grading = async {
                crate::capture::failpoint::hit("grade");
                self.grader.grade(case, chance).await
            };
            if let Ok(rows) = AssertUnwindSafe(grading).catch_unwind().await {
                return Ok(rows);
            }
            self.metrics.panicked("evaluate");
            if attempt < ATTEMPTS_MAX {
                tokio::time::sleep(PANIC_WAIT * attempt).await;
            }
        }
        let (object, sample) = (unit.object(), case.id.to_string());
        tracing::error!(object, sample, "a sample that panics is set aside");
        Err(self.grader.ungraded(case, chance, ScoreError::Panicked))
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
        crate::capture::failpoint::hit("scores_begun");
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
