//! Looking for single bytes in texts.

use memchr::memchr2;

/// Bytes looked at together.
const STRETCH: usize = 32;

/// Where the first byte that `is` means stands, from `from` on; stretches without one are passed over
/// many bytes at a time, since compilers make a few wide instructions of the loop.
pub fn position(bytes: &[u8], from: usize, is: impl Fn(u8) -> bool) -> Option<usize> {
    let rest = bytes.get(from..)?;
    // Of a length that is known when compiled: else the loop is one byte at a time.
    let (pieces, _) = rest.as_chunks::<STRETCH>();
    let has = |piece: &[u8; STRETCH]| piece.iter().fold(0, |any, b| any | u8::from(is(*b))) != 0;
    let passed = pieces.iter().take_while(|piece| !has(piece)).count() * STRETCH;
    rest[passed..].iter().position(|byte| is(*byte)).map(|index| from + passed + index)
}

/// Bytes looked at together as one number.
const WORD: usize = 8;
/// Words that hold most names.
const FEW_WORDS: usize = 2;
/// So many are looked at word by word, before a search for long stretches begins.
const SHORT: usize = 4 * WORD;

/// Where the first byte stands that [`is_escaped`] means.
#[inline]
pub fn first_escaped(bytes: &[u8]) -> Option<usize> {
    among_few(bytes).unwrap_or_else(|from| position(bytes, from, is_escaped))
}

/// As [`first_escaped`], for what stands behind the opening quote of a string in JSON: quicker where that
/// is long, and slower than it where a control character stands in it, which JSON forbids.
#[inline]
pub fn string_len(bytes: &[u8]) -> Option<usize> {
    // Names are short, and so are most texts: they end in the first words, more of the text follows.
    let (words, _) = bytes.as_chunks::<WORD>();
    for (nth, word) in words.iter().take(FEW_WORDS).enumerate() {
        let found = escaped_in(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(nth * WORD + found.trailing_zeros() as usize / 8);
        }
    }
    long_string_len(bytes)
}

fn long_string_len(bytes: &[u8]) -> Option<usize> {
    among_few(bytes).unwrap_or_else(|from| {
        let end = memchr2(b'"', b'\\', &bytes[from..]).map_or(bytes.len(), |at| from + at);
        // By the least of the bytes: processors find that of sixteen in one instruction.
        let least = bytes[from..end].iter().fold(u8::MAX, |least, byte| least.min(*byte));
        match least {
            ..0x20 => position(bytes, from, is_escaped),
            _ => (end < bytes.len()).then_some(end),
        }
    })
}

/// The offset past the JSON string that opens at `at`; `None` where it does not end.
pub fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        let found = at + memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[found] == b'"' {
            return Some(found + 1);
        }
        at = found + 2;
    }
}

/// The first among the first few bytes; else where to go on.
fn among_few(bytes: &[u8]) -> Result<Option<usize>, usize> {
    let (words, _) = bytes[..bytes.len().min(SHORT)].as_chunks::<WORD>();
    for (nth, word) in words.iter().enumerate() {
        let found = escaped_in(u64::from_le_bytes(*word));
        if found != 0 {
            return Ok(Some(nth * WORD + found.trailing_zeros() as usize / 8));
        }
    }
    let from = words.len() * WORD;
    if bytes.len() >= SHORT {
        return Err(from);
    }
    // The last bytes at once, and some before them once more.
    if bytes.last_chunk().is_some_and(|word| escaped_in(u64::from_le_bytes(*word)) == 0) {
        return Ok(None);
    }
    Ok(bytes[from..].iter().position(|byte| is_escaped(*byte)).map(|at| from + at))
}

/// The high bit of the first byte that [`is_escaped`] means, 0 without one; bits above it say nothing. By the test for a
/// byte that is zero of Mycroft, 1987.
fn escaped_in(word: u64) -> u64 {
    let each = |byte: u8| u64::from_ne_bytes([byte; WORD]);
    let is_zero = |word: u64| word.wrapping_sub(each(1)) & !word;
    let is_control = word.wrapping_sub(each(0x20)) & !word;
    (is_zero(word ^ each(b'"')) | is_zero(word ^ each(b'\\')) | is_control) & each(0x80)
}

/// True for what does not stand for itself in a string of JSON (RFC 8259, section 7).
pub const fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_that_is_escaped_is_found(
            before in 0_usize..80, text in "[a\u{7f}\u{a0}é\"\\\\\u{0}\u{1f} !]{0,40}",
        ) {
            let bytes = ["x".repeat(before).as_bytes(), text.as_bytes()].concat();
            let expected = bytes.iter().position(|byte| is_escaped(*byte));
            prop_assert_eq!((first_escaped(&bytes), string_len(&bytes)), (expected, expected));
        }
    }

    #[test]
    fn a_byte_is_found_wherever_it_is() {
        for before in [0, 1, 31, 32, 33, 63, 64, 1000] {
            let text = format!("{}7{}", "x".repeat(before), "y".repeat(before));
            let place = |from| position(text.as_bytes(), from, |byte| byte.is_ascii_digit());
            assert_eq!((place(0), place(before)), (Some(before), Some(before)));
            assert_eq!((place(before + 1), place(text.len() + 1)), (None, None));
        }
    }
}
