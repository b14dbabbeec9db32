//! Chunks of a streamed chat or completion, folded into the object without streaming.

use crate::dialect::json::Members;
use serde_json::{Map, Value};

use crate::dialect::Fault;
use crate::dialect::fold::{self, Carried, Fold, Folded};
use crate::dialect::usage::Tally;

/// The chunks so far.
#[derive(Default)]
pub(in crate::dialect) struct Chunks {
    whole: Map<String, Value>,
    choices: Vec<Value>,
    tally: Tally,
    chunks: u64,
    left_out: bool,
}

impl Fold for Chunks {
    fn take(&mut self, _name: &str, data: Value) -> Carried {
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

    fn finish(mut self) -> Folded {
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
