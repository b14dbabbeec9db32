//! Totals of all requests: merged by minute, quarter of an hour, hour and day as they come in.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};

use super::labels::{self, Axis, Filter, Labels};
use super::window::{TOTALS_LEVELS, Window};
use super::writer::Session;
use super::{READ_WITHIN, Store, StoreError};
use crate::rollup::{Totals, UsageRow};

/// Totals of one span of time where a step was asked for, of one group where axes were.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageSums {
    /// The span's first moment; the window's where no step was asked for.
    pub time: Timestamp,
    /// The values on the axes.
    pub group: Vec<String>,
    /// The sums.
    pub totals: Totals,
}

/// Totals, gathered before they are stored: span, time in seconds, labels.
#[derive(Default)]
pub(super) struct RollupBook(BTreeMap<(i64, i64, i64), Totals>);

impl RollupBook {
    /// Adds a row at every level.
    pub(super) fn add(
        &mut self,
        session: &mut Session<'_>,
        row: &UsageRow,
    ) -> Result<bool, StoreError> {
        let labels = session.labels(&Labels {
            tap: labels::name(&row.tap),
            deployment: labels::name(&row.deployment),
            model: labels::name(&row.model),
            operation: row.operation,
            outcome: row.outcome,
            stream: row.stream,
        })?;
        for span in TOTALS_LEVELS {
            let time = row.time.as_second().div_euclid(*span) * span;
            self.0.entry((*span, time, labels)).or_default().merge(&row.totals);
        }
        Ok(true)
    }

    /// Adds what was gathered to what is stored.
    pub(super) fn store(self, session: &Session<'_>) -> Result<(), StoreError> {
        let mut find = session.db.prepare_cached(
            "SELECT totals FROM rollups WHERE span = ? AND time = ? AND labels = ?",
        )?;
        let mut put = session.db.prepare_cached(
            "INSERT OR REPLACE INTO rollups(span, time, labels, totals) VALUES(?, ?, ?, ?)",
        )?;
        for ((span, time, labels), mut totals) in self.0 {
            let known = find.query_row([span, time, labels], |row| row.get::<_, Vec<u8>>(0));
            if let Some(known) = known.optional()?.and_then(|bytes| Totals::from_bytes(&bytes)) {
                totals.merge(&known);
            }
            put.execute(params![span, time, labels, totals.to_bytes()])?;
        }
        Ok(())
    }
}

impl Store {
    /// Totals over the minutes that begin in `window`. With a `step` (seconds), by spans of that length
    /// since the epoch; by the values on `axes`.
    pub fn usage(
        &self,
        window: Window,
        filter: &Filter,
        step: Option<i64>,
        axes: &[Axis],
    ) -> Result<Vec<UsageSums>, StoreError> {
        let sums = self.read(READ_WITHIN, |db| {
            let groups = groups(db, axes)?;
            let mut sums: BTreeMap<(i64, &[String]), Totals> = BTreeMap::new();
            for slice in window.slices(TOTALS_LEVELS, step) {
                let bounds = [slice.span, slice.from, slice.to];
                each_row(db, bounds, filter, |time, labels, totals| {
                    let bucket = step.map_or(0, |step| time.div_euclid(step) * step);
                    let group = groups.get(&labels).map_or(&[][..], |group| group);
                    sums.entry((bucket, group)).or_default().merge(totals);
                })?;
            }
            let owned =
                sums.into_iter().map(|((time, group), totals)| (time, group.to_vec(), totals));
            Ok(owned.collect::<Vec<_>>())
        })?;
        let sums = sums.into_iter().map(|(time, group, totals)| UsageSums {
            time: step.map_or(window.from, |_| Timestamp::from_second(time).unwrap_or_default()),
            group,
            totals,
        });
        Ok(sums.collect())
    }

    /// The values of an axis, sorted, at most `limit`.
    pub fn values(&self, axis: Axis, limit: usize) -> Result<Vec<String>, StoreError> {
        let column = axis.column();
        self.read(READ_WITHIN, |db| {
            let mut find = db.prepare_cached(&format!(
                "SELECT DISTINCT {column} FROM labels WHERE {column} <> '' ORDER BY 1 LIMIT ?"
            ))?;
            let rows = find.query_map([limit as i64], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// The values on `axes` of every combination of labels.
fn groups(db: &Connection, axes: &[Axis]) -> Result<HashMap<i64, Vec<String>>, StoreError> {
    if axes.is_empty() {
        return Ok(HashMap::new());
    }
    let columns: Vec<_> = axes.iter().map(|axis| axis.column()).collect();
    let mut find = db.prepare_cached(&format!("SELECT id, {} FROM labels", columns.join(", ")))?;
    let rows = find.query_map([], |row| {
        let group = (1..=axes.len()).map(|column| row.get(column));
        Ok((row.get(0)?, group.collect::<Result<_, _>>()?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn each_row(
    db: &Connection,
    bounds: [i64; 3],
    filter: &Filter,
    mut each: impl FnMut(i64, i64, &Totals),
) -> Result<(), StoreError> {
    let mut values: Vec<Value> = bounds.iter().map(|n| Value::Integer(*n)).collect();
    let mut condition = "span = ? AND time >= ? AND time < ?".to_owned();
    if let Some((asked, more)) = filter.condition() {
        condition = format!("{condition} AND {asked}");
        values.extend(more);
    }
    let mut find =
        db.prepare_cached(&format!("SELECT time, labels, totals FROM rollups WHERE {condition}"))?;
    let mut rows = find.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(2)?.as_blob().unwrap_or_default();
        if let Some(totals) = Totals::from_bytes(bytes) {
            each(row.get(0)?, row.get(1)?, &totals);
        }
    }
    Ok(())
}
