//! Tokens spent by an exchange, and who says so.

use serde::{Deserialize, Serialize};

use super::outcome::labelled;

labelled! {
    /// Who says how many tokens were spent.
    UsageSource {
        /// The upstream's own figure.
        Reported = "reported",
        /// The sum of the flow's own calls.
        Joined = "joined",
        /// The flow's spans.
        Traced = "traced",
        /// Our tokenizer, over the whole text.
        Counted = "counted",
        /// A stream cut short, or text over the counting cap.
        Estimated = "estimated",
    }
}

/// Tokens of one exchange. `None` is unknown and never means zero.
/// `input` includes cached tokens, `output` includes reasoning tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input: Option<u64>,
    /// Completion tokens, reasoning ones included.
    pub output: Option<u64>,
    /// Input and output together.
    pub total: Option<u64>,
    /// The part of `input` that came from the provider's cache.
    pub cached_input: Option<u64>,
    /// The part of `output` that was reasoning.
    pub reasoning_output: Option<u64>,
    /// Who says so; `None` while nothing is known.
    pub source: Option<UsageSource>,
}

impl Usage {
    /// Usage of `input` and `output` tokens as told by `source`; the total is their sum.
    pub fn of(input: Option<u64>, output: Option<u64>, source: UsageSource) -> Self {
        let total = input.zip(output).map(|(i, o)| i.saturating_add(o));
        let source = input.or(output).map(|_| source);
        Self { input, output, total, source, ..Self::default() }
    }

    /// True while neither side is known.
    pub fn is_unknown(&self) -> bool {
        self.input.is_none() && self.output.is_none()
    }

    /// Merges two reports of the same exchange, the larger figure winning: streams report
    /// running totals, and a later event may repeat, grow or omit a field.
    pub fn max_merge(self, other: Self) -> Self {
        let input = self.input.max(other.input);
        let output = self.output.max(other.output);
        let summed = input.zip(output).map(|(i, o)| i.saturating_add(o));
        Self {
            input,
            output,
            total: summed.max(self.total).max(other.total),
            cached_input: self.cached_input.max(other.cached_input),
            reasoning_output: self.reasoning_output.max(other.reasoning_output),
            source: self.source.or(other.source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_stays_null_and_merging_takes_the_larger() {
        let first = Usage::of(Some(10), Some(1), UsageSource::Reported);
        let last = Usage::of(None, Some(25), UsageSource::Reported);
        let merged = first.max_merge(last);
        assert_eq!((merged.input, merged.output, merged.total), (Some(10), Some(25), Some(35)));
        assert!(Usage::of(None, None, UsageSource::Counted).source.is_none());
        assert!(Usage::default().is_unknown());
    }
}
