//! Sums over scores, from which averages, pass rates and their intervals are computed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::labels::{Axis, Filter};
use super::objects::unsigned;
use super::window::{SCORES_LEVELS, Window};
use super::{READ_WITHIN, Store, StoreError};
use crate::domain::Criterion;

/// Judgements of one score and one probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// 1 to 5; `None` where no valid score came of it.
    pub score: Option<u8>,
    /// With which probability they came to be judged; each stands for `1 / probability` requests.
    pub probability: f64,
    /// How many.
    pub count: u64,
}

/// Judgements by score and probability. Every sum that an estimate needs follows from these.
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
    /// What was judged.
    pub criterion: Criterion,
    /// The sums.
    pub sums: ScoreSums,
}

impl ScoreSums {
    /// The judgements, one entry for each score and probability.
    pub fn scored(&self) -> &[Scored] {
        &self.0
    }

    /// The sum over all valid scores of what `term` makes of a score and its weight: with `|x, w| w * x`
    /// the sum of the weighted scores, with `|x, w| w * w * x * x` that of their squares, and so on.
    pub fn sum(&self, term: impl Fn(f64, f64) -> f64) -> f64 {
        let valid = self.0.iter().filter_map(|scored| Some((scored.score?, scored)));
        let terms = valid.map(|(score, scored)| {
            scored.count as f64 * term(f64::from(score), 1.0 / scored.probability)
        });
        terms.sum()
    }

    /// Scores that `wanted` wants.
    pub fn count(&self, wanted: impl Fn(u8) -> bool) -> u64 {
        let wanted = self.0.iter().filter(|scored| scored.score.is_some_and(&wanted));
        wanted.map(|scored| scored.count).sum()
    }

    /// Attempts that gave no valid score.
    pub fn failed(&self) -> u64 {
        let failed = self.0.iter().filter(|scored| scored.score.is_none());
        failed.map(|scored| scored.count).sum()
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
            known.score == scored.score && known.probability == scored.probability
        };
        match self.0.iter_mut().find(same) {
            Some(known) => known.count += scored.count,
            None => self.0.push(scored),
        }
    }

    fn share(&self, of: impl Fn(f64) -> f64) -> Option<f64> {
        let weights = self.sum(|_, w| w);
        (weights > 0.0).then(|| self.sum(|x, w| w * of(x)) / weights)
    }
}

type Groups = BTreeMap<(i64, Option<String>, &'static str), (Criterion, ScoreSums)>;

impl Store {
    /// Sums by criterion over the minutes that begin in `window`, by the time of the exchange. With a
    /// `step` (seconds), by spans of that length since the epoch; with an `axis`, by its values.
    pub fn quality(
        &self,
        window: Window,
        filter: &Filter,
        step: Option<i64>,
        axis: Option<Axis>,
    ) -> Result<Vec<QualityRow>, StoreError> {
        let groups = self.read(READ_WITHIN, |db| {
            let mut groups = Groups::new();
            for slice in window.slices(SCORES_LEVELS, step) {
                let bounds = [slice.span, slice.from, slice.to];
                gather(db, bounds, filter, step, axis, &mut groups)?;
            }
            Ok(groups)
        })?;
        let rows = groups.into_iter().map(|((time, group, _), (criterion, sums))| QualityRow {
            time: step.map_or(window.from, |_| Timestamp::from_second(time).unwrap_or_default()),
            group,
            criterion,
            sums,
        });
        Ok(rows.filter(|row| !row.sums.0.is_empty()).collect())
    }
}

/// Adds the rows of one slice.
fn gather(
    db: &Connection,
    bounds: [i64; 3],
    filter: &Filter,
    step: Option<i64>,
    axis: Option<Axis>,
    groups: &mut Groups,
) -> Result<(), StoreError> {
    let bucket = step.map_or("0".to_owned(), |step| format!("(q.time / {step}) * {step}"));
    let group = axis.map_or("NULL".to_owned(), |axis| format!("l.{}", axis.column()));
    let mut values: Vec<Value> = bounds.iter().map(|n| Value::Integer(*n)).collect();
    let mut condition = "q.span = ? AND q.time >= ? AND q.time < ?".to_owned();
    if let Some((asked, more)) = filter.condition() {
        condition = format!("{condition} AND {asked}");
        values.extend(more);
    }
    let mut find = db.prepare_cached(&format!(
        "SELECT {bucket} AS bucket, {group} AS part, q.criterion, q.score, q.probability, \
         sum(q.n) AS n FROM score_sums q JOIN labels l ON l.id = q.labels WHERE {condition} \
         GROUP BY bucket, part, q.criterion, q.score, q.probability HAVING n > 0",
    ))?;
    let mut rows = find.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        let (criterion, score): (String, u8) = (row.get(2)?, row.get(3)?);
        let known = Criterion::RATED.iter().find(|known| known.label() == criterion);
        let Some(criterion) = known.copied() else { continue };
        let key = (row.get(0)?, row.get(1)?, criterion.label());
        let (_, sums) = groups.entry(key).or_insert((criterion, ScoreSums::default()));
        let score = (score > 0).then_some(score);
        sums.add(Scored { score, probability: row.get(4)?, count: unsigned(row.get(5)?) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_follow_from_the_counts() {
        let scored = |score, probability, count| Scored { score, probability, count };
        // Two fives at weight 10, one two at weight 1, one without a score.
        let classes = [scored(Some(5), 0.1, 2), scored(Some(2), 1.0, 1), scored(None, 0.1, 1)];
        let mut sums = ScoreSums::default();
        classes.into_iter().for_each(|one| sums.add(one));
        assert_eq!((sums.count(|_| true), sums.count(|x| x < 3), sums.failed()), (3, 1, 1));
        assert_eq!(sums.average(), Some(102.0 / 21.0));
        assert_eq!(sums.pass_rate(3), Some(20.0 / 21.0));
        assert_eq!(sums.effective_n(), 21.0 * 21.0 / 201.0);
        assert_eq!(ScoreSums::default().average(), None);
    }
}
