//! Redaction through JSON: values, keys, JSON inside strings, and what cannot be read at all.

use std::borrow::Cow;
use std::collections::HashSet;

use foldhash::fast::RandomState;
use memchr::memchr;
use serde_json::{Map, Value};

use super::{Counts, Redactor, credential, escaped, find, seam};
use crate::config::{RedactKind, RedactMode};
use crate::domain::bytes::string_end;

/// What takes the place of content that cannot be inspected.
pub(super) const UNREADABLE: &str = "[binary]";

/// Longer base64 than this is media, not an identifier.
const BASE64_BYTES_MIN: usize = 256;

/// The smallest number with as many digits as a card.
pub(super) const CARD_MIN: u64 = 1_000_000_000_000;

/// JSON in a string in JSON in a string: deeper nesting is searched as text.
const NESTING_MAX: u8 = 4;

/// Redacts one JSON value and counts what it finds.
pub(super) struct Walk<'a> {
    pub(super) redactor: &'a Redactor,
    pub(super) counts: &'a mut Counts,
    clean: Option<&'a CleanTexts<'a>>,
    nesting: u8,
}

/// Longer texts of bodies in which nothing was found. A column is a copy of some of them, and need not
/// be searched again.
#[derive(Debug, Default)]
pub(super) struct CleanTexts<'a>(HashSet<&'a str, RandomState>);

impl<'a> CleanTexts<'a> {
    const BYTES_MIN: usize = 64;

    /// Of bodies that have been redacted: what is left in them is clean.
    pub(super) fn of(bodies: [Option<&'a Value>; 2]) -> Self {
        let mut texts = Self::default();
        bodies.into_iter().flatten().for_each(|body| texts.add(body));
        texts
    }

    fn add(&mut self, value: &'a Value) {
        match value {
            Value::String(text) if text.len() >= Self::BYTES_MIN => _ = self.0.insert(text),
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(members) => members.values().for_each(|member| self.add(member)),
            _ => {}
        }
    }

    fn has(&self, text: &str) -> bool {
        text.len() >= Self::BYTES_MIN && self.0.contains(text)
    }
}

/// What a key says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Nothing.
    Plain,
    /// Its value may be a credential: `key`, `sig`.
    Label,
    /// Its value is a credential: `api_key`.
    Credential,
}

impl Redactor {
    /// What a key says, and whether nothing is found in it; what nobody sees is suspicious.
    pub(super) fn key(&self, key: &str) -> (Meaning, bool) {
        if let Some(meaning) = self.keys.get(key) {
            return (meaning, true);
        }
        let meaning = match self.kinds.contains(&RedactKind::Secret) {
            true if credential::is_name(key) => Meaning::Credential,
            true if credential::is_label(key) => Meaning::Label,
            _ => Meaning::Plain,
        };
        let is_clean = find::find(&self.kinds, key).is_empty()
            && self.behind_escapes(key).is_none()
            && escaped::visible(key).is_none();
        if is_clean {
            self.keys.add(key, meaning);
        }
        (meaning, is_clean)
    }
}

/// What a key says of whether its value can be read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Nothing.
    No,
    /// A list or a text is a vector.
    Vector,
    /// A list or an object holds log probabilities.
    Odds,
    /// A text may be base64.
    Media,
}

impl Unreadable {
    pub(super) fn of(key: &str) -> Self {
        match key {
            "embedding" => Self::Vector,
            "logprobs" | "top_logprobs" => Self::Odds,
            "data" | "b64_json" | "base64" | "file_data" | "image" | "audio" => Self::Media,
            _ => Self::No,
        }
    }
}

/// What the keys above say of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Under {
    /// Nothing.
    Plain,
    /// It may be a credential: `key`, `sig`.
    Label,
    /// It is a credential: `api_key`.
    Credential,
    /// It belongs to a credential's object: `{"authorization": {"value": …}}`.
    CredentialPart,
}

impl Under {
    /// What an object hands on to its members.
    pub(super) fn inherited(self) -> Self {
        match self {
            Self::Plain | Self::Label => Self::Plain,
            Self::Credential | Self::CredentialPart => Self::CredentialPart,
        }
    }

    /// What is said of a member whose key means `meaning`, by what was handed on.
    pub(super) fn of(self, meaning: Meaning) -> Self {
        match meaning {
            Meaning::Credential => Self::Credential,
            Meaning::Label if self == Self::Plain => Self::Label,
            _ => self,
        }
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(redactor: &'a Redactor, counts: &'a mut Counts) -> Self {
        Self { redactor, counts, clean: None, nesting: 0 }
    }

    /// The same, passing over what is known to be clean.
    pub(super) fn but_for(self, clean: &'a CleanTexts<'a>) -> Self {
        Self { clean: Some(clean), ..self }
    }

    /// True until something is found.
    pub(super) fn found_nothing(&self) -> bool {
        self.counts.0.is_empty()
    }

    /// `value` without what must not be kept.
    pub(super) fn value(&mut self, mut value: Value) -> Value {
        self.visit(&mut value, Under::Plain);
        value
    }

    fn visit(&mut self, value: &mut Value, under: Under) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(redacted) = self.string(text, under) {
                    *text = redacted;
                }
            }
            Value::Array(items) => self.array(items, under),
            Value::Object(map) => self.object(map, under),
            // A card without quotes is a number to JSON.
            Value::Number(number) if number.as_u64().is_some_and(|n| n >= CARD_MIN) => {
                let text = number.to_string();
                if let Cow::Owned(redacted) = self.redactor.scan(&text, self.counts) {
                    *value = Value::String(redacted);
                }
            }
            Value::Number(_) | Value::Null | Value::Bool(_) => {}
        }
    }

    fn array(&mut self, items: &mut [Value], under: Under) {
        // First, since of a secret in pieces a piece alone may look like one, and leave the rest.
        self.redactor.seams(items, self.counts);
        // A private key may lie in a list of lines.
        let mut in_key = false;
        for item in items.iter_mut() {
            let goes_on = item.as_str().is_some_and(|line| seam::is_in_key(line, in_key));
            self.visit(item, if in_key { Under::Credential } else { under });
            in_key = goes_on;
        }
    }

    fn object(&mut self, map: &mut Map<String, Value>, under: Under) {
        let inherited = under.inherited();
        let mut all_clean = true;
        for (key, value) in map.iter_mut() {
            let (meaning, is_clean) = self.redactor.key(key);
            all_clean &= is_clean;
            if self.unreadable(key, value) {
                *value = Value::String(UNREADABLE.into());
                self.counts.add("binary", 1);
                continue;
            }
            self.visit(value, inherited.of(meaning));
        }
        if !all_clean {
            self.keys(map);
        }
    }

    /// Vectors and log probabilities hold the text in pieces in which nothing can be found; base64
    /// holds what nobody looked into.
    fn unreadable(&self, key: &str, value: &Value) -> bool {
        match Unreadable::of(key) {
            _ if self.redactor.mode == RedactMode::Off => false,
            Unreadable::No => false,
            Unreadable::Vector => value.is_array() || value.is_string(),
            Unreadable::Odds => value.is_array() || value.is_object(),
            Unreadable::Media => value.as_str().is_some_and(is_media),
        }
    }

    fn keys(&mut self, map: &mut Map<String, Value>) {
        let mut renamed = |key: &String| match self.redactor.scan(key, self.counts) {
            Cow::Owned(name) => Some(name),
            Cow::Borrowed(_) => None,
        };
        let places = map.keys().enumerate();
        let mut names: Vec<(usize, String)> =
            places.filter_map(|(place, key)| Some((place, renamed(key)?))).collect();
        if names.is_empty() {
            return;
        }
        names.reverse();
        for (place, (key, value)) in std::mem::take(map).into_iter().enumerate() {
            let name = names.pop_if(|(renamed, _)| *renamed == place).map(|(_, name)| name);
            map.insert(unused(map, name.unwrap_or(key)), value);
        }
    }

    pub(super) fn string<'t>(&mut self, text: &'t str, under: Under) -> Cow<'t, str> {
        if under != Under::Plain {
            return self.searched(text, under);
        }
        if self.clean.is_some_and(|clean| clean.has(text)) {
            return Cow::Borrowed(text);
        }
        // Most short texts come with every exchange; deep in others they are searched in another way.
        let known = Some(&self.redactor.texts).filter(|_| self.nesting == 0);
        if known.is_some_and(|known| known.get(text).is_some()) {
            return Cow::Borrowed(text);
        }
        let is_first = self.found_nothing();
        let redacted = self.searched(text, under);
        if let (Some(known), true, Cow::Borrowed(_)) =
            (known, is_first && self.found_nothing(), &redacted)
        {
            known.add(text, ());
        }
        redacted
    }

    fn searched<'t>(&mut self, text: &'t str, under: Under) -> Cow<'t, str> {
        let credential = match under {
            Under::Plain => false,
            Under::Label => credential::is_opaque_word(text),
            Under::CredentialPart => credential::is_opaque(text) && !text.contains(' '),
            Under::Credential => !text.is_empty(),
        };
        if credential {
            return self.whole(text);
        }
        match data_url(text).filter(|_| self.redactor.mode != RedactMode::Off) {
            Some(head) => {
                self.counts.add("binary", 1);
                Cow::Owned(format!("{}{UNREADABLE}", self.redactor.scan(head, self.counts)))
            }
            None => self.nested(text),
        }
    }

    /// The whole text is a secret.
    fn whole<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        self.counts.add("secret", 1);
        match self.redactor.mode {
            RedactMode::Off => Cow::Borrowed(text),
            _ => Cow::Owned(self.redactor.placeholder(RedactKind::Secret, text)),
        }
    }

    /// Arguments of tool calls are JSON in a string: read, redacted, and written again only if
    /// something was found.
    fn nested<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        let trimmed = text.trim();
        let looks = (trimmed.starts_with('{') && trimmed.ends_with('}'))
            || (trimmed.starts_with('[') && trimmed.ends_with(']') && trimmed.contains('"'));
        let parsed = (looks && self.nesting < NESTING_MAX && !is_broken(trimmed.as_bytes()))
            .then(|| serde_json::from_str::<Value>(trimmed).ok())
            .flatten();
        let Some(mut inner) = parsed else { return self.redactor.scan(text, self.counts) };
        let before = self.counts.clone();
        self.nesting += 1;
        self.visit(&mut inner, Under::Plain);
        self.nesting -= 1;
        if *self.counts == before || self.redactor.mode == RedactMode::Off {
            return Cow::Borrowed(text);
        }
        Cow::Owned(inner.to_string())
    }
}

/// Longer texts are looked at before they are read.
const LONG_BYTES_MIN: usize = 4096;

/// True for a long text that is surely no JSON, since a line ends within one of its strings: so does that of
/// a body whose middle is missing, which as JSON would be read up to there.
fn is_broken(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(quote) = memchr(b'"', &bytes[at..]).filter(|_| bytes.len() >= LONG_BYTES_MIN) {
        let start = at + quote;
        let Some(end) = string_end(bytes, start) else { return true };
        if memchr(b'\n', &bytes[start..end]).is_some() {
            return true;
        }
        at = end;
    }
    false
}

/// Two addresses may have become one key: both values are kept, the second under `[email] 2`. The
/// tries are few, so that keys made to collide cost nothing; the last one wins.
fn unused(map: &Map<String, Value>, mut name: String) -> String {
    for _ in 0..TRIES_MAX {
        if !map.contains_key(&name) {
            break;
        }
        name = format!("{name} {}", map.len() + 1);
    }
    name
}

const TRIES_MAX: usize = 4;

/// The part before the base64 of a `data:` URL.
fn data_url(text: &str) -> Option<&str> {
    let at = text.strip_prefix("data:")?.find(";base64,")?;
    text.get(..at + "data:;base64,".len())
}

/// True for base64 that is too long for an identifier.
pub(super) fn is_media(text: &str) -> bool {
    let sign = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_');
    text.len() >= BASE64_BYTES_MIN && text.bytes().all(sign)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    proptest! {
        #[test]
        fn what_is_broken_is_no_json(
            parts in prop::collection::vec(select(vec![
                "{", "}", "[", "]", ",", ":", "\"a\"", "\"b\": ", "\"", "\\", "\\\"", "\n", " ", "1", "\"x\\n\"", "\"x\ny\"",
            ]), 0..12),
        ) {
            let text = format!("{}{}", parts.concat(), " ".repeat(LONG_BYTES_MIN));
            if is_broken(text.as_bytes()) {
                prop_assert!(serde_json::from_str::<Value>(&text).is_err());
            }
        }
    }

    #[test]
    fn a_text_with_a_hole_in_it_is_broken() {
        let words = "word ".repeat(LONG_BYTES_MIN / 5);
        let whole = format!("{{\n  \"a\": \"{words}\\n\",\n  \"b\": \"{words}\"\n}}");
        assert!(!is_broken(whole.as_bytes()));
        let holed = whole.replacen("word word", "word\n[12 bytes not captured]\nword", 1);
        assert!(is_broken(holed.as_bytes()) && !is_broken(b"{\"a\": \"b\nc\"}"));
    }
}
