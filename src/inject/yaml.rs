//! Manifests as trees with places. The only file besides `config/file` that names a YAML parser.
//!
//! The parser is asked for events and their places in the text; nothing is ever written back by it.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};
use serde_json::{Map, Value};

use super::Refusal;

/// The most nodes of a text, and of a document with its aliases written out.
const NODES_MAX: usize = 500_000;
/// The deepest nesting.
const DEPTH_MAX: usize = 100;

/// A node of the text.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) what: What,
    /// Where it is, in bytes.
    pub(super) start: usize,
    pub(super) end: usize,
    /// 0 where it has no anchor.
    anchor: usize,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum What {
    Scalar { text: String, plain: bool },
    Map { entries: Vec<(Node, Node)>, flow: bool },
    List { items: Vec<Node>, flow: bool },
    Alias(usize),
}

/// A step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(&'static str),
    Index(usize),
}

/// One document of the text.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Node,
    anchors: HashMap<usize, Node>,
    aliased: HashSet<usize>,
}

/// A text's documents and comments.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) documents: Vec<Document>,
    /// Where each comment begins, in bytes, and what stands after its `#`.
    pub(super) comments: Vec<(usize, String)>,
}

/// Reads a text of any number of documents.
pub(super) fn parse(text: &str) -> Result<Parsed, Refusal> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), parsed: Parsed::default(), nodes: 0 };
    reader.stream()?;
    Ok(reader.parsed)
}

struct Reader<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    parsed: Parsed,
    nodes: usize,
}

impl<'a> Reader<'a> {
    /// The next event that is no comment.
    fn next(&mut self) -> Result<(Event<'a>, Span), Refusal> {
        loop {
            match self.parser.next_event() {
                None => return Ok((Event::StreamEnd, Span::default())),
                Some(Err(error)) => {
                    let mut refusal =
                        Refusal::new(format!("this is no valid YAML: {}", error.info()));
                    refusal.line = error.marker().line();
                    return Err(refusal);
                }
                Some(Ok((Event::Comment(text, _), span))) => {
                    self.parsed.comments.push((offset(span.start), text.into_owned()));
                }
                Some(Ok(event)) => return Ok(event),
            }
        }
    }

    fn stream(&mut self) -> Result<(), Refusal> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(..), _) => {
                    let (event, span) = self.next()?;
                    let mut aliased = HashSet::new();
                    let root = self.node(event, span, 0, &mut aliased)?;
                    let mut anchors = HashMap::new();
                    root.anchors(&mut anchors);
                    self.parsed.documents.push(Document { root, anchors, aliased });
                }
                _ => {}
            }
        }
    }

    fn node(
        &mut self,
        event: Event<'a>,
        span: Span,
        depth: usize,
        aliased: &mut HashSet<usize>,
    ) -> Result<Node, Refusal> {
        self.nodes += 1;
        if self.nodes > NODES_MAX || depth > DEPTH_MAX {
            return Err(Refusal::new("it is too large or too deep").at(span.start.line()));
        }
        let (start, mut end) = (offset(span.start), offset(span.end));
        let (what, anchor) = match event {
            Event::Alias(anchor) => {
                aliased.insert(anchor);
                (What::Alias(anchor), 0)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (What::Scalar { text: text.into_owned(), plain }, anchor)
            }
            Event::SequenceStart(style, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, span) => break end = offset(span.end),
                        (event, span) => items.push(self.node(event, span, depth + 1, aliased)?),
                    }
                }
                (What::List { items, flow: style == StructureStyle::Flow }, anchor)
            }
            Event::MappingStart(style, anchor, _) => {
                let mut entries = Vec::new();
                loop {
                    let key = match self.next()? {
                        (Event::MappingEnd, span) => break end = offset(span.end),
                        (event, span) => self.node(event, span, depth + 1, aliased)?,
                    };
                    let (event, span) = self.next()?;
                    entries.push((key, self.node(event, span, depth + 1, aliased)?));
                }
                (What::Map { entries, flow: style == StructureStyle::Flow }, anchor)
            }
            // Nothing else stands where a node is expected.
            _ => (What::Scalar { text: String::new(), plain: true }, 0),
        };
        Ok(Node { what, start, end, anchor })
    }
}

fn offset(marker: granit_parser::Marker) -> usize {
    marker.byte_offset().unwrap_or_default()
}

impl Node {
    fn anchors(&self, into: &mut HashMap<usize, Self>) {
        if self.anchor > 0 {
            into.insert(self.anchor, self.clone());
        }
        match &self.what {
            What::Map { entries, .. } => entries.iter().for_each(|(key, value)| {
                key.anchors(into);
                value.anchors(into);
            }),
            What::List { items, .. } => items.iter().for_each(|item| item.anchors(into)),
            What::Scalar { .. } | What::Alias(_) => {}
        }
    }

    /// The entry of a key that is written right here.
    pub(super) fn entry(&self, name: &str) -> Option<(&Self, &Self)> {
        let What::Map { entries, .. } = &self.what else { return None };
        let entry = entries.iter().find(|(key, _)| key.is_text(name))?;
        Some((&entry.0, &entry.1))
    }

    /// What has to be edited stands once.
    fn check_once(&self, name: &str) -> Result<(), Refusal> {
        let What::Map { entries, .. } = &self.what else { return Ok(()) };
        let mut again = entries.iter().filter(|(key, _)| key.is_text(name)).skip(1);
        match again.next() {
            Some((key, _)) => {
                Err(Refusal::new(format!("`{name}` stands twice")).at_byte(key.start))
            }
            None => Ok(()),
        }
    }

    /// True for this very text.
    pub(super) fn is_text(&self, wanted: &str) -> bool {
        matches!(&self.what, What::Scalar { text, .. } if text == wanted)
    }

    /// True where it stands in double quotes.
    pub(super) fn is_quoted(&self, text: &str) -> bool {
        text[self.start..].starts_with('"')
    }

    /// True for a map or a list without entries.
    pub(super) fn is_empty(&self) -> bool {
        match &self.what {
            What::Map { entries, .. } => entries.is_empty(),
            What::List { items, .. } => items.is_empty(),
            What::Scalar { .. } | What::Alias(_) => false,
        }
    }

    /// True in `{...}` and `[...]`.
    pub(super) fn is_flow(&self) -> bool {
        matches!(self.what, What::Map { flow: true, .. } | What::List { flow: true, .. })
    }
}

impl Document {
    /// The document's value, aliases and merge keys written out.
    pub(super) fn value(&self) -> Result<Value, Refusal> {
        let mut left = NODES_MAX;
        self.value_of(&self.root, 0, &mut left)
    }

    fn value_of(&self, node: &Node, depth: usize, left: &mut usize) -> Result<Value, Refusal> {
        *left = left.saturating_sub(1);
        if *left == 0 || depth > 2 * DEPTH_MAX {
            return Err(Refusal::new("its aliases make it too large").at_byte(node.start));
        }
        match &node.what {
            What::Scalar { text, plain: true } => Ok(plain(text)),
            What::Scalar { text, .. } => Ok(Value::String(text.clone())),
            What::Alias(anchor) => match self.anchors.get(anchor) {
                Some(target) => self.value_of(target, depth + 1, left),
                None => Err(Refusal::new("an alias without an anchor").at_byte(node.start)),
            },
            What::List { items, .. } => {
                items.iter().map(|item| self.value_of(item, depth + 1, left)).collect()
            }
            What::Map { entries, .. } => self.map_of(entries, depth, left).map(Value::Object),
        }
    }

    fn map_of(
        &self,
        entries: &[(Node, Node)],
        depth: usize,
        left: &mut usize,
    ) -> Result<Map<String, Value>, Refusal> {
        let (mut own, mut merged) = (Map::new(), Map::new());
        for (key, value) in entries {
            let What::Scalar { text, plain } = &key.what else {
                return Err(Refusal::new("a key is no plain text").at_byte(key.start));
            };
            let value = self.value_of(value, depth + 1, left)?;
            if *plain && text == "<<" {
                merge(value, &mut merged);
            } else {
                // Of a key that stands twice readers take the last, if they take any.
                own.insert(text.clone(), value);
            }
        }
        for (key, value) in merged {
            own.entry(key).or_insert(value);
        }
        Ok(own)
    }

    /// The node at `path`, if it is written there and nowhere else: no alias on the way, and none to it.
    pub(super) fn at(&self, path: &[Step]) -> Result<Option<&Node>, Refusal> {
        let mut node = &self.root;
        self.check_own(node)?;
        for step in path {
            let next = match (step, &node.what) {
                (Step::Key(name), What::Map { .. }) => {
                    node.check_once(name)?;
                    node.entry(name).map(|(_, value)| value)
                }
                (Step::Index(index), What::List { items, .. }) => items.get(*index),
                _ => None,
            };
            let Some(next) = next else { return Ok(None) };
            self.check_own(next)?;
            node = next;
        }
        Ok(Some(node))
    }

    fn check_own(&self, node: &Node) -> Result<(), Refusal> {
        let shared = self.aliased.contains(&node.anchor) || matches!(node.what, What::Alias(_));
        match shared {
            true => Err(Refusal::new(
                "what has to be edited is shared by an anchor and an alias: write it out",
            )
            .at_byte(node.start)),
            false => Ok(()),
        }
    }
}

fn merge(value: Value, into: &mut Map<String, Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                into.entry(key).or_insert(value);
            }
        }
        Value::Array(maps) => maps.into_iter().for_each(|map| merge(map, into)),
        _ => {}
    }
}

/// What a plain scalar means, as far as manifests need it: the JSON words and numbers.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        other => match other.parse::<i64>() {
            Ok(number) if !other.starts_with('+') => number.into(),
            _ => Value::String(other.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(text: &str) -> Value {
        parse(text).expect("parses").documents[0].value().expect("a value")
    }

    #[test]
    fn places_are_bytes_of_the_text() {
        let text = "# ä\nmetadata: {ö: x}\nspec:\n  name: app # why\n";
        let parsed = parse(text).expect("parses");
        let root = &parsed.documents[0].root;
        let (key, value) = root.entry("spec").expect("there").1.entry("name").expect("there");
        assert_eq!((&text[key.start..key.end], &text[value.start..value.end]), ("name", "app"));
        let comments: Vec<_> = parsed.comments.iter().map(|(at, _)| &text[*at..*at + 4]).collect();
        assert_eq!(comments, ["# ä", "# why"].map(|c| &c[..4]));
        assert_eq!(&text[parsed.comments[1].0..], "# why\n");
    }

    #[test]
    fn aliases_and_merge_keys_are_written_out() {
        let text = "base: &b {a: 1, b: two}\nx: {<<: *b, b: \"3\"}\ny: [*b, ~, true, 1.10]\n";
        assert_eq!(
            value(text),
            json!({"base": {"a": 1, "b": "two"}, "x": {"b": "3", "a": 1}, "y": [{"a": 1, "b": "two"}, null, true, "1.10"]})
        );
        let parsed = parse(text).expect("parses");
        assert!(parsed.documents[0].at(&[Step::Key("base"), Step::Key("a")]).is_err());
        assert!(parsed.documents[0].at(&[Step::Key("x")]).expect("own").is_some());
        assert!(parsed.documents[0].at(&[Step::Key("none")]).expect("own").is_none());
    }

    #[test]
    fn bombs_and_broken_texts_are_refused_with_their_line() {
        let mut bomb = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let list = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("b{level}: &a{level} [{list}]\n"));
        }
        let parsed = parse(&bomb).expect("parses");
        assert!(parsed.documents[0].value().is_err());
        assert_eq!(parse("a: 1\nb: [\n}\n").expect_err("broken").line, 2);
        assert!(parse(&"[".repeat(1000)).is_err());
        let twice = parse("a: 1\na: 2\n").expect("parses");
        assert_eq!(twice.documents[0].value().expect("a value"), json!({"a": 2}));
        assert!(twice.documents[0].at(&[Step::Key("a")]).is_err());
    }
}
