//! A reader of JSON texts for serde that passes over strings in stretches and borrows them where they
//! stand. It accepts what serde_json accepts, and asks it about whatever is rare: escapes, and numbers
//! that are no small counts.
//!
//! Why it exists: most bytes of a body are a few long strings. serde_json looks at eight of their bytes
//! at a time, this at 32, which is a third of what reading an exchange's figures costs.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::json::{NAME_BYTES_MAX, NODES_MAX};
use crate::domain::bytes::{string_end, string_len};

/// Where only figures are wanted, a string with escapes is read to here.
const STRING_BYTES_MAX: usize = 2048;
/// What is read of a longer one: more than any name that is looked for.
const KEPT_BYTES: usize = 4 * NAME_BYTES_MAX;
/// Digits of a number that surely fits 64 bits.
const DIGITS_MAX: usize = 18;

/// Reads the one value that `text` is, as serde_json would.
pub(super) fn whole<'de, T: serde::Deserialize<'de>>(text: &'de str) -> Option<T> {
    let mut skim = Skim { text, at: 0, is_brief: false, nodes: 1 };
    let value = T::deserialize(&mut skim).ok()?;
    skim.end()?;
    Some(value)
}

/// As [`whole`], by a seed, up to the number of values that a body may have; and of long strings with escapes only the beginning is told; all of them is
/// checked by the rules of JSON.
pub(super) fn brief<'de, S: DeserializeSeed<'de>>(text: &'de str, seed: S) -> Option<S::Value> {
    let mut skim = Skim { text, at: 0, is_brief: true, nodes: 1 };
    let value = seed.deserialize(&mut skim).ok()?;
    skim.end()?;
    Some(value)
}

/// The text is not JSON, or not what its reader can take.
#[derive(Debug)]
pub(super) struct Unreadable;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unreadable")
    }
}

impl std::error::Error for Unreadable {}

impl serde::de::Error for Unreadable {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

struct Skim<'de> {
    text: &'de str,
    at: usize,
    is_brief: bool,
    /// Values so far, as [`within_limits`](super::json::within_limits) counts them.
    nodes: usize,
}

impl<'de> Skim<'de> {
    /// The next byte that is no blank; it stays where it is.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        loop {
            let byte = *bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// One value more, whose first byte is passed over.
    fn node(&mut self) -> Result<(), Unreadable> {
        self.at += 1;
        self.nodes += 1;
        if self.nodes > NODES_MAX { Err(Unreadable) } else { Ok(()) }
    }

    /// Nothing but blanks follows.
    fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    fn word(&mut self, word: &str) -> Result<(), Unreadable> {
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += word.len();
        if found { Ok(()) } else { Err(Unreadable) }
    }

    /// The string whose opening quote is next.
    fn string(&mut self) -> Result<Cow<'de, str>, Unreadable> {
        let start = self.at + 1;
        let bytes = &self.text.as_bytes()[start..];
        let len = string_len(bytes).ok_or(Unreadable)?;
        let end = start + len;
        match bytes[len] {
            b'"' => {
                self.at = end + 1;
                Ok(Cow::Borrowed(&self.text[start..end]))
            }
            b'\\' => self.escaped(start),
            _ => Err(Unreadable),
        }
    }

    /// The string with escapes that begins at `start`.
    fn escaped(&mut self, start: usize) -> Result<Cow<'de, str>, Unreadable> {
        let bytes = self.text.as_bytes();
        self.at = string_end(bytes, start - 1).ok_or(Unreadable)?;
        let end = self.at - 1;
        if self.is_brief
            && end - start > STRING_BYTES_MAX
            && let Some((said, cut)) = beginning(self.text, start)
            && is_sound(&bytes[cut..end])
        {
            return Ok(Cow::Owned(said));
        }
        let quoted = &self.text[start - 1..=end];
        serde_json::from_str(quoted).map(Cow::Owned).map_err(|_| Unreadable)
    }

    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Unreadable> {
        let rest = &self.text.as_bytes()[self.at..];
        let is_part =
            |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
        let len = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        let text = &self.text[self.at..self.at + len];
        self.at += len;
        tell_number(text, visitor)
    }
}

/// Tells what number `text` is.
pub(super) fn tell_number<'de, V: Visitor<'de>>(
    text: &'de str,
    visitor: V,
) -> Result<V::Value, Unreadable> {
    let (digits, len) = (text.as_bytes(), text.len());
    let is_count = (1..=DIGITS_MAX).contains(&len) && digits.iter().all(u8::is_ascii_digit);
    if is_count && (digits[0] != b'0' || len == 1) {
        let count = digits.iter().fold(0, |sum: u64, digit| sum * 10 + u64::from(digit - b'0'));
        return visitor.visit_u64(count);
    }
    let mut number = serde_json::Deserializer::from_str(text);
    let told = number.deserialize_any(visitor).map_err(|_| Unreadable)?;
    number.end().map(|()| told).map_err(|_| Unreadable)
}

impl<'de> Deserializer<'de> for &mut Skim<'de> {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        match self.peek().ok_or(Unreadable)? {
            b'"' => match self.string()? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            b'{' => {
                self.node()?;
                let mut parts = Parts { skim: self, any: false, end: b'}', over: false };
                let value = visitor.visit_map(&mut parts)?;
                if parts.over { Ok(value) } else { Err(Unreadable) }
            }
            b'[' => {
                self.node()?;
                let mut parts = Parts { skim: self, any: false, end: b']', over: false };
                let value = visitor.visit_seq(&mut parts)?;
                if parts.over { Ok(value) } else { Err(Unreadable) }
            }
            b'n' => self.word("null").and_then(|()| visitor.visit_unit()),
            b't' => self.word("true").and_then(|()| visitor.visit_bool(true)),
            b'f' => self.word("false").and_then(|()| visitor.visit_bool(false)),
            b'-' | b'0'..=b'9' => self.number(visitor),
            _ => Err(Unreadable),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The members or elements of a container that was opened.
struct Parts<'s, 'de> {
    skim: &'s mut Skim<'de>,
    any: bool,
    end: u8,
    over: bool,
}

impl Parts<'_, '_> {
    /// Moves to the next part; false behind the last.
    fn next(&mut self) -> Result<bool, Unreadable> {
        let byte = self.skim.peek().ok_or(Unreadable)?;
        if byte == self.end {
            self.skim.at += 1;
            self.over = true;
            return Ok(false);
        }
        if std::mem::replace(&mut self.any, true) {
            if byte != b',' {
                return Err(Unreadable);
            }
            self.skim.node()?;
        }
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for &mut Parts<'_, 'de> {
    type Error = Unreadable;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unreadable> {
        if self.next()? { seed.deserialize(&mut *self.skim).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for &mut Parts<'_, 'de> {
    type Error = Unreadable;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unreadable> {
        if !self.next()? {
            return Ok(None);
        }
        match self.skim.peek() {
            Some(b'"') => seed.deserialize(&mut *self.skim).map(Some),
            _ => Err(Unreadable),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, Unreadable> {
        match self.skim.peek() {
            Some(b':') => self.skim.at += 1,
            _ => return Err(Unreadable),
        }
        seed.deserialize(&mut *self.skim)
    }
}

/// By the least of the bytes: processors find that of sixteen in one instruction.
fn has_control(bytes: &[u8]) -> bool {
    bytes.iter().fold(u8::MAX, |least, byte| least.min(*byte)) < 0x20
}

/// The beginning of the long string that starts at `start`, and where it was cut: between characters and
/// between escapes, past something that is no blank, so that what is trimmed off stays known.
fn beginning(text: &str, start: usize) -> Option<(String, usize)> {
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
    (!said.trim().is_empty()).then_some((said, start + safe))
}

/// True for the rest of a string without anything that JSON forbids in one. Escapes for half a character
/// (surrogates) are left to serde_json.
fn is_sound(rest: &[u8]) -> bool {
    let mut at = 0;
    while let Some(escape) = memchr(b'\\', &rest[at..]).map(|found| at + found) {
        let len = match rest.get(escape + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') if rest.get(escape + 2..escape + 6).is_some_and(is_character) => 6,
            _ => return false,
        };
        at = escape + len;
    }
    !has_control(rest)
}

/// True for four hexadecimal digits of a whole character.
fn is_character(digits: &[u8]) -> bool {
    let surrogate = matches!(digits, [b'd' | b'D', b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F', ..]);
    digits.iter().all(u8::is_ascii_hexdigit) && !surrogate
}

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn as_figures_are(text: &str) -> Option<Value> {
        brief(text, PhantomData::<Value>)
    }

    /// An object with strings that are long.
    fn long(unit: &str) -> String {
        let text = unit.repeat(2 * STRING_BYTES_MAX / unit.len());
        format!("{{\"model\": \"m\", \"a\": \"{text}\", \"n\": [1, \"{text}\"]}}")
    }

    #[test]
    fn of_long_strings_with_escapes_only_the_beginning_is_read() {
        for unit in ["a\\n", "\\\\", "\\\"x", "ab\\/", "\\u00e9", "é\u{1f389}\\t"] {
            let text = long(unit);
            let (cut, all) = (as_figures_are(&text).expect("JSON"), whole(&text));
            let all: Value = all.expect("JSON");
            assert_eq!((&cut["model"], &cut["n"][0]), (&all["model"], &all["n"][0]));
            let (cut, all) = (cut["a"].as_str().expect("text"), all["a"].as_str().expect("text"));
            assert!(all.starts_with(cut) && cut.len() >= NAME_BYTES_MAX, "{unit}");
            assert!(cut.len() <= KEPT_BYTES, "{unit}");
        }
        let plain = long("plain ");
        assert_eq!(as_figures_are(&plain), serde_json::from_str(&plain).ok());
    }

    #[test]
    fn what_json_forbids_is_forbidden_in_long_strings_too() {
        for unit in ["a\\n\u{1}b", "a\\n\\x", "ab\\u00g1", "\\ud83c", "a\\nb\n", "\u{1}"] {
            assert_eq!(as_figures_are(&long(unit)), None, "{unit:?}");
        }
        assert_eq!(as_figures_are(&long("ab\\n")[..5000]), None);
    }

    #[test]
    fn as_many_values_are_read_as_a_body_may_have() {
        let list = |count: usize| format!("[0{}]", ",0".repeat(count - 1));
        for count in [NODES_MAX - 2, NODES_MAX - 1, NODES_MAX, NODES_MAX + 1] {
            let text = list(count);
            let within = super::super::json::within_limits(text.as_bytes());
            assert_eq!(as_figures_are(&text).is_some(), within, "{count}");
        }
    }

    proptest! {
        /// Whatever text: what is read is what serde_json reads, and what it refuses is refused.
        #[test]
        fn it_reads_what_serde_json_reads(
            parts in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"b\":", "\"a\\n\"", "\"\\ud83c\\udf89\"", "\"\\ud83c\"",
                "\"\\x\"", "\"\u{1}\"", "\"é\u{1f389}\"", "null", "true", "false", "nul", "0", "-0", "01", "12", "-1",
                "1.5", "1.", "1e5", "1e999", "18446744073709551615", "18446744073709551616", "999999999999999999",
                "-9223372036854775809", "+1", ".5", "1-2", " ", "\n", "\t", "\u{a0}", "\\", "{}", "[]", "[1]", "{\"a\":1}",
            ]), 0..12),
        ) {
            let text = parts.concat();
            prop_assert_eq!(whole::<Value>(&text), serde_json::from_str::<Value>(&text).ok(), "{}", text);
        }

        #[test]
        fn it_reads_json_of_any_shape(value in json(), spaced in any::<bool>()) {
            let text = if spaced { format!("{value:#}") } else { value.to_string() };
            let (ours, theirs) = (whole::<Value>(&text), serde_json::from_str::<Value>(&text).ok());
            prop_assert_eq!(&ours, &theirs);
            let bytes = text.as_bytes();
            for cut in [bytes.len() / 3, bytes.len() - 1] {
                let text = String::from_utf8_lossy(&bytes[..cut]);
                prop_assert_eq!(whole::<Value>(&text), serde_json::from_str(&text).ok());
            }
        }

        #[test]
        fn strings_are_judged_alike_wherever_their_escapes_are(
            units in prop::collection::vec("[a \\\\\"nu0/é\u{1f389}]{1,12}", 1..6),
            before in 0_usize..3000,
        ) {
            let inner = units.concat().repeat(300);
            let text = format!("{{\"a\": \"{}{inner}\", \"b\": 1}}", "x".repeat(before));
            let (all, cut) = (serde_json::from_str::<Value>(&text).ok(), as_figures_are(&text));
            prop_assert_eq!(all.is_some(), cut.is_some());
            if let (Some(all), Some(cut)) = (all, cut) {
                prop_assert_eq!(&all["b"], &cut["b"]);
                let (all, cut) = (all["a"].as_str(), cut["a"].as_str());
                prop_assert!(all.zip(cut).is_none_or(|(all, cut)| all.starts_with(cut)));
            }
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }
}
