//! Sums over scores, from which averages, pass rates and their intervals are computed.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::counts::{self, Class, grade_of};
use super::labels::{Axis, Filter, names};
use super::objects::unsigned;
use super::window::{Rows, SCORES_LEVELS, Window};
use super::{READ_WITHIN, Store, StoreError};
use crate::domain::{Grade, Yardstick};

/// Judgements of one grade and one probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// What was given; `None` where nothing valid was.
    pub grade: Option<Grade>,
    /// The judge had failed its own test: told, but part of no figure.
    pub drift: bool,
    /// With which probability they came to be judged; each stands for `1 / probability` requests.
    pub probability: f64,
    /// The least that any sample had then.
    pub least: f64,
    /// How many.
    pub count: u64,
}

/// Judgements of one yardstick by grade and probability. Every sum that an estimate needs follows from these.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreSums(Vec<Scored>);

/// Sums of one criterion, of one span of time where a step was asked for, of one group where an axis
/// was.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityRow {
    /// The span's first moment; the window's where no step was asked for.
    pub time: Timestamp,
    /// The value on the axis.
    pub group: Option<String>,
    /// What was judged by.
    pub by: Yardstick,
    /// The sums.
    pub sums: ScoreSums,
}

impl ScoreSums {
    /// The judgements, one entry for each grade and probability.
    pub fn scored(&self) -> &[Scored] {
        &self.0
    }

    /// The judgements that figures are made of, each with its grade.
    pub fn valid(&self) -> impl Iterator<Item = (Grade, &Scored)> {
        let sound = self.0.iter().filter(|scored| !scored.drift);
        sound.filter_map(|scored| Some((scored.grade?, scored)))
    }

    /// The sum over all valid grades of what `term` makes of a value and its weight: with `|x, w| w * x`
    /// the sum of the weighted values, with `|x, w| w * w * x * x` that of their squares, and so on.
    pub fn sum(&self, term: impl Fn(f64, f64) -> f64) -> f64 {
        let terms = self.valid().map(|(grade, scored)| {
            scored.count as f64 * term(grade.value(), 1.0 / scored.probability)
        });
        terms.sum()
    }

    /// Valid grades that `wanted` wants.
    pub fn count(&self, wanted: impl Fn(Grade) -> bool) -> u64 {
        self.valid().filter(|(grade, _)| wanted(*grade)).map(|(_, scored)| scored.count).sum()
    }

    /// Attempts that gave nothing valid.
    pub fn failed(&self) -> u64 {
        let failed = self.0.iter().filter(|scored| scored.grade.is_none());
        failed.map(|scored| scored.count).sum()
    }

    /// What was given by a judge that had failed its own test.
    pub fn drifted(&self) -> u64 {
        let drifted = self.0.iter().filter(|scored| scored.drift && scored.grade.is_some());
        drifted.map(|scored| scored.count).sum()
    }

    /// The weighted average (Hájek's estimator: the weighted sum by the sum of weights); `None`
    /// without scores.
    pub fn average(&self) -> Option<f64> {
        self.share(|x| x)
    }

    /// The weighted share of scores that are `pass_score` or more; `None` without scores.
    pub fn pass_rate(&self, pass_score: u8) -> Option<f64> {
        self.share(|x| f64::from(u8::from(x >= f64::from(pass_score))))
    }

    /// Kish's effective number of scores: the square of the sum of weights by the sum of squares.
    pub fn effective_n(&self) -> f64 {
        let (w, w2) = (self.sum(|_, w| w), self.sum(|_, w| w * w));
        if w2 > 0.0 { w * w / w2 } else { 0.0 }
    }

    /// Adds `other`.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|scored| self.add(*scored));
    }

    fn add(&mut self, scored: Scored) {
        let same = |known: &&mut Scored| {
            let key = |of: &Scored| (of.grade, of.drift, of.probability.to_bits());
            key(known) == key(&scored)
        };
        match self.0.iter_mut().find(same) {
            Some(known) => {
                known.count += scored.count;
                known.least = known.least.min(scored.least);
            }
            None => self.0.push(scored),
        }
    }

    fn share(&self, of: impl Fn(f64) -> f64) -> Option<f64> {
        let weights = self.sum(|_, w| w);
        (weights > 0.0).then(|| self.sum(|x, w| w * of(x)) / weights)
    }
}

/// Sums by the start of their span, the value on an axis, and the yardstick.
type Groups<'a> = BTreeMap<(i64, Option<&'a str>, Yardstick), ScoreSums>;

impl Store {
    /// Sums by yardstick over the minutes that begin in `window`, by the time of the exchange. With a
    /// `step` (seconds), by spans of that length since the epoch; with an `axis`, by its values.
    pub fn quality(
        &self,
        window: Window,
        filter: &Filter,
        step: Option<i64>,
        axis: Option<Axis>,
    ) -> Result<Vec<QualityRow>, StoreError> {
        let rows = self.read(READ_WITHIN, |db| {
            let names = names(db, axis.as_slice())?;
            let mut groups = Groups::new();
            for slice in window.slices(SCORES_LEVELS, step) {
                let rows = Rows { table: "score_sums", column: "counts", slice };
                rows.each(db, filter, |time, labels, bytes| {
                    let bucket = step.map_or(0, |step| time.div_euclid(step) * step);
                    let group = names.get(&labels).and_then(|names| names.first());
                    // What is no compact form was not written by us.
                    let _ = counts::read(bytes, |by, class, n| {
                        let key = (bucket, group.map(String::as_str), by.clone());
                        groups.entry(key).or_default().add(scored(by, class, n));
                    });
                })?;
            }
            let row = |((time, group, by), sums): ((i64, Option<&str>, Yardstick), _)| QualityRow {
                time: step
                    .map_or(window.from, |_| Timestamp::from_second(time).unwrap_or_default()),
                group: group.map(str::to_owned),
                by,
                sums,
            };
            Ok(groups.into_iter().map(row).collect::<Vec<_>>())
        })?;
        Ok(rows)
    }
}

fn scored(by: &Yardstick, class: Class, n: i64) -> Scored {
    Scored {
        grade: grade_of(by.scale, class.grade),
        drift: class.drift,
        probability: f64::from_bits(class.probability),
        least: f64::from_bits(class.least),
        count: unsigned(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_follow_from_the_counts() {
        let scored = |score: Option<u8>, probability, count| {
            let grade = score.map(Grade::Score);
            Scored { grade, drift: false, probability, least: probability, count }
        };
        // Two fives at weight 10, one two at weight 1, one without a score.
        let classes = [scored(Some(5), 0.1, 2), scored(Some(2), 1.0, 1), scored(None, 0.1, 1)];
        let mut sums = ScoreSums::default();
        classes.into_iter().for_each(|one| sums.add(one));
        assert_eq!(
            (sums.count(|_| true), sums.count(|x| x.value() < 3.0), sums.failed()),
            (3, 1, 1)
        );
        assert_eq!(sums.average(), Some(102.0 / 21.0));
        assert_eq!(sums.pass_rate(3), Some(20.0 / 21.0));
        assert_eq!(sums.effective_n(), 21.0 * 21.0 / 201.0);
        assert_eq!(ScoreSums::default().average(), None);
        sums.add(Scored { drift: true, ..scored(Some(1), 0.1, 7) });
        assert_eq!((sums.count(|_| true), sums.drifted()), (3, 7));
        assert_eq!(sums.average(), Some(102.0 / 21.0), "a drifted judge moves no average");
    }
}
