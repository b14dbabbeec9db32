//! The kinds of values: what each allows, in words and in code.

use std::net::SocketAddr;
use std::time::Duration;

use super::place;
use super::schedule;
use super::secret::Secret;
use super::show::STARS;
use super::table::Key;
use super::units::{bytes, digits, time};

pub(super) use super::units::{show_bytes, show_time};

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A map with these keys.
    Map(&'static [Key]),
    /// A list of maps with these keys.
    Maps(&'static [Key]),
    /// A URL, or a map with these keys, of which `url` is one.
    UrlOrMap(&'static [Key]),
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of these words.
    Choices(&'static [&'static str]),
    /// A whole number.
    Whole(u64, u64),
    /// A share, 0 to 1.
    Rate,
    /// A length of time, in milliseconds.
    Time(u64, u64),
    /// A number of bytes.
    Bytes(u64, u64),
    /// A name without dots.
    Name,
    /// A name, dots allowed.
    DottedName,
    /// Any text of one line.
    Text,
    /// A path of the file system.
    Path,
    /// A PEM file that holds this (`CERTIFICATE`, `PRIVATE KEY`).
    Pem(&'static str),
    /// An address to listen on.
    Listen,
    /// The URL of an upstream.
    Url,
    /// The URL of a service of the bucket's.
    Endpoint,
    /// The URL of a bucket.
    BucketUrl,
    /// A field of a body.
    Column,
    /// A list of header names.
    HeaderNames,
    /// A list of host names.
    Hosts,
    /// A log filter.
    Filter,
    /// A secret.
    Secret,
    /// A path to a file that holds a secret.
    SecretFile,
    /// Header names, each with a secret value.
    SecretMap,
    /// Five cron fields.
    Cron,
    /// The name of a time zone.
    TimeZone,
    /// A civil date and time.
    DateTime,
    /// An ISO 8601 duration.
    Span,
    /// A number in a range.
    Number(f64, f64),
    /// A list of whole numbers.
    Wholes(u64, u64),
    /// A list of e-mail addresses.
    Emails,
    /// An e-mail address.
    Email,
    /// The URL of a mail server.
    SmtpUrl,
    /// A URL that is a secret.
    SecretUrl,
}

/// A value that its kind allows.
#[derive(Clone, Debug)]
pub(super) enum Checked {
    /// Not given, and without a default.
    Unset,
    Bool(bool),
    Whole(u64),
    Number(f64),
    Time(Duration),
    Listen(SocketAddr),
    Text(String),
    Texts(Vec<String>),
    Secret(Secret),
    Secrets(Vec<(String, Secret)>),
    Span(jiff::Span),
}

/// Why a value is not allowed, besides what its kind says in general.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// The reason, where there is a particular one.
    pub(super) why: Option<String>,
    /// What was probably meant.
    pub(super) nearest: Option<String>,
}

impl Refusal {
    /// A refusal with its reason.
    pub(super) fn because(why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), nearest: None }
    }

    /// A refusal that knows better.
    pub(super) fn meant(nearest: impl Into<String>) -> Self {
        Self { why: None, nearest: Some(nearest.into()) }
    }
}

impl Kind {
    /// What it is called in docs/CONFIG.md, with its unit.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Map(_) | Self::SecretMap => "map",
            Self::Maps(_) => "list of maps",
            Self::UrlOrMap(_) => "URL or map",
            Self::Bool => "truth value",
            Self::Choice(_) => "word",
            Self::Choices(_) | Self::HeaderNames | Self::Hosts => "list of words",
            Self::Cron => "cron fields",
            Self::TimeZone | Self::DateTime | Self::Email => "text",
            Self::Span => "ISO 8601 duration",
            Self::Wholes(..) => "list of whole numbers",
            Self::Emails => "list of addresses",
            Self::SecretUrl => "secret URL",
            Self::Whole(..) => "whole number",
            Self::Rate | Self::Number(..) => "number",
            Self::Time(..) => "time",
            Self::Bytes(..) => "bytes",
            Self::Name | Self::DottedName => "name",
            Self::Text | Self::Filter => "text",
            Self::Path | Self::Pem(_) => "path",
            Self::Listen => "address",
            Self::Url | Self::Endpoint | Self::BucketUrl | Self::SmtpUrl => "URL",
            Self::Column => "field",
            Self::Secret => "secret",
            Self::SecretFile => "path of a secret",
        }
    }

    /// What it allows, in words.
    pub(super) fn allowed(self) -> String {
        match self {
            Self::Map(keys) | Self::Maps(keys) => format!("the keys {}", names(keys)),
            Self::UrlOrMap(keys) => format!("a URL, or a map with the keys {}", names(keys)),
            Self::Choice(words) => words.join(", "),
            Self::Choices(words) => format!("a list of {}, each once", words.join(", ")),
            Self::Whole(min, max) => format!("a whole number from {min} to {max}"),
            Self::Wholes(min, max) => {
                format!("a list of whole numbers from {min} to {max}, each once")
            }
            Self::Number(min, max) => format!("a number from {min} to {max}"),
            Self::Time(..) => {
                format!("{}, a number with us, ms, s, m, h or d, as in `1h30m`", self.range())
            }
            Self::Bytes(..) => {
                let units = "KiB, MiB, GiB, TiB, KB, MB, GB, TB or, for bytes, nothing";
                format!("{}, a number with {units}", self.range())
            }
            Self::Pem(what) => format!("the path of a PEM file with a {}", what.to_lowercase()),
            other => other.allowed_plainly().to_owned(),
        }
    }

    /// What it allows, in words, where the units are told elsewhere.
    pub(super) fn range(self) -> String {
        let time = |ms| show_time(Duration::from_millis(ms));
        match self {
            Self::Time(min, max) => format!("{} to {}", time(min), time(max)),
            Self::Bytes(min, max) => format!("{} to {}", show_bytes(min), show_bytes(max)),
            other => other.allowed(),
        }
    }

    fn allowed_plainly(self) -> &'static str {
        match self {
            Self::Bool => "true, false",
            Self::Rate => "a number from 0 to 1",
            Self::Name => "1 to 64 letters, digits, `-` and `_`",
            Self::DottedName => "1 to 64 letters, digits, `.`, `-` and `_`, not starting with `.`",
            Self::Text => "1 to 1024 characters on one line",
            Self::Path => "the path of a file or folder",
            Self::Listen => {
                "`address:port`, `[address]:port`, `localhost:port` or `:port` (every IPv4 address)"
            }
            Self::Url => "an http or https URL without user, query or fragment",
            Self::Endpoint => {
                "an http or https URL without user, query or fragment, not link-local"
            }
            Self::BucketUrl => {
                "`file:///path`, `s3://name/prefix`, `az://account/container/prefix` or \
                 `gs://name/prefix`"
            }
            Self::Column => {
                "a field's name, a JSON pointer (`/data/question`) or a JSONPath \
                 (`$.messages[-1].content`)"
            }
            Self::HeaderNames => "a list of header names",
            Self::Hosts => "a list of host names, without scheme and port",
            Self::Filter => "a log filter, such as `info` or `info,flowtap::proxy=debug`",
            Self::Secret => "1 to 65536 characters",
            Self::SecretFile => "the path of a file that holds the secret and nothing else",
            Self::SecretMap => "a map of header names, each with its value",
            Self::Cron => "five fields, as in `15 10 * * *`: minute, hour, day, month, day of week",
            Self::TimeZone => "the name of a time zone, such as `UTC` or `Europe/Berlin`",
            Self::DateTime => "a date and a time, as in `2026-11-23T10:15:00`",
            Self::Span => "an ISO 8601 duration that is not negative, such as `P7D` or `PT1H`",
            Self::Emails => "a list of e-mail addresses",
            Self::Email => "an e-mail address",
            Self::SmtpUrl => "`smtps://host:port` or `smtp://host:port`, without user and path",
            Self::SecretUrl => "an http or https URL without user and fragment",
            _ => "",
        }
    }

    /// Whether what stands here must not be shown.
    pub(super) fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SecretMap | Self::SecretUrl)
    }

    /// Whether it takes a list of words.
    pub(super) fn is_list(self) -> bool {
        use Kind::{Choices, Emails, HeaderNames, Hosts, Wholes};
        matches!(self, Choices(_) | HeaderNames | Hosts | Wholes(..) | Emails)
    }

    /// Checks one value; lists are checked word by word.
    pub(super) fn check(self, text: &str) -> Result<Checked, Refusal> {
        let checked = match self {
            Self::Bool => Checked::Bool(boolean(text)?),
            Self::Whole(min, max) => Checked::Whole(whole(text, min, max)?),
            Self::Rate => Checked::Number(rate(text)?),
            Self::Time(min, max) => Checked::Time(time(text, min, max)?),
            Self::Bytes(min, max) => Checked::Whole(bytes(text, min, max)?),
            Self::Listen => Checked::Listen(place::listen(text)?),
            Self::Secret => Checked::Secret(secret(text)?),
            Self::SecretMap => Checked::Secret(header_value(text)?),
            Self::SecretUrl => Checked::Secret(secret_url(text)?),
            Self::Number(min, max) => Checked::Number(number(text, min, max)?),
            Self::Span => Checked::Span(span(text)?),
            other => {
                other.check_text(text)?;
                Checked::Text(text.to_owned())
            }
        };
        Ok(checked)
    }

    fn check_text(self, text: &str) -> Result<(), Refusal> {
        match self {
            Self::Choice(words) | Self::Choices(words) => choice(text, words),
            Self::Name => when(is_name(text) && !text.contains('.')),
            Self::DottedName => when(is_name(text)),
            Self::Url => place::upstream(text).map(drop),
            Self::Endpoint => place::endpoint(text),
            Self::BucketUrl => place::bucket(text).map(drop),
            Self::Column => column(text),
            Self::HeaderNames => header_name(text),
            Self::Hosts => when(place::is_host(text)),
            Self::Filter => filter(text),
            Self::Wholes(min, max) => whole(text, min, max).map(drop),
            Self::Cron => schedule::cron(text).map(drop),
            Self::TimeZone => when(is_one_line(text, 64) && jiff::tz::TimeZone::get(text).is_ok()),
            Self::DateTime => when(text.parse::<jiff::civil::DateTime>().is_ok()),
            Self::Emails | Self::Email => when(is_email(text)),
            Self::SmtpUrl => place::smtp(text).map(drop),
            Self::Path | Self::SecretFile | Self::Pem(_) => {
                when(!text.is_empty() && text.len() <= 4096 && !text.contains(char::is_control))
            }
            _ => when(is_one_line(text, 1024)),
        }
    }
}

fn names(keys: &[Key]) -> String {
    keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
}

fn when(fine: bool) -> Result<(), Refusal> {
    if fine { Ok(()) } else { Err(Refusal::default()) }
}

fn boolean(text: &str) -> Result<bool, Refusal> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        "True" | "TRUE" | "yes" | "Yes" | "on" | "On" | "1" => Err(Refusal::meant("true")),
        "False" | "FALSE" | "no" | "No" | "off" | "Off" | "0" => Err(Refusal::meant("false")),
        _ => Err(Refusal::default()),
    }
}

fn whole(text: &str, min: u64, max: u64) -> Result<u64, Refusal> {
    digits(text).filter(|n| (min..=max).contains(n)).ok_or_else(Refusal::default)
}

fn rate(text: &str) -> Result<f64, Refusal> {
    let percent = text.strip_suffix('%').and_then(|share| share.trim().parse::<f64>().ok());
    if let Some(percent) = percent.filter(|p| (0.0..=100.0).contains(p)) {
        return Err(Refusal::meant((percent / 100.0).to_string()));
    }
    let typed = text.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
    let number = text.parse::<f64>().ok().filter(|n| typed && (0.0..=1.0).contains(n));
    // Zero loses its sign, so that `-0` is 0 everywhere.
    number.map(f64::abs).ok_or_else(Refusal::default)
}

fn number(text: &str, min: f64, max: f64) -> Result<f64, Refusal> {
    let typed = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number = text.parse::<f64>().ok().filter(|n| typed && (min..=max).contains(n));
    number.ok_or_else(Refusal::default)
}

/// The parser also reads `7 days`, which is no ISO 8601.
fn span(text: &str) -> Result<jiff::Span, Refusal> {
    let span = text.parse::<jiff::Span>().ok().filter(|span| !span.is_negative());
    span.filter(|_| text.starts_with('P')).ok_or_else(Refusal::default)
}

/// One `@`, and what a mail server can be told in one line.
fn is_email(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"<>(),;:\\\"".contains(c);
    text.len() <= 254
        && text.chars().all(plain)
        && text.split_once('@').is_some_and(|(local, host)| {
            !local.is_empty() && !host.contains('@') && place::is_host(host)
        })
}

/// What stands for a secret is let through, as it is for any other.
fn secret_url(text: &str) -> Result<Secret, Refusal> {
    if text != STARS {
        place::hook(text).map_err(|refusal| Refusal { nearest: None, ..refusal })?;
    }
    secret(text)
}

fn choice(text: &str, words: &[&str]) -> Result<(), Refusal> {
    match words.contains(&text) {
        true => Ok(()),
        false => Err(Refusal {
            why: None,
            nearest: super::fault::nearest(text, words.iter().copied()).map(str::to_owned),
        }),
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_one_line(text: &str, chars_max: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= chars_max && !text.contains(char::is_control)
}

fn secret(text: &str) -> Result<Secret, Refusal> {
    match (1..=64 * 1024).contains(&text.len()) {
        true => Ok(Secret::new(text)),
        false => Err(Refusal::because("it is empty or too long")),
    }
}

fn header_value(text: &str) -> Result<Secret, Refusal> {
    match http::HeaderValue::from_str(text) {
        Ok(_) => secret(text),
        Err(_) => Err(Refusal::because("it has characters that headers cannot have")),
    }
}

fn header_name(text: &str) -> Result<(), Refusal> {
    match http::HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) if text.len() <= 128 => Ok(()),
        _ => Err(Refusal::default()),
    }
}

fn column(text: &str) -> Result<(), Refusal> {
    if !is_one_line(text, 256) {
        return Err(Refusal::default());
    }
    if text.starts_with('$') {
        return match serde_json_path::JsonPath::parse(text) {
            Ok(_) => Ok(()),
            Err(error) => Err(Refusal::because(format!("as a JSONPath: {}", error.message()))),
        };
    }
    let escapes_right = || text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if text.starts_with('/') && !escapes_right() {
        return Err(Refusal::because("in a JSON pointer, 0 or 1 follows each `~`"));
    }
    Ok(())
}

fn filter(text: &str) -> Result<(), Refusal> {
    if !is_one_line(text, 1024) {
        return Err(Refusal::default());
    }
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refusal::because(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rates() {
        for fine in ["0", "1", "0.1", "1e-3", ".5", "1.0", "-0"] {
            assert!(rate(fine).is_ok(), "{fine}");
        }
        for wrong in ["", "nan", ".nan", "inf", "1.1", "-0.1", "1e400", "0x1", "1,0", "infinity"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(rate("10%").unwrap_err().nearest.as_deref(), Some("0.1"));
        assert!(rate("-0").unwrap().is_sign_positive());
    }

    #[test]
    fn checks_columns_and_names() {
        for fine in ["question", "/a/0/~1", "$.messages[-1].content", "$..a", "a b"] {
            assert!(Kind::Column.check(fine).is_ok(), "{fine}");
        }
        for wrong in ["", " ", "$.", "$[", "/a~", "/a~2", "a\nb"] {
            assert!(Kind::Column.check(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", ".", "..", ".a", "a/b", "ü", "a b", &"x".repeat(65)] {
            assert!(Kind::DottedName.check(wrong).is_err(), "{wrong}");
        }
        assert!(Kind::Name.check("a.b").is_err() && Kind::DottedName.check("a.b").is_ok());
    }
}
