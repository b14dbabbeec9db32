//! Text behind an encoding: escapes undone (`\u0073k-`, `sk%2D`, `&quot;`), base64 read, and what is not seen
//! left out: characters without width, and the codes by which a terminal colours.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use memchr::{memchr, memchr3};

use super::find::{Finding, find, runs};
use crate::config::RedactKind;

/// `text` without what nobody sees; `None` where it has nothing of that. In what is written in ASCII, one scan.
pub(super) fn visible(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let (mut plain, mut from, mut at): (Option<String>, _, _) = (None, 0, 0);
    while let Some(found) = next_unseen(&bytes[at..]) {
        at += found;
        match unseen(&bytes[at..]) {
            0 => at += 1,
            len => {
                plain.get_or_insert_default().push_str(text.get(from..at)?);
                at += len;
                from = at;
            }
        }
    }
    let mut plain = plain?;
    plain.push_str(text.get(from..)?);
    Some(plain)
}

/// Where the next byte stands that something unseen may begin with. Pieces in plain ASCII are passed over as a
/// whole: compilers make a few wide instructions of the look at one.
fn next_unseen(bytes: &[u8]) -> Option<usize> {
    let begins = |byte: &u8| UNSEEN[usize::from(*byte)];
    let may_begin = |byte: u8| u8::from(byte >= 0x80) | u8::from(byte == ESCAPE);
    let (pieces, rest) = bytes.as_chunks::<PIECE>();
    for (nth, piece) in pieces.iter().enumerate() {
        if piece.iter().fold(0, |any, byte| any | may_begin(*byte)) != 0
            && let Some(at) = piece.iter().position(begins)
        {
            return Some(nth * PIECE + at);
        }
    }
    rest.iter().position(begins).map(|at| pieces.len() * PIECE + at)
}

/// Bytes looked at together.
const PIECE: usize = 64;

/// The bytes that something unseen begins with.
const UNSEEN: [bool; 256] = {
    let mut begins = [false; 256];
    let firsts = [ESCAPE, 0xc2, 0xcd, 0xd8, 0xe1, 0xe2, 0xef];
    let mut at = 0;
    while at < firsts.len() {
        begins[firsts[at] as usize] = true;
        at += 1;
    }
    begins
};

const ESCAPE: u8 = 0x1b;

/// How many bytes nobody sees at the beginning of `bytes`: a character without width, or a terminal's code
/// (ECMA-48, 5.4 and 5.6).
fn unseen(bytes: &[u8]) -> usize {
    match bytes {
        [ESCAPE, rest @ ..] => code(rest).map_or(0, |len| len + 1),
        // Soft hyphen; grapheme joiner; Arabic letter mark; Mongolian vowel separator.
        [0xc2, 0xad, ..] | [0xcd, 0x8f, ..] | [0xd8, 0x9c, ..] => 2,
        [0xe1, 0xa0, 0x8e, ..] => 3,
        // U+200B to 200F, 202A to 202E, 2060 to 206F; variation selectors; the byte order mark.
        [0xe2, 0x80, 0x8b..=0x8f | 0xaa..=0xae, ..] | [0xe2, 0x81, 0xa0..=0xaf, ..] => 3,
        [0xef, 0xb8, 0x80..=0x8f, ..] | [0xef, 0xbb, 0xbf, ..] => 3,
        _ => 0,
    }
}

/// A code's parameters are short.
const CODE_BYTES_MAX: usize = 32;
/// What a code says to the terminal may be an address.
const STRING_BYTES_MAX: usize = 1024;

/// How long the terminal's code is that `bytes`, behind its escape, begin with.
fn code(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b'[', rest @ ..] => {
            let most = &rest[..rest.len().min(CODE_BYTES_MAX)];
            let len = most.iter().take_while(|byte| matches!(byte, b' '..=b'?')).count();
            most.get(len).filter(|byte| matches!(byte, b'@'..=b'~')).map(|_| len + 2)
        }
        [b']', rest @ ..] => {
            let most = &rest[..rest.len().min(STRING_BYTES_MAX)];
            let end = most.iter().position(|byte| matches!(*byte, 7 | ESCAPE))?;
            let closed = most[end] == 7 || most.get(end + 1) == Some(&b'\\');
            closed.then_some(end + if most[end] == 7 { 2 } else { 3 })
        }
        _ => None,
    }
}

/// `text` with every escape of a printable ASCII character undone, those of JSON, JavaScript, URLs and
/// HTML; `None` where it has none.
pub(super) fn unescaped(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut at = memchr3(b'%', b'\\', b'&', bytes)?;
    let (mut plain, mut from) = (None, 0);
    loop {
        let written = undone(&bytes[at..]).map(|(sign, len)| (Some(sign), len));
        match written.or_else(|| Some((None, unseen_when_read(&bytes[at..])?))) {
            Some((sign, len)) => {
                let plain: &mut String = plain.get_or_insert_default();
                plain.push_str(&text[from..at]);
                plain.extend(sign.map(char::from));
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

/// How long the escape at the beginning of `bytes` is, with what belongs to it, where nobody would see what it
/// stands for: `\u200b`, `\x1b[0m`.
fn unseen_when_read(bytes: &[u8]) -> Option<usize> {
    const ESCAPES: [&[u8]; 5] = [b"\\u001b", b"\\u001B", b"\\x1b", b"\\033", b"\\e"];
    if let Some(escape) = ESCAPES.iter().find(|escape| bytes.starts_with(escape)) {
        return code(&bytes[escape.len()..]).map(|len| escape.len() + len);
    }
    let number = bytes.strip_prefix(b"\\u")?.get(..4)?;
    let number = u32::from_str_radix(std::str::from_utf8(number).ok()?, 16).ok()?;
    let mut buffer = [0; 4];
    let sign = char::from_u32(number)?.encode_utf8(&mut buffer);
    (unseen(sign.as_bytes()) > 0).then_some(6)
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
    fn what_nobody_sees_is_found_wherever_it_is() {
        for before in [0, 1, 63, 64, 65, 127, 128, 1000] {
            let plain = format!("{}{}", "x".repeat(before), "é".repeat(before / 3));
            for unseen in ["\u{200b}", "\x1b[0m", "\u{ad}", "\u{feff}"] {
                let text = format!("{plain}{unseen}{plain}");
                assert_eq!(visible(&text), Some(plain.repeat(2)), "{before} {unseen:?}");
            }
            assert_eq!(visible(&plain), None, "{before}");
        }
    }

    #[test]
    fn what_nobody_sees_is_left_out_and_all_else_stays() {
        let cases = [
            ("sk\u{200b}-a\u{feff}", Some("sk-a")),
            ("a\u{ad}b\u{2060}c\u{202e}d\u{fe0f}", Some("abcd")),
            ("KEY\x1b[0m=\x1b[1;32mv\x1b[K", Some("KEY=v")),
            ("\x1b]8;;https://h\x07link\x1b]8;;\x1b\\ b", Some("link b")),
            ("\u{201c}quoted\u{201d} \u{2014} \u{4f60}\u{597d} \u{e9} \x1b alone \x1b[", None),
            ("plain", None),
        ];
        for (text, expected) in cases {
            assert_eq!(visible(text).as_deref(), expected, "{text:?}");
        }
        let cases = [
            (r"sk\u200b-a", Some("sk-a")),
            (r"K\u001b[0m=\x1b[32mv\033[m\e[1m!", Some("K=v!")),
            (r"C:\e\new \u4f60 \033 \e[", None),
        ];
        for (text, expected) in cases {
            assert_eq!(unescaped(text).as_deref(), expected, "{text:?}");
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
