//! What the evaluator does: scores, why there are none, what the judge costs.

use prometheus::{IntGauge, Result};

use super::Metrics;
use super::families as f;
use super::registry::{Counters, Gauges, Histograms, Registrar};
use crate::domain::{Criterion, Score, ScoreError};

/// Around what a language model takes for a short verdict, in seconds.
const JUDGE_BUCKETS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Tenths; true and false fall to the ends.
const MEASURE_BUCKETS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// What became of a sample that the evaluator came to.
const FATES: [&str; 4] = ["evaluated", "not_drawn", "unreadable", "set_aside"];

/// The families of the evaluator.
pub(super) struct Evaluation {
    scores: Counters<3>,
    measures: Histograms<2>,
    errors: Counters<2>,
    samples: Counters<1>,
    suspects: prometheus::IntCounter,
    tokens: Counters<1>,
    attempts: Counters<1>,
    duration: Histograms<0>,
    tokens_per_day: IntGauge,
    tokens_today: IntGauge,
    exhausted: IntGauge,
    oldest: prometheus::Gauge,
    objects: Gauges<1>,
    drift: IntGauge,
    failures: Counters<1>,
    announcements_lost: prometheus::IntCounter,
}

impl Evaluation {
    pub(super) fn register(reg: &mut Registrar) -> Result<Self> {
        let evaluation = Self {
            scores: reg.counters(&f::SCORES)?,
            measures: reg.histograms(&f::MEASURES, MEASURE_BUCKETS)?,
            errors: reg.counters(&f::SCORE_ERRORS)?,
            samples: reg.counters(&f::EVALUATED)?,
            suspects: reg.counter(&f::INJECTION_SUSPECTS)?,
            tokens: reg.counters(&f::JUDGE_TOKENS)?,
            attempts: reg.counters(&f::JUDGE_ATTEMPTS)?,
            duration: reg.histograms(&f::JUDGE_DURATION, JUDGE_BUCKETS)?,
            tokens_per_day: reg.gauge(&f::JUDGE_TOKENS_PER_DAY)?,
            tokens_today: reg.gauge(&f::JUDGE_TOKENS_TODAY)?,
            exhausted: reg.gauge(&f::JUDGE_BUDGET_EXHAUSTED)?,
            oldest: reg.fraction(&f::OLDEST_UNSCORED)?,
            objects: reg.gauges(&f::EVALUATE_OBJECTS)?,
            drift: reg.gauge(&f::JUDGE_DRIFT)?,
            failures: reg.counters(&f::EVALUATE_FAILURES)?,
            announcements_lost: reg.counter(&f::ANNOUNCEMENTS_LOST)?,
        };
        for error in ScoreError::OF_FEEDBACK {
            evaluation.errors.of([Criterion::UserFeedback.label(), error.label()]);
        }
        Ok(evaluation)
    }
}

impl Metrics {
    /// An evaluator begins with these criteria: their series of closed sets appear at zero.
    pub fn evaluator_opened<'a>(
        &self,
        criteria: impl Iterator<Item = &'a str>,
        tokens: Option<u64>,
    ) {
        let evaluation = &self.inner.evaluation;
        for criterion in criteria {
            for error in ScoreError::OF_JUDGES {
                evaluation.errors.of([criterion, error.label()]);
            }
        }
        FATES.iter().for_each(|fate| drop(evaluation.samples.of([fate])));
        ["input", "output"].iter().for_each(|side| drop(evaluation.tokens.of([side])));
        evaluation.tokens_per_day.set(super::keeping::signed(tokens.unwrap_or(0)));
    }

    /// A user gave an answer of `deployment` a score of 1 to 5.
    pub fn scored(&self, deployment: &str, criterion: Criterion, score: u8) {
        let score = score.clamp(1, 5).to_string();
        self.inner.evaluation.scores.of([deployment, criterion.label(), &score]).inc();
    }

    /// No score came of a user's feedback.
    pub fn score_failed(&self, criterion: Criterion, error: ScoreError) {
        self.inner.evaluation.errors.of([criterion.label(), error.label()]).inc();
    }

    /// A judge's score, or why there is none, was stored.
    pub fn judged(&self, score: &Score) {
        let criterion = score.name.as_deref().unwrap_or(score.criterion.label());
        let evaluation = &self.inner.evaluation;
        let deployment = self.deployment_label(&score.deployment);
        if let Some(given) = score.score {
            evaluation.scores.of([&deployment, criterion, &given.to_string()]).inc();
        }
        if let Some(value) = score.value {
            evaluation.measures.of([&deployment, criterion]).observe(value);
        }
        if let Some(error) = score.error {
            evaluation.errors.of([criterion, error.label()]).inc();
        }
    }

    /// `n` samples were evaluated, and all that is known of them was stored.
    pub fn evaluated(&self, n: u64) {
        self.inner.evaluation.samples.of([FATES[0]]).inc_by(n);
    }

    /// The judge was not asked about `n` samples, as `evaluate.rate` or the budget says.
    pub fn not_drawn(&self, n: u64) {
        self.inner.evaluation.samples.of([FATES[1]]).inc_by(n);
    }

    /// `n` lines of `exchanges/` are no samples, and were set aside.
    pub fn unreadable_samples(&self, n: u64) {
        self.inner.evaluation.samples.of([FATES[2]]).inc_by(n);
    }

    /// `n` samples were set aside: evaluating them panicked again and again.
    pub fn samples_set_aside(&self, n: u64) {
        self.inner.evaluation.samples.of([FATES[3]]).inc_by(n);
    }

    /// Today's tokens do, or do not, leave room for a call.
    pub fn judge_budget_exhausted(&self, exhausted: bool) {
        self.inner.evaluation.exhausted.set(i64::from(exhausted));
    }

    /// A sample's text looks as if it tried to talk the judge into something.
    pub fn injection_suspected(&self) {
        self.inner.evaluation.suspects.inc();
    }

    /// The judge answered, or failed with `result`, after `seconds`.
    pub fn judge_attempted(&self, result: &'static str, seconds: f64) {
        self.inner.evaluation.attempts.of([result]).inc();
        self.inner.evaluation.duration.of([]).observe(seconds);
    }

    /// A call cost these tokens.
    pub fn judge_spent(&self, input: u64, output: u64) {
        self.inner.evaluation.tokens.of(["input"]).inc_by(input);
        self.inner.evaluation.tokens.of(["output"]).inc_by(output);
    }

    /// Of today's budget `tokens` are spent, by all evaluators of the bucket.
    pub fn judge_tokens_today(&self, tokens: u64) {
        self.inner.evaluation.tokens_today.set(super::keeping::signed(tokens));
    }

    /// The oldest sample that waits to be evaluated is `seconds` old; 0 where none waits.
    pub fn oldest_unscored_seconds(&self, seconds: f64) {
        self.inner.evaluation.oldest.set(seconds);
    }

    /// So many objects wait to be evaluated, so many are too old to be, so many were set aside.
    pub fn evaluate_objects(&self, waiting: u64, too_old: u64, set_aside: u64) {
        for (state, n) in [("waiting", waiting), ("too_old", too_old), ("set_aside", set_aside)] {
            self.inner.evaluation.objects.of([state]).set(super::keeping::signed(n));
        }
    }

    /// The judge failed, or passed, its own test.
    pub fn judge_drift(&self, drift: bool) {
        self.inner.evaluation.drift.set(i64::from(drift));
    }

    /// No evaluator was told of a new object.
    pub fn announcement_lost(&self) {
        self.inner.evaluation.announcements_lost.inc();
    }

    /// The evaluator could not read or write the bucket: an error of `kind`.
    pub fn evaluate_failed(&self, kind: &'static str) {
        self.inner.evaluation.failures.of([kind]).inc();
    }
}
