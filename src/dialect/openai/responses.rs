//! OpenAI's responses: input items in, output items out.

use crate::dialect::json::Members;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{add_line, content_text, read_dialogue, read_names, tool_schemas};
use crate::dialect::fold::{Carried, Fold, Folded};
use crate::dialect::usage::Tally;
use crate::dialect::{Answer, Fault, View, json as text};
use crate::domain::{ChatTurn, Countable, Reading};

/// Reads a response, streamed or not.
pub(in crate::dialect) fn read(view: &View<'_>, answer: &Answer<'_>, reading: &mut Reading) {
    read_names(view, answer, reading);
    let input = view.request.json().and_then(|body| body.member("input"));
    if !view.request.partial() {
        read_input(input, reading);
    }
    reading.finish_reason = answer.body.and_then(finish_reason);
    if !view.succeeded() {
        return;
    }
    let output = answer.body.and_then(|body| body.member("output")).and_then(Value::as_array);
    let output = output.map(Vec::as_slice);
    if reading.answer.is_none() {
        reading.answer = said(output.unwrap_or_default());
    }
    if answer.whole_success {
        match output {
            None if !answer.stream => reading.fault = Some(Fault::Shape.label()),
            output => reading.empty = is_empty(answer.body, output.unwrap_or_default()),
        }
    }
    reading.countable = Some(countable(view, answer, input, output.unwrap_or_default()));
}

fn read_input(input: Option<&Value>, reading: &mut Reading) {
    match input {
        Some(Value::Array(items)) => read_dialogue(items, reading),
        Some(Value::String(_)) if reading.question.is_none() => reading.question = input.cloned(),
        _ => {}
    }
}

/// Why a response is incomplete, else its status.
fn finish_reason(body: &Value) -> Option<String> {
    let reason = text::name(body.pointer("/incomplete_details/reason"));
    reason.or_else(|| text::name(body.member("status")))
}

/// The texts (and refusals) of all messages among the items.
fn said(output: &[Value]) -> Option<Value> {
    let mut said = String::new();
    for message in output.iter().filter(|item| text::text(item, "type") == Some("message")) {
        add_line(&mut said, &content_text(message.member("content")).0);
    }
    (!said.is_empty()).then_some(Value::String(said))
}

/// Nothing was said and nothing was called; a response that goes on in the background is not over.
fn is_empty(body: Option<&Value>, output: &[Value]) -> bool {
    let status = body.and_then(|body| text::text(body, "status"));
    let pending = matches!(status, Some("queued" | "in_progress"));
    let acts =
        |item: &Value| !matches!(text::text(item, "type"), Some("message" | "reasoning") | None);
    !pending && said(output).is_none() && !output.iter().any(acts)
}

fn countable(
    view: &View<'_>,
    answer: &Answer<'_>,
    input: Option<&Value>,
    output: &[Value],
) -> Countable {
    let mut countable = Countable {
        input_truncated: view.request.partial(),
        output_truncated: answer.cut,
        ..Countable::default()
    };
    let request = view.request.json();
    let turn = |role: &str, text: String| ChatTurn { role: role.to_owned(), name: None, text };
    let instructions = request.and_then(|body| text::text(body, "instructions"));
    countable.turns.extend(instructions.map(|text| turn("system", text.to_owned())));
    match input {
        Some(Value::String(text)) => countable.turns.push(turn("user", text.clone())),
        Some(Value::Array(items)) => {
            for item in items {
                let (said, beyond_text) = item_text(item);
                let role = text::text(item, "role").unwrap_or("assistant");
                countable.turns.push(turn(role, said));
                countable.input_truncated |= beyond_text;
            }
        }
        _ => {}
    }
    // What the server remembers of earlier responses was not sent again.
    let remembered =
        |key: &str| request.and_then(|body| body.member(key)).is_some_and(|v| !v.is_null());
    countable.input_truncated |= remembered("previous_response_id") || remembered("conversation");
    countable.input.extend(request.into_iter().flat_map(tool_schemas));
    let texts = output.iter().map(|item| item_text(item).0);
    countable.output.extend(texts.filter(|text| !text.is_empty()));
    countable
}

/// All text of an item: of a message, a thought, a call or a call's result.
fn item_text(item: &Value) -> (String, bool) {
    let (mut said, mut beyond_text) = content_text(item.member("content"));
    for thought in text::items(item, "summary") {
        add_line(&mut said, text::text(thought, "text").unwrap_or_default());
    }
    for key in ["name", "arguments", "input"] {
        add_line(&mut said, text::text(item, key).unwrap_or_default());
    }
    let (result, more) = content_text(item.member("output"));
    add_line(&mut said, &result);
    beyond_text |= more;
    (said, beyond_text)
}

/// The events of a streamed response so far.
#[derive(Default)]
pub(in crate::dialect) struct Events {
    begun: Option<Value>,
    over: Option<Value>,
    items: BTreeMap<u64, Item>,
    tally: Tally,
    error: Option<Value>,
}

/// One output item, rebuilt from its pieces until it comes whole.
#[derive(Default)]
struct Item {
    begun: Option<Value>,
    done: Option<Value>,
    text: String,
    refusal: String,
    arguments: String,
    thought: String,
}

impl Fold for Events {
    fn take(&mut self, name: &str, mut data: Value) -> Carried {
        let kind = data.member("type").and_then(Value::as_str).unwrap_or(name).to_owned();
        if let Some(usage) = data.pointer("/response/usage") {
            self.tally.take_openai(usage);
        }
        let mut taken = |key: &str| data.get_mut(key).map(Value::take);
        match kind.as_str() {
            "response.completed" | "response.incomplete" | "response.failed" => {
                self.over = taken("response");
            }
            "response.created" | "response.in_progress" | "response.queued" => {
                self.begun = taken("response").or(self.begun.take());
            }
            "error" => self.error = Some(data),
            "response.output_item.added" => {
                let item = taken("item");
                self.item(&data).begun = item;
            }
            "response.output_item.done" => {
                let item = taken("item");
                self.item(&data).done = item;
            }
            kind => return Carried::content_if(self.take_delta(kind, &data)),
        }
        Carried::Nothing
    }

    fn finish(self) -> Folded {
        let ended = self.over.is_some();
        let base = self.over.or(self.begun);
        if base.is_none() && self.items.is_empty() && self.error.is_none() {
            return Folded { tally: self.tally, ..Folded::default() };
        }
        let mut body = match base {
            Some(Value::Object(members)) => members,
            _ => Map::from_iter([("object".to_owned(), Value::from("response"))]),
        };
        let given =
            body.member("output").and_then(Value::as_array).is_some_and(|items| !items.is_empty());
        if !given {
            let items = self.items.into_values().map(Item::finish).collect();
            body.insert("output".to_owned(), Value::Array(items));
        }
        body.extend(self.error.map(|error| ("error".to_owned(), error)));
        Folded { body: Some(Value::Object(body)), tally: self.tally, ended, ..Folded::default() }
    }
}

impl Events {
    fn item(&mut self, data: &Value) -> &mut Item {
        let index = data.member("output_index").and_then(Value::as_u64).unwrap_or(0);
        self.items.entry(index).or_default()
    }

    /// Takes a piece of an item; true if it says something.
    fn take_delta(&mut self, kind: &str, data: &Value) -> bool {
        let Some(delta) = data.member("delta").and_then(Value::as_str) else { return false };
        let item = self.item(data);
        match kind {
            "response.output_text.delta" => item.text.push_str(delta),
            "response.refusal.delta" => item.refusal.push_str(delta),
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                item.arguments.push_str(delta);
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                item.thought.push_str(delta);
            }
            _ => return false,
        }
        !delta.is_empty()
    }
}

impl Item {
    fn finish(self) -> Value {
        if let Some(done) = self.done {
            return done;
        }
        let mut item = match self.begun {
            Some(Value::Object(members)) => members,
            _ => Map::from_iter([("type".to_owned(), Value::from("message"))]),
        };
        let mut content = Vec::new();
        if !self.text.is_empty() {
            content.push(json!({"type": "output_text", "text": self.text}));
        }
        if !self.refusal.is_empty() {
            content.push(json!({"type": "refusal", "refusal": self.refusal}));
        }
        if !content.is_empty() {
            item.insert("content".to_owned(), Value::Array(content));
        }
        if !self.arguments.is_empty() {
            item.insert("arguments".to_owned(), Value::String(self.arguments));
        }
        if !self.thought.is_empty() {
            item.insert(
                "summary".to_owned(),
                json!([{"type": "summary_text", "text": self.thought}]),
            );
        }
        Value::Object(item)
    }
}
