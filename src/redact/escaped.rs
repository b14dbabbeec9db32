//! Text behind an encoding: escapes undone (`\u0073k-`, `sk%2D`, `&quot;`), and base64 read.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::{memchr, memchr3};

use super::find::{Finding, find, runs};
use crate::config::RedactKind;

/// `text` with every escape of a printable ASCII character undone, those of JSON, JavaScript, URLs and
/// HTML; `None` where it has none.
pub(super) fn unescaped(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut at = memchr3(b'%', b'\\', b'&', bytes)?;
    let (mut plain, mut from) = (None, 0);
    loop {
        match undone(&bytes[at..]) {
            Some((sign, len)) => {
                let plain: &mut String = plain.get_or_insert_default();
                plain.push_str(&text[from..at]);
                plain.push(char::from(sign));
                at += len;
                from = at;
            }
            None => at += 1,
        }
        match memchr3(b'%', b'\\', b'&', &bytes[at..]) {
            Some(next) => at += next,
            None => break,
        }
    }
    let mut plain = plain?;
    plain.push_str(&text[from..]);
    Some(plain)
}

/// The character that the escape at the beginning of `bytes` stands for, and the escape's length.
fn undone(bytes: &[u8]) -> Option<(u8, usize)> {
    let number = |from: usize, len: usize, radix: u32| {
        let digits = std::str::from_utf8(bytes.get(from..from + len)?).ok()?;
        let plain = digits.bytes().all(|digit| digit.is_ascii_alphanumeric());
        let sign = plain.then(|| u8::from_str_radix(digits, radix).ok())??;
        (sign.is_ascii_graphic() || sign == b' ').then_some(sign)
    };
    match bytes {
        [b'%', ..] => Some((number(1, 2, 16)?, 3)),
        [b'\\', b'u', b'0', b'0', ..] => Some((number(4, 2, 16)?, 6)),
        [b'\\', b'x', ..] => Some((number(2, 2, 16)?, 4)),
        [b'&', b'#', b'x' | b'X', ..] => {
            let len = digits_before_semicolon(&bytes[3..])?;
            Some((number(3, len, 16)?, len + 4))
        }
        [b'&', b'#', ..] => {
            let len = digits_before_semicolon(&bytes[2..])?;
            Some((number(2, len, 10)?, len + 3))
        }
        [b'&', ..] => NAMED.iter().find_map(|(name, sign)| {
            bytes[1..].starts_with(name.as_bytes()).then_some((*sign, name.len() + 1))
        }),
        _ => None,
    }
}

/// HTML's names of characters that stand around and in credentials.
const NAMED: &[(&str, u8)] =
    &[("quot;", b'"'), ("apos;", b'\''), ("amp;", b'&'), ("lt;", b'<'), ("gt;", b'>')];

/// Zeros may stand before an HTML escape's number.
const HTML_DIGITS_MAX: usize = 7;

fn digits_before_semicolon(bytes: &[u8]) -> Option<usize> {
    let most = bytes.get(..bytes.len().min(HTML_DIGITS_MAX + 1))?;
    memchr(b';', most).filter(|len| *len > 0)
}

/// The shortest base64 of what can be found.
pub(super) const BASE64_BYTES_MIN: usize = 24;

/// Adds each run of base64 that reads as text in which something of `kinds` is found. What is decoded is
/// searched in the same way: each layer is a quarter shorter, so that all of them cost a few times the text.
pub(super) fn find_in_base64(kinds: &[RedactKind], text: &str, found: &mut Vec<Finding>) {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
    for run in runs(text.as_bytes(), BASE64_BYTES_MIN, part) {
        let kind = gravest(kinds, &text[run.clone()]);
        found.extend(kind.map(|kind| Finding::new(kind, run.start, run.end)));
    }
}

/// The first kind found in what `run` stands for, as a whole or, in a path, in its last part.
fn gravest(kinds: &[RedactKind], run: &str) -> Option<RedactKind> {
    let whole = read(run).or_else(|| read(run.rsplit('/').next()?))?;
    find(kinds, &whole).into_iter().map(|finding| finding.kind).next()
}

/// `run` decoded, if that is text; of one that was cut, as much as there is.
fn read(run: &str) -> Option<String> {
    let alphabet = if run.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let settings = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let whole = run.len() - usize::from(run.len() % 4 == 1);
    let mut bytes = GeneralPurpose::new(alphabet, settings).decode(run.get(..whole)?).ok()?;
    if let Err(error) = std::str::from_utf8(&bytes) {
        // A character that was cut in two ends it.
        let valid = error.error_len().is_none().then_some(error.valid_up_to())?;
        bytes.truncate(valid);
    }
    let text = String::from_utf8(bytes).ok()?;
    let readable = |byte: u8| byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r');
    text.bytes().all(readable).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_what_is_none_stays() {
        let cases = [
            (r"\u0073\u006b-a", Some("sk-a")),
            (r"\x73k", Some("sk")),
            ("a%2Db%20c%zz%", Some("a-b c%zz%")),
            ("&quot;k&quot;&#58;&#x41;&amp;", Some("\"k\":A&")),
            (r"\u00e9 \n \\ 100% & &#; &#xFFFFFFFFF; %0A \u12", None),
            ("é%41é", Some("éAé")),
            ("plain", None),
        ];
        for (text, expected) in cases {
            assert_eq!(unescaped(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn base64_that_reads_as_a_secret_is_found_whole() {
        let kinds = [RedactKind::Secret];
        let secret = "the key is sk-abcdefghijklmnop1234 é";
        let once = base64::engine::general_purpose::STANDARD.encode(secret);
        let twice = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&once);
        let plain = base64::engine::general_purpose::STANDARD.encode("nothing to be found in here");
        for (run, is_found) in [(&once, true), (&twice, true), (&plain, false)] {
            for text in [format!("x {run}, y"), run.clone(), format!("/a/b/{run}")] {
                let mut found = Vec::new();
                find_in_base64(&kinds, &text, &mut found);
                assert_eq!(!found.is_empty(), is_found, "{text}");
            }
        }
    }
}
