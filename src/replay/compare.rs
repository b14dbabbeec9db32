//! Paired differences, with their 95% intervals.
//!
//! Each recorded request that was answered by both deployments is one pair `d = new - recorded`, and
//! weighs `1 / p`, where `p` is the probability with which it had been sampled. The difference told is
//! Hájek's ratio `Σ w d / Σ w`; its interval is Student's, with the linearised variance and the two
//! added observations of [`crate::monitor::average`], here one at either end of what a difference can
//! be (4 points for scores, 1 for shares): so five equal pairs do not prove that all are. Pairing takes
//! the questions' own difficulty out of the variance (Student 1908; Särndal, Swensson & Wretman,
//! *Model Assisted Survey Sampling*, 1992, 5.7 for the weights).

use std::sync::Arc;

use serde::Serialize;

use crate::domain::Criterion;
use crate::monitor::{Class, average};

/// What came of comparing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No interval lies wholly below the margin.
    NotWorse,
    /// An interval lies wholly below the margin.
    Worse,
    /// Too few pairs to say either, or a judge that cannot be relied on.
    NotEnoughData,
}

impl Verdict {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotWorse => "not worse",
            Self::Worse => "worse",
            Self::NotEnoughData => "not enough data",
        }
    }

    /// Of a whole: worse before lacking data before not worse.
    pub(super) fn worst(verdicts: impl IntoIterator<Item = Self>) -> Self {
        let rank = |verdict: &Self| match verdict {
            Self::NotWorse => 0,
            Self::NotEnoughData => 1,
            Self::Worse => 2,
        };
        verdicts.into_iter().max_by_key(rank).unwrap_or(Self::NotEnoughData)
    }
}

/// What one answer got and the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// `1 / p`.
    pub weight: f64,
    /// The most that any could weigh which was sampled as this one was.
    pub heaviest: f64,
    /// Of the recorded answer.
    pub recorded: f64,
    /// Of the new one.
    pub new: f64,
}

/// When a difference is worse, and when there are too few pairs to say.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limits {
    /// Points of a score from 1 to 5 that do not matter.
    pub margin: f64,
    /// The same of shares: answers that fail, and criteria that are true or false.
    pub share_margin: f64,
    /// Effective pairs below which nothing is said to be not worse.
    pub pairs_min: f64,
}

/// What values run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// 1 to 5.
    Score,
    /// 0 to 1, and a verdict follows from it.
    Share,
    /// 0 to 1, told without a verdict.
    Figure,
}

/// A criterion of both deployments.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// What was judged or computed; `answered` for the share of requests that were answered.
    pub criterion: Arc<str>,
    /// The weighted average of the recorded answers; `None` without pairs.
    pub recorded: Option<f64>,
    /// The same of the new ones.
    pub new: Option<f64>,
    /// New less recorded: below 0 is worse.
    pub difference: Option<f64>,
    /// Lower end of its 95% interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Pairs.
    pub pairs: u64,
    /// How many equally weighted pairs would tell as much (Kish 1965).
    pub effective: f64,
    /// What follows; `None` for what is told only.
    pub verdict: Option<Verdict>,
}

/// Compares one criterion.
pub(super) fn compare(criterion: &str, pairs: &[Pair], scale: Scale, limits: &Limits) -> Compared {
    let ends = if scale == Scale::Score { 4.0 } else { 1.0 };
    let class = |pair: &Pair| Class {
        value: pair.new - pair.recorded,
        weight: pair.weight,
        heaviest: pair.heaviest,
        count: 1,
    };
    let estimate = average(&pairs.iter().map(class).collect::<Vec<_>>(), -ends, ends);
    let margin = match scale {
        Scale::Score => Some(limits.margin),
        Scale::Share => Some(limits.share_margin),
        Scale::Figure => None,
    };
    let verdict = margin.map(|margin| match estimate {
        // An interval takes account of how many pairs it rests on.
        Some(of) if of.high < -margin => Verdict::Worse,
        Some(of) if of.effective >= limits.pairs_min => Verdict::NotWorse,
        _ => Verdict::NotEnoughData,
    });
    let weights: f64 = pairs.iter().map(|pair| pair.weight).sum();
    let mean = |of: fn(&Pair) -> f64| {
        let sum: f64 = pairs.iter().map(|pair| pair.weight * of(pair)).sum();
        (weights > 0.0).then_some(sum / weights)
    };
    Compared {
        criterion: Arc::from(criterion),
        recorded: mean(|pair| pair.recorded),
        new: mean(|pair| pair.new),
        difference: estimate.map(|of| of.value),
        low: estimate.map(|of| of.low),
        high: estimate.map(|of| of.high),
        pairs: pairs.len() as u64,
        effective: estimate.map_or(0.0, |of| of.effective),
        verdict,
    }
}

/// What a criterion's values run over.
pub(super) fn scale_of(criterion: Criterion, value: bool) -> Scale {
    match (criterion, value) {
        (_, false) => Scale::Score,
        (Criterion::Custom, true) => Scale::Share,
        (_, true) => Scale::Figure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { margin: 0.1, share_margin: 0.02, pairs_min: 30.0 };

    fn pairs(recorded: &[f64], new: &[f64], weight: f64) -> Vec<Pair> {
        recorded
            .iter()
            .zip(new)
            .map(|(r, n)| Pair { weight, heaviest: weight, recorded: *r, new: *n })
            .collect()
    }

    fn of(pairs: &[Pair]) -> Compared {
        compare("fluency", pairs, Scale::Score, &LIMITS)
    }

    #[test]
    fn a_clear_drop_is_worse_and_the_same_is_not() {
        let drop = of(&pairs(&[5.0; 40], &[4.0; 40], 10.0));
        assert_eq!(drop.verdict, Some(Verdict::Worse), "{drop:?}");
        assert!(drop.difference.is_some_and(|d| (d + 1.0).abs() < 1e-9));
        let same = of(&pairs(&[4.0; 40], &[4.0; 40], 10.0));
        assert_eq!(same.verdict, Some(Verdict::NotWorse));
        assert!(same.low.is_some_and(|low| (-0.3..0.0).contains(&low)), "{same:?}");
    }

    #[test]
    fn few_pairs_say_nothing_unless_they_prove_it() {
        assert_eq!(of(&pairs(&[5.0; 3], &[4.0; 3], 1.0)).verdict, Some(Verdict::NotEnoughData));
        assert_eq!(of(&pairs(&[4.0; 29], &[5.0; 29], 1.0)).verdict, Some(Verdict::NotEnoughData));
        assert_eq!(of(&pairs(&[5.0; 12], &[1.0; 12], 1.0)).verdict, Some(Verdict::Worse));
        assert_eq!(of(&[]).verdict, Some(Verdict::NotEnoughData));
    }

    #[test]
    fn weights_count_and_pairing_takes_the_questions_out() {
        // Errors were kept ten times as often as the rest: they count a tenth.
        let mut kept = pairs(&[4.0; 100], &[4.0; 100], 10.0);
        kept.extend(pairs(&[3.0; 100], &[2.0; 100], 1.0));
        let told = of(&kept).difference.unwrap();
        assert!((told + 100.0 / 1100.0).abs() < 1e-9, "{told}");
        // Scores from 1 to 5, each half a point lower on average: without pairs the spread hides it.
        let recorded: Vec<f64> = (0..200).map(|n| 2.0 + f64::from(n % 4)).collect();
        let new: Vec<f64> =
            recorded.iter().enumerate().map(|(n, score)| score - (n / 4 % 2) as f64).collect();
        let told = of(&pairs(&recorded, &new, 1.0));
        let width = told.high.unwrap() - told.low.unwrap();
        assert!(width < 0.2 && told.verdict == Some(Verdict::Worse), "{told:?}");
    }

    /// The textbook's interval, but for the two added ends: `d ± t s / √n`.
    #[test]
    fn the_interval_is_student_s() {
        let new: Vec<f64> = (0..100).map(|n| if n % 2 == 0 { 4.0 } else { 3.0 }).collect();
        let told = of(&pairs(&[4.0; 100], &new, 3.0));
        let half = (told.high.unwrap() - told.low.unwrap()) / 2.0;
        // s = 0.5025, t = 1.984: 0.0997 without the two ends.
        assert!((0.0997..0.125).contains(&half), "{half}");
    }

    /// 95% intervals hold the truth where requests were sampled by how badly they went.
    #[test]
    fn intervals_cover_the_truth() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = move || {
            // Steele, Lea & Flood 2014 (SplitMix64).
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        };
        let (mut held, rounds) = (0, 1_000);
        for _ in 0..rounds {
            let mut kept = Vec::new();
            for _ in 0..1_000 {
                // One in ten is slow, kept at 1/2 and worse by one point in 60 of 100; the rest is
                // kept at 1/10 and worse in 20 of 100.
                let slow = random() < 0.1;
                let (p, drop) = if slow { (0.5, 0.6) } else { (0.1, 0.2) };
                let new = if random() < drop { 3.0 } else { 4.0 };
                if random() < p {
                    kept.push(Pair { weight: 1.0 / p, heaviest: 10.0, recorded: 4.0, new });
                }
            }
            let told = of(&kept);
            let truth = -(0.1 * 0.6 + 0.9 * 0.2);
            held += u32::from(told.low.unwrap() <= truth && truth <= told.high.unwrap());
        }
        let share = f64::from(held) / f64::from(rounds);
        assert!((0.93..0.985).contains(&share), "{share}");
    }
}
