//! Two samples of known quality, judged at start and daily: a judge that takes the bad one for good,
//! or the good one for bad, is not the judge that it was.

use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::case::Case;
use super::grade::{Bench, Opinion};
use super::jury::Tested;
use super::verdict::Verdict;
use crate::domain::{Criterion, ExchangeId, ScoreError};
use crate::metrics::Metrics;

const QUESTION: &str = "What is the capital of France, and which river runs through it?";
const CONTEXT: &str =
    "France is a country in Europe. Its capital is Paris, which lies on the Seine.";
const TRUTH: &str = "The capital of France is Paris. The Seine runs through it.";
const GOOD: &str =
    "The capital of France is Paris, and the river that runs through it is the Seine.";
/// Bad by every criterion: about something else, against the context, torn, ungrammatical.
const BAD: &str = "Bananas is ripen under because. Lisbon capital were the, of France no river; seventeen \
                   therefore. Buying of shoes the moon lies on the Danube never always is.";

impl Bench {
    /// Judges both, and remembers what that says of the judge. Nothing is concluded from errors, nor
    /// where there is no criterion of ours.
    pub(super) async fn test_itself(&self, metrics: &Metrics) -> Tested {
        let rubric = self.rubrics.iter().find(|rubric| rubric.criterion != Criterion::Custom);
        let Some(rubric) = rubric else { return Tested::Passes };
        let now = Timestamp::now();
        let case =
            |answer| Case::made(ExchangeId::new(now), now, [QUESTION, answer, CONTEXT, TRUTH]);
        let good = self.ask(rubric, &case(GOOD)).await;
        let bad = self.ask(rubric, &case(BAD)).await;
        let (Some(good_score), Some(bad_score)) = (score(&good), score(&bad)) else {
            tracing::warn!(
                model = self.model,
                good = good.error.map(|error| error.label()),
                bad = bad.error.map(|error| error.label()),
                "the judge's own test came to nothing"
            );
            return Tested::Silent(good.error.or(bad.error).unwrap_or(ScoreError::Unparsable));
        };
        let (good, bad) = (good_score, bad_score);
        let drift = good < 4 || bad > 2;
        if drift {
            tracing::error!(
                good,
                bad,
                criterion = rubric.label(),
                model = self.model,
                "the judge fails its own test: its scores are marked"
            );
        } else {
            tracing::info!(good, bad, model = self.model, "the judge passes its own test");
        }
        self.drift.store(drift, Ordering::Relaxed);
        metrics.judge_drift(drift);
        if drift { Tested::Drifts } else { Tested::Passes }
    }
}

fn score(opinion: &Opinion) -> Option<u8> {
    match opinion.verdict {
        Some(Verdict::Score(score)) => Some(score),
        _ => None,
    }
}
