//! Histograms that merge by addition, with a bounded relative error.
//!
//! Bucket `i` holds the values in `(2^(i/8), 2^((i+1)/8)]`: OpenTelemetry's base-2 exponential
//! histogram at scale 3 (<https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram>).
//! A value is told as the geometric middle of its bucket, so a quantile is off by a factor of
//! `2^(1/16)` at most: 4.5 percent. Zero has a count of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bytes::{Reader, float, number, signed};

/// Buckets to a doubling.
const PER_DOUBLING: f64 = 8.0;
/// Indexes are clamped to these: about a billionth to a thousand billion.
const INDEX_MIN: i32 = -240;
const INDEX_MAX: i32 = 320;

/// A histogram of values that are zero or more; see the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Values in all.
    count: u64,
    /// Their sum.
    sum: f64,
    /// The smallest; `None` without values.
    min: Option<f64>,
    /// The largest; `None` without values.
    max: Option<f64>,
    /// Values that are zero.
    zero: u64,
    /// Values by bucket index; empty buckets are left out.
    buckets: BTreeMap<i32, u64>,
}

impl Histogram {
    /// Adds one value. What is negative or no number is left out, for it cannot have been measured.
    pub fn record(&mut self, value: f64) {
        if !value.is_finite() || value < 0.0 {
            return;
        }
        self.count += 1;
        self.sum += value;
        self.min = Some(self.min.map_or(value, |min| min.min(value)));
        self.max = Some(self.max.map_or(value, |max| max.max(value)));
        match index(value) {
            Some(index) => *self.buckets.entry(index).or_default() += 1,
            None => self.zero += 1,
        }
    }

    /// Adds all values of `other`. Counts that would not fit stay at the largest number.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum += other.sum;
        self.min = [self.min, other.min].into_iter().flatten().reduce(f64::min);
        self.max = [self.max, other.max].into_iter().flatten().reduce(f64::max);
        self.zero = self.zero.saturating_add(other.zero);
        for (index, n) in &other.buckets {
            let bucket = self.buckets.entry(*index).or_default();
            *bucket = bucket.saturating_add(*n);
        }
    }

    /// The buckets that hold values: lower bound (exclusive), upper bound (inclusive), how many.
    /// Zeros come first, as from 0 to 0.
    pub fn bins(&self) -> Vec<(f64, f64, u64)> {
        let bound = |index: i32| (f64::from(index) / PER_DOUBLING).exp2();
        let zeros = (self.zero > 0).then_some((0.0, 0.0, self.zero));
        let rest = self.buckets.iter().map(|(index, n)| (bound(*index), bound(*index + 1), *n));
        zeros.into_iter().chain(rest).collect()
    }

    /// True where the buckets add up to the count and every figure can have been measured.
    pub(super) fn is_sound(&self) -> bool {
        let all = self.buckets.values().try_fold(self.zero, |sum, n| sum.checked_add(*n));
        let known = self.buckets.keys().all(|index| (INDEX_MIN..=INDEX_MAX).contains(index));
        let measured = |n: f64| n.is_finite() && n >= 0.0;
        let ends = self.min.is_some() == (self.count > 0) && self.max.is_some() == (self.count > 0);
        let figures = [Some(self.sum), self.min, self.max].into_iter().flatten().all(measured);
        all == Some(self.count) && known && ends && figures
    }

    /// Appends the compact form; one byte where there are no values.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        number(out, self.count);
        let (Some(min), Some(max)) = (self.min, self.max) else { return };
        [self.sum, min, max].iter().for_each(|n| float(out, *n));
        number(out, self.zero);
        number(out, self.buckets.len() as u64);
        let mut last = 0;
        for (index, n) in &self.buckets {
            signed(out, i64::from(index - last));
            number(out, *n);
            last = *index;
        }
    }

    /// Adds what [`Self::write`] wrote.
    pub(super) fn merge_from(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let count = reader.number()?;
        if count == 0 {
            return Some(());
        }
        self.count = self.count.saturating_add(count);
        self.sum += reader.float()?;
        let (min, max) = (reader.float()?, reader.float()?);
        self.min = Some(self.min.map_or(min, |known| known.min(min)));
        self.max = Some(self.max.map_or(max, |known| known.max(max)));
        self.zero = self.zero.saturating_add(reader.number()?);
        let mut index = 0_i32;
        for _ in 0..reader.number()? {
            index = index.checked_add(i32::try_from(reader.signed()?).ok()?)?;
            let bucket = self.buckets.entry(index).or_default();
            *bucket = bucket.saturating_add(reader.number()?);
        }
        Some(())
    }

    /// Values in all.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum of all values.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The value below or at which the share `q` (0 to 1) of all values lies, by nearest rank; within
    /// 4.5 percent of it. `None` without values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let (min, max) = (self.min?, self.max?);
        let rank = ((q.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut below = self.zero;
        if rank <= below {
            return Some(0.0);
        }
        let bucket = self.buckets.iter().find(|(_, n)| {
            below += **n;
            rank <= below
        });
        bucket.map(|(index, _)| middle(*index).clamp(min, max))
    }
}

/// The bucket of `value`; `None` for zero.
fn index(value: f64) -> Option<i32> {
    (value > 0.0).then(|| {
        let index = (value.log2() * PER_DOUBLING).ceil() as i32 - 1;
        index.clamp(INDEX_MIN, INDEX_MAX)
    })
}

fn middle(index: i32) -> f64 {
    ((f64::from(index) + 0.5) / PER_DOUBLING).exp2()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    /// The exact quantile by nearest rank.
    fn exact(values: &[f64], q: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = ((q * sorted.len() as f64).ceil() as usize).max(1);
        sorted[rank - 1]
    }

    #[test]
    fn bounds_belong_to_the_bucket_below_them() {
        assert_eq!((index(1.0), index(1.0001), index(2.0)), (Some(-1), Some(0), Some(7)));
        assert_eq!(
            (index(0.0), index(f64::MAX), index(f64::MIN_POSITIVE)),
            (None, Some(320), Some(-240))
        );
    }

    #[test]
    fn what_cannot_be_measured_is_left_out_and_nothing_has_no_quantile() {
        let histogram = of(&[f64::NAN, -1.0, f64::INFINITY]);
        assert_eq!((histogram.count(), histogram.quantile(0.5)), (0, None));
        assert_eq!(of(&[0.0, 0.0, 8.0]).quantile(0.5), Some(0.0));
        assert_eq!(of(&[8.0]).quantile(0.99), Some(8.0), "never outside of what was seen");
    }

    proptest! {
        #[test]
        fn quantiles_are_within_their_bound(
            values in prop::collection::vec(0.001_f64..1e9, 1..200),
            q in 0.0_f64..=1.0,
        ) {
            let told = of(&values).quantile(q).expect("there are values");
            let exact = exact(&values, q);
            let factor = (1.0_f64 / 16.0).exp2() * (1.0 + 1e-9);
            prop_assert!(told <= exact * factor && told >= exact / factor, "{told} for {exact}");
        }

        #[test]
        fn merging_is_the_same_as_recording_together(
            left in prop::collection::vec(0_u32..100_000, 0..50),
            right in prop::collection::vec(0_u32..100_000, 0..50),
        ) {
            let values = |list: &[u32]| list.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            let mut merged = of(&values(&left));
            merged.merge(&of(&values(&right)));
            let together: Vec<u32> = left.iter().chain(&right).copied().collect();
            prop_assert_eq!(merged, of(&values(&together)));
        }
    }
}
