//! The common vocabularies: their tables, packed by `build.rs`, and the patterns that cut a text into the
//! pieces within which tokens lie. Each is unpacked when it is first needed, which takes 0.1 to 0.2 s and
//! leaves 30 MiB (o200k) or 15 MiB (cl100k) in memory, the patterns' automata included.
//!
//! The tables hold what counting needs and nothing else: no token can be encoded or decoded with them.

use std::sync::LazyLock;

use bpe_openai::Tokenizer;

const O200K_PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/o200k.tables"));
const CL100K_PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cl100k.tables"));

/// More than the larger one takes once it is unpacked.
const UNPACKED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Patterns as tiktoken has them (`tiktoken_ext/openai_public.py`), first match first. Its
/// `\s+(?!\S)` is `\s+$` here, and the two that are tried after all others.
const O200K_PIECES: [&str; 6] = [
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+$",
];
const CL100K_PIECES: [&str; 6] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    r"\s+$",
];
/// White space before something visible: all but its last character, then that.
const SPACES_BEFORE: (&str, bool) = (r"\s+\s", true);
const SPACES: (&str, bool) = (r"\s+", false);

static O200K: LazyLock<Option<Tokenizer>> = LazyLock::new(|| tokenizer(O200K_PACKED, O200K_PIECES));
static CL100K: LazyLock<Option<Tokenizer>> =
    LazyLock::new(|| tokenizer(CL100K_PACKED, CL100K_PIECES));

/// Tokens of `text` by `o200k_base`. `None` if its tables cannot be read, which a test rules out.
pub(super) fn o200k(text: &str) -> Option<u64> {
    O200K.as_ref().map(|tokenizer| tokenizer.count(text) as u64)
}

/// Tokens of `text` by `cl100k_base`, as [`o200k`].
pub(super) fn cl100k(text: &str) -> Option<u64> {
    CL100K.as_ref().map(|tokenizer| tokenizer.count(text) as u64)
}

fn tokenizer(packed: &[u8], pieces: [&str; 6]) -> Option<Tokenizer> {
    let tables = zstd::bulk::decompress(packed, UNPACKED_BYTES_MAX).ok()?;
    let tables = rmp_serde::from_slice(&tables).ok()?;
    let pieces = pieces.join("|");
    Tokenizer::new_lookahead(tables, &[(&pieces, false), SPACES_BEFORE, SPACES], false).ok()
}
