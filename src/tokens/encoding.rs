//! Which vocabulary a model uses, and counting with it: tiktoken-rs maps names to vocabularies and counts
//! with the rare ones, `vocabulary` with the common ones, linearly and without a panic (tiktoken-rs
//! panics on a megabyte of spaces).

use std::panic::{AssertUnwindSafe, catch_unwind};

use tiktoken_rs::tokenizer::{Tokenizer as Published, get_tokenizer};

use super::vocabulary;

/// A vocabulary of OpenAI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// gpt-4o and later; also gpt-oss, whose `o200k_harmony` differs in special tokens only.
    O200k,
    /// gpt-4, gpt-3.5-turbo and the embeddings.
    Cl100k,
    /// Codex and text-davinci-002 and -003; the edit models differ in special tokens only.
    P50k,
    /// GPT-2 and GPT-3.
    R50k,
}

/// How a model's text is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tokenizer {
    /// The vocabulary; `O200k` for a model that nothing is published about.
    pub(super) encoding: Encoding,
    /// The model thinks in tokens that are billed and never shown.
    pub(super) reasons: bool,
    /// The model's name in lower case, without a router's prefix.
    pub(super) name: String,
}

impl Tokenizer {
    /// The tokenizer of `model`, named as OpenAI, Azure OpenAI or a router names it.
    pub(super) fn of(model: Option<&str>) -> Self {
        let name = plain_name(model.unwrap_or_default());
        let encoding = match get_tokenizer(&name) {
            Some(Published::Cl100kBase) => Encoding::Cl100k,
            Some(Published::P50kBase | Published::P50kEdit) => Encoding::P50k,
            Some(Published::R50kBase | Published::Gpt2) => Encoding::R50k,
            Some(Published::O200kBase | Published::O200kHarmony) | None => Encoding::O200k,
        };
        let reasons = REASONING.iter().any(|family| name.starts_with(family));
        Self { encoding, reasons, name }
    }
}

/// Families that report hidden reasoning tokens as output:
/// <https://platform.openai.com/docs/guides/reasoning>.
const REASONING: &[&str] = &["o1", "o3", "o4", "gpt-5", "gpt-oss", "codex-mini"];

/// Prefixes that routers (OpenRouter, LiteLLM) put before OpenAI's own names.
const ROUTERS: &[&str] = &["openai/", "azure/", "azure_ai/"];

/// Longer names are nobody's model; cut, so that a hostile one costs nothing.
const NAME_BYTES_MAX: usize = 128;

fn plain_name(model: &str) -> String {
    let name = model.trim();
    let name = name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_ascii_lowercase();
    let bare = ROUTERS.iter().find_map(|router| name.strip_prefix(router));
    bare.map_or(name.clone(), str::to_owned)
}

impl Encoding {
    /// Tokens of `text`, special tokens' names counted as text, and whether the figure is exact.
    /// `None` if the tokenizer panicked or its tables cannot be read.
    pub(super) fn count(self, text: &str) -> Option<(u64, bool)> {
        guarded(|| self.count_unguarded(text))
    }

    fn count_unguarded(self, text: &str) -> Option<(u64, bool)> {
        match self {
            Self::O200k => vocabulary::o200k(text).map(exact),
            Self::Cl100k => vocabulary::cl100k(text).map(exact),
            Self::P50k => Some(in_pieces(tiktoken_rs::p50k_base_singleton(), text)),
            Self::R50k => Some(in_pieces(tiktoken_rs::r50k_base_singleton(), text)),
        }
    }
}

fn exact(tokens: u64) -> (u64, bool) {
    (tokens, true)
}

/// `None` where `count` panicked: counters hold no state that a panic could leave half changed.
fn guarded(count: impl FnOnce() -> Option<(u64, bool)>) -> Option<(u64, bool)> {
    catch_unwind(AssertUnwindSafe(count)).ok().flatten()
}

/// Bytes of one call into tiktoken-rs: its regular expressions fail on a megabyte of spaces, and
/// its merge slows down with the length of a run.
const PIECE_BYTES_MAX: usize = 16 * 1024;

fn in_pieces(bpe: &tiktoken_rs::CoreBPE, text: &str) -> (u64, bool) {
    let (mut rest, mut tokens, mut exact) = (text, 0, true);
    while !rest.is_empty() {
        let (cut, clean) = cut(rest);
        let (piece, after) = rest.split_at(cut);
        tokens += bpe.encode_ordinary(piece).len() as u64;
        exact &= clean;
        rest = after;
    }
    (tokens, exact)
}

/// Where the next piece ends, and whether a token can lie across that place: never before a single
/// space between two visible ASCII characters, since all vocabularies split there.
fn cut(text: &str) -> (usize, bool) {
    if text.len() <= PIECE_BYTES_MAX {
        return (text.len(), true);
    }
    let bytes = text.as_bytes();
    let single = |i: &usize| {
        bytes[*i] == b' ' && bytes[i - 1].is_ascii_graphic() && bytes[i + 1].is_ascii_graphic()
    };
    match (PIECE_BYTES_MAX / 2..PIECE_BYTES_MAX).rev().find(single) {
        Some(at) => (at, true),
        None => (text.floor_char_boundary(PIECE_BYTES_MAX), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_contained() {
        assert_eq!(guarded(|| Some((3, true))), Some((3, true)));
        assert_eq!(guarded(|| panic!("as tiktoken-rs does on a megabyte of spaces")), None);
    }

    #[test]
    fn a_cut_prefers_a_single_space_between_words() {
        let text = format!("{} {}", "x".repeat(10_000), "y".repeat(10_000));
        assert_eq!(cut(&text), (10_000, true));
        let run = "é".repeat(PIECE_BYTES_MAX);
        assert_eq!(cut(&format!("a{run}")), (PIECE_BYTES_MAX - 1, false), "on a character");
    }
}
