//! Windows of time, and how sums over them are put together from the fewest rows.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::StoreError;
use super::labels::Filter;

/// The lengths that totals are kept in, in seconds: day, hour, quarter of an hour, minute. Each divides
/// the one before it.
pub(super) const TOTALS_LEVELS: &[i64] = &[86_400, 3_600, 900, 60];

/// The same of scores, which are fewer: a quarter of an hour would hold hardly less rows than its minutes.
pub(super) const SCORES_LEVELS: &[i64] = &[86_400, 3_600, 60];

/// Microseconds of a second.
pub(super) const MICROS: i64 = 1_000_000;

/// From `from` (inclusive) to `to` (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub to: Timestamp,
}

/// Rows of one level whose `time` is in `from..to`, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) span: i64,
    pub(super) from: i64,
    pub(super) to: i64,
}

impl Window {
    /// The window of these seconds since the epoch.
    pub fn of_seconds(from: i64, to: i64) -> Self {
        let at = |second| Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
        Self { from: at(from), to: at(to) }
    }

    /// The rows of `levels` that hold the sums over all minutes that begin in this window; with a
    /// `step`, only of levels that divide it, so that no row lies in two steps.
    pub(super) fn slices(&self, levels: &[i64], step: Option<i64>) -> Vec<Slice> {
        let divides = |level: &i64| step.is_none_or(|step| step % level == 0);
        let first = levels.iter().position(divides).unwrap_or(levels.len() - 1);
        let mut slices = Vec::new();
        cover(ceil_second(self.from), ceil_second(self.to), &levels[first..], &mut slices);
        slices
    }

    /// The samples' `seq` that lie in this window.
    pub(super) fn seqs(&self) -> (i64, i64) {
        (seq_of(self.from), seq_of(self.to))
    }
}

/// Sums of one level, in their compact form.
pub(super) struct Rows {
    pub(super) table: &'static str,
    pub(super) column: &'static str,
    pub(super) slice: Slice,
}

impl Rows {
    /// Hands the time, the labels and the compact form of each row to `each`.
    pub(super) fn each(
        &self,
        db: &Connection,
        filter: &Filter,
        mut each: impl FnMut(i64, i64, &[u8]),
    ) -> Result<(), StoreError> {
        let Slice { span, from, to } = self.slice;
        let mut values = vec![Value::Integer(span), Value::Integer(from), Value::Integer(to)];
        let mut condition = "span = ? AND time >= ? AND time < ?".to_owned();
        if let Some((asked, more)) = filter.condition() {
            condition = format!("{condition} AND {asked}");
            values.extend(more);
        }
        let (table, column) = (self.table, self.column);
        let mut find = db.prepare_cached(&format!(
            "SELECT time, labels, {column} FROM {table} WHERE {condition}"
        ))?;
        let mut rows = find.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            each(row.get(0)?, row.get(1)?, row.get_ref(2)?.as_blob().unwrap_or_default());
        }
        Ok(())
    }
}

/// The smallest `seq` of a moment.
pub(super) fn seq_of(at: Timestamp) -> i64 {
    at.as_microsecond().clamp(0, i64::MAX >> 10) << 10
}

/// The moment of a `seq`.
pub(super) fn time_of(seq: i64) -> Timestamp {
    Timestamp::from_microsecond(seq >> 10).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Whole rows of the longest span that fits, and shorter ones at both ends.
fn cover(from: i64, to: i64, levels: &[i64], slices: &mut Vec<Slice>) {
    let Some((span, shorter)) = levels.split_first() else { return };
    let up =
        |at: i64| at.div_euclid(*span) * span + if at.rem_euclid(*span) == 0 { 0 } else { *span };
    // A minute counts where it begins in the window, even if it ends behind it.
    let end = if shorter.is_empty() { up(to) } else { to.div_euclid(*span) * span };
    let start = up(from);
    if start >= end {
        return cover(from, to, shorter, slices);
    }
    if from < start {
        cover(from, start, shorter, slices);
    }
    slices.push(Slice { span: *span, from: start, to: end });
    if end < to {
        cover(end, to, shorter, slices);
    }
}

fn ceil_second(at: Timestamp) -> i64 {
    let micros = at.as_microsecond();
    micros.div_euclid(MICROS) + i64::from(micros.rem_euclid(MICROS) != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_minute_that_begins_in_the_window_is_counted_once(
            from in -200_000_i64..200_000,
            length in 0_i64..400_000,
            step in prop::option::of(prop::sample::select(vec![60_i64, 300, 900, 21_600, 86_400])),
            scores in any::<bool>(),
        ) {
            let to = from + length;
            let levels = if scores { SCORES_LEVELS } else { TOTALS_LEVELS };
            let slices = Window::of_seconds(from, to).slices(levels, step);
            let mut counted = std::collections::BTreeMap::<i64, u32>::new();
            for slice in &slices {
                prop_assert!(slice.from % slice.span == 0);
                prop_assert!(step.is_none_or(|step| step % slice.span == 0));
                for minute in (slice.from..slice.to).step_by(60) {
                    *counted.entry(minute).or_default() += 1;
                }
            }
            let wanted: Vec<i64> =
                (from..to).filter(|second| second.rem_euclid(60) == 0).collect();
            prop_assert!(counted.values().all(|n| *n == 1), "{slices:?}");
            prop_assert_eq!(counted.into_keys().collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn ninety_days_are_a_few_slices() {
        let window = Window::of_seconds(1_000_000_123, 1_000_000_123 + 90 * 86_400);
        assert_eq!(window.slices(TOTALS_LEVELS, None).len(), 6);
        assert_eq!(window.slices(TOTALS_LEVELS, Some(60)).len(), 1);
    }

    #[test]
    fn a_seq_keeps_its_microsecond() {
        let at: Timestamp = "2026-11-23T22:47:50.123456Z".parse().expect("a time");
        assert_eq!(time_of(seq_of(at) | 1023), at);
        let late: Timestamp = "9999-01-01T00:00:00Z".parse().expect("a time");
        assert!(seq_of(late) > seq_of(at), "far times stay in order and do not overflow");
    }
}
