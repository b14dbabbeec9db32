//! The one choke point: what may leave the process. Every stored byte of an exchange passes here.
//!
//! Detection is by shape and checksum, in linear time. It sees through JSON inside JSON strings, through
//! the escapes of JSON, URLs and HTML, through base64 of text, characters without width and a terminal's codes,
//! and across neighbouring pieces of a list; not through other encodings or foreign digits. What it cannot read (binary
//! bodies, embedding vectors, tokens' log probabilities) is not kept at all.

mod around;
mod checksum;
mod clean;
mod credential;
mod escaped;
mod find;
mod issued;
mod json;
mod named;
mod personal;
mod record;
mod seam;
mod secret;
mod span;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use foldhash::fast::RandomState;
use hmac::{Hmac, Mac};
use regex::Regex;
use sha2::Sha256;

use crate::config::{Redact, RedactKind, RedactMode, Secret};
use find::Finding;
pub use record::{RedactedSummary, RedactedTexts};

/// Removes what the settings name. One for the whole process; cheap to share.
#[derive(Clone, Debug)]
pub struct Redactor {
    kinds: Vec<RedactKind>,
    mode: RedactMode,
    key: Option<Secret>,
    /// In lower case; none that carries credentials.
    headers_allowed: BTreeSet<String>,
    /// Names in which nothing was found.
    clean: Arc<Known<()>>,
    /// Keys of JSON in which nothing was found, and what they say of their values.
    keys: Arc<Known<json::Meaning>>,
    /// Short texts of bodies in which nothing was found, JSON in them included.
    texts: Arc<Known<()>>,
}

/// What is known of names that come again and again: models, paths, keys of JSON, roles. Only what may be
/// kept is in it; once full it begins anew, so that no flood of names lasts.
#[derive(Debug)]
struct Known<T>(RwLock<HashMap<Box<str>, T, RandomState>>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T: Copy> Known<T> {
    const NAMES_MAX: usize = 1000;
    const NAME_BYTES_MAX: usize = 128;

    fn get(&self, name: &str) -> Option<T> {
        if name.len() > Self::NAME_BYTES_MAX {
            return None;
        }
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    fn add(&self, name: &str, known: T) {
        if name.len() > Self::NAME_BYTES_MAX {
            return;
        }
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= Self::NAMES_MAX {
            names.clear();
        }
        names.insert(Box::from(name), known);
    }
}

impl Redactor {
    /// A redactor by `settings` that keeps only the headers in `headers_allowed`, in any case.
    /// Headers that carry credentials are never kept, even if named there.
    pub fn new(settings: &Redact, headers_allowed: &[String]) -> Self {
        Self {
            kinds: settings.detect.clone(),
            mode: settings.mode,
            key: settings.key.clone(),
            headers_allowed: headers_allowed
                .iter()
                .filter(|name| !credential::is_header(name))
                .map(|name| name.to_ascii_lowercase())
                .collect(),
            clean: Arc::default(),
            keys: Arc::default(),
            texts: Arc::default(),
        }
    }

    /// A redactor for logs and error texts, whatever the settings for samples are: it masks secrets.
    pub fn for_logs() -> Self {
        let settings =
            Redact { detect: vec![RedactKind::Secret], mode: RedactMode::Mask, key: None };
        Self::new(&settings, &[])
    }

    /// `text` without what the settings name; borrowed, byte for byte, where nothing was found.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.scan(text, &mut Counts::default())
    }

    /// As [`Self::text`], for names that come again and again.
    fn repeated<'t>(&self, name: &'t str, counts: &mut Counts) -> Cow<'t, str> {
        if self.clean.get(name).is_some() {
            return Cow::Borrowed(name);
        }
        let redacted = self.scan(name, counts);
        if matches!(redacted, Cow::Borrowed(_)) && self.mode != RedactMode::Off {
            self.clean.add(name, ());
        }
        redacted
    }

    /// Redacts until nothing more is found: what was cut off may leave a neighbour standing alone,
    /// and only then does it look like what it is.
    fn scan<'t>(&self, text: &'t str, counts: &mut Counts) -> Cow<'t, str> {
        let mut current = Cow::Borrowed(text);
        for round in 0..ROUNDS_MAX {
            let mut found = self.found(&current, round > 0);
            if let Some((plain, more)) = self.behind_unseen(&current, &found) {
                (current, found) = (Cow::Owned(plain), more);
            }
            found.iter().for_each(|finding| counts.add(label(finding.kind), 1));
            if self.mode == RedactMode::Off {
                break;
            }
            if found.is_empty() {
                let Some(plain) = self.behind_escapes(&current) else { break };
                found = self.found(&plain, true);
                found.iter().for_each(|finding| counts.add(label(finding.kind), 1));
                current = Cow::Owned(plain);
            }
            current = Cow::Owned(self.replaced(&current, &found));
        }
        current
    }

    fn found(&self, text: &str, hashes_believed: bool) -> Vec<Finding> {
        let mut found = find::find(&self.kinds, text);
        if !found.is_empty() {
            drop_placeholders(&mut found, text, hashes_believed);
        }
        found
    }

    /// `text` without what nobody sees and what is found in it, where that is more than `found`: a secret may
    /// be cut in two by a character without width.
    fn behind_unseen(&self, text: &str, found: &[Finding]) -> Option<(String, Vec<Finding>)> {
        let plain = escaped::visible(text)?;
        let more = self.found(&plain, true);
        let bytes = |found: &[Finding]| found.iter().map(|one| one.end - one.start).sum::<usize>();
        let unseen = |one: &Finding| escaped::visible(&text[one.start..one.end]).is_some();
        let is_more = bytes(&more) > bytes(found) || found.iter().any(unseen);
        (is_more && self.mode != RedactMode::Off).then_some((plain, more))
    }

    /// `text` without its escapes, if something is found only then.
    fn behind_escapes(&self, text: &str) -> Option<String> {
        let mut plain = escaped::unescaped(text)?;
        for _ in 1..ESCAPES_MAX {
            if !self.found(&plain, true).is_empty() {
                break;
            }
            plain = escaped::unescaped(&plain)?;
        }
        (!self.found(&plain, true).is_empty()).then_some(plain)
    }

    fn replaced(&self, text: &str, found: &[Finding]) -> String {
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for finding in found {
            out.push_str(&text[from..finding.start]);
            out.push_str(&self.placeholder(finding.kind, &text[finding.start..finding.end]));
            from = finding.end;
        }
        out.push_str(&text[from..]);
        out
    }

    /// `[email]`, or `[email:0123456789abcdef]` with the first 64 bits of a keyed hash. Without a
    /// key nothing is hashed: an unkeyed hash of a phone number is the phone number.
    fn placeholder(&self, kind: RedactKind, text: &str) -> String {
        let label = label(kind);
        let hash = match (self.mode, &self.key) {
            (RedactMode::Hash, Some(key)) => keyed_hash(key, label, &normal(kind, text)),
            _ => None,
        };
        hash.map_or_else(|| format!("[{label}]"), |hash| format!("[{label}:{hash}]"))
    }
}

/// Escapes within escapes: `%2573` is `%73` is `s`.
const ESCAPES_MAX: usize = 3;

/// More rounds than real text needs; a bound for text made to need more.
const ROUNDS_MAX: usize = 8;

/// How many of which kind were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    fn add(&mut self, label: &'static str, count: u64) {
        *self.0.entry(label).or_default() += count;
    }

    fn add_all(&mut self, other: &Self) {
        other.0.iter().for_each(|(label, count)| self.add(label, *count));
    }

    /// Per kind the larger of both: for two views of the same text.
    fn larger(mut self, other: &Self) -> Self {
        for (label, count) in &other.0 {
            let mine = self.0.entry(label).or_default();
            *mine = (*mine).max(*count);
        }
        self
    }

    fn into_named(self) -> BTreeMap<String, u64> {
        self.0.into_iter().map(|(label, count)| (label.to_owned(), count)).collect()
    }
}

/// The kind's name in placeholders, counts and settings.
fn label(kind: RedactKind) -> &'static str {
    match kind {
        RedactKind::Email => "email",
        RedactKind::Phone => "phone",
        RedactKind::CreditCard => "credit_card",
        RedactKind::Iban => "iban",
        RedactKind::Ip => "ip",
        RedactKind::Secret => "secret",
    }
}

static PLACEHOLDER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"\[(?:email|phone|credit_card|iban|ip|secret)(?::[0-9a-f]{16})?\]").ok()
});

/// True where a placeholder stands in `text`: it is not what somebody wrote, unless somebody wrote a
/// placeholder.
pub fn is_masked(text: &str) -> bool {
    PLACEHOLDER.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// Takes out of `found` what is a placeholder or lies in one. In the first round a placeholder with
/// a hash is not believed: a client may have written it to smuggle digits through.
fn drop_placeholders(found: &mut Vec<Finding>, text: &str, hashes_believed: bool) {
    let Some(pattern) = PLACEHOLDER.as_ref() else { return };
    let known: Vec<_> = pattern
        .find_iter(text)
        .filter(|hit| hashes_believed || !hit.as_str().contains(':'))
        .map(|hit| hit.range())
        .collect();
    // Both lists are in order, so one step through each suffices.
    let mut at = 0;
    found.retain(|finding| {
        while known.get(at).is_some_and(|range| range.end < finding.end) {
            at += 1;
        }
        known.get(at).is_none_or(|range| range.start > finding.start)
    });
}

/// The same thing written in two ways has one hash.
fn normal(kind: RedactKind, text: &str) -> String {
    match kind {
        RedactKind::Email => text.replace("%40", "@").to_lowercase(),
        RedactKind::Phone | RedactKind::CreditCard => {
            text.chars().filter(char::is_ascii_digit).collect()
        }
        RedactKind::Iban => {
            let compact = text.chars().filter(char::is_ascii_alphanumeric);
            compact.map(|c| c.to_ascii_uppercase()).collect()
        }
        RedactKind::Ip => {
            let parsed: Result<std::net::IpAddr, _> = text.parse();
            parsed.map_or_else(|_| text.to_owned(), |address| address.to_string())
        }
        RedactKind::Secret => text.to_owned(),
    }
}

/// The first 16 hex digits of HMAC-SHA256 over kind and text.
fn keyed_hash(key: &Secret, label: &str, text: &str) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()).ok()?;
    mac.update(label.as_bytes());
    mac.update(&[0]);
    mac.update(text.as_bytes());
    let digest = mac.finalize().into_bytes();
    Some(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod canaries;
#[cfg(test)]
mod tests;
