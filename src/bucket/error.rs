//! What can go wrong with a bucket, by kind, with messages that hold no secret.

use std::fmt;

/// The longest message, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// An operation on a bucket failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct BucketError {
    /// The kind: what the caller decides by.
    pub kind: BucketErrorKind,
    message: String,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BucketErrorKind {
    /// No object bears the name.
    NotFound,
    /// An object bears the name.
    AlreadyExists,
    /// The credentials are wrong, expired or lack a right.
    Denied,
    /// The bucket or container itself does not exist.
    NoBucket,
    /// The store asks for fewer requests.
    Throttled,
    /// The store cannot be reached, is broken, or is full.
    Unavailable,
    /// The store did not answer in time.
    Timeout,
    /// What arrived is not what was sent.
    Integrity,
    /// The settings, or a name, can never work.
    Configuration,
    /// Anything else.
    Other,
}

impl BucketError {
    /// An error with a message from which control characters, query strings and credentials in URLs
    /// are removed, cut to 300 characters.
    pub fn new(kind: BucketErrorKind, message: impl AsRef<str>) -> Self {
        Self { kind, message: harmless(message.as_ref()) }
    }
}

impl fmt::Display for BucketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.label(), self.message)
    }
}

impl BucketErrorKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::NotFound,
        Self::AlreadyExists,
        Self::Denied,
        Self::NoBucket,
        Self::Throttled,
        Self::Unavailable,
        Self::Timeout,
        Self::Integrity,
        Self::Configuration,
        Self::Other,
    ];

    /// The value of the label `reason` in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Denied => "denied",
            Self::NoBucket => "no_bucket",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Integrity => "integrity",
            Self::Configuration => "configuration",
            Self::Other => "other",
        }
    }

    /// Whether the same operation may succeed later without anybody changing anything.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::Timeout | Self::Integrity)
    }
}

/// Error texts of other crates quote URLs, whose queries and user parts are credentials.
fn harmless(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let kept: Vec<String> = words.filter(|word| !word.is_empty()).map(harmless_word).collect();
    let joined = kept.join(" ");
    match joined.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &joined[..end]),
        None => joined,
    }
}

fn harmless_word(word: &str) -> String {
    let word = match word.find('?') {
        Some(at) if word[..at].contains('/') => &word[..at],
        _ => word,
    };
    match (word.find("://"), word.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}{}", &word[..scheme + 3], &word[at + 1..])
        }
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_lose_queries_user_parts_and_control_characters() {
        let cases = [
            (
                "error for url (http://h/c/b?sig=SECRET&se=1): refused",
                "error for url (http://h/c/b refused",
            ),
            ("get https://user:SECRET@host/x failed", "get https://host/x failed"),
            ("two\r\nlines\0 here", "two lines here"),
            ("what? nothing", "what? nothing"),
        ];
        for (text, expected) in cases {
            assert_eq!(BucketError::new(BucketErrorKind::Other, text).message, expected);
        }
        let long = BucketError::new(BucketErrorKind::Other, "ä".repeat(5000));
        assert_eq!(long.message.chars().count(), MESSAGE_CHARS_MAX + 1);
    }

    #[test]
    fn labels_differ_and_only_passing_trouble_is_transient() {
        let mut labels: Vec<_> = BucketErrorKind::ALL.iter().map(|kind| kind.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), BucketErrorKind::ALL.len());
        let transient = BucketErrorKind::ALL.iter().filter(|kind| kind.is_transient());
        assert_eq!(transient.count(), 4);
    }
}
