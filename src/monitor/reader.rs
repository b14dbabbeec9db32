//! Counts what the bucket holds of a window: the way of `flowtap monitor run`, and of a process that
//! has no index.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::tally::{Chance, Labels, Tally};
use super::window::Window;
use crate::bucket::{Bucket, BucketError, BucketErrorKind, LineError, Lines};
use crate::config::Monitor;
use crate::domain::{Dataset, ExchangeId, Grade, Score, Yardstick};
use crate::ledger::Hour;
use crate::rollup::UsageRow;

/// What was counted, and what could not be.
#[derive(Debug)]
pub struct Counted {
    /// What the window held.
    pub tally: Tally,
    /// Objects that are damaged or not ours, or lines of them.
    pub unreadable: u64,
}

/// Counts all that `monitor` needs of `window`. An object that cannot be read is named in the log,
/// counted, and left out.
///
/// # Errors
/// The bucket's, where a listing or a whole object cannot be had.
pub async fn count(
    bucket: &dyn Bucket,
    monitor: &Monitor,
    window: &Window,
) -> Result<Counted, BucketError> {
    let tally = Tally::new(window.clone(), monitor.scope.clone());
    let mut counted = Counted { tally, unreadable: 0 };
    if monitor.tokens.is_some() || monitor.operations.is_some() {
        for name in names(bucket, Dataset::Usage, monitor, window).await? {
            let usage = |tally: &mut Tally, line: &[u8]| {
                UsageRow::parse(line).map(|row| add(tally, &row)).is_some()
            };
            counted.read(bucket, &name, usage).await?;
        }
    }
    if monitor.quality.is_some() {
        let mut scores = Scores::default();
        for name in names(bucket, Dataset::Scores, monitor, window).await? {
            counted.read(bucket, &name, |_, line| scores.add(line, monitor)).await?;
        }
        scores.tell(&mut counted.tally);
    }
    Ok(counted)
}

fn add(tally: &mut Tally, row: &UsageRow) {
    let (tap, deployment, model) = (&row.tap, &row.deployment, &row.model);
    tally.usage(row.time, &Labels { tap, deployment, model, outcome: row.outcome }, &row.totals);
}

impl Counted {
    /// Hands every line of an object to `take`, which says whether it was one of ours.
    async fn read(
        &mut self,
        bucket: &dyn Bucket,
        name: &str,
        mut take: impl FnMut(&mut Tally, &[u8]) -> bool,
    ) -> Result<(), BucketError> {
        let body = match bucket.get(name).await {
            Ok(body) => body,
            // Its time to be kept was over since it was listed.
            Err(error) if error.kind == BucketErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let (mut lines, mut foreign) = (Lines::of(&body), 0_u64);
        let whole = loop {
            match lines.next() {
                Ok(Some(b"")) => {}
                Ok(Some(line)) => foreign += u64::from(!take(&mut self.tally, line)),
                Ok(None) => break true,
                Err(LineError::TooLong) => foreign += 1,
                Err(LineError::Damaged) => break false,
            }
        };
        if !whole || foreign > 0 {
            self.unreadable += 1;
            tracing::warn!(
                name,
                foreign,
                damaged = !whole,
                "a monitor left out what it cannot read"
            );
        }
        Ok(())
    }
}

/// The objects whose hour the window touches.
async fn names(
    bucket: &dyn Bucket,
    dataset: Dataset,
    monitor: &Monitor,
    window: &Window,
) -> Result<Vec<String>, BucketError> {
    let folder = dataset.label();
    let prefixes = match &monitor.scope.deployment {
        // One deployment's days can be asked for one by one.
        Some(deployment) => days(window)
            .map(|day| format!("{folder}/deployment={deployment}/date={day}/"))
            .collect(),
        None => vec![format!("{folder}/")],
    };
    let (first, last) = (Hour::of(window.from), Hour::of(window.to));
    let mut names = Vec::new();
    for prefix in prefixes {
        let listed = bucket.list(&prefix).await?.into_iter().map(|listed| listed.name);
        names.extend(
            listed.filter(|name| {
                Hour::in_name(name).is_some_and(|hour| (first..=last).contains(&hour))
            }),
        );
    }
    Ok(names)
}

/// The dates, in UTC, that the window touches.
pub(super) fn days(window: &Window) -> impl Iterator<Item = String> {
    const DAY: SignedDuration = SignedDuration::from_hours(24);
    let first = Timestamp::from_second(window.from.as_second().div_euclid(86_400) * 86_400).ok();
    let to = window.to;
    let starts = std::iter::successors(first, |day| day.checked_add(DAY).ok());
    starts.take_while(move |day| *day <= to).map(|day| day.strftime("%Y-%m-%d").to_string())
}

/// The scores of the window, the last of each sample and criterion of one name: a sample may be judged twice, and
/// a line may lie in the bucket twice.
#[derive(Default)]
struct Scores(HashMap<(ExchangeId, Arc<str>), Given>);

struct Given {
    by: Yardstick,
    time: Timestamp,
    exchange_time: Timestamp,
    grade: Option<Grade>,
    chance: Chance,
}

impl Scores {
    fn add(&mut self, line: &[u8], monitor: &Monitor) -> bool {
        let read = serde_json::from_slice::<Score>(line).ok();
        let valid = |score: &Score| {
            let likely = |p: f64| p > 0.0 && p <= 1.0;
            let least = score.probability_least.is_none_or(likely);
            score.schema == Score::SCHEMA && likely(score.probability) && least
        };
        let Some(score) = read.filter(valid) else { return false };
        let scope = &monitor.scope;
        let meant = scope.tap.as_ref().is_none_or(|tap| *tap == score.tap)
            && scope.deployment.as_ref().is_none_or(|of| *of == score.deployment);
        let Some(by) = score.yardstick().filter(|_| meant) else { return true };
        let key = (score.exchange, Arc::from(by.label()));
        let given = Given {
            by,
            time: score.time,
            exchange_time: score.exchange_time,
            // A judge that failed its own test has said nothing that could raise an alert.
            grade: score.grade().filter(|_| !score.judge_drift),
            chance: Chance {
                probability: score.probability,
                least: score.probability_least.unwrap_or(score.probability),
            },
        };
        let known = self.0.get(&key);
        // A valid score is not undone by a later failure to judge again.
        let newer = known.is_none_or(|known| {
            (given.grade.is_some(), given.time) > (known.grade.is_some(), known.time)
        });
        if newer {
            self.0.insert(key, given);
        }
        true
    }

    fn tell(self, tally: &mut Tally) {
        for given in self.0.into_values() {
            match given.grade {
                Some(grade) => {
                    tally.score(&given.by, given.exchange_time, grade, given.chance, 1);
                }
                None if tally.window().holds(given.exchange_time) => tally.unscored += 1,
                None => {}
            }
        }
    }
}
