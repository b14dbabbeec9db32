//! Shapes of credentials in text: tokens with a known prefix, assignments (`api_key=…`), schemes
//! (`Bearer …`), private keys, userinfo in URLs.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr2, memchr2_iter};
use regex::{Captures, Regex};

use super::credential;
use super::find::{Finding, Glance, Words};
use super::issued::{FIXED_PARTS, TOKENS, has_fixed_part, has_web_token};
use super::named::{NAMES, assigned_ones, has_assignment, neighbours, said_ones};
use crate::config::RedactKind;

/// Adds the secrets in `text`.
pub(super) fn find(text: &str, seen: Glance, words: Words, found: &mut Vec<Finding>) {
    let sight = Sight::of(text, seen, words);
    find_shapes(text, |shape| (shape.possible)(&sight), found);
}

fn find_shapes(text: &str, is_tried: impl Fn(&Shape) -> bool, found: &mut Vec<Finding>) {
    for shape in SHAPES.iter().filter(|shape| is_tried(shape)) {
        for captures in shape.pattern.captures_iter(text) {
            let inner = captures.iter().skip(1).flatten().next();
            let hit = inner.or_else(|| captures.get(0));
            let hit = hit.filter(|hit| (shape.accept)(&captures, hit.as_str()));
            found.extend(hit.map(|hit| Finding::new(RedactKind::Secret, hit.start(), hit.end())));
        }
    }
}

/// A pattern whose match is a secret: the capture group that took part, else the whole match.
struct Shape {
    pattern: Regex,
    possible: Possible,
    accept: Accept,
}

/// False for a text in which a pattern cannot match: most of them are spared most texts.
pub(super) type Possible = fn(&Sight<'_>) -> bool;

/// What is known of a text before a pattern is tried.
pub(super) struct Sight<'t> {
    pub(super) text: &'t [u8],
    pub(super) seen: Glance,
    /// See [`has_assignment`].
    pub(super) assigns: bool,
    /// There is a word in which a token could lie, or the beginning of a web token.
    pub(super) token: bool,
    /// See [`has_scheme`].
    scheme: bool,
}

impl<'t> Sight<'t> {
    fn of(text: &'t str, seen: Glance, words: Words) -> Self {
        let signs = seen.colon || seen.equals || seen.bar || !text.is_ascii();
        let assigns = signs && has_assignment(text);
        let text = text.as_bytes();
        let token = words.token || has_web_token(text);
        Self { text, seen, assigns, token, scheme: has_scheme(text) }
    }

    pub(super) fn has(&self, literal: &Finder<'_>) -> bool {
        literal.find(self.text).is_some()
    }

    /// True if `word`, in lower case, stands somewhere in any case.
    fn has_word(&self, word: &str) -> bool {
        let word = word.as_bytes();
        let (Some(first), len) = (word.first(), word.len()) else { return true };
        memchr2_iter(*first, first.to_ascii_uppercase(), self.text).any(|at| {
            self.text.get(at..at + len).is_some_and(|found| found.eq_ignore_ascii_case(word))
        })
    }
}

/// Literals that patterns have in them. Made once: making one takes longer than looking through a line.
static PRIVATE_KEY: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("-----BEGIN "));
static KEY_END: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("-----END "));
static PUTTY: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("PuTTY-User-Key-File-"));
static FORM: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("form-data"));
static AUTHORITY: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("://"));

/// Says of a match, and of the part that would be redacted, whether it is a secret.
pub(super) type Accept = fn(&Captures<'_>, &str) -> bool;

/// Word boundaries are ASCII ones throughout: Unicode's send the engine to its slowest matcher, a hundred
/// times slower, wherever the text has a letter beyond ASCII.
static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let compiled = |(pattern, possible, accept): Row| {
        Some(Shape { pattern: Regex::new(&pattern).ok()?, possible, accept })
    };
    rows().filter_map(compiled).collect()
});

/// A pattern, in which texts it is possible, and which matches of it are secrets.
pub(super) type Row = (String, Possible, Accept);

fn rows() -> impl Iterator<Item = Row> {
    let named = [assigned_ones(), said_ones(), neighbours()].into_iter().flatten();
    issued().into_iter().chain(named).chain(placed())
}

/// What is a credential by how its issuer writes it.
fn issued() -> Vec<Row> {
    vec![
        (format!("(?-u:{})", TOKENS.join("|")), |sight| sight.token, always),
        (
            format!(
                r"[A-Za-z0-9+/_-]{{30,90}}(?:{})[A-Za-z0-9+/_-]{{4,}}={{0,2}}",
                FIXED_PARTS.join("|")
            ),
            |sight| sight.token && has_fixed_part(sight.text),
            always,
        ),
    ]
}

/// What is a credential by where it stands: behind a scheme, in a key's file, a form, an address.
fn placed() -> Vec<Row> {
    let (begin, end) = (r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY", r"-----END [A-Z0-9 ]*PRIVATE KEY");
    vec![
        (
            r"(?i)(?-u:\b)bearer[ \t]+([A-Za-z0-9._~+/=-]{8,})".into(),
            |sight| sight.scheme,
            opaque_part,
        ),
        (
            r"(?i)(?-u:\b)basic[ \t]+([A-Za-z0-9+/]{8,}={0,2})".into(),
            |sight| sight.scheme,
            opaque_part,
        ),
        (
            r#"(?i)(?-u:\b)cookie2?:[ \t]*([^\s=;"]+=[^\r\n"'`\\]+)"#.into(),
            |sight| sight.seen.colon && sight.seen.equals && sight.has_word("cookie"),
            always,
        ),
        (
            format!(r"(?s){begin}.*?(?:{end}(?: BLOCK)?-----|\z)"),
            |sight| sight.seen.dash && sight.has(&PRIVATE_KEY),
            always,
        ),
        // The end of a key whose beginning was cut off, and PuTTY's form.
        (
            format!(r"(?:[A-Za-z0-9+/=\s]|\\+[nr])+{end}(?: BLOCK)?-----"),
            |sight| sight.seen.dash && sight.has(&KEY_END),
            always,
        ),
        (
            r"(?s)PuTTY-User-Key-File-[0-9].*?(?:Private-(?:MAC|Hash):[ \t]*[0-9A-Za-z]+|\z)"
                .into(),
            |sight| sight.seen.dash && sight.has(&PUTTY),
            always,
        ),
        // A field of a form in parts, named as a credential is.
        (
            format!(
                r#"(?i)name=\\*"[^"\\\r\n]*(?:{NAMES}|secret|token)\\*"(?:[^\r\n]*\r?\n)+?\r?\n([^\r\n]+)"#
            ),
            |sight| sight.seen.dash && sight.has(&FORM),
            always,
        ),
        (
            r#"(?:\A|:)//([^\s/?#"'`<>\\]+)@"#.into(),
            |sight| sight.seen.at && (sight.text.starts_with(b"//") || sight.has(&AUTHORITY)),
            userinfo,
        ),
        (
            r#"[?&](?:amp;)?(?i:code|key|sig|token|secret|pass|pwd|auth)=([^\s"'`&<>#]{6,})"#
                .into(),
            |sight| sight.seen.equals && memchr2(b'?', b'&', sight.text).is_some(),
            always,
        ),
    ]
}

/// True if the name of a scheme of credentials stands somewhere, in any case. Both begin alike, with one
/// of the rarer letters.
fn has_scheme(text: &[u8]) -> bool {
    let starts = |at: usize, word: &[u8]| {
        text.get(at..at + word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word))
    };
    memchr2_iter(b'b', b'B', text).any(|at| starts(at, b"bearer") || starts(at, b"basic"))
}

pub(super) fn always(_: &Captures<'_>, _: &str) -> bool {
    true
}

pub(super) fn opaque_part(_: &Captures<'_>, part: &str) -> bool {
    credential::is_opaque(part)
}

/// A token alone, or a name with a password; `git@` and the like are no secrets.
fn userinfo(_: &Captures<'_>, part: &str) -> bool {
    part.contains(':') || part.len() >= 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_seen_in_any_case() {
        let sight = |text| Sight::of(text, Glance::default(), Words::default());
        assert!(sight("say BeArer now").has_word("bearer") && !sight("bear er").has_word("bearer"));
    }

    #[test]
    fn nothing_is_found_where_no_pattern_is_tried() {
        use proptest::prelude::*;
        const PIECES: &[&str] = &[
            "cookie",
            "Cookie:",
            "=",
            ":",
            "://",
            "@",
            "?",
            "&",
            "code=",
            "sig=abcdefg",
            " ",
            "\"",
            "api_key",
            "token",
            "Bearer ",
            "basic ",
            "abc12345",
            "sid=1; b",
            "https",
            "user:pass",
            "-----BEGIN RSA PRIVATE KEY",
            "AbCdEf0123456789AbCdEf0123456789",
            "JQQJ9",
            "is ",
            "\n",
            "--password",
            "\",",
            "value",
            "name",
        ];
        let texts = proptest::collection::vec(proptest::sample::select(PIECES), 1..12);
        proptest!(|(pieces in texts)| {
            let text = pieces.concat();
            let (mut spared, mut all) = (Vec::new(), Vec::new());
            let bytes = text.as_bytes();
            find(&text, Glance::of(bytes), Words::of(bytes), &mut spared);
            find_shapes(&text, |_| true, &mut all);
            prop_assert_eq!(spared, all);
        });
    }

    #[test]
    fn every_shape_compiles() {
        assert_eq!(SHAPES.len(), rows().count());
    }
}
