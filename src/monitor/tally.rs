//! What a window held, counted: all that the signals need of it. Counts add up, so a store may group
//! rows before it hands them over.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::estimate::Class;
use super::window::Window;
use crate::domain::{Grade, Group, Outcome, Scale, Scope, UsageSource, Yardstick};
use crate::rollup::{Histogram, Totals};

/// Grades of one yardstick, by step, whether the evidence counts them, grade and probability.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ScoreKey {
    by: Yardstick,
    step: usize,
    anchored: bool,
    grade: Grade,
    /// Bits of the probability: positive numbers sort as their bits do.
    probability: u64,
}

/// Requests of one step, or of all that the evidence counts.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// All of them.
    pub count: u64,
    /// By outcome.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Milliseconds to the last byte.
    pub latency_ms: Histogram,
}

/// With which probability samples came to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    /// Their own.
    pub probability: f64,
    /// The least that any sample had then.
    pub least: f64,
}

/// What totals are about.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// The tap.
    pub tap: &'a str,
    /// The deployment.
    pub deployment: &'a str,
    /// The model.
    pub model: &'a str,
    /// How the requests ended.
    pub outcome: Outcome,
}

/// What a window held.
#[derive(Clone, Debug)]
pub struct Tally {
    window: Window,
    scope: Scope,
    scores: BTreeMap<ScoreKey, u64>,
    /// The most that any could have weighed in all of the window, seen or not.
    heaviest: BTreeMap<Yardstick, f64>,
    steps: Vec<Requests>,
    anchored: Requests,
    groups: BTreeMap<[String; 3], Group>,
    /// Requests of whose tokens nothing is known.
    pub usage_unknown: u64,
    /// Samples that a judge could not score.
    pub unscored: u64,
}

impl Tally {
    /// Nothing yet, of `window`; what lies outside it or of `scope` is left out.
    pub fn new(window: Window, scope: Scope) -> Self {
        let steps = vec![Requests::default(); window.steps()];
        Self {
            window,
            scope,
            scores: BTreeMap::new(),
            heaviest: BTreeMap::new(),
            steps,
            anchored: Requests::default(),
            groups: BTreeMap::new(),
            usage_unknown: 0,
            unscored: 0,
        }
    }

    /// The window.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Adds `count` equal grades of samples that began at `time` and were judged by `chance`. What has no
    /// valid grade or probability is left out.
    pub fn score(
        &mut self,
        by: &Yardstick,
        time: Timestamp,
        grade: Grade,
        Chance { probability, least }: Chance,
        count: u64,
    ) {
        let fits = match (by.scale, grade) {
            (Scale::Score, Grade::Score(score)) => (1..=5).contains(&score),
            (Scale::Ratio | Scale::Boolean, Grade::Thousandths(of)) => of <= 1000,
            _ => false,
        };
        let valid = fits && probability > 0.0 && probability <= 1.0;
        if !valid || !self.window.holds(time) {
            return;
        }
        let key = ScoreKey {
            by: by.clone(),
            step: self.window.step(time),
            anchored: time >= self.window.anchor,
            grade,
            probability: probability.to_bits(),
        };
        let counted = self.scores.entry(key).or_default();
        *counted = counted.saturating_add(count);
        let weight = 1.0 / if least > 0.0 { least.min(probability) } else { probability };
        let heaviest = self.heaviest.entry(by.clone()).or_default();
        *heaviest = heaviest.max(weight);
    }

    /// Adds totals of requests that began at `time`.
    pub fn usage(&mut self, time: Timestamp, labels: &Labels<'_>, totals: &Totals) {
        let within = |wanted: &Option<Arc<str>>, is: &str| {
            wanted.as_ref().is_none_or(|wanted| **wanted == *is)
        };
        let scope = &self.scope;
        let meant = within(&scope.tap, labels.tap)
            && within(&scope.deployment, labels.deployment)
            && within(&scope.model, labels.model);
        if !meant || !self.window.holds(time) {
            return;
        }
        if let Some(step) = self.steps.get_mut(self.window.step(time)) {
            step.add(labels.outcome, totals);
        }
        if time >= self.window.anchor {
            self.anchored.add(labels.outcome, totals);
        }
        self.usage_unknown = self.usage_unknown.saturating_add(totals.usage_unknown);
        self.add_group(labels, totals);
    }

    /// Tokens of a flow that are the sum of its calls are those calls' own: where the calls are in
    /// scope, too, they are not counted twice.
    fn add_group(&mut self, labels: &Labels<'_>, totals: &Totals) {
        let whole = self.scope.tap.is_none() && self.scope.deployment.is_none();
        let names = [labels.tap, labels.deployment, labels.model];
        let group = self.groups.entry(names.map(str::to_owned)).or_insert_with(|| Group {
            tap: Arc::from(labels.tap),
            deployment: Arc::from(labels.deployment),
            model: Arc::from(labels.model),
            requests: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
            total_tokens: 0,
        });
        group.requests = group.requests.saturating_add(totals.count);
        for (source, tokens) in &totals.tokens {
            if whole && *source == UsageSource::Joined {
                continue;
            }
            group.prompt_tokens = group.prompt_tokens.saturating_add(tokens.input);
            group.completion_tokens = group.completion_tokens.saturating_add(tokens.output);
            group.total_tokens = group.total_tokens.saturating_add(tokens.total);
        }
    }

    /// The classes of what was given by one yardstick, each grade as `value` makes it.
    pub fn classes(&self, by: &Yardstick, part: Part, value: impl Fn(Grade) -> f64) -> Vec<Class> {
        let of = |key: &ScoreKey| match part {
            Part::Whole => key.by == *by,
            Part::Step(step) => key.by == *by && key.step == step,
            Part::Anchored => key.by == *by && key.anchored,
        };
        let class = |(key, count): (&ScoreKey, &u64)| Class {
            value: value(key.grade),
            weight: 1.0 / f64::from_bits(key.probability),
            heaviest: self.heaviest.get(by).copied().unwrap_or_default(),
            count: *count,
        };
        self.scores.iter().filter(|(key, _)| of(key)).map(class).collect()
    }

    /// The yardsticks by which anything was given.
    pub fn yardsticks(&self) -> Vec<Yardstick> {
        let mut all: Vec<_> = self.scores.keys().map(|key| key.by.clone()).collect();
        all.dedup();
        all
    }

    /// Requests of a part of the window.
    pub fn requests(&self, part: Part) -> Requests {
        match part {
            Part::Whole => {
                let mut all = Requests::default();
                self.steps.iter().for_each(|step| all.merge(step));
                all
            }
            Part::Step(step) => self.steps.get(step).cloned().unwrap_or_default(),
            Part::Anchored => self.anchored.clone(),
        }
    }

    /// Token totals by tap, deployment and model.
    pub fn groups(&self) -> Vec<Group> {
        self.groups.values().cloned().collect()
    }
}

/// A part of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// One step.
    Step(usize),
    /// What the evidence counts.
    Anchored,
}

impl Requests {
    fn add(&mut self, outcome: Outcome, totals: &Totals) {
        self.count = self.count.saturating_add(totals.count);
        let counted = self.outcomes.entry(outcome).or_default();
        *counted = counted.saturating_add(totals.count);
        self.latency_ms.merge(&totals.latency_ms);
    }

    fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        for (outcome, count) in &other.outcomes {
            let counted = self.outcomes.entry(*outcome).or_default();
            *counted = counted.saturating_add(*count);
        }
        self.latency_ms.merge(&other.latency_ms);
    }

    /// Requests with another outcome than `ok`.
    pub fn errors(&self) -> u64 {
        let errors = self.outcomes.iter().filter(|(outcome, _)| **outcome != Outcome::Ok);
        errors.fold(0, |sum: u64, (_, count)| sum.saturating_add(*count))
    }
}
