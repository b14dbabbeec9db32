//! One sample by all criteria: what is asked, what it costs, and the rows that come of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::budget::{Admission, Budget};
use super::case::Case;
use super::judge::{Judge, Reply};
use super::measure;
use super::panel::{Question, Rubric};
use super::verdict::{self, Verdict};
use crate::config::WhenExhausted;
use crate::domain::{Criterion, ExchangeId, Judged, Score, ScoreError, TraceId};
use crate::metrics::Metrics;
use crate::redact::Redactor;

/// Characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 1000;
/// Between two looks at a budget that was spent.
pub(super) const BUDGET_WAIT: Duration = Duration::from_secs(15);
/// Between two looks at a budget that calls under way may yet leave something of.
const BUSY_WAIT: Duration = Duration::from_millis(20);
/// Times that the judge is asked about one criterion: a bad answer is repaired once, by asking again.
const ASKED_MAX: usize = 2;

/// Whoever grades samples: the judge with its criteria, and what is computed.
pub(super) struct Grader {
    pub(super) bench: Option<Bench>,
    pub(super) measures: Vec<Criterion>,
    pub(super) instance: Arc<str>,
    pub(super) metrics: Metrics,
}

/// The judge and all that belongs to asking it.
pub(super) struct Bench {
    pub(super) judge: Box<dyn Judge>,
    pub(super) model: String,
    pub(super) rubrics: Vec<Rubric>,
    pub(super) budget: Budget,
    /// As many as the judge takes calls at once.
    pub(super) seats: Semaphore,
    pub(super) when_exhausted: WhenExhausted,
    pub(super) max_tokens: u64,
    pub(super) redactor: Redactor,
    pub(super) drift: AtomicBool,
}

/// With which probability the judge was to be asked about a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance {
    pub(super) drawn: f64,
    /// The least that any sample of its deployment had in the same draw.
    pub(super) least: f64,
}

impl Chance {
    /// It was to be asked about all.
    pub(super) const SURE: Self = Self { drawn: 1.0, least: 1.0 };

    fn of(self, row: Score) -> Score {
        Score {
            probability: row.probability * self.drawn,
            probability_least: row.probability_least.map(|least| least * self.least),
            ..row
        }
    }
}

/// What came of asking about one criterion.
#[derive(Debug, Default)]
pub(super) struct Opinion {
    pub(super) verdict: Option<Verdict>,
    pub(super) error: Option<ScoreError>,
    reason: Option<String>,
    judged: Judged,
}

impl Grader {
    /// The rows of one sample: one for each judged criterion, whether it has a score or an error, if it
    /// was drawn, by `chance`; and what is computed, of every sample.
    pub(super) async fn grade(&self, case: &Case, chance: Option<Chance>) -> Vec<Score> {
        self.grade_knowing(case, chance, &[]).await
    }

    /// As [`Self::grade`], for a sample of which some scores are known: those that this judge gave to
    /// the same question stand, and it is not asked again.
    pub(super) async fn grade_knowing(
        &self,
        case: &Case,
        chance: Option<Chance>,
        known: &[Score],
    ) -> Vec<Score> {
        let mut rows: Vec<Score> = Vec::new();
        if let (Some(bench), Some(chance)) = (&self.bench, chance) {
            let asking = bench.rubrics.iter().map(|rubric| async move {
                if let Some(score) = known.iter().find(|score| bench.stands_by(rubric, score)) {
                    return score.clone();
                }
                let row = self.judged_row(case, bench, rubric, bench.ask(rubric, case).await);
                chance.of(row)
            });
            rows = join_all(asking).await;
            if rows.iter().any(|row| row.injection_suspect) {
                self.metrics.injection_suspected();
            }
        }
        for criterion in &self.measures {
            if let Some(value) = measure::measure(*criterion, case) {
                rows.push(Score { value: Some(value), ..self.row(case, *criterion) });
            }
        }
        rows
    }

    /// The rows of a sample that nobody could be asked about, one for each judged criterion.
    pub(super) fn ungraded(
        &self,
        case: &Case,
        chance: Option<Chance>,
        error: ScoreError,
    ) -> Vec<Score> {
        let rubrics = self.bench.iter().flat_map(|bench| &bench.rubrics);
        let row = |rubric: &Rubric, chance: Chance| {
            chance.of(Score {
                name: rubric.name.clone(),
                scale: Some(rubric.kind.scale()),
                error: Some(error),
                ..self.row(case, rubric.criterion)
            })
        };
        rubrics.filter_map(|rubric| Some(row(rubric, chance?))).collect()
    }

    fn judged_row(&self, case: &Case, bench: &Bench, rubric: &Rubric, opinion: Opinion) -> Score {
        let asked = opinion.error.is_none_or(|error| !error.is_not_applicable());
        let (mut score, mut value) = (None, None);
        match opinion.verdict {
            Some(Verdict::Score(given)) => score = Some(given),
            Some(Verdict::Boolean(truth)) => value = Some(f64::from(u8::from(truth))),
            None => {}
        }
        Score {
            name: rubric.name.clone(),
            scale: Some(rubric.kind.scale()),
            score,
            value,
            error: opinion.error,
            reason: opinion.reason,
            judge: asked.then_some(opinion.judged),
            injection_suspect: rubric.is_suspect(case),
            judge_drift: asked && bench.drift.load(Ordering::Relaxed),
            ..self.row(case, rubric.criterion)
        }
    }

    /// A row without a result.
    fn row(&self, case: &Case, criterion: Criterion) -> Score {
        let now = Timestamp::now();
        Score {
            schema: Score::SCHEMA.to_owned(),
            id: ExchangeId::new(now),
            time: now,
            exchange: case.id,
            exchange_time: case.time,
            tap: Arc::clone(&case.tap),
            deployment: Arc::clone(&case.deployment),
            instance: Arc::clone(&self.instance),
            criterion,
            name: None,
            scale: criterion.scale(),
            score: None,
            value: None,
            error: None,
            reason: None,
            probability: case.probability(),
            probability_least: Some(case.probability_least()),
            judge: None,
            injection_suspect: false,
            judge_drift: false,
        }
    }
}

impl Bench {
    /// True where `score` is this judge's own answer to the question that `rubric` would put now.
    fn stands_by(&self, rubric: &Rubric, score: &Score) -> bool {
        let same = |judged: &Judged| judged.model == self.model && judged.prompt == rubric.prompt;
        let about = score.criterion == rubric.criterion && score.name == rubric.name;
        let valid = score.score.is_some() || score.value.is_some();
        about && valid && !score.judge_drift && score.judge.as_ref().is_some_and(same)
    }

    /// Tokens that a sample may cost, by the prompts for some: four bytes a token, and an answer of a
    /// usual length. A guess, until the judge has told what it really takes.
    pub(super) fn cost_estimated<'a>(&self, cases: impl Iterator<Item = &'a Case>) -> f64 {
        let (mut tokens, mut n) = (0.0, 0.0);
        for case in cases {
            n += 1.0;
            let questions = self
                .rubrics
                .iter()
                .filter_map(|rubric| rubric.question(case, TraceId::random().to_string()).ok());
            tokens += questions.map(|q| q.ask.tokens_estimated() as f64 * 0.75 + 60.0).sum::<f64>();
        }
        if n > 0.0 { tokens / n } else { 0.0 }
    }

    /// Asks the judge about `case`, once more where its answer cannot be read.
    pub(super) async fn ask(&self, rubric: &Rubric, case: &Case) -> Opinion {
        let mut opinion = Opinion::default();
        opinion.judged.model.clone_from(&self.model);
        opinion.judged.prompt.clone_from(&rubric.prompt);
        let began = Instant::now();
        for _ in 0..ASKED_MAX {
            // A word that no text of others can hold, new for each attempt.
            let nonce = TraceId::random().to_string();
            let ended = match rubric.question(case, nonce) {
                Ok(question) => self.put(rubric, &question, &mut opinion.judged).await,
                Err(missing) => Err(missing),
            };
            match ended {
                Ok((verdict, reason)) => {
                    (opinion.verdict, opinion.error) = (Some(verdict), None);
                    opinion.reason = Some(reason);
                    break;
                }
                Err(error) => opinion.error = Some(error),
            }
            let readable =
                matches!(opinion.error, Some(ScoreError::Unparsable | ScoreError::OutOfRange));
            if !readable {
                break;
            }
        }
        opinion.judged.latency_ms = (began.elapsed().as_micros() as f64 / 1000.0).round();
        opinion
    }

    async fn put(
        &self,
        rubric: &Rubric,
        question: &Question,
        judged: &mut Judged,
    ) -> Result<(Verdict, String), ScoreError> {
        judged.truncated |= question.truncated;
        let prompt_tokens = question.ask.tokens_estimated();
        // Tokens are set aside for calls that are made now, not for all that wait in line.
        let _seat = self.seats.acquire().await;
        let set_aside = self.set_aside(prompt_tokens + self.max_tokens).await?;
        let reply = self.judge.ask(&question.ask).await;
        let (input, output) = spent(&reply, prompt_tokens);
        self.budget.settle(set_aside, input + output).await;
        *judged.input.get_or_insert(0) += input;
        *judged.output.get_or_insert(0) += output;
        let text = reply.text?;
        let (verdict, reason) = verdict::read(&text, &question.nonce, rubric.kind)?;
        Ok((verdict, self.harmless(&reason)))
    }

    /// Waits until the call fits the budget, or not, as configured.
    async fn set_aside(&self, tokens: u64) -> Result<u64, ScoreError> {
        let mut told = false;
        loop {
            match self.budget.admit(tokens, Timestamp::now()).await {
                Ok(Admission::Granted(tokens)) => return Ok(tokens),
                Ok(Admission::Exhausted) if self.when_exhausted == WhenExhausted::Skip => {
                    return Err(ScoreError::Budget);
                }
                Ok(Admission::Busy) => {
                    tokio::time::sleep(BUSY_WAIT).await;
                    continue;
                }
                Ok(Admission::Exhausted) if !std::mem::replace(&mut told, true) => {
                    tracing::warn!("the judge's tokens for today are spent; samples wait");
                }
                Ok(Admission::Exhausted) => {}
                Err(error) => {
                    tracing::warn!(%error, "the judge's budget cannot be kept; samples wait")
                }
            }
            tokio::time::sleep(BUDGET_WAIT).await;
        }
    }

    /// A judge may repeat what it read, or make something up: its words pass the redactor, too.
    fn harmless(&self, reason: &str) -> String {
        let cut: String =
            reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
        self.redactor.text(&cut).into_owned()
    }
}

/// What a call cost: as reported; estimated where an answer reports nothing; nothing where none came.
fn spent(reply: &Reply, prompt_tokens: u64) -> (u64, u64) {
    let answered = matches!(
        reply.text,
        Ok(_) | Err(ScoreError::Unparsable | ScoreError::Refused | ScoreError::TooLarge)
    );
    match (reply.input, reply.output) {
        (None, None) if !answered => (0, 0),
        (input, output) => {
            let words = reply.text.as_ref().map_or(0, |text| text.len() as u64 / 3 + 1);
            (input.unwrap_or(prompt_tokens), output.unwrap_or(words))
        }
    }
}
