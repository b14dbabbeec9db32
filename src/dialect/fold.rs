//! A stream folded into the one object that the same call without streaming would have given.

use super::json::Members;
use serde_json::{Map, Value};

use super::side::Side;
use super::template::{Template, Texts};
use super::usage::Tally;
use super::{Fault, json};
use crate::domain::{Kind, Node};

/// Elements of one folded list that are told apart by their `index` (choices, tool calls). It
/// bounds the search for an element, so that folding stays linear.
const INDEXED_MAX: usize = 128;

/// One dialect's way to fold.
pub(super) trait Fold {
    /// Takes an event, and tells what it carried.
    fn take(&mut self, name: &str, data: Value) -> Carried;

    /// The texts of the event that was taken last, first the content, if another event that differs from it
    /// in them alone would add its content and change nothing else. Remembers where the content went.
    fn repeatable(&mut self, _event: Node<'_, '_>) -> Option<Texts> {
        None
    }

    /// Takes an event that repeats the one before with another content.
    fn go_on(&mut self, _content: &str) {}

    /// What the events add up to; `None` where there was nothing to fold.
    fn finish(self) -> Folded;
}

/// What an event carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// Nothing of the answer.
    Nothing,
    /// What is content only if no other event is known to carry any.
    Perhaps,
    /// Content of the answer.
    Content,
}

impl Carried {
    /// [`Carried::Content`] if so, else nothing.
    pub(super) fn content_if(so: bool) -> Self {
        if so { Self::Content } else { Self::Nothing }
    }
}

/// What a stream adds up to.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// The object that the same call without streaming would have given.
    pub(super) body: Option<Value>,
    /// What was reported of tokens.
    pub(super) tally: Tally,
    /// The stream came to its own end, by the dialect's signs.
    pub(super) ended: bool,
    /// Offset on the wire of the first event with content.
    pub(super) first_content_offset: Option<u64>,
    /// What could not be understood.
    pub(super) fault: Option<Fault>,
}

impl Folded {
    /// An event told of an error after the answer had begun.
    pub(super) fn failed(&self) -> bool {
        self.body
            .as_ref()
            .and_then(|body| body.member("error"))
            .is_some_and(|error| !error.is_null())
    }
}

/// Folds all events of a stream. `data: [DONE]` ends it for every dialect.
pub(super) fn fold(side: &Side<'_>, mut into: impl Fold) -> Folded {
    let (mut done, mut unread) = (false, false);
    let (mut first, mut perhaps) = (None, None);
    let mut before: Option<Template> = None;
    let skipped = side.each_event(&mut |event, finished| {
        if let Some(content) = before.as_ref().and_then(|before| before.content_of(&event)) {
            return into.go_on(&content);
        }
        before = None;
        if event.data.trim() == "[DONE]" {
            done = true;
            return;
        }
        match json::parse(event.data.as_bytes()) {
            Ok(data) => match into.take(&event.name, data) {
                Carried::Nothing => {}
                Carried::Perhaps => _ = perhaps.get_or_insert(event.start),
                Carried::Content => {
                    first.get_or_insert(event.start);
                    before = Template::of(&event, &mut into);
                }
            },
            // The unfinished last event of a cut stream is allowed to be no JSON.
            Err(_) => unread |= finished && !event.data.trim().is_empty(),
        }
    });
    let folded = into.finish();
    let fault = match (skipped > 0, unread) {
        (true, _) => Some(Fault::SseLine),
        (_, true) => Some(Fault::Json),
        _ => folded.fault,
    };
    Folded {
        ended: folded.ended || done,
        first_content_offset: first.or(perhaps).filter(|_| side.has_wire_offsets()),
        fault,
        ..folded
    }
}

/// Values of a stream whose dialect is not known, one after the other: objects become one, member by member,
/// and so do lists and texts.
#[derive(Debug, Default)]
pub(super) struct Joined(Vec<Value>);

impl Joined {
    /// Adds the next value to those of its kind.
    pub(super) fn add(&mut self, value: Value) {
        let kind = std::mem::discriminant(&value);
        match self.0.iter_mut().find(|before| std::mem::discriminant(*before) == kind) {
            Some(before) => _ = merge_value("", before, value),
            None => self.0.push(value),
        }
    }

    /// What they add up to; a list, where they were of several kinds.
    pub(super) fn into_value(mut self) -> Option<Value> {
        if self.0.len() > 1 { Some(Value::Array(self.0)) } else { self.0.pop() }
    }
}

/// Adds a delta to what came before: texts are joined, lists merged by `index`, objects member by
/// member, and names replaced. Returns false if something was left out (an absurd index).
pub(super) fn merge(whole: &mut Map<String, Value>, delta: Map<String, Value>) -> bool {
    let mut complete = true;
    for (key, value) in delta {
        if value.is_null() {
            whole.entry(key).or_insert(Value::Null);
            continue;
        }
        match whole.get_mut(&key) {
            None | Some(Value::Null) => {
                let mut fresh = empty_like(&value);
                complete &= merge_value(&key, &mut fresh, value);
                whole.insert(key, fresh);
            }
            Some(before) => complete &= merge_value(&key, before, value),
        }
    }
    complete
}

fn merge_value(key: &str, whole: &mut Value, delta: Value) -> bool {
    match (whole, delta) {
        (Value::String(text), Value::String(more)) if !is_name(key) => {
            text.push_str(&more);
            true
        }
        (Value::Object(members), Value::Object(more)) => merge(members, more),
        (Value::Array(elements), Value::Array(more)) => {
            // Every element is taken, whatever became of the one before.
            let left_out = more
                .into_iter()
                .filter_map(|element| (!merge_element(elements, element)).then_some(()));
            left_out.count() == 0
        }
        // An empty name comes with every later piece of some servers.
        (Value::String(text), Value::String(more)) if more.is_empty() && !text.is_empty() => true,
        (whole, delta) => {
            *whole = delta;
            true
        }
    }
}

/// Adds an element to a list: to the one of the same `index`, else at the end. Returns false if it
/// was left out.
pub(super) fn merge_element(elements: &mut Vec<Value>, delta: Value) -> bool {
    let (index, delta) = match delta {
        Value::Object(members) if members.member("index").is_some_and(Value::is_u64) => {
            (members["index"].clone(), members)
        }
        other => {
            go_on_or_push(elements, other);
            return true;
        }
    };
    let same = |element: &Value| element.member("index") == Some(&index);
    if let Some(Value::Object(before)) =
        elements.iter_mut().take(INDEXED_MAX).find(|element| same(element))
    {
        return merge(before, delta);
    }
    if elements.len() >= INDEXED_MAX {
        return false;
    }
    let mut fresh = Map::new();
    let complete = merge(&mut fresh, delta);
    elements.push(Value::Object(fresh));
    complete
}

/// Some servers leave the `index` out: what is a piece of text or of a call, and names no call of its own,
/// goes on with the element before it.
fn go_on_or_push(elements: &mut Vec<Value>, element: Value) {
    let (last, piece) = match (elements.last_mut(), element) {
        (Some(Value::Object(last)), Value::Object(piece)) if goes_on(last, &piece) => (last, piece),
        (_, element) => return elements.push(element),
    };
    merge(last, piece);
}

fn goes_on(last: &Map<String, Value>, piece: &Map<String, Value>) -> bool {
    let nameless = |key: &str| piece.get(key).and_then(Value::as_str).is_none_or(str::is_empty);
    let of_a_call = piece.get("function").is_some_and(|function| {
        nameless("id") && function.get("name").and_then(Value::as_str).is_none_or(str::is_empty)
    });
    let member =
        |key: &String| matches!(key.as_str(), "type" | "text") || (of_a_call && key != "index");
    let same_type = piece.get("type").is_none_or(|kind| last.get("type") == Some(kind));
    piece.keys().all(member) && same_type && (of_a_call || piece.contains_key("text"))
}

fn empty_like(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        Value::String(_) => Value::String(String::new()),
        _ => Value::Null,
    }
}

/// Members that are sent whole, and by some servers with every piece.
fn is_name(key: &str) -> bool {
    matches!(
        key,
        "id" | "type"
            | "role"
            | "name"
            | "index"
            | "finish_reason"
            | "model"
            | "object"
            | "severity"
    )
}

/// True where nothing changes if a delta that was merged is merged again, but for `text` in it.
pub(super) fn is_idle_but_for(text: Node<'_, '_>, key: &str, delta: Node<'_, '_>) -> bool {
    match delta.kind() {
        Kind::Word | Kind::Number => true,
        Kind::Text | Kind::Escaped => {
            is_name(key) || delta.text() == Some("") || delta.range() == text.range()
        }
        Kind::List => delta.items().next().is_none(),
        Kind::Object => delta.members().all(|(key, part)| is_idle_but_for(text, key, part)),
    }
}

/// Sorts elements by their `index`, as they would have come without streaming.
pub(super) fn sort_by_index(elements: &mut [Value]) {
    elements
        .sort_by_key(|element| element.member("index").and_then(Value::as_u64).unwrap_or(u64::MAX));
}
