//! What a rollup row adds up, and its compact form for the store.
//!
//! The form is little-endian base-128 numbers: a version, the counts, the tokens by source, four
//! histograms. It is private to this process's store, which can be rebuilt; the version tells an old
//! one from garbage.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Histogram;
use super::bytes::{Reader, number};
use crate::domain::{Summary, Usage, UsageSource};

/// The first byte of the compact form.
const VERSION: u64 = 1;

/// Tokens of the exchanges whose usage came from one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tokens {
    /// Exchanges.
    pub count: u64,
    /// Prompt tokens, cached ones included.
    pub input: u64,
    /// Completion tokens, reasoning ones included.
    pub output: u64,
    /// Both.
    pub total: u64,
    /// The part of `input` from the provider's cache.
    pub cached_input: u64,
    /// The part of `output` that was reasoning.
    pub reasoning_output: u64,
}

/// Sums over exchanges: all of it merges by addition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Exchanges.
    pub count: u64,
    /// Tokens by who says so.
    pub tokens: BTreeMap<UsageSource, Tokens>,
    /// Exchanges of which no tokens are known.
    pub usage_unknown: u64,
    /// Milliseconds to the last byte.
    pub latency_ms: Histogram,
    /// Milliseconds to the first content of a stream.
    pub first_token_ms: Histogram,
    /// Prompt tokens of an exchange.
    pub input_tokens: Histogram,
    /// Completion tokens of an exchange.
    pub output_tokens: Histogram,
}

impl Totals {
    pub(super) fn add(&mut self, summary: &Summary) {
        let usage = &summary.usage;
        self.count += 1;
        self.latency_ms.record(summary.latency_ms);
        summary.first_token_ms.into_iter().for_each(|ms| self.first_token_ms.record(ms));
        usage.input.into_iter().for_each(|n| self.input_tokens.record(n as f64));
        usage.output.into_iter().for_each(|n| self.output_tokens.record(n as f64));
        match usage.source {
            Some(source) if !usage.is_unknown() => {
                self.tokens.entry(source).or_default().add(usage)
            }
            _ => self.usage_unknown += 1,
        }
    }

    /// Adds `other`. Sums that would not fit stay at the largest number.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.usage_unknown = self.usage_unknown.saturating_add(other.usage_unknown);
        for (source, tokens) in &other.tokens {
            self.tokens.entry(*source).or_default().merge(tokens);
        }
        for (into, from) in self.histograms_mut().into_iter().zip(other.histograms()) {
            into.merge(from);
        }
    }

    /// The compact form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        [VERSION, self.count, self.usage_unknown, self.tokens.len() as u64]
            .iter()
            .for_each(|n| number(&mut out, *n));
        for (source, tokens) in &self.tokens {
            number(&mut out, position(*source));
            tokens.figures().iter().for_each(|n| number(&mut out, *n));
        }
        self.histograms().into_iter().for_each(|histogram| histogram.write(&mut out));
        out
    }

    /// Reads the compact form; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut totals = Self::default();
        totals.merge_bytes(bytes)?;
        Some(totals)
    }

    /// Adds what the compact form `bytes` holds, without making it first; `None` for anything else, of
    /// which a part may have been added then.
    pub fn merge_bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let mut reader = Reader(bytes);
        if reader.number()? != VERSION {
            return None;
        }
        self.count = self.count.saturating_add(reader.number()?);
        self.usage_unknown = self.usage_unknown.saturating_add(reader.number()?);
        for _ in 0..reader.number()? {
            let source = *UsageSource::ALL.get(usize::try_from(reader.number()?).ok()?)?;
            self.tokens.entry(source).or_default().merge(&Tokens::read(&mut reader)?);
        }
        self.histograms_mut().into_iter().try_for_each(|into| into.merge_from(&mut reader))
    }

    /// The sum of the tokens of `sources`.
    pub fn tokens_of(&self, sources: impl Fn(UsageSource) -> bool) -> Tokens {
        let mut sum = Tokens::default();
        let chosen = self.tokens.iter().filter(|(source, _)| sources(**source));
        chosen.for_each(|(_, tokens)| sum.merge(tokens));
        sum
    }

    /// True where the histograms add up; others were made by no flowtap.
    pub fn is_sound(&self) -> bool {
        self.histograms().into_iter().all(Histogram::is_sound)
    }

    fn histograms(&self) -> [&Histogram; 4] {
        [&self.latency_ms, &self.first_token_ms, &self.input_tokens, &self.output_tokens]
    }

    fn histograms_mut(&mut self) -> [&mut Histogram; 4] {
        [
            &mut self.latency_ms,
            &mut self.first_token_ms,
            &mut self.input_tokens,
            &mut self.output_tokens,
        ]
    }
}

impl Tokens {
    fn add(&mut self, usage: &Usage) {
        let known = |n: Option<u64>| n.unwrap_or(0);
        self.merge(&Self {
            count: 1,
            input: known(usage.input),
            output: known(usage.output),
            total: known(usage.total),
            cached_input: known(usage.cached_input),
            reasoning_output: known(usage.reasoning_output),
        });
    }

    /// Adds `other`. Sums that would not fit stay at the largest number.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.total = self.total.saturating_add(other.total);
        self.cached_input = self.cached_input.saturating_add(other.cached_input);
        self.reasoning_output = self.reasoning_output.saturating_add(other.reasoning_output);
    }

    fn figures(&self) -> [u64; 6] {
        [self.count, self.input, self.output, self.total, self.cached_input, self.reasoning_output]
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            count: reader.number()?,
            input: reader.number()?,
            output: reader.number()?,
            total: reader.number()?,
            cached_input: reader.number()?,
            reasoning_output: reader.number()?,
        })
    }
}

/// The source's place in its closed set.
fn position(source: UsageSource) -> u64 {
    UsageSource::ALL.iter().position(|known| *known == source).unwrap_or(0) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn totals(values: &[f64]) -> Totals {
        let mut totals = Totals { count: values.len() as u64, ..Totals::default() };
        for value in values {
            totals.latency_ms.record(*value);
            totals.output_tokens.record(value.round());
            let usage = Usage::of(Some(*value as u64), Some(7), UsageSource::Counted);
            totals.tokens.entry(UsageSource::Counted).or_default().add(&usage);
        }
        totals
    }

    proptest! {
        #[test]
        fn the_compact_form_is_read_back_and_merging_commutes_with_it(
            left in prop::collection::vec(0.0_f64..1e6, 0..40),
            right in prop::collection::vec(0.0_f64..1e6, 0..40),
        ) {
            let (left, right) = (totals(&left), totals(&right));
            let again = |totals: &Totals| Totals::from_bytes(&totals.to_bytes()).expect("our own");
            prop_assert_eq!(&again(&left), &left);
            let mut merged = again(&left);
            merged.merge(&again(&right));
            prop_assert_eq!(&again(&merged), &merged);
            prop_assert!(merged.is_sound());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Totals::from_bytes(&bytes));
        }
    }

    #[test]
    fn what_was_cut_short_is_not_read() {
        let bytes = totals(&[1.0, 20.0, 300.0]).to_bytes();
        assert!((0..bytes.len()).all(|end| Totals::from_bytes(&bytes[..end]).is_none()));
    }
}
