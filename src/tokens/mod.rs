//! Counting tokens where the upstream reports none: bounded, linear, off the request path.
//!
//! A count is `counted` only where OpenAI's published tokenizer and framing rules say what the
//! upstream would have said. Everything else is `estimated`: models whose tokenizer is not published
//! (Anthropic's among them), text over a cap, cut bodies, framing that is nowhere documented, and
//! reasoning models, whose hidden tokens nobody outside can see.

mod encoding;
mod framing;

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

/// Counts the tokens of `texts` as `model` would bill them for `operation`.
///
/// Infallible, and blocking: up to about half a second, plus 0.1 to 0.5 s when a vocabulary is
/// first needed, so call it from a thread that nothing else waits for. A side of which no text is
/// known stays `None`; an answer that was seen whole and holds nothing is 0. Embeddings generate
/// nothing, so their `output` is `None` and `total` is `input`, as upstreams report it.
pub fn count(model: Option<&str>, operation: Operation, texts: &Countable) -> Usage {
    let tokenizer = Tokenizer::of(model);
    let mut tally = Tally::new(tokenizer.encoding, tokenizer.published);
    let input = input_tokens(&tokenizer, operation, texts, &mut tally);
    let output = output_tokens(&tokenizer, operation, texts, &mut tally);
    let source = if tally.exact { UsageSource::Counted } else { UsageSource::Estimated };
    let mut usage = Usage::of(input, output, source);
    if operation == Operation::Embeddings {
        usage.total = input;
    }
    usage
}

/// Loads the vocabulary that `model` needs (o200k: about 66 MB and 0.1 s; cl100k: half of that),
/// so that the first count does not pay for it.
pub fn preload(model: Option<&str>) {
    Tally::new(Tokenizer::of(model).encoding, true).text(" ");
}

/// Counts text after text within the caps, and remembers whether all of it was counted.
struct Tally {
    encoding: Encoding,
    bytes_left: usize,
    bytes_counted: u64,
    tokens_counted: u64,
    exact: bool,
}

impl Tally {
    fn new(encoding: Encoding, exact: bool) -> Self {
        let bytes_left = EXCHANGE_BYTES_MAX;
        Self { encoding, bytes_left, bytes_counted: 0, tokens_counted: 0, exact }
    }

    /// Tokens of `text`, of which no more is counted than the caps allow.
    fn text(&mut self, text: &str) -> u64 {
        let limit = TEXT_BYTES_MAX.min(self.bytes_left);
        let (part, rest) = text.split_at(text.floor_char_boundary(limit));
        self.bytes_left -= part.len();
        let Some((tokens, exact)) = self.encoding.count(part) else {
            return self.estimate(text.len() as u64);
        };
        self.exact &= exact;
        self.bytes_counted += part.len() as u64;
        self.tokens_counted += tokens;
        if rest.is_empty() {
            return tokens;
        }
        self.exact = false;
        match part.len() as u64 {
            0 => self.estimate(rest.len() as u64),
            bytes => tokens + scaled(rest.len() as u64, tokens, bytes),
        }
    }

    /// An estimate for `bytes` that are not counted, by what was counted before.
    fn estimate(&mut self, bytes: u64) -> u64 {
        self.exact = false;
        match self.bytes_counted {
            0 => bytes.div_ceil(TOKEN_BYTES),
            counted => scaled(bytes, self.tokens_counted, counted),
        }
    }

    fn texts(&mut self, texts: &[String]) -> u64 {
        texts.iter().map(|text| self.text(text)).sum()
    }

    fn exact_only_if(&mut self, condition: bool) {
        self.exact &= condition;
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
    tally.exact_only_if(!texts.input_truncated);
    if texts.turns.is_empty() && texts.input.is_empty() {
        return None;
    }
    let turns = framing::turns(tokenizer, &texts.turns, tally);
    // Only the framing of chat completions is documented.
    let documented = operation == Operation::Chat;
    tally.exact_only_if(documented || texts.turns.is_empty());
    let plain = match operation {
        Operation::Chat | Operation::Responses => {
            framing::beside_turns(tokenizer, &texts.input, tally)
        }
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
    tally.exact_only_if(!texts.output_truncated && !tokenizer.reasons);
    let unseen = texts.output.is_empty() && texts.output_truncated;
    (!unseen).then(|| tally.texts(&texts.output))
}

#[cfg(test)]
mod tests;
