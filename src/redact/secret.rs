//! Shapes of credentials in text: tokens with a known prefix, assignments (`api_key=…`), schemes
//! (`Bearer …`), private keys, userinfo in URLs.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr2, memchr2_iter};
use regex::{Captures, Regex};

use super::credential;
use super::find::{Finding, Glance, Words};
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
type Possible = fn(&Sight<'_>) -> bool;

/// What is known of a text before a pattern is tried.
struct Sight<'t> {
    text: &'t [u8],
    seen: Glance,
    /// See [`has_assignment`].
    assigns: bool,
    /// There is a word in which a token could lie, or the beginning of a web token.
    token: bool,
    /// See [`has_scheme`].
    scheme: bool,
}

impl<'t> Sight<'t> {
    fn of(text: &'t str, seen: Glance, words: Words) -> Self {
        let assigns = (seen.colon || seen.equals || seen.bar) && has_assignment(text);
        let text = text.as_bytes();
        let token = words.token || WEB_TOKEN.find(text).is_some();
        Self { text, seen, assigns, token, scheme: has_scheme(text) }
    }

    fn has(&self, literal: &Finder<'_>) -> bool {
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
static STATEMENT: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(" is"));
static AUTHORITY: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("://"));
static AZURE_PART: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("JQQJ9"));
static WEB_TOKEN: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("eyJ"));

/// Says of a match, and of the part that would be redacted, whether it is a secret.
type Accept = fn(&Captures<'_>, &str) -> bool;

/// Word boundaries are ASCII ones throughout: Unicode's send the engine to its slowest matcher, a hundred
/// times slower, wherever the text has a letter beyond ASCII.
static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let compiled = |(pattern, possible, accept): Row| {
        Some(Shape { pattern: Regex::new(&pattern).ok()?, possible, accept })
    };
    named().into_iter().chain(placed()).filter_map(compiled).collect()
});

/// Prefixes that only credentials have, by their issuers' documentation.
const TOKENS: &[&str] = &[
    // OpenAI (sk-, sk-proj-, sk-svcacct-), Anthropic (sk-ant-), OpenRouter (sk-or-), LiteLLM.
    r"(?:\b|_)sk-[A-Za-z0-9_-]{16,}",
    r"sk-(?:proj|svcacct|admin|ant|or)-[A-Za-z0-9_-]{16,}",
    // Stripe and others that write an underscore.
    r"(?:\b|_)[sr]k_(?:live_|test_)?[A-Za-z0-9]{16,}",
    r"whsec_[A-Za-z0-9+/=]{16,}",
    // AWS: access key ids, Bedrock keys.
    r"(?:A3T[A-Z0-9]|AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{16}\b",
    r"ABSK[A-Za-z0-9+/=]{40,}",
    // GitHub, GitLab.
    r"gh[pousr]_[A-Za-z0-9]{20,}",
    r"github_pat_[A-Za-z0-9_]{20,}",
    r"gl(?:pat|dt|rt|ptt|cbt|soat)-[A-Za-z0-9_-]{20,}",
    // Slack.
    r"xox[a-z]-[A-Za-z0-9-]{10,}",
    r"xapp-[A-Za-z0-9-]{10,}",
    r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{16,}",
    // Google.
    r"AIza[A-Za-z0-9_-]{30,}",
    r"ya29\.[A-Za-z0-9_-]{20,}",
    r"GOCSPX-[A-Za-z0-9_-]{20,}",
    // JSON Web Tokens, signed or encrypted, whole or cut after the first part's dot.
    r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,3}",
    // Hugging Face, Groq, xAI, Perplexity, Replicate, LangSmith, npm, PyPI, SendGrid, DigitalOcean.
    r"\bhf_[A-Za-z0-9]{20,}",
    r"\bgsk_[A-Za-z0-9]{20,}",
    r"\bxai-[A-Za-z0-9]{20,}",
    r"\bpplx-[A-Za-z0-9]{20,}",
    r"\br8_[A-Za-z0-9]{20,}",
    r"\blsv2_[a-z]{2}_[A-Za-z0-9_]{20,}",
    r"\bnpm_[A-Za-z0-9]{30,}",
    r"\bpypi-[A-Za-z0-9_-]{30,}",
    r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    r"\bdo[opr]_v1_[a-f0-9]{32,}",
    r"AGE-SECRET-KEY-1[A-Z0-9]{20,}",
    // Telegram, after a bot's number.
    r"[0-9]{8,10}:AA[A-Za-z0-9_-]{32,}",
];

/// Names of what is assigned, where the name alone says that the value is a credential.
const NAMES: &str = r"api[_ -]?key|(?:account|access|shared|secret|private|master|subscription|functions|signing|encryption|auth)[_-]?(?:access[_-]?)?key|(?:access|auth|refresh|id|session|security|api|bearer|sas)[_-]?token|(?:client|app)[_-]?secret|pass(?:word|wd|phrase|code)|(?:(?-u:\b)|_)pwd|authorization|connection[_-]?string";

/// Names that often label something harmless: the value must look like a credential.
const LABELS: &str = "key|token|secret|sig|signature|sas|auth|credentials?|pass|cookie";

/// Between a name and its value, in code, JSON (escaped or not), headers and settings files.
const SEPARATOR: &str = r#"(?:\\*["'`])?[ \t]*(?:=>|:=|[:=])[ \t]*"#;

/// The same, in tables, XML, Markdown and YAML's blocks, too.
const SEPARATORS: &str =
    r#"(?:\\*["'`]|\*+)?[ \t]*(?:=>|:=|[:=|>])\**[ \t]*(?:[|>][+-]?[ \t]*\r?\n[ \t]*)?\\*["'`]?"#;

/// A scheme that may stand before a credential.
const SCHEME: &str = r"(?:(?:bearer|basic|token|apikey|api-key|key|digest|negotiate)[ \t]+)?";

/// What stands in quotes, the other kind of quotes and escapes included; inside JSON in a string,
/// where the quotes themselves are escaped, an escaped quote is the end.
const QUOTED: &str = concat!(
    r#"(?:"((?:[^"\\\r\n]|\\[^\r\n])+)|'((?:[^'\\\r\n]|\\[^\r\n])+)|`([^`\r\n]+)"#,
    r#"|\\+"((?:[^"\\\r\n]|\\[^"\r\n])+)|\\+'((?:[^'\\\r\n]|\\[^'\r\n])+))"#
);

type Row = (String, Possible, Accept);

/// What is a credential by its shape, or by the name before it.
fn named() -> Vec<Row> {
    let base64 = r"[A-Za-z0-9+/]{40,}={0,2}";
    vec![
        (format!("(?-u:{})", TOKENS.join("|")), |sight| sight.token, always),
        (
            format!(r#"(?i)(?:{NAMES}|["'`]secret|["'`]token|["'`]pass){SEPARATOR}{QUOTED}"#),
            |sight| sight.assigns,
            in_quotes,
        ),
        (
            format!(r#"(?i)(?:{NAMES}){SEPARATORS}{SCHEME}([^\s"'`\\&,;<>]{{4,}})"#),
            |sight| sight.assigns,
            assigned,
        ),
        (
            format!(
                r#"(?i)(?:(?-u:\b)|_)(?:{LABELS}){SEPARATOR}\\*["'`]?{SCHEME}([A-Za-z0-9_\-+/=.%~]{{16,}})"#
            ),
            |sight| sight.assigns,
            with_digit,
        ),
        (
            format!(
                r#"(?i)(?:key|token|secret|password)(?:\\*["'`])?[ \t:=]{{1,4}}(?:is[ \t:=]{{1,4}})?\\*["'`]?([0-9a-f]{{32,64}}|{base64})"#
            ),
            |sight| sight.token,
            with_digit,
        ),
        (
            format!(r#"(?i)(?:{NAMES})[ \t]+is:?[ \t]+["'`]?([^\s"'`\\&,;<>]{{6,}})"#),
            |sight| has_statement(sight.text),
            with_digit,
        ),
        // Azure OpenAI's longer keys have a fixed part in the middle.
        (
            r"(?-u:\b)[A-Za-z0-9]{30,70}JQQJ9[A-Za-z0-9]{10,}".into(),
            |sight| sight.token && sight.has(&AZURE_PART),
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
            r#"://([^\s/?#"'`<>\\]+)@"#.into(),
            |sight| sight.seen.colon && sight.seen.at && sight.has(&AUTHORITY),
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

/// Ends of all names that the patterns with `assigns` begin with.
const NAME_ENDS: &[&str] = &[
    "key",
    "token",
    "secret",
    "password",
    "passwd",
    "phrase",
    "passcode",
    "pwd",
    "authorization",
    "string",
    "sig",
    "signature",
    "sas",
    "auth",
    "credential",
    "credentials",
    "pass",
    "cookie",
];

/// True if a name of a credential stands before a `:`, `=`, `|` or `>`. Prose rarely has that, and three
/// patterns without a literal to search for are spared.
fn has_assignment(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (signs, others) = (memchr2_iter(b':', b'=', bytes), memchr2_iter(b'|', b'>', bytes));
    signs.chain(others).any(|at| ends_in_name(&bytes[..at]))
}

/// True if a name of a credential stands before `is`.
fn has_statement(text: &[u8]) -> bool {
    STATEMENT.find_iter(text).any(|at| ends_in_name(&text[..at]))
}

fn ends_in_name(text: &[u8]) -> bool {
    let between = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'"' | b'\'' | b'`' | b'\\' | b'*');
    let name = &text[..text.len() - text.iter().rev().take_while(between).count()];
    NAME_ENDS.iter().any(|end| {
        name.len() >= end.len()
            && name[name.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
    })
}

/// True if the name of a scheme of credentials stands somewhere, in any case. Both begin alike, with one
/// of the rarer letters.
fn has_scheme(text: &[u8]) -> bool {
    let starts = |at: usize, word: &[u8]| {
        text.get(at..at + word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word))
    };
    memchr2_iter(b'b', b'B', text).any(|at| starts(at, b"bearer") || starts(at, b"basic"))
}

/// The shortest token of all but JSON's: `xoxb-` and ten characters.
pub(super) const TOKEN_BYTES_MIN: usize = 15;
/// Longer runs of letters alone are no words either.
const LETTERS_MIN: usize = 20;

/// True for a run of [`TOKEN_BYTES_MIN`] and more characters in which a token of [`TOKENS`] or a key in
/// hexadecimal digits or base64 could lie. Prose has none, and the largest of the patterns is spared.
pub(super) fn may_be_token(run: &[u8]) -> bool {
    run.len() >= LETTERS_MIN || !run.iter().all(u8::is_ascii_alphabetic)
}

/// True for a character that may stand in a token.
pub(super) fn is_token_sign(byte: u8) -> bool {
    PARTS[usize::from(byte)]
}

/// The characters of tokens.
const PARTS: [bool; 256] = {
    let mut parts = [false; 256];
    let mut byte = 0_u8;
    loop {
        let sign = matches!(byte, b'-' | b'_' | b'.' | b'+' | b'/' | b'=');
        parts[byte as usize] = sign || byte.is_ascii_alphanumeric();
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    parts
};

fn always(_: &Captures<'_>, _: &str) -> bool {
    true
}

fn with_digit(_: &Captures<'_>, part: &str) -> bool {
    part.bytes().any(|byte| byte.is_ascii_digit())
}

fn opaque_part(_: &Captures<'_>, part: &str) -> bool {
    credential::is_opaque(part)
}

fn in_quotes(_: &Captures<'_>, part: &str) -> bool {
    !matches!(part, "null" | "none" | "None" | "true" | "false" | "string" | "str")
}

/// A token alone, or a name with a password; `git@` and the like are no secrets.
fn userinfo(_: &Captures<'_>, part: &str) -> bool {
    part.contains(':') || part.len() >= 8
}

/// `name=value` is taken at its word unless the value is code; `name: value` may be prose, so the
/// value has to look like a credential.
fn assigned(captures: &Captures<'_>, part: &str) -> bool {
    let before = &captures[0][..captures[0].len() - part.len()];
    if is_code(part) || credential::is_name(part) || !in_quotes(captures, part) {
        return false;
    }
    before.ends_with('=') || credential::is_opaque(part)
}

/// A call or an index, as in `getpass()` or `os.environ[`, or a variable as in `$TOKEN`.
fn is_code(value: &str) -> bool {
    let path = value.find(['(', '[']).is_some_and(|at| {
        at > 0 && value[..at].bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
    });
    (path && value.ends_with(['(', ')', '[', ']']))
        || value.starts_with("${")
        || value.starts_with("{{")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_is_overlooked_by_what_spares_the_patterns() {
        use proptest::strategy::{Strategy as _, ValueTree as _};
        use proptest::test_runner::TestRunner;
        let mut runner = TestRunner::deterministic();
        let has_token = |text: &str| {
            let words = Words::of(text.as_bytes());
            Sight::of(text, Glance::default(), words).token
        };
        let hex = "[0-9a-f]{32,64}";
        let base64 = "[A-Za-z0-9+/]{40,}={0,2}";
        for pattern in TOKENS.iter().copied().chain([hex, base64]) {
            let plain = pattern.replace(r"(?:\b|_)", "_?").replace(r"\b", "");
            let tokens = proptest::string::string_regex(&plain).expect("a pattern");
            for before in ["", " ", "x", "the key is: ", "a long sentence before the token, \""] {
                let token = tokens.new_tree(&mut runner).expect("a token").current();
                let text = format!("{before}{token} and more");
                assert!(has_token(&text), "{pattern}: {text}");
                assert!(has_token(&format!("{before}{token}")), "{pattern}: {text}");
            }
        }
        assert!(!has_token("An understandable sentence, with everything in it, has no token."));
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
        assert_eq!(SHAPES.len(), named().len() + placed().len());
    }
}
