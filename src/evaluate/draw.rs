//! Which samples the judge is asked about: a share of all, and with a budget a share of each stratum.

use std::collections::HashMap;

use jiff::Timestamp;

use super::Evaluator;
use super::case::Case;
use super::grade::{BUDGET_WAIT, Bench, Chance};
use super::ration::{Ration, Shares, Stratum, UnderWay};
use crate::config::{SampleBy, SampleRates, Secret, WhenExhausted};
use crate::sample::{SampleKeys, Sampler};

/// Samples of a part whose prompts are measured where nothing is known of costs yet.
const MEASURED_MAX: usize = 8;

/// Draws by the samples' ids, apart from the draw that made them samples: every evaluator draws the
/// same at the same share, and a larger share holds what a smaller one does.
pub(super) struct Drawer {
    sampler: Sampler,
    /// `evaluate.rate`.
    rate: f64,
    /// Where the day's tokens are limited.
    pub(super) ration: Option<Ration>,
}

/// What a draw came to.
pub(super) struct Drawn<'a> {
    /// Of each case, how it was drawn; `None` where it was not.
    pub(super) chances: Vec<Option<Chance>>,
    pub(super) under_way: Option<UnderWay<'a>>,
}

/// How large the shares are.
enum Deal {
    /// `evaluate.rate` for all.
    Rate,
    /// By stratum, of the rate.
    Shares(Shares),
    /// Nothing can be paid now.
    Nothing,
}

impl Drawer {
    pub(super) fn new(rate: f64, key: Option<&Secret>, limited: bool) -> Self {
        let key = Some(Secret::new(format!("evaluate {}", key.map_or("", Secret::expose))));
        let rates = SampleRates { rate, errors: None, slow: None, by: SampleBy::Request, key };
        Self { sampler: Sampler::new(&rates), rate, ration: limited.then(Ration::default) }
    }

    fn draws(&self, case: &Case, share: f64) -> bool {
        let exchange_id = case.id;
        let keys = SampleKeys { request_id: None, exchange_id, trace_id: None, session: None };
        self.sampler.lies_within(&keys, share)
    }
}

impl Evaluator {
    /// Draws from the cases of a part; waits where the budget is spent and samples are to wait.
    pub(super) async fn draw(&self, cases: &[&Case]) -> Drawn<'_> {
        let Some(bench) = &self.grader.bench else {
            return Drawn { chances: vec![None; cases.len()], under_way: None };
        };
        let deal = self.deal(bench, cases).await;
        let mut strata: HashMap<Stratum, u64> = HashMap::new();
        let chance = |case: &&Case| {
            let stratum = case.stratum();
            let (share, least) = match &deal {
                Deal::Shares(shares) => (shares.of(&stratum), shares.least(&stratum)),
                Deal::Rate | Deal::Nothing => (1.0, 1.0),
            };
            *strata.entry(stratum).or_default() += 1;
            let (drawn, least) = (share * self.drawer.rate, least * self.drawer.rate);
            self.drawer.draws(case, drawn).then_some(Chance { drawn, least })
        };
        let chances: Vec<Option<Chance>> = cases.iter().map(chance).collect();
        let drawn = chances.iter().flatten().count() as u64;
        let under_way = self.drawer.ration.as_ref().map(|ration| ration.drew(&strata, drawn));
        Drawn { chances, under_way }
    }

    async fn deal(&self, bench: &Bench, cases: &[&Case]) -> Deal {
        loop {
            match self.dealt(bench, cases).await {
                Deal::Nothing if bench.when_exhausted == WhenExhausted::Wait => {
                    self.metrics.judge_budget_exhausted(true);
                    tracing::warn!("the judge's tokens for today are spent; samples wait");
                    tokio::time::sleep(BUDGET_WAIT).await;
                }
                deal => return deal,
            }
        }
    }

    async fn dealt(&self, bench: &Bench, cases: &[&Case]) -> Deal {
        let Some(ration) = &self.drawer.ration else { return Deal::Rate };
        let now = Timestamp::now();
        let left = match bench.budget.left(now).await {
            Ok(Some(left)) => left,
            Ok(None) => return Deal::Rate,
            Err(error) => {
                // The calls themselves wait for the bucket, too: nothing is spent unseen.
                tracing::warn!(%error, "what is left of the judge's budget cannot be read");
                return Deal::Rate;
            }
        };
        let cost = bench.cost_estimated(cases.iter().take(MEASURED_MAX).copied());
        match ration.shares(left, cost, self.drawer.rate, &self.board.lying(), now) {
            Some(shares) => Deal::Shares(shares),
            None => Deal::Nothing,
        }
    }
}
