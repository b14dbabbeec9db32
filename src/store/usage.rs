//! Totals of all requests: merged by minute, quarter of an hour, hour and day as they come in.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::labels::{self, Axis, Filter, Labels, names};
use super::window::{Rows, TOTALS_LEVELS, Window};
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
            let groups = names(db, axes)?;
            let mut sums: BTreeMap<(i64, &[String]), Totals> = BTreeMap::new();
            for slice in window.slices(TOTALS_LEVELS, step) {
                let rows = Rows { table: "rollups", column: "totals", slice };
                rows.each(db, filter, |time, labels, bytes| {
                    let bucket = step.map_or(0, |step| time.div_euclid(step) * step);
                    let group = groups.get(&labels).map_or(&[][..], |group| group);
                    // What is no compact form was not written by us.
                    let _ = sums.entry((bucket, group)).or_default().merge_bytes(bytes);
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
