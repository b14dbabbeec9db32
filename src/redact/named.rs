//! Credentials by the name before them: `api_key=…`, "the password is …", `("api_key", "…")`.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr_iter, memchr2_iter};
use regex::Captures;
use regex::bytes::Regex;

use super::credential;
use super::secret::{Row, always, opaque_part};

/// Names of what is assigned, where the name alone says that the value is a credential; passwords in some
/// other languages, too.
pub(super) const NAMES: &str = r"api[_ -]?key|private[_ -]?key[_ -]?id|secret[_ -]?key[_ -]?base|bind[_-]?pw|(?:account|access|shared|secret|private|master|subscription|functions|signing|encryption|auth)[ _-]?(?:access[ _-]?)?key|(?:access|auth|refresh|id|session|security|api|bearer|sas)[ _-]?token|(?:client|app)[ _-]?secret|pass(?:word|wd|phrase|code)|(?:(?-u:\b)|_)pwd|authorization|connection[_-]?string|passwort|kennwort|wachtwoord|contrase(?:ñ|n)a|senha|hasło|heslo|lösenord|passord|mot de passe|пароль|密码|密碼|パスワード|비밀번호";

/// Names that often label something harmless: the value must look like a credential.
const LABELS: &str =
    "key|token|secret|sig|signature|sas|auth|credentials?|pass|pw|cookie|j?sessionid";

/// Between a name and its value, in code, JSON (escaped or not), headers and settings files.
const SEPARATOR: &str = r#"(?:\\*["'`]\]?)?[ \t]*(?:=>|:=|[:=])[ \t]*"#;

/// The same, in tables, XML, Markdown and YAML's blocks, too, and with signs of other scripts.
const SEPARATORS: &str = r#"(?:\\*["'`]\]?|\*+)?[ \t]*(?:=>|:=|->|→|[:=|>：＝是])\**[ \t]*(?:[|>][+-]?[ \t]*\r?\n[ \t]*)?\\*["'`]?"#;

/// A scheme that may stand before a credential.
const SCHEME: &str = r"(?:(?:bearer|basic|token|apikey|api-key|key|digest|negotiate)[ \t]+)?";

/// Between a name and its value in a sentence.
const STATES: &str = "(?:is|was|ist|lautet|est|es|é|è|provided)";

/// What stands in quotes, the other kind of quotes and escapes included; inside JSON in a string,
/// where the quotes themselves are escaped, an escaped quote is the end.
const QUOTED: &str = concat!(
    r#"(?:"((?:[^"\\\r\n]|\\[^\r\n])+)|'((?:[^'\\\r\n]|\\[^\r\n])+)|`([^`\r\n]+)"#,
    r#"|\\+"((?:[^"\\\r\n]|\\[^"\r\n])+)|\\+'((?:[^'\\\r\n]|\\[^'\r\n])+))"#
);

/// What stands behind a name, and not in quotes.
const BARE: &str = r#"[^\s"'`\\&,;<>]"#;

/// What is assigned to the name of a credential.
pub(super) fn assigned_ones() -> Vec<Row> {
    vec![
        (
            format!(
                r#"(?i)(?:{NAMES}|["'`]secret|["'`]token|["'`]pass){SEPARATOR}(?:\[[ \t]*)?{QUOTED}"#
            ),
            |sight| sight.assigns,
            in_quotes,
        ),
        (
            format!(r"(?i)(?:{NAMES}){SEPARATORS}{SCHEME}({BARE}{{4,}})"),
            |sight| sight.assigns,
            assigned,
        ),
        (
            format!(
                r#"(?i)(?:(?-u:\b)|_)(?:{LABELS}){SEPARATOR}\\*["'`]?{SCHEME}(?:base64:)?([A-Za-z0-9_\-+/=.%~]{{16,}})"#
            ),
            |sight| sight.assigns,
            with_digit,
        ),
        // Schemes with something before the credential, or with parameters.
        (
            format!(
                r#"(?i)authorization(?:\\*["'`])?[ \t]*[:=][ \t]*\\*["'`]?(?:(?:digest|hawk|mac|oauth|aws4-[a-z0-9-]+)[ \t]+([^\r\n]{{8,}})|[a-z][a-z0-9-]*[ \t]+({BARE}{{8,}}))"#
            ),
            |sight| sight.assigns,
            opaque_no_code,
        ),
    ]
}

/// Long words that are said to be a credential.
pub(super) fn said_words() -> Vec<Row> {
    let base64 = r"[A-Za-z0-9+/]{40,}={0,2}";
    let between = r#"[ \t]*:?[ \t]*\r?\n[ \t]*|[ \t]+[–—-][ \t]+|[ \t]*[(“„«][ \t]*"#;
    let of = r"[ \t]+(?:for|of|to|on|at)(?:[ \t]+[A-Za-z0-9_./-]{1,30}){1,3}[ \t]+";
    vec![
        (
            format!(
                r#"(?i)(?:key|token|secret|password)(?:\\*["'`])?[ \t:=]{{1,4}}(?:is[ \t:=]{{1,4}})?\\*["'`]?([0-9a-f]{{32,64}}|{base64})"#
            ),
            |sight| sight.token,
            with_digit,
        ),
        (
            format!(
                r#"(?i)(?:{NAMES}|(?-u:\b)(?:token|secret))[ \t,]{{1,3}}(?:{STATES}[: \t]+)?\\*["'`]?([A-Za-z0-9_+/=.~-]{{16,}})"#
            ),
            |sight| sight.token,
            said,
        ),
        (
            format!(
                r#"(?i)(?:{NAMES})(?:{between}|{of}{STATES}:?[ \t]+)\\*["'`]?([A-Za-z0-9_+/=.~-]{{16,}})"#
            ),
            |sight| sight.token,
            said,
        ),
        // The only argument of what takes a credential.
        (
            format!(
                r#"(?i)(?:{NAMES}|secret|token|credential|securestring)[a-z]{{0,12}}(?:\(|[ \t]+(?:-string[ \t]+)?)\\*["'`]([A-Za-z0-9_+/=.~-]{{16,}})"#
            ),
            |sight| sight.token,
            said,
        ),
    ]
}

/// What is said to be a credential, in a sentence or a command.
pub(super) fn said_ones() -> Vec<Row> {
    vec![
        (
            format!(r#"(?i)(?:{NAMES})[ \t]+{STATES}:?[ \t]+["'`]?({BARE}{{6,}})"#),
            |sight| has_statement(sight.text),
            with_digit,
        ),
        (
            format!(r#"(?i)--[a-z-]*(?:{NAMES}|token|secret)(?:[ \t]+|=)\\*["'`]?({BARE}{{4,}})"#),
            |sight| sight.seen.dash && sight.has(&FLAG),
            opaque_no_code,
        ),
        (
            r#"(?:\s-u|--user)[ \t=]*\\*["'`]?[^\s:"'`\\/]+:([^\s"'`\\]{4,})"#.into(),
            |sight| sight.seen.dash && (sight.has(&SHORT_FLAG) || sight.has(&FLAG)),
            no_number,
        ),
    ]
}

/// What a sentence says in other ways, and what programs are given behind an option of theirs.
pub(super) fn told_ones() -> Vec<Row> {
    vec![
        // What is said before its name.
        (
            format!(
                r#"(?i)([A-Za-z0-9_+/=~-]{{16,80}})["'`]?[ \t]+as[ \t]+(?:(?:the|my|a|your|our)[ \t]+)?(?:{NAMES})"#
            ),
            |sight| sight.token && sight.has(&AS) && has_word(sight.text),
            said,
        ),
        // Passwords of programs, behind the option that each has for them.
        (
            r#"(?:sshpass|docker[ \t]+login|podman[ \t]+login|az[ \t]+login|helm[ \t]+registry[ \t]+login)(?:[ \t]+[^\s]+){0,8}?[ \t]+-p[ \t]*["']?([^\s"'`\\]{4,})"#
                .into(),
            |sight| sight.seen.dash && sight.has(&PASS_FLAG),
            opaque_no_code,
        ),
        (
            r#"mysql(?:dump|admin)?(?:[ \t]+[^\s]+){0,8}?[ \t]+-p["']?([^\s"'`\\]{4,})"#.into(),
            |sight| sight.seen.dash && sight.has(&PASS_FLAG),
            opaque_no_code,
        ),
        (
            r"login[ \t]+\S+[ \t\r\n]+password[ \t]+(\S{4,})".into(),
            |sight| sight.has(&LOGIN),
            opaque_no_code,
        ),
    ]
}

/// What a variable of Terraform is by default.
pub(super) fn variables() -> Vec<Row> {
    vec![
        // By its name, or since it says that it is sensitive.
        (
            format!(
                r#"(?i)variable[ \t]+\\*"[^"\\\r\n]*(?:{NAMES}|secret|token|credential)[^"\\\r\n]*\\*"\s*\{{[^{{}}]*?(?-u:\b)default\s*=\s*(?:{QUOTED}|(\[[^\[\]]*"[^\[\]]*\]|\{{[^{{}}]*"[^{{}}]*\}})|<<[-~]?[A-Za-z_]+\r?\n([^{{}}]*?)\r?\n[ \t]*[A-Za-z_]+\s)"#
            ),
            |sight| sight.seen.equals && sight.has(&VARIABLE),
            in_quotes,
        ),
        (
            format!(
                r#"variable[ \t]+\\*"[^"\\\r\n]+\\*"\s*\{{[^{{}}]*?(?-u:\b)sensitive\s*=\s*true[^{{}}]*?(?-u:\b)default\s*=\s*{QUOTED}"#
            ),
            |sight| sight.seen.equals && sight.has(&VARIABLE),
            in_quotes,
        ),
        (
            format!(
                r#"variable[ \t]+\\*"[^"\\\r\n]+\\*"\s*\{{[^{{}}]*?(?-u:\b)default\s*=\s*{QUOTED}[^{{}}]*?(?-u:\b)sensitive\s*=\s*true"#
            ),
            |sight| sight.seen.equals && sight.has(&VARIABLE),
            in_quotes,
        ),
    ]
}

/// What stands beside the name of a credential: in a call, a list of names and values, a form, a query.
pub(super) fn neighbours() -> Vec<Row> {
    let name = format!(r"[A-Za-z0-9_.-]*(?:{NAMES}|secret|token)");
    vec![
        (
            format!(
                r#"(?i)["'`]{name}\\*["'`],[ \t]*\\*["'`]{SCHEME}([^"'`\r\n\\]{{6,}})\\*["'`]"#
            ),
            |sight| has_pair(sight.text),
            opaque_part,
        ),
        (
            format!(
                r#"(?i)(?:name|key)\\*["']?[ \t]*[:=][ \t]*\\*["']?{name}\\*["']?[\s,]*\\*["']?(?-i:value)\\*["']?[ \t]*[:=][ \t]*\\*["']?{SCHEME}([^\s"'\\,<>]{{4,}})"#
            ),
            |sight| (sight.seen.colon || sight.seen.equals) && sight.has(&VALUE),
            always,
        ),
        // An element of XML with attributes.
        (
            format!(r"(?i)<[a-z0-9_:.-]*(?:{NAMES}|secret|token)[ \t][^<>]*>([^<>\s]{{4,}})</"),
            |sight| sight.seen.bar && sight.has(&CLOSING),
            opaque_part,
        ),
        (
            r#"(?i)(?:type|name)=\\*["']pass[a-z]*\\*["'][^<>]*[ \t](?-i:value)=\\*["']([^"'\\]+)"#
                .into(),
            |sight| sight.seen.equals && sight.has(&VALUE),
            always,
        ),
        (
            r"(?i)(?:identified[ \t]+by|password)[ ]+'([^'\r\n]{3,})'".into(),
            |sight| is_quoted(sight.text),
            always,
        ),
        // A secret of AWS beside its id.
        (
            r#"(?:AKIA|ASIA)[A-Z0-9]{16}["'\s,:;|/]{1,8}([A-Za-z0-9+/]{40})(?:[^A-Za-z0-9+/]|\z)"#
                .into(),
            |sight| sight.token && (sight.has(&AKIA) || sight.has(&ASIA)),
            with_digit,
        ),
    ]
}

/// Literals that patterns have in them.
static FLAG: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("--"));
static SHORT_FLAG: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("-u"));
static VALUE: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("value"));
static AS: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(" as "));
static LOGIN: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("login"));
static PASS_FLAG: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(" -p"));
static CLOSING: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("</"));
static VARIABLE: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("variable"));
static QUOTE: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(" '"));
static AKIA: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("AKIA"));
static ASIA: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("ASIA"));

static STATEMENT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(&format!("(?i)[ \t]{STATES}")).ok());
static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new("(?i)key|token|secret|pass|pwd|authorization|string|identified|wort|wachtwoord|contrase|senha|\u{43f}\u{430}\u{440}\u{43e}\u{43b}\u{44c}|\u{5bc6}|\u{30d1}\u{30b9}|\u{be44}").ok()
});
/// Signs of other scripts that stand between a name and its value.
static SIGN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new("(?-u:\u{ff1a}|\u{ff1d}|\u{662f})").ok());

/// Ends of all names that the patterns with `assigns` begin with.
const NAME_ENDS: &[&str] = &[
    "key",
    "key_id",
    "keyid",
    "key-id",
    "key_base",
    "key-base",
    "keybase",
    "hasło",
    "heslo",
    "senord",
    "passord",
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
    "pw",
    "cookie",
    "sessionid",
    "wort",
    "wachtwoord",
    "contraseña",
    "contrasena",
    "senha",
    "passe",
    "пароль",
    "Пароль",
    "密码",
    "密碼",
    "パスワード",
    "비밀번호",
];

/// True if a name of a credential stands before a `:`, `=`, `|` or `>`, or what other scripts write for
/// them. Prose rarely has that, and three patterns without a literal to search for are spared.
pub(super) fn has_assignment(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (signs, others) = (memchr2_iter(b':', b'=', bytes), memchr2_iter(b'|', b'>', bytes));
    signs.chain(others).any(|at| ends_in_name(&bytes[..at])) || {
        let foreign = SIGN.as_ref().filter(|_| !text.is_ascii());
        foreign
            .is_some_and(|sign| sign.find_iter(bytes).any(|at| ends_in_name(&bytes[..at.start()])))
    }
}

/// True if a name of a credential stands before `is`, or a word like it.
fn has_statement(text: &[u8]) -> bool {
    let states = STATEMENT.as_ref();
    states.is_some_and(|states| states.find_iter(text).any(|at| ends_in_name(&text[..at.start()])))
}

/// True if a name of a credential stands in quotes before a comma.
fn has_pair(text: &[u8]) -> bool {
    let quoted = |at: usize| at > 0 && matches!(text[at - 1], b'"' | b'\'' | b'`');
    memchr_iter(b',', text).any(|at| quoted(at) && ends_in_name(&text[..at]))
}

/// True if a part of a credential's name stands anywhere. Without a literal to search for, this looks at each
/// byte: it is for short stretches.
pub(super) fn has_word(text: &[u8]) -> bool {
    WORD.as_ref().is_none_or(|word| word.is_match(text))
}

/// True if what could be the end of `identified by` or `password` stands before a blank and a quote.
fn is_quoted(text: &[u8]) -> bool {
    QUOTE.find_iter(text).any(|at| {
        let before = text[..at].trim_ascii_end();
        let ends = |end: &[u8]| {
            before.len() >= end.len()
                && before[before.len() - end.len()..].eq_ignore_ascii_case(end)
        };
        ends(b"by") || ends(b"word")
    })
}

fn ends_in_name(text: &[u8]) -> bool {
    let between = |byte: &&u8| {
        matches!(byte, b' ' | b'\t' | b'"' | b'\'' | b'`' | b'\\' | b'*' | b']' | b'-')
    };
    let name = &text[..text.len() - text.iter().rev().take_while(between).count()];
    NAME_ENDS.iter().any(|end| {
        name.len() >= end.len()
            && name[name.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
    })
}

fn opaque_no_code(captures: &Captures<'_>, part: &str) -> bool {
    opaque_part(captures, part) && !is_code(part)
}

fn with_digit(_: &Captures<'_>, part: &str) -> bool {
    part.bytes().any(|byte| byte.is_ascii_digit())
}

/// Behind a name without any sign: one long word that is neither an address nor a path.
fn said(_: &Captures<'_>, part: &str) -> bool {
    credential::is_opaque_word(part) && !part.contains("://") && !part.starts_with(['/', '.', '~'])
}

/// What is no number: `-u 1000:1000` names a user and a group.
fn no_number(captures: &Captures<'_>, part: &str) -> bool {
    opaque_part(captures, part) && !part.bytes().all(|byte| byte.is_ascii_digit())
}

fn in_quotes(_: &Captures<'_>, part: &str) -> bool {
    !matches!(part, "null" | "none" | "None" | "true" | "false" | "string" | "str")
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
