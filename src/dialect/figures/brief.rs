//! A large JSON text with the ends of its long strings left out: no figure stands there, and what reads
//! JSON looks at every byte of a string, at several times the cost of passing over it.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use crate::dialect::json::NAME_BYTES_MAX;

/// Shorter texts are read as they are.
const TEXT_BYTES_MIN: usize = 16 << 10;
/// Strings up to here stay whole.
const STRING_BYTES_MAX: usize = 2048;
/// What is left of a longer one: more than any name that is looked for.
const KEPT_BYTES: usize = 4 * NAME_BYTES_MAX;

/// `text` with each long string cut. What is left out is checked by the rules of JSON; where it may break
/// one, the text is given back as it is, for the reader to judge.
pub(super) fn brief(text: &str) -> Cow<'_, str> {
    if text.len() < TEXT_BYTES_MIN {
        return Cow::Borrowed(text);
    }
    shortened(text).map_or(Cow::Borrowed(text), Cow::Owned)
}

/// `None` where nothing is long, or not surely a string.
fn shortened(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let (mut out, mut taken, mut at) = (String::new(), 0, 0);
    while let Some(quote) = memchr(b'"', &bytes[at..]) {
        let start = at + quote + 1;
        let end = string_end(bytes, start)?;
        if end - start > STRING_BYTES_MAX {
            let cut = cut(text, start)?;
            is_sound(&bytes[cut..end]).then_some(())?;
            out.push_str(&text[taken..cut]);
            taken = end;
        }
        at = end + 1;
    }
    out.push_str(&text[taken..]);
    (taken > 0).then_some(out)
}

/// Where the string that begins at `start` ends: at its closing quote.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let found = at + memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[found] == b'"' {
            return Some(found);
        }
        at = found + 2;
    }
}

/// Where a long string can be cut: between characters and between escapes, past something that is no
/// blank, so that what is trimmed off its beginning stays known.
fn cut(text: &str, start: usize) -> Option<usize> {
    let kept = &text[start..text.floor_char_boundary(start + KEPT_BYTES)];
    let mut safe = kept.len();
    let mut at = 0;
    while let Some(escape) = memchr(b'\\', &kept.as_bytes()[at..]).map(|found| at + found) {
        let len = if kept.as_bytes().get(escape + 1) == Some(&b'u') { 6 } else { 2 };
        // The halves of a surrogate pair stay together: the cut is before both.
        if escape + 2 * len > kept.len() {
            safe = escape;
            break;
        }
        at = escape + len;
    }
    let said: String = serde_json::from_str(&format!("\"{}\"", &kept[..safe])).ok()?;
    (!said.trim().is_empty()).then_some(start + safe)
}

/// True for the rest of a string without anything that JSON forbids in one. Escapes for half a character
/// (surrogates) are left to the reader.
fn is_sound(rest: &[u8]) -> bool {
    let controls = rest.iter().fold(0_u8, |any, byte| any | u8::from(*byte < 0x20));
    let mut at = 0;
    while let Some(escape) = memchr(b'\\', &rest[at..]).map(|found| at + found) {
        let len = match rest.get(escape + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') if rest.get(escape + 2..escape + 6).is_some_and(is_character) => 6,
            _ => return false,
        };
        at = escape + len;
    }
    controls == 0
}

/// True for four hexadecimal digits of a whole character.
fn is_character(digits: &[u8]) -> bool {
    let surrogate = matches!(digits, [b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F', ..]);
    digits.iter().all(u8::is_ascii_hexdigit) && !surrogate
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// A string of a text that is long enough to be cut.
    fn long(unit: &str) -> String {
        let text = unit.repeat(TEXT_BYTES_MIN / unit.len() + 1);
        format!("{{\"model\": \"m\", \"a\": \"{text}\", \"n\": [1, \"{text}\"]}}")
    }

    #[test]
    fn long_strings_are_cut_and_the_rest_stays() {
        for unit in ["plain ", "é\u{1f389}", "a\\n", "\\\\", "\\\"x", "ab\\/", "\\u00e9"] {
            let text = long(unit);
            let brief = brief(&text);
            assert!(brief.len() < 5000, "{unit}: {}", brief.len());
            let (cut, whole): (Value, Value) = (
                serde_json::from_str(&brief).expect("JSON"),
                serde_json::from_str(&text).expect("JSON"),
            );
            assert_eq!(cut["model"], whole["model"]);
            assert_eq!(cut["n"][0], whole["n"][0]);
            let (cut, whole) =
                (cut["a"].as_str().expect("text"), whole["a"].as_str().expect("text"));
            assert!(whole.starts_with(cut) && cut.len() >= NAME_BYTES_MAX, "{unit}");
        }
    }

    #[test]
    fn what_may_be_wrong_is_left_to_the_reader() {
        for unit in ["a\u{1}b", "a\\x", "ab\\u00g1", "\\ud83c", "ab\n", "   "] {
            let text = long(unit);
            assert!(matches!(brief(&text), Cow::Borrowed(_)), "{unit:?}");
        }
        let unfinished = format!("{{\"a\": \"{}", "x".repeat(TEXT_BYTES_MIN));
        assert!(matches!(brief(&unfinished), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn a_brief_text_is_json_where_the_text_is(
            units in prop::collection::vec("[a \\\\\"nu0/é\u{1f389}]{1,12}", 1..6),
            before in 0_usize..3000,
        ) {
            let inner = units.concat().repeat(2000);
            let text = format!("{{\"a\": \"{}{inner}\", \"b\": 1}}", "x".repeat(before));
            let whole: Result<Value, _> = serde_json::from_str(&text);
            let cut: Result<Value, _> = serde_json::from_str(&brief(&text));
            prop_assert_eq!(whole.is_ok(), cut.is_ok());
            if let (Ok(whole), Ok(cut)) = (whole, cut) {
                prop_assert_eq!(&whole["b"], &cut["b"]);
                let (whole, cut) = (whole["a"].as_str(), cut["a"].as_str());
                prop_assert!(whole.zip(cut).is_none_or(|(whole, cut)| whole.starts_with(cut)));
            }
        }
    }
}
