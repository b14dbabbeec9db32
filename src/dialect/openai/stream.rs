//! Chunks of a streamed chat or completion, folded into the object without streaming.

use crate::dialect::json::Members;
use serde_json::{Map, Value};

use crate::dialect::Fault;
use crate::dialect::fold::{self, Carried, Fold, Folded};
use crate::dialect::template::{self, Texts};
use crate::dialect::usage::Tally;
use crate::domain::Node;

/// The chunks so far.
#[derive(Default)]
pub(in crate::dialect) struct Chunks {
    whole: Map<String, Value>,
    choices: Vec<Value>,
    tally: Tally,
    chunks: u64,
    left_out: bool,
    /// Where the content of the last chunk went: which choice's, and whether it is no message's.
    last: (usize, bool),
    /// What chunks brought since then, to be added there.
    more: String,
}

impl Fold for Chunks {
    fn take(&mut self, _name: &str, data: Value) -> Carried {
        self.add_more();
        let Value::Object(mut chunk) = data else {
            self.left_out = true;
            return Carried::Nothing;
        };
        self.chunks += 1;
        if let Some(usage) = chunk.member("usage") {
            self.tally.take_openai(usage);
        }
        let choices = match chunk.shift_remove("choices") {
            Some(Value::Array(choices)) => choices,
            _ => Vec::new(),
        };
        self.take_head(chunk);
        let carried = choices.iter().any(carries);
        for choice in choices {
            self.take_choice(choice);
        }
        Carried::content_if(carried)
    }

    /// A chunk of one choice that brings one text and nothing else to add.
    fn repeatable(&mut self, chunk: Node<'_, '_>) -> Option<Texts> {
        let mut choices = chunk.member("choices")?.items();
        let choice = choices.next().filter(|_| choices.next().is_none())?;
        let message = choice.member("delta").and_then(|delta| delta.member("content"));
        let text = message.or_else(|| choice.member("text"))?;
        let idle = fold::is_idle_but_for(text, "", choice);
        if !idle || self.left_out || choice.member("message").is_some() {
            return None;
        }
        let index = choice.member("index").map_or(Some(0), Node::count)?;
        let same = |choice: &Value| choice.member("index").and_then(Value::as_u64) == Some(index);
        self.last = (self.choices.iter().position(same)?, message.is_none());
        // Of a text that only makes chunks equally long, the first counts.
        let known = self.whole.member("obfuscation").and_then(Value::as_str);
        let padding =
            chunk.member("obfuscation").filter(|_| known.is_some_and(|text| !text.is_empty()));
        Some((
            template::place(text)?,
            padding.filter(|text| text.text().is_some()).map(Node::range),
        ))
    }

    fn go_on(&mut self, content: &str) {
        self.more.push_str(content);
    }

    fn finish(mut self) -> Folded {
        self.add_more();
        if self.chunks == 0 {
            return Folded::default();
        }
        if self.whole.member("object").and_then(Value::as_str) == Some("chat.completion.chunk") {
            self.whole.insert("object".to_owned(), Value::from("chat.completion"));
        }
        fold::sort_by_index(&mut self.choices);
        let over = |choice: &Value| choice.member("finish_reason").is_some_and(Value::is_string);
        let ended = !self.choices.is_empty() && self.choices.iter().all(over);
        self.choices.iter_mut().for_each(sort_calls);
        self.whole.insert("choices".to_owned(), Value::Array(self.choices));
        Folded {
            body: Some(Value::Object(self.whole)),
            tally: self.tally,
            ended,
            fault: self.left_out.then_some(Fault::Shape),
            ..Folded::default()
        }
    }
}

impl Chunks {
    /// Adds what chunks brought to the content before.
    fn add_more(&mut self) {
        let (at, is_plain) = self.last;
        let choice = self.choices.get_mut(at).filter(|_| !self.more.is_empty());
        let text = match is_plain {
            true => choice.and_then(|choice| choice.get_mut("text")),
            false => choice.and_then(|choice| choice.get_mut("message")?.get_mut("content")),
        };
        if let Some(Value::String(text)) = text {
            text.push_str(&self.more);
        }
        self.more.clear();
    }

    /// Members beside the choices: the first one that says something, but the last `usage`.
    /// (Azure begins with a chunk whose id, model and time are empty.)
    fn take_head(&mut self, chunk: Map<String, Value>) {
        for (key, value) in chunk {
            let silent = |value: &Value| {
                value.is_null() || value.as_str() == Some("") || value.as_u64() == Some(0)
            };
            let known = self.whole.get(&key).is_some_and(|before| !silent(before));
            if !known || (key == "usage" && !silent(&value)) {
                self.whole.insert(key, value);
            }
        }
    }

    fn take_choice(&mut self, mut choice: Value) {
        let Some(members) = choice.as_object_mut() else {
            self.left_out = true;
            return;
        };
        members.entry("index").or_insert(Value::from(0));
        if let Some(delta) = members.shift_remove("delta") {
            members.insert("message".to_owned(), delta);
        }
        self.left_out |= !fold::merge_element(&mut self.choices, choice);
    }
}

/// True where a choice carries text, thought, refusal, sound or a call.
fn carries(choice: &Value) -> bool {
    let says = |value: Option<&Value>| match value {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(members)) => !members.is_empty(),
        _ => false,
    };
    const CONTENT: &[&str] = &[
        "content",
        "tool_calls",
        "function_call",
        "refusal",
        "reasoning_content",
        "reasoning",
        "audio",
    ];
    let delta = choice.member("delta").or_else(|| choice.member("message"));
    says(choice.member("text"))
        || delta.is_some_and(|delta| CONTENT.iter().any(|key| says(delta.member(key))))
}

/// Tool calls in the order of their index, which only streams carry.
fn sort_calls(choice: &mut Value) {
    let calls = choice.pointer_mut("/message/tool_calls").and_then(Value::as_array_mut);
    let Some(calls) = calls else { return };
    fold::sort_by_index(calls);
    for call in calls.iter_mut().filter_map(Value::as_object_mut) {
        call.shift_remove("index");
    }
}
