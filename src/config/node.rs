//! What was typed, as a tree whose every node knows where it stands.

/// Where something was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In the file: 1-based line and column, and the length of the text in characters.
    File { line: usize, column: usize, length: usize },
    /// In an environment variable of this name.
    Environment(String),
    /// After this option of the command line.
    CommandLine(&'static str),
    /// Nowhere: a default, or the file as a whole.
    Nowhere,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A key with nothing after it.
    Null,
    /// Text, a number, `true`: all as typed, since only the table of keys knows what is due.
    Scalar(Scalar),
    /// Something that was reported already.
    Broken,
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// Text as it is used and as it may be shown.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    /// With `${VAR}` replaced.
    pub(super) text: String,
    /// As typed: what a variable holds is never shown.
    pub(super) shown: String,
}

/// One key of a map.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) origin: Origin,
    pub(super) node: Node,
}

impl Node {
    /// A scalar.
    pub(super) fn scalar(origin: Origin, text: impl Into<String>) -> Self {
        let text = text.into();
        let scalar = Scalar { shown: text.clone(), text };
        Self { origin, value: Value::Scalar(scalar) }
    }

    /// An empty map.
    pub(super) fn map(origin: Origin) -> Self {
        Self { origin, value: Value::Map(Vec::new()) }
    }

    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null | Value::Broken => "empty",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The first value under `key`, where this is a map.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.node),
            _ => None,
        }
    }

    /// The value under `key`, made by `make` where there is none; a value that is no map becomes one.
    pub(super) fn entry(&mut self, key: &str, make: impl FnOnce() -> Node) -> Option<&mut Node> {
        if !matches!(self.value, Value::Map(_)) {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else { return None };
        let index = match entries.iter().position(|entry| entry.key == key) {
            Some(index) => index,
            None => {
                let node = make();
                entries.push(Entry { key: key.to_owned(), origin: node.origin.clone(), node });
                entries.len() - 1
            }
        };
        entries.get_mut(index).map(|entry| &mut entry.node)
    }
}
