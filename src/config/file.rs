//! YAML into a tree with places. The only file that names the YAML parser.
//!
//! The parser (serde-saphyr) checks syntax and bounds depth, size and alias expansion; what the
//! text means is decided later, from the table of keys. Scalars keep the text that was typed, so
//! that `0123`, `1.10` or `off` mean what they say.

use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Spanned};

use super::fault::{Complaint, Report};
use super::node::{Entry, Node, Origin, Scalar, Value};

/// The longest file that is read, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The most nodes of a file, aliases expanded.
const NODES_MAX: usize = 50_000;
/// The deepest nesting.
const DEPTH_MAX: usize = 32;

/// Reads the file; on failure reports and returns `None`.
pub(super) fn read(path: &Path, report: &mut Report) -> Option<Vec<u8>> {
    match super::secret::read_bounded(path, FILE_BYTES_MAX) {
        Ok(bytes) => Some(bytes),
        Err(why) => {
            report.fault(&Origin::Nowhere, Complaint::new(format!("the file {why}")));
            None
        }
    }
}

/// The bytes as text; on failure reports where they stop being UTF-8.
pub(super) fn text(bytes: Vec<u8>, report: &mut Report) -> Option<String> {
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or_default());
            let line = before.matches('\n').count() + 1;
            let complaint = Complaint::new(format!("line {line} is not UTF-8"))
                .allowed("the file's encoding is UTF-8");
            report.fault(&Origin::Nowhere, complaint);
            None
        }
    }
}

/// Parses `text`; on a syntax error reports and returns `None`. An empty text is an empty map.
pub(super) fn parse(text: &str, report: &mut Report) -> Option<Node> {
    match parse_quietly(text) {
        Ok(node) => Some(node),
        Err((origin, message)) => {
            let complaint = Complaint::new(format!("this is not valid YAML: {message}"));
            report.fault(&origin, complaint);
            None
        }
    }
}

/// Reads any YAML, one that is no configuration of ours: every single value is a text, as typed. The
/// error is a fault with its place, for people.
pub fn document(bytes: Vec<u8>, name: &str) -> Result<serde_json::Value, super::Faults> {
    let mut report = Report::new(Some(name.to_owned()));
    let node = text(bytes, &mut report).and_then(|text| {
        report.source(&text);
        parse(&text, &mut report)
    });
    node.map(plain).ok_or_else(|| report.into_faults())
}

/// A tree without its places. Of a key that stands twice the last one counts.
fn plain(node: Node) -> serde_json::Value {
    match node.value {
        Value::Null | Value::Broken => serde_json::Value::Null,
        Value::Scalar(scalar) => serde_json::Value::String(scalar.text),
        Value::List(items) => items.into_iter().map(plain).collect(),
        Value::Map(entries) => {
            entries.into_iter().map(|entry| (entry.key, plain(entry.node))).collect()
        }
    }
}

/// Parses `text`, an environment variable's value as well as a file's.
pub(super) fn parse_quietly(text: &str) -> Result<Node, (Origin, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if is_blank(text) {
        return Ok(Node::map(Origin::Nowhere));
    }
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_aliases: 1_000,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 2 * NODES_MAX,
            max_replay_stack_depth: DEPTH_MAX,
        },
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(node(raw, text)),
        Err(error) => Err(explain(&error)),
    }
}

fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    })
}

fn explain(error: &serde_saphyr::Error) -> (Origin, String) {
    let error = error.without_snippet();
    let text = error.to_string();
    let message = text.lines().next().unwrap_or_default();
    let Some(location) = error.location() else { return (Origin::Nowhere, message.to_owned()) };
    let suffix = format!(" at line {}, column {}", location.line(), location.column());
    let message = match message {
        _ if text.contains("Documents {") => "it has more than one document".to_owned(),
        _ if text.contains("budget breached") => "it is too large or too deep".to_owned(),
        _ if text.contains("expected string scalar") => "a key is no plain text".to_owned(),
        message => message.split(&suffix).next().unwrap_or(message).to_owned(),
    };
    (origin(&location, 1), message)
}

/// A node as the parser hands it over.
enum Raw {
    Null,
    Text(String),
    /// Plain text that looks like a number or a truth value; the text itself comes from the source.
    Plain(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

fn node(raw: Spanned<Raw>, source: &str) -> Node {
    let typed = slice(&raw.defined, source);
    let length = typed.map_or(1, shown_length);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(text) => scalar(text),
        Raw::Plain(text) => scalar(typed.map_or(text, |t| t.trim().to_owned())),
        Raw::List(items) => Value::List(items.into_iter().map(|i| node(i, source)).collect()),
        Raw::Map(entries) => Value::Map(entries.into_iter().map(|e| entry(e, source)).collect()),
    };
    Node { origin: origin(&raw.referenced, length), value }
}

fn entry((key, value): (Spanned<String>, Spanned<Raw>), source: &str) -> Entry {
    let length = slice(&key.defined, source).map_or(key.value.chars().count(), shown_length);
    let key_origin = origin(&key.referenced, length);
    let mut node = node(value, source);
    if matches!(node.value, Value::Null) {
        // An empty value stands nowhere visible; its key does.
        node.origin = key_origin.clone();
    }
    Entry { key: key.value, origin: key_origin, node }
}

fn scalar(text: String) -> Value {
    Value::Scalar(Scalar { shown: text.clone(), text })
}

/// The source text of a node, where the parser knows its bytes.
fn slice<'a>(location: &Location, source: &'a str) -> Option<&'a str> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len()?).ok()?;
    source.get(start..start.checked_add(length)?)
}

/// How much of `typed` a row of carets underlines: what stands on its first line.
fn shown_length(typed: &str) -> usize {
    typed.lines().next().unwrap_or_default().trim_end().chars().count().max(1)
}

fn origin(location: &Location, length: usize) -> Origin {
    let at = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    match location.line() {
        0 => Origin::Nowhere,
        line => Origin::File { line: at(line), column: at(location.column()), length },
    }
}
