//! What upstreams report of tokens, in the words of each, brought to one form: `input` includes
//! cached tokens, `output` includes reasoning.
//!
//! Reports of one exchange are merged figure by figure, the larger winning, before anything is
//! summed: streams repeat, grow and omit figures from one event to the next.

use super::json::Members;
use serde_json::Value;

use crate::domain::{Usage, UsageSource};

/// A figure above this is no count of tokens.
const TOKENS_MAX: u64 = 1_000_000_000_000;

/// All that one exchange's upstream reported so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    input: Option<u64>,
    /// Input that `input` leaves out (Anthropic's cache).
    input_besides: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    reasoning: Option<u64>,
}

impl Tally {
    /// Takes an OpenAI `usage` object: of chat, completions and embeddings (`prompt_tokens`,
    /// `completion_tokens`) or of responses (`input_tokens`, `output_tokens`).
    pub(super) fn take_openai(&mut self, usage: &Value) {
        self.take_openai_report(&Report::of(usage));
    }

    /// See [`Self::take_openai`].
    pub(super) fn take_openai_report(&mut self, usage: &Report) {
        self.merge(Self {
            input: usage.prompt.or(usage.input),
            output: usage.completion.or(usage.output),
            total: usage.total,
            cached: usage.prompt_cached.or(usage.input_cached),
            reasoning: usage.completion_reasoning.or(usage.output_reasoning),
            input_besides: None,
        });
    }

    /// Takes an Anthropic `usage` object, whose `input_tokens` leave out what the cache held.
    pub(super) fn take_anthropic(&mut self, usage: &Value) {
        self.take_anthropic_report(&Report::of(usage));
    }

    /// See [`Self::take_anthropic`].
    pub(super) fn take_anthropic_report(&mut self, usage: &Report) {
        self.merge(Self {
            input: usage.input,
            input_besides: sum(usage.cache_read, usage.cache_written),
            output: usage.output,
            cached: usage.cache_read,
            ..Self::default()
        });
    }

    /// Forgets the output: a figure that is known to be of the beginning only.
    pub(super) fn forget_output(&mut self) {
        self.output = None;
    }

    /// What is known in the end.
    pub(super) fn usage(self) -> Usage {
        let input = self.input.map(|input| input.saturating_add(self.input_besides.unwrap_or(0)));
        let output = self.output_with_reasoning(input);
        let usage = Usage::of(input, output, UsageSource::Reported);
        let known =
            |part: Option<u64>, whole: Option<u64>| part.filter(|part| Some(*part) <= whole);
        Usage {
            total: usage.total.or(self.total.filter(|total| Some(*total) >= input.max(output))),
            source: usage.source.or(self.total.map(|_| UsageSource::Reported)),
            cached_input: known(self.cached, input),
            reasoning_output: known(self.reasoning, output),
            ..usage
        }
    }

    /// Some providers leave reasoning out of the completion's figure; their total tells.
    fn output_with_reasoning(&self, input: Option<u64>) -> Option<u64> {
        let output = self.output?;
        let reasoning = self.reasoning.unwrap_or(0);
        let apart = input.unwrap_or(0).saturating_add(output).saturating_add(reasoning);
        Some(if self.total == Some(apart) { output.saturating_add(reasoning) } else { output })
    }

    fn merge(&mut self, other: Self) {
        self.input = self.input.max(other.input);
        self.input_besides = self.input_besides.max(other.input_besides);
        self.output = self.output.max(other.output);
        self.total = self.total.max(other.total);
        self.cached = self.cached.max(other.cached);
        self.reasoning = self.reasoning.max(other.reasoning);
    }
}

/// The figures of one `usage` object, in whatever words.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Report {
    pub(super) prompt: Option<u64>,
    pub(super) completion: Option<u64>,
    pub(super) input: Option<u64>,
    pub(super) output: Option<u64>,
    pub(super) total: Option<u64>,
    pub(super) prompt_cached: Option<u64>,
    pub(super) input_cached: Option<u64>,
    pub(super) completion_reasoning: Option<u64>,
    pub(super) output_reasoning: Option<u64>,
    pub(super) cache_read: Option<u64>,
    pub(super) cache_written: Option<u64>,
}

impl Report {
    fn of(usage: &Value) -> Self {
        let count = |key: &str| figure(usage.member(key)?);
        let detail = |details: &str, key: &str| figure(usage.member(details)?.member(key)?);
        Self {
            prompt: count("prompt_tokens"),
            completion: count("completion_tokens"),
            input: count("input_tokens"),
            output: count("output_tokens"),
            total: count("total_tokens"),
            prompt_cached: detail("prompt_tokens_details", "cached_tokens"),
            input_cached: detail("input_tokens_details", "cached_tokens"),
            completion_reasoning: detail("completion_tokens_details", "reasoning_tokens"),
            output_reasoning: detail("output_tokens_details", "reasoning_tokens"),
            cache_read: count("cache_read_input_tokens"),
            cache_written: count("cache_creation_input_tokens"),
        }
    }
}

fn figure(number: &Value) -> Option<u64> {
    count_of(number.as_u64(), number.as_f64())
}

/// A count of tokens: a whole number, not negative, not absurd; anything else is unknown.
pub(super) fn count_of(whole: Option<u64>, float: Option<f64>) -> Option<u64> {
    let of_float =
        |float: f64| (float.fract() == 0.0 && (0.0..1e12).contains(&float)).then_some(float as u64);
    whole.or_else(|| float.and_then(of_float)).filter(|count| *count <= TOKENS_MAX)
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.or(b).map(|_| a.unwrap_or(0).saturating_add(b.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn openai(reports: &[Value]) -> Usage {
        let mut tally = Tally::default();
        reports.iter().for_each(|report| tally.take_openai(report));
        tally.usage()
    }

    #[test]
    fn hostile_figures_are_unknown_never_wrong() {
        for bad in [json!(-5), json!("7"), json!(1e308), json!(7.5), json!(null), json!(u64::MAX)] {
            let usage = openai(&[json!({"prompt_tokens": bad, "completion_tokens": 3})]);
            assert_eq!((usage.input, usage.output, usage.total), (None, Some(3), None), "{bad}");
        }
        let lying = json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 900,
            "prompt_tokens_details": {"cached_tokens": 6}});
        let usage = openai(&[lying]);
        assert_eq!((usage.total, usage.cached_input), (Some(7), None));
        assert!(openai(&[json!("usage"), json!([]), json!(null)]).source.is_none());
    }

    #[test]
    fn reports_merge_by_maximum_and_reasoning_counts_as_output() {
        let usage = openai(&[
            json!({"prompt_tokens": 9, "completion_tokens": 1}),
            json!({"prompt_tokens": 9, "completion_tokens": 12.0,
                "completion_tokens_details": {"reasoning_tokens": 8}}),
            json!({"completion_tokens": 4}),
        ]);
        assert_eq!(
            (usage.output, usage.total, usage.reasoning_output),
            (Some(12), Some(21), Some(8))
        );
        let apart =
            openai(&[json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 22,
            "completion_tokens_details": {"reasoning_tokens": 7}})]);
        assert_eq!((apart.output, apart.total), (Some(12), Some(22)));
    }

    #[test]
    fn the_cache_of_anthropic_is_part_of_the_input() {
        let mut tally = Tally::default();
        tally.take_anthropic(&json!({"input_tokens": 10, "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 20, "output_tokens": 1}));
        tally.take_anthropic(&json!({"input_tokens": 10, "output_tokens": 33}));
        let usage = tally.usage();
        assert_eq!(
            (usage.input, usage.output, usage.cached_input),
            (Some(130), Some(33), Some(100))
        );
    }
}
