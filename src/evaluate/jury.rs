//! The judge and the computed criteria by themselves, for cases that nobody takes out of `exchanges/`:
//! the same prompts, the same strict reading, the same budget.

use std::sync::Arc;

use http::HeaderValue;

use super::case::Case;
use super::grade::{Chance, Grader};
use super::grader;
use super::judge::JudgeFault;
use crate::bucket::Bucket;
use crate::config::Config;
use crate::domain::{Score, ScoreError};
use crate::metrics::Metrics;

/// Judges cases; see the module.
pub struct Jury {
    grader: Grader,
    metrics: Metrics,
}

/// What a judge's own test said of it: one sample of known good quality, one of known bad quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tested {
    /// It tells one from the other, or there is no criterion to test it by.
    Passes,
    /// It takes the bad one for good, or the good one for bad.
    Drifts,
    /// It gave no score.
    Silent(ScoreError),
}

impl Jury {
    /// A jury as `config` says; `None` where nothing is judged or computed. Call it within the runtime
    /// that it will work on. What it spends is booked in `bucket` under the name `instance`, which must
    /// be no evaluator's; `marker` is the mark by which taps of ours know its calls.
    ///
    /// # Errors
    /// Settings of the judge that can never work.
    pub fn new(
        config: &Config,
        marker: HeaderValue,
        (bucket, instance): (Arc<dyn Bucket>, Arc<str>),
        metrics: &Metrics,
    ) -> Result<Option<Self>, JudgeFault> {
        let Some(settings) = &config.evaluate else { return Ok(None) };
        let grader = grader(config, settings, marker, (bucket, instance), metrics)?;
        let idle = grader.bench.is_none() && grader.measures.is_empty();
        Ok((!idle).then(|| Self { grader, metrics: metrics.clone() }))
    }

    /// The judge's model; `None` where criteria are computed alone.
    pub fn model(&self) -> Option<&str> {
        self.grader.bench.as_ref().map(|bench| bench.model.as_str())
    }

    /// Lets the judge take its own test. Costs two calls.
    pub async fn test(&self) -> Tested {
        match &self.grader.bench {
            Some(bench) => bench.test_itself(&self.metrics).await,
            None => Tested::Passes,
        }
    }

    /// One row for each criterion. What is `known` and was given by this judge for these prompts is
    /// taken as it is.
    pub async fn grade(&self, case: &Case, known: &[Score]) -> Vec<Score> {
        self.grader.grade_knowing(case, Some(Chance::SURE), known).await
    }

    /// Books what was set aside and not spent.
    pub async fn close(&self) {
        if let Some(bench) = &self.grader.bench {
            bench.budget.close().await;
        }
    }
}
