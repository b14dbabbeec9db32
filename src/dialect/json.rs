//! JSON from strangers: bounded in depth and number of values, and still of use when bytes are missing.

use memchr::memmem;
use serde_json::{Map, Value};

use super::{Fault, skim};
use crate::domain::bytes::string_end;

/// Nesting of arrays and objects; deeper bodies stay text. Below serde_json's own limit of 128, so
/// that everything behind us may recurse.
pub const DEPTH_MAX: usize = 64;
/// Values in one body; a body with more stays text. It bounds the memory that parsing takes, which
/// for hostile input is a hundred times the text.
pub const NODES_MAX: usize = 1 << 17;
/// Bytes of a name (model, id, session, reason); what is longer is cut.
pub const NAME_BYTES_MAX: usize = 256;
/// Levels of a cut body that are searched for whole members.
const SALVAGE_LEVELS: usize = 4;

/// Reads one JSON text; a byte order mark is passed over, lone surrogates are replaced.
pub fn parse(bytes: &[u8]) -> Result<Value, Fault> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if !within_limits(bytes) {
        return Err(Fault::JsonLimits);
    }
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| Fault::Json)?;
    skim::whole(text).map_or_else(|| mended(bytes), Ok)
}

fn mended(bytes: &[u8]) -> Result<Value, Fault> {
    let mended = without_lone_surrogates(bytes).ok_or(Fault::Json)?;
    serde_json::from_slice(&mended).map_err(|_| Fault::Json)
}

/// What can be known of a JSON text whose end is missing: the members and elements that are whole,
/// within the containers that are cut. `None` where it does not begin as an object or array.
pub(super) fn salvage(prefix: &[u8]) -> Option<Value> {
    Prefix::of(prefix)?.salvage()
}

/// The `usage` member of the outermost object, from the last bytes of a JSON text. That it is the
/// outermost is proved by what follows: only whole members, and one brace more than was opened.
pub(super) fn usage_in_tail(tail: &[u8]) -> Option<Value> {
    const CANDIDATES_MAX: usize = 8;
    let candidates = memmem::rfind_iter(tail, b"\"usage\"").take(CANDIDATES_MAX);
    candidates.filter_map(|at| usage_at(tail, at)).next()
}

/// A short text: trimmed, not empty, cut to [`NAME_BYTES_MAX`].
pub(super) fn name(value: Option<&Value>) -> Option<String> {
    short(value?.as_str()?)
}

/// See [`name`].
pub(super) fn short(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text[..text.floor_char_boundary(NAME_BYTES_MAX)].to_owned())
}

/// All strings within a value that are not empty, in order.
pub(super) fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) if !text.is_empty() => into.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
        Value::Object(members) => members.values().for_each(|member| texts(member, into)),
        _ => {}
    }
}

/// True for what carries no text and no figure: null, blank strings, and containers of such.
pub(super) fn blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.iter().all(blank),
        Value::Object(members) => members.values().all(blank),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Members of an object below which comparing all names is quicker than hashing one.
const FEW_MEMBERS: usize = 16;

/// Looking a member up.
pub(super) trait Members {
    /// The member `key` of an object. As serde_json's `get`, which hashes `key` by SipHash first: a tenth of
    /// what reading a kept exchange costs.
    fn member(&self, key: &str) -> Option<&Value>;
}

impl Members for Map<String, Value> {
    fn member(&self, key: &str) -> Option<&Value> {
        if self.len() > FEW_MEMBERS {
            return self.get(key);
        }
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

impl Members for Value {
    fn member(&self, key: &str) -> Option<&Value> {
        self.as_object()?.member(key)
    }
}

/// The non-empty string under `key`.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.member(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// The array under `key`, empty where there is none.
pub(super) fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.member(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// True where neither [`DEPTH_MAX`] nor [`NODES_MAX`] is passed.
pub(super) fn within_limits(bytes: &[u8]) -> bool {
    let (mut depth, mut nodes, mut at) = (0usize, 1usize, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string_end(bytes, at).unwrap_or(bytes.len()) - 1,
            b'{' | b'[' => (depth, nodes) = (depth + 1, nodes + 1),
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => nodes += 1,
            _ => {}
        }
        if depth > DEPTH_MAX || nodes > NODES_MAX {
            return false;
        }
        at += 1;
    }
    true
}

/// The offset past the value that begins at `at`; `None` where it is cut or is none. A number or
/// a word counts as cut where the bytes end right behind it.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string_end(bytes, at),
        b'{' | b'[' => container_end(bytes, at),
        _ => {
            let rest = &bytes[at..];
            let len = rest.iter().position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\n'))?;
            (len > 0).then_some(at + len)
        }
    }
}

fn container_end(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0usize);
    loop {
        match bytes.get(at)? {
            b'"' => at = string_end(bytes, at)? - 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|b| b.is_ascii_whitespace()).count()
}

/// The beginning of a JSON text, and where the values begin that do not end in it: found in one pass,
/// for a body that is cut is as long as bodies may be.
pub(super) struct Prefix<'a> {
    bytes: &'a [u8],
    open: Vec<usize>,
}

impl<'a> Prefix<'a> {
    /// `None` where more than [`DEPTH_MAX`] or [`NODES_MAX`] is there.
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let (mut open, mut nodes, mut at) = (Vec::new(), 1usize, 0usize);
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => match string_end(bytes, at) {
                    Some(end) => at = end - 1,
                    None => {
                        open.push(at);
                        break;
                    }
                },
                b'{' | b'[' => {
                    open.push(at);
                    nodes += 1;
                }
                b'}' | b']' => _ = open.pop(),
                b',' => nodes += 1,
                _ => {}
            }
            if open.len() > DEPTH_MAX || nodes > NODES_MAX {
                return None;
            }
            at += 1;
        }
        Some(Self { bytes, open })
    }

    /// True where the text's first value does not end in it: a parser would look at all of it to say so.
    pub(super) fn is_cut(&self) -> bool {
        self.value_end(skip_blanks(self.bytes, 0)).is_none()
    }

    /// See [`salvage`].
    pub(super) fn salvage(&self) -> Option<Value> {
        self.salvage_at(skip_blanks(self.bytes, 0), SALVAGE_LEVELS)
    }

    fn value_end(&self, at: usize) -> Option<usize> {
        if self.open.contains(&at) { None } else { value_end(self.bytes, at) }
    }

    fn salvage_at(&self, at: usize, levels: usize) -> Option<Value> {
        match self.bytes.get(at)? {
            _ if levels == 0 => None,
            b'{' => Some(Value::Object(self.salvage_members(at + 1, levels))),
            b'[' => Some(Value::Array(self.salvage_elements(at + 1, levels))),
            _ => None,
        }
    }

    fn salvage_members(&self, start: usize, levels: usize) -> Map<String, Value> {
        let mut members = Map::new();
        let mut next = Some(start);
        while let Some((key, value_at)) = next.and_then(|at| self.key_at(at)) {
            let (value, end) = self.salvage_value(value_at, levels);
            members.extend(value.map(|value| (key, value)));
            next = end.and_then(|end| after_comma(self.bytes, end));
        }
        members
    }

    fn salvage_elements(&self, start: usize, levels: usize) -> Vec<Value> {
        let mut elements = Vec::new();
        let mut next = Some(start);
        while let Some(at) = next {
            let (value, end) = self.salvage_value(skip_blanks(self.bytes, at), levels);
            elements.extend(value);
            next = end.and_then(|end| after_comma(self.bytes, end));
        }
        elements
    }

    /// The value at `at`, or what is whole of it; and where it ends, if it does.
    fn salvage_value(&self, at: usize, levels: usize) -> (Option<Value>, Option<usize>) {
        match self.value_end(at) {
            Some(end) => (parse(&self.bytes[at..end]).ok(), Some(end)),
            None => (self.salvage_at(at, levels - 1), None),
        }
    }

    /// The key at `at` or behind blanks, and where its value begins.
    fn key_at(&self, at: usize) -> Option<(String, usize)> {
        let at = skip_blanks(self.bytes, at);
        if self.bytes.get(at) != Some(&b'"') {
            return None;
        }
        let end = self.value_end(at)?;
        let key = serde_json::from_slice(&self.bytes[at..end]).ok()?;
        let colon = skip_blanks(self.bytes, end);
        (self.bytes.get(colon) == Some(&b':')).then(|| (key, skip_blanks(self.bytes, colon + 1)))
    }
}

fn after_comma(bytes: &[u8], at: usize) -> Option<usize> {
    let comma = skip_blanks(bytes, at);
    (bytes.get(comma) == Some(&b',')).then_some(comma + 1)
}

fn usage_at(tail: &[u8], at: usize) -> Option<Value> {
    let before = tail[..at].iter().rev().find(|b| !b.is_ascii_whitespace())?;
    let colon = skip_blanks(tail, at + b"\"usage\"".len());
    if !matches!(before, b',' | b'{') || tail.get(colon) != Some(&b':') {
        return None;
    }
    let start = skip_blanks(tail, colon + 1);
    if tail.get(start) != Some(&b'{') {
        return None;
    }
    let end = value_end(tail, start)?;
    closes_the_outermost(&tail[end..]).then(|| parse(&tail[start..end]).ok()).flatten()
}

/// True where `rest` closes one object more than it opens, and then ends.
fn closes_the_outermost(rest: &[u8]) -> bool {
    let (mut at, mut depth) = (0, 0usize);
    while let Some(&byte) = rest.get(at) {
        match byte {
            b'"' => match string_end(rest, at) {
                Some(end) => at = end - 1,
                None => return false,
            },
            b'{' | b'[' => depth += 1,
            b'}' if depth == 0 => return skip_blanks(rest, at + 1) == rest.len(),
            b'}' | b']' if depth > 0 => depth -= 1,
            b']' => return false,
            _ => {}
        }
        at += 1;
    }
    false
}

/// The text with every `\uD800` to `\uDFFF` that has no partner replaced by `\uFFFD`; `None`
/// where there was none.
fn without_lone_surrogates(bytes: &[u8]) -> Option<Vec<u8>> {
    memmem::find(bytes, b"\\u")?;
    let mut mended = Vec::with_capacity(bytes.len());
    let (mut at, mut found_any) = (0, false);
    while at < bytes.len() {
        let take = match (bytes[at], escaped_unit(bytes, at)) {
            (_, Some(0xd800..=0xdbff))
                if matches!(escaped_unit(bytes, at + 6), Some(0xdc00..=0xdfff)) =>
            {
                12
            }
            (_, Some(0xd800..=0xdfff)) => {
                found_any = true;
                mended.extend_from_slice(b"\\ufffd");
                at += 6;
                continue;
            }
            (b'\\', _) => 2,
            _ => 1,
        };
        let end = bytes.len().min(at + take);
        mended.extend_from_slice(&bytes[at..end]);
        at = end;
    }
    found_any.then_some(mended)
}

/// The UTF-16 unit that `\uXXXX` at `at` stands for.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let escape = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(escape).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hostile_json_is_refused_or_mended_never_a_panic() {
        assert_eq!(parse(&[b"[".repeat(65), b"]".repeat(65)].concat()), Err(Fault::JsonLimits));
        assert!(parse(&[b"[".repeat(64), b"]".repeat(64)].concat()).is_ok());
        assert_eq!(
            parse(format!("[{}0]", "0,".repeat(NODES_MAX)).as_bytes()),
            Err(Fault::JsonLimits)
        );
        assert!(parse(format!("\"{}\"", ",".repeat(NODES_MAX * 2)).as_bytes()).is_ok());
        assert_eq!(parse(b"{\"a\":1} x"), Err(Fault::Json), "trailing garbage");
        assert_eq!(parse(b"\xef\xbb\xbf{}"), Ok(json!({})));
        assert_eq!(
            parse(br#""a\ud83c b\udf89 \ud83c\udf89 \\ud83c""#),
            Ok(json!("a\u{fffd} b\u{fffd} \u{1f389} \\ud83c"))
        );
        assert!(parse(b"123456789012345678901234567890").is_ok_and(|n| n.is_f64()));
        assert_eq!(parse(b"1e999"), Err(Fault::Json));
    }

    #[test]
    fn a_cut_text_gives_its_whole_members() {
        let cut = br#"{"model":"m","n":12,"messages":[{"role":"user","content":"hi"},{"role":"us"#;
        assert_eq!(
            salvage(cut),
            Some(json!({"model":"m","n":12,"messages":[{"role":"user","content":"hi"},{}]}))
        );
        assert_eq!(salvage(br#"{"a":1"#), Some(json!({})), "a number at the edge may go on");
        assert_eq!(salvage(br#""text that is cu"#), None);
    }

    #[test]
    fn usage_is_found_in_a_tail_only_at_the_outermost_level() {
        let tail = br#"ore text"}}],"usage":{"prompt_tokens":5},"user":null} "#;
        assert_eq!(usage_in_tail(tail), Some(json!({"prompt_tokens":5})));
        assert_eq!(usage_in_tail(br#"x"}],"inner":{"usage":{"prompt_tokens":9}}}"#), None);
        assert_eq!(usage_in_tail(br#"say \"usage\":{\"prompt_tokens\":9}"}"#), None);
        assert_eq!(usage_in_tail(br#"{"a":"b \"usage" :{"prompt_tokens":9}}"#), None);
        assert_eq!(usage_in_tail(br#","usage":{"prompt_tokens":5}"#), None, "the end is not here");
    }
}
