//! The kinds of values: what each allows, in words and in code.

use std::net::SocketAddr;
use std::time::Duration;

use super::place;
use super::secret::Secret;
use super::table::Key;

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
            Self::Whole(..) => "whole number",
            Self::Rate => "number",
            Self::Time(..) => "time",
            Self::Bytes(..) => "bytes",
            Self::Name | Self::DottedName => "name",
            Self::Text | Self::Filter => "text",
            Self::Path | Self::Pem(_) => "path",
            Self::Listen => "address",
            Self::Url | Self::Endpoint | Self::BucketUrl => "URL",
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
            _ => "",
        }
    }

    /// Whether what stands here must not be shown.
    pub(super) fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SecretMap)
    }

    /// Whether it takes a list of words.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Choices(_) | Self::HeaderNames | Self::Hosts)
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

fn digits(text: &str) -> Option<u64> {
    let fine = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    fine.then(|| text.parse().ok()).flatten()
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

/// The units of time, the longer first, in microseconds.
const TIME_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

fn time(text: &str, min_ms: u64, max_ms: u64) -> Result<Duration, Refusal> {
    if digits(text).is_some_and(|number| number > 0) {
        return Err(Refusal {
            why: Some("it has no unit".to_owned()),
            nearest: Some(format!("{text}s")),
        });
    }
    let mut rest = if text == "0" { "0s" } else { text };
    let (mut total, mut last_unit) = (0_u64, u64::MAX);
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor = TIME_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
        let (Some(number), Some(factor)) = (digits(number), factor) else {
            return Err(Refusal::default());
        };
        if factor >= last_unit {
            return Err(Refusal::because("its units are not in order"));
        }
        let sum = number.checked_mul(factor).and_then(|us| us.checked_add(total));
        (total, last_unit, rest) = (sum.ok_or_else(Refusal::default)?, factor, tail);
    }
    let time = Duration::from_micros(total);
    let fine = !text.is_empty()
        && (Duration::from_millis(min_ms)..=Duration::from_millis(max_ms)).contains(&time);
    if fine { Ok(time) } else { Err(Refusal::default()) }
}

/// The units of size in bytes.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

fn bytes(text: &str, min: u64, max: u64) -> Result<u64, Refusal> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let Some(number) = digits(number) else { return Err(Refusal::default()) };
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim()) else {
        return Err(size_meant(number, unit.trim()));
    };
    let size = number.checked_mul(*factor).filter(|size| (min..=max).contains(size));
    size.ok_or_else(Refusal::default)
}

fn size_meant(number: u64, unit: &str) -> Refusal {
    let first = unit.to_ascii_uppercase();
    match first.get(..1).filter(|first| "KMGT".contains(first) && unit.len() <= 3) {
        Some(first) => Refusal::meant(format!("{number}{first}iB")),
        None => Refusal::default(),
    }
}

/// `time` with the largest unit that leaves no rest.
pub(super) fn show_time(time: Duration) -> String {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let unit = TIME_UNITS.iter().find(|(_, factor)| us >= *factor && us.is_multiple_of(*factor));
    unit.map_or_else(|| "0s".to_owned(), |(name, factor)| format!("{}{name}", us / factor))
}

/// `size` with the largest binary unit that leaves no rest.
pub(super) fn show_bytes(size: u64) -> String {
    let unit = SIZE_UNITS.iter().take(4).find(|(_, f)| size >= *f && size.is_multiple_of(*f));
    unit.map_or_else(|| size.to_string(), |(name, factor)| format!("{}{name}", size / factor))
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
    fn reads_times_and_shows_them_again() {
        let read = |text| time(text, 0, 86_400_000).ok().map(show_time);
        for (text, shown) in
            [("1h30m", "90m"), ("0", "0s"), ("0s", "0s"), ("1500us", "1500us"), ("60s", "1m")]
        {
            assert_eq!(read(text).as_deref(), Some(shown), "{text}");
        }
        for wrong in ["", "5", "s", "1.5s", "1s1s", "1s1m", "-1s", "1 s", "2d", "99999999999999h"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn reads_sizes_and_shows_them_again() {
        let read = |text| bytes(text, 0, u64::MAX).ok().map(show_bytes);
        for (text, shown) in
            [("1MiB", "1MiB"), ("1MB", "1000000"), ("1 KiB", "1KiB"), ("2048", "2KiB"), ("0B", "0")]
        {
            assert_eq!(read(text).as_deref(), Some(shown), "{text}");
        }
        for wrong in ["", "MiB", "1Mi", "1.5MiB", "-1", "1e3", "99999999999TiB", "+1", "1 x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

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
