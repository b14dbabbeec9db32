//! Shapes of credentials in text: tokens with a known prefix, assignments (`api_key=…`), schemes
//! (`Bearer …`), private keys, userinfo in URLs.

use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr2, memchr2_iter};
use regex::{Captures, Regex};

use super::around::{self, Around};
use super::credential;
use super::find::{Finding, Glance};
use super::issued::{FIXED_PARTS, TOKENS, has_fixed_part, web_tokens};
use super::named::{
    NAMES, assigned_ones, has_assignment, has_word, neighbours, said_ones, said_words, told_ones,
    variables,
};
use crate::config::RedactKind;

/// Adds the secrets in `text`; `words`: those of its words in which a token could lie.
pub(super) fn find(text: &str, seen: Glance, words: &[Range<usize>], found: &mut Vec<Finding>) {
    let mut tokens = web_tokens(text.as_bytes()).chain(words.iter().cloned()).collect::<Vec<_>>();
    tokens.sort_unstable_by_key(|word| word.start);
    let sight = Sight::of(text, seen, !tokens.is_empty());
    for shape in SHAPES.iter().filter(|shape| (shape.possible)(&sight)) {
        match shape.around {
            None => shape.find(text, 0..text.len(), found),
            Some(around) => around::stretches(text, &tokens, around)
                .into_iter()
                .filter(|stretch| (shape.within)(&text.as_bytes()[stretch.clone()]))
                .for_each(|stretch| shape.find(text, stretch, found)),
        }
    }
}

/// A pattern whose match is a secret: the capture group that took part, else the whole match.
struct Shape {
    pattern: Regex,
    possible: Possible,
    around: Option<Around>,
    within: Within,
    accept: Accept,
}

/// False for a stretch in which a pattern cannot match.
type Within = fn(&[u8]) -> bool;

impl Shape {
    /// Adds the secrets that begin and end in one stretch of the text.
    ///
    /// Where only stretches are searched, a name may stand in what another name's value was taken for: what
    /// one begins depends on where the search began, and so both are looked at.
    fn find(&self, text: &str, stretch: Range<usize>, found: &mut Vec<Finding>) {
        let (from, part) = (stretch.start, &text[stretch]);
        let mut at = 0;
        while let Some(captures) = self.pattern.captures_at(part, at) {
            let Some(whole) = captures.get(0).filter(|whole| !whole.is_empty()) else { break };
            let inner = captures.iter().skip(1).flatten().next();
            let hit = inner.unwrap_or(whole);
            let goes_back = self.around.is_some() && inner.is_some();
            at = if goes_back { hit.start() } else { whole.end() };
            if (self.accept)(&captures, hit.as_str()) {
                let (start, end) = (from + hit.start(), from + hit.end());
                found.push(Finding::new(RedactKind::Secret, start, end));
            }
        }
    }
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
    fn of(text: &'t str, seen: Glance, token: bool) -> Self {
        let signs = seen.colon || seen.equals || seen.bar || !text.is_ascii();
        let assigns = signs && has_assignment(text);
        let text = text.as_bytes();
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
static PRIVATE_KEY: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("BEGIN "));
static KEY_END: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("END "));
static PUTTY: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("PuTTY-User-Key-File-"));
static FORM: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("form-data"));
static AUTHORITY: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("://"));

/// Says of a match, and of the part that would be redacted, whether it is a secret.
pub(super) type Accept = fn(&Captures<'_>, &str) -> bool;

/// Word boundaries are ASCII ones throughout: Unicode's send the engine to its slowest matcher, a hundred
/// times slower, wherever the text has a letter beyond ASCII.
static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let compiled = |(place, (pattern, possible, accept)): (Option<(Around, Within)>, Row)| {
        let (around, within) = place.map_or((None, ANY), |(around, within)| (Some(around), within));
        Some(Shape { pattern: Regex::new(&pattern).ok()?, possible, around, within, accept })
    };
    rows().filter_map(compiled).collect()
});

const ANY: Within = |_| true;

/// A pattern, in which texts it is possible, and which matches of it are secrets.
pub(super) type Row = (String, Possible, Accept);

/// All of them; those whose matches have a long word in them are tried around such.
fn rows() -> impl Iterator<Item = (Option<(Around, Within)>, Row)> {
    let near = |around: Around, within: Within, rows: Vec<Row>| {
        rows.into_iter().map(move |row| (Some((around, within)), row))
    };
    let all = [assigned_ones(), said_ones(), told_ones(), neighbours(), variables(), placed()];
    let all = all.into_iter().flatten();
    near(around::token, ANY, issued_ones())
        .chain(near(around::token, has_fixed_part, fixed_ones()))
        .chain(near(around::named, has_word, said_words()))
        .chain(all.map(|row| (None, row)))
}

/// What is a credential by how its issuer writes it.
fn issued_ones() -> Vec<Row> {
    vec![(format!("(?-u:{})", TOKENS.join("|")), |sight| sight.token, always)]
}

fn fixed_ones() -> Vec<Row> {
    let parts = FIXED_PARTS.join("|");
    let pattern = format!(r"[A-Za-z0-9+/_-]{{30,90}}(?:{parts})[A-Za-z0-9+/_-]{{4,}}={{0,2}}");
    vec![(pattern, |sight| sight.token, always)]
}

/// What is a credential by where it stands: behind a scheme, in a key's file, a form, an address.
fn placed() -> Vec<Row> {
    let (begin, end) =
        (r"----[- ]BEGIN [A-Z0-9 ]*PRIVATE KEY", r"----[- ]END [A-Z0-9 ]*PRIVATE KEY");
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
            format!(r"(?s){begin}.*?(?:{end}(?: BLOCK)?[- ]----|\z)"),
            |sight| sight.seen.dash && sight.has(&PRIVATE_KEY),
            always,
        ),
        // The end of a key whose beginning was cut off, and PuTTY's form.
        (
            format!(r"(?:[A-Za-z0-9+/=\s]|\\+[nr])+{end}(?: BLOCK)?[- ]----"),
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
    use super::super::find::Words;
    use super::*;

    #[test]
    fn a_word_is_seen_in_any_case() {
        let sight = |text| Sight::of(text, Glance::default(), false);
        assert!(sight("say BeArer now").has_word("bearer") && !sight("bear er").has_word("bearer"));
    }

    /// What is found where every pattern is tried on the whole text.
    fn found_in_all(text: &str) -> Vec<Finding> {
        let mut found = Vec::new();
        SHAPES.iter().for_each(|shape| shape.find(text, 0..text.len(), &mut found));
        found
    }

    fn found_where_tried(text: &str) -> Vec<Finding> {
        let (bytes, mut found) = (text.as_bytes(), Vec::new());
        find(text, Glance::of(bytes), &Words::of(bytes).tokens, &mut found);
        found
    }

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
        "IS ",
        "\n",
        "--password",
        "\",",
        "value",
        "name",
    ];

    /// What stands in and around long words.
    const WORDS: &[&str] = &[
        "sk-proj-Zx9Qw7Er5Ty3Ui1Op0As8Df6Gh4Jk2Lz",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOi.eyJzdWIi.c2ln",
        "ghp_0123456789abcdefghij0123456789abcdef",
        "xoxb-0123456789",
        "123456789:AAabcdefghijklmnopqrstuvwxyz012345",
        "2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
        "0123456789abcdef0123456789abcdef",
        "0123456789abcdefghijklmnopqrstuvwxyzABCDJQQJ99ABCD",
        "understandable",
        "incomprehensibilities",
        "secretwordsecretkey",
        "subscription access key",
        "lautet",
        "provided",
        "\\\\\\\\",
        "\t",
        "é",
        "密码",
        "_",
        "identified by",
        "password",
        "  '",
        "the quick brown fox jumps over the lazy dog and runs on through the long grass until the evening, and then sleeps until morning",
    ];

    #[test]
    fn nothing_is_found_where_no_pattern_is_tried() {
        use proptest::prelude::*;
        let any = proptest::sample::select([PIECES, WORDS].concat());
        let texts = proptest::collection::vec(any, 1..16);
        proptest!(ProptestConfig::with_cases(4000), |(pieces in texts)| {
            let text = pieces.concat();
            prop_assert_eq!(found_where_tried(&text), found_in_all(&text), "{}", text);
        });
    }

    /// Where a search begins decides what is taken for a name and what for its value.
    #[test]
    fn a_name_in_what_was_taken_for_a_value_is_a_name() {
        let (far, value) = ("\\".repeat(500), "abcdefgh12345678");
        for text in [
            format!("token w0rdwordsecretkey {value}"),
            format!("token {far}wordswordsecretkey wordswordsecretkey {value}"),
            format!("token {far}wordswordsecretkey {value}"),
            format!("token wordswordsecretkey {far}{value}"),
            // Letters that are others in another case.
            format!("the api \u{212a}ey {value}"),
            format!("the pa\u{17f}\u{17f}word is {far}{value}"),
        ] {
            let found = found_where_tried(&text);
            let last = found.last().map(|finding| &text[finding.start..finding.end]);
            assert_eq!(last, Some(value), "{text}");
        }
    }

    #[test]
    fn every_shape_compiles() {
        assert_eq!(SHAPES.len(), rows().count());
    }
}
