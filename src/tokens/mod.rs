//! Counting tokens where the upstream reports none: bounded, linear, off the request path.
//!
//! `counted` says that all of the text went through a tokenizer: the model's own where OpenAI published
//! it, else o200k (Anthropic's and open models' among them; docs/RECORD.md says how far that carries).
//! `estimated` says that some of it did not: text over a cap, cut bodies, and reasoning models, whose
//! hidden tokens nobody outside can see.

mod encoding;
mod framing;
mod vocabulary;

use crate::domain::{Countable, Operation, Usage, UsageSource};
use encoding::{Encoding, Tokenizer};

/// Bytes of one text that are counted; the rest is estimated by the bytes a token of this part.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;

/// Bytes of one exchange that are counted. At the worst cost measured, 0.26 µs a byte (random
/// base64, release build), the tokenizer's thread is held for about half a second.
pub const EXCHANGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Bytes a token where nothing at all could be counted: OpenAI's rule of thumb for English,
/// <https://help.openai.com/en/articles/4936856-what-are-tokens-and-how-to-count-them>.
const TOKEN_BYTES: u64 = 4;

/// How tokens are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// With the vocabularies, each loaded when it is first needed: up to 45 MiB for the common two.
    Vocabularies,
    /// By the bytes alone: there is no memory for a vocabulary. Every figure is `estimated`.
    Estimate,
}

/// With less memory than this no vocabulary is loaded: one and the rest of a sidecar would come near it.
pub const MEMORY_BYTES_MIN: u64 = 192 * 1024 * 1024;

impl Counting {
    /// What a process can afford that may take `limit_bytes` of memory.
    pub fn within(limit_bytes: Option<u64>) -> Self {
        match limit_bytes {
            Some(..MEMORY_BYTES_MIN) => Self::Estimate,
            _ => Self::Vocabularies,
        }
    }

    /// Counts the tokens of `texts` as `model` would bill them for `operation`.
    ///
    /// Infallible, and blocking: up to about half a second, plus 0.1 to 0.5 s when a vocabulary is
    /// first needed, so call it from a thread that nothing else waits for. A side of which no text is
    /// known stays `None`; an answer that was seen whole and holds nothing is 0. Embeddings generate
    /// nothing, so their `output` is `None` and `total` is `input`, as upstreams report it.
    pub fn count(self, model: Option<&str>, operation: Operation, texts: &Countable) -> Usage {
        let tokenizer = Tokenizer::of(model);
        let encoding = (self == Self::Vocabularies).then_some(tokenizer.encoding);
        tally(&tokenizer, operation, texts, Tally::new(encoding))
    }
}

fn tally(
    tokenizer: &Tokenizer,
    operation: Operation,
    texts: &Countable,
    mut tally: Tally,
) -> Usage {
    let input = input_tokens(tokenizer, operation, texts, &mut tally);
    let output = output_tokens(tokenizer, operation, texts, &mut tally);
    let source = if tally.whole { UsageSource::Counted } else { UsageSource::Estimated };
    let mut usage = Usage::of(input, output, source);
    if operation == Operation::Embeddings {
        usage.total = input;
    }
    usage
}

/// Counts text after text within the caps, and remembers whether all of it was counted.
struct Tally {
    /// `None`: nothing is counted, all is estimated.
    encoding: Option<Encoding>,
    bytes_left: usize,
    bytes_counted: u64,
    tokens_counted: u64,
    whole: bool,
}

impl Tally {
    fn new(encoding: Option<Encoding>) -> Self {
        let bytes_left = EXCHANGE_BYTES_MAX;
        Self { encoding, bytes_left, bytes_counted: 0, tokens_counted: 0, whole: true }
    }

    /// Tokens of `text`, of which no more is counted than the caps allow.
    fn text(&mut self, text: &str) -> u64 {
        let limit = TEXT_BYTES_MAX.min(self.bytes_left);
        let (part, rest) = text.split_at(text.floor_char_boundary(limit));
        self.bytes_left -= part.len();
        let Some((tokens, whole)) = self.encoding.and_then(|encoding| encoding.count(part)) else {
            return self.estimate(text.len() as u64);
        };
        self.whole &= whole;
        self.bytes_counted += part.len() as u64;
        self.tokens_counted += tokens;
        if rest.is_empty() {
            return tokens;
        }
        self.whole = false;
        match part.len() as u64 {
            0 => self.estimate(rest.len() as u64),
            bytes => tokens + scaled(rest.len() as u64, tokens, bytes),
        }
    }

    /// An estimate for `bytes` that are not counted, by what was counted before.
    fn estimate(&mut self, bytes: u64) -> u64 {
        self.whole = false;
        match self.bytes_counted {
            0 => bytes.div_ceil(TOKEN_BYTES),
            counted => scaled(bytes, self.tokens_counted, counted),
        }
    }

    fn texts(&mut self, texts: &[String]) -> u64 {
        texts.iter().map(|text| self.text(text)).sum()
    }

    fn whole_only_if(&mut self, condition: bool) {
        self.whole &= condition;
    }
}

/// `bytes` at `tokens` for every `per_bytes`, rounded up; 128 bits, so that nothing overflows.
fn scaled(bytes: u64, tokens: u64, per_bytes: u64) -> u64 {
    let exact = (u128::from(bytes) * u128::from(tokens)).div_ceil(u128::from(per_bytes));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

fn input_tokens(
    tokenizer: &Tokenizer,
    operation: Operation,
    texts: &Countable,
    tally: &mut Tally,
) -> Option<u64> {
    tally.whole_only_if(!texts.input_truncated);
    if texts.turns.is_empty() && texts.input.is_empty() {
        return None;
    }
    let turns = framing::turns(tokenizer, &texts.turns, tally);
    let plain = match operation {
        Operation::Chat | Operation::Responses => framing::beside_turns(&texts.input, tally),
        _ => tally.texts(&texts.input),
    };
    Some(turns + plain)
}

fn output_tokens(
    tokenizer: &Tokenizer,
    operation: Operation,
    texts: &Countable,
    tally: &mut Tally,
) -> Option<u64> {
    if operation == Operation::Embeddings {
        return None;
    }
    tally.whole_only_if(!texts.output_truncated && !tokenizer.reasons);
    let unseen = texts.output.is_empty() && texts.output_truncated;
    (!unseen).then(|| tally.texts(&texts.output))
}

#[cfg(test)]
mod tests;
