//! Anthropic messages. Format: <https://docs.anthropic.com/en/api/messages> and
//! <https://docs.anthropic.com/en/docs/build-with-claude/streaming>.

use super::json::Members;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fold::{Carried, Fold, Folded};
use super::openai::{add_line, content_text, read_dialogue};
use super::usage::Tally;
use super::{Answer, Fault, View, json};
use crate::domain::{ChatTurn, Countable, Reading};

/// Reads a message, streamed or not.
pub(super) fn read(view: &View<'_>, answer: &Answer<'_>, reading: &mut Reading) {
    let request = view.request.json();
    let named =
        |body: Option<&Value>, key: &str| json::name(body.and_then(|body| body.member(key)));
    reading.model.request = named(request, "model");
    reading.model.response = named(answer.body, "model");
    reading.response_id = named(answer.body, "id");
    reading.finish_reason = named(answer.body, "stop_reason");
    let mut tally = answer.tally;
    if let Some(usage) = answer.reported() {
        tally.take_anthropic(usage);
    }
    reading.usage = tally.usage();
    let messages = request.map_or(&[][..], |body| json::items(body, "messages"));
    if !view.request.partial() {
        read_dialogue(messages, reading);
    }
    if !view.succeeded() {
        return;
    }
    let content = answer.body.and_then(|body| body.member("content")).and_then(Value::as_array);
    let blocks = content.map(Vec::as_slice);
    if reading.answer.is_none() {
        reading.answer = said(blocks.unwrap_or_default());
    }
    if answer.whole_success {
        match blocks {
            None if !answer.stream => reading.fault = Some(Fault::Shape.label()),
            blocks => reading.empty = is_empty(blocks.unwrap_or_default()),
        }
    }
    reading.countable = Some(countable(view, answer, messages, blocks.unwrap_or_default()));
}

fn said(blocks: &[Value]) -> Option<Value> {
    let texts = blocks.iter().filter(|block| json::text(block, "type") == Some("text"));
    let said: String = texts.filter_map(|block| json::text(block, "text")).collect();
    (!said.is_empty()).then_some(Value::String(said))
}

/// Neither text nor the use of a tool.
fn is_empty(blocks: &[Value]) -> bool {
    let acts = |block: &Value| {
        !matches!(json::text(block, "type"), Some("text" | "thinking" | "redacted_thinking") | None)
    };
    said(blocks).is_none() && !blocks.iter().any(acts)
}

fn countable(
    view: &View<'_>,
    answer: &Answer<'_>,
    messages: &[Value],
    blocks: &[Value],
) -> Countable {
    let mut countable = Countable {
        input_truncated: view.request.partial(),
        output_truncated: answer.cut,
        ..Countable::default()
    };
    let request = view.request.json();
    let (system, _) = content_text(request.and_then(|body| body.member("system")));
    if !system.is_empty() {
        countable.turns.push(ChatTurn { role: "system".to_owned(), name: None, text: system });
    }
    for message in messages {
        let role = json::text(message, "role").unwrap_or("user").to_owned();
        let (text, beyond_text) = message_text(message);
        countable.turns.push(ChatTurn { role, name: None, text });
        countable.input_truncated |= beyond_text;
    }
    let tools = request.map_or(&[][..], |body| json::items(body, "tools"));
    countable.input.extend(tools.iter().map(Value::to_string));
    let texts = blocks.iter().map(|block| block_text(block).unwrap_or_default());
    countable.output.extend(texts.filter(|text| !text.is_empty()));
    countable
}

/// All text of a message; the flag is true where a block holds something else.
fn message_text(message: &Value) -> (String, bool) {
    let Some(blocks) = message.member("content").and_then(Value::as_array) else {
        return content_text(message.member("content"));
    };
    let (mut text, mut beyond_text) = (String::new(), false);
    for block in blocks {
        match block_text(block) {
            Some(part) => add_line(&mut text, &part),
            None => beyond_text = true,
        }
    }
    (text, beyond_text)
}

/// The text of a block: said, thought, a tool's name and input, or a tool's result.
fn block_text(block: &Value) -> Option<String> {
    match json::text(block, "type")? {
        "text" => Some(json::text(block, "text").unwrap_or_default().to_owned()),
        "thinking" => Some(json::text(block, "thinking").unwrap_or_default().to_owned()),
        "tool_use" | "server_tool_use" => {
            let mut text = json::text(block, "name").unwrap_or_default().to_owned();
            add_line(&mut text, &block.member("input").map(Value::to_string).unwrap_or_default());
            Some(text)
        }
        "tool_result" => match content_text(block.member("content")) {
            (text, false) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// The events of a streamed message so far.
#[derive(Default)]
pub(super) struct Events {
    message: Option<Map<String, Value>>,
    blocks: BTreeMap<u64, Block>,
    tally: Tally,
    final_usage: bool,
    ended: bool,
    error: Option<Value>,
}

/// One content block: as it began, and the pieces that came.
#[derive(Default)]
struct Block {
    begun: Map<String, Value>,
    input: String,
    citations: Vec<Value>,
}

impl Fold for Events {
    fn take(&mut self, name: &str, mut data: Value) -> Carried {
        let kind = data.member("type").and_then(Value::as_str).unwrap_or(name).to_owned();
        match kind.as_str() {
            "message_start" => self.start(data.get_mut("message").map(Value::take)),
            "content_block_start" => {
                if let Some(Value::Object(begun)) = data.get_mut("content_block").map(Value::take) {
                    self.block(&data).begun = begun;
                }
            }
            "content_block_delta" => {
                let delta = data.get_mut("delta").map(Value::take).unwrap_or_default();
                return Carried::content_if(self.block(&data).take(delta));
            }
            "message_delta" => self.take_message_delta(data),
            "message_stop" => self.ended = true,
            "error" => self.error = data.get_mut("error").map(Value::take),
            _ => {}
        }
        Carried::Nothing
    }

    fn finish(mut self) -> Folded {
        // The figure that a message begins with says nothing of what was generated.
        if !self.final_usage {
            self.tally.forget_output();
        }
        if self.message.is_none() && self.blocks.is_empty() && self.error.is_none() {
            return Folded { tally: self.tally, ..Folded::default() };
        }
        let mut message = self.message.unwrap_or_default();
        let blocks = self.blocks.into_values().map(Block::finish).collect();
        message.insert("content".to_owned(), Value::Array(blocks));
        message.extend(self.error.map(|error| ("error".to_owned(), error)));
        Folded {
            body: Some(Value::Object(message)),
            tally: self.tally,
            ended: self.ended,
            ..Folded::default()
        }
    }
}

impl Events {
    fn start(&mut self, message: Option<Value>) {
        if let Some(Value::Object(message)) = message {
            if let Some(usage) = message.member("usage") {
                self.tally.take_anthropic(usage);
            }
            self.message = Some(message);
        }
    }

    fn block(&mut self, data: &Value) -> &mut Block {
        let index = data.member("index").and_then(Value::as_u64).unwrap_or(0);
        self.blocks.entry(index).or_default()
    }

    /// The end's reason and usage, whose figures stand for the whole message.
    fn take_message_delta(&mut self, mut data: Value) {
        let message = self.message.get_or_insert_default();
        if let Some(Value::Object(delta)) = data.get_mut("delta").map(Value::take) {
            message.extend(delta);
        }
        if let Some(Value::Object(usage)) = data.get_mut("usage").map(Value::take) {
            self.final_usage |= usage.contains_key("output_tokens");
            let whole = message.entry("usage").or_insert_with(|| Value::Object(Map::new()));
            let usage_value = Value::Object(usage.clone());
            self.tally.take_anthropic(&usage_value);
            match whole {
                Value::Object(members) => members.extend(usage),
                other => *other = usage_value,
            }
        }
    }
}

impl Block {
    /// Takes a piece; true if it says something.
    fn take(&mut self, delta: Value) -> bool {
        let Value::Object(mut delta) = delta else { return false };
        if let Some(Value::String(input)) = delta.member("partial_json") {
            self.input.push_str(input);
            return !input.is_empty();
        }
        self.citations.extend(delta.remove("citation"));
        let mut says = false;
        for key in ["text", "thinking", "signature"] {
            let Some(Value::String(piece)) = delta.remove(key) else { continue };
            says |= !piece.is_empty() && key != "signature";
            match self.begun.get_mut(key) {
                Some(Value::String(text)) => text.push_str(&piece),
                _ => _ = self.begun.insert(key.to_owned(), Value::String(piece)),
            }
        }
        says
    }

    fn finish(mut self) -> Value {
        if !self.input.is_empty() {
            let input = json::parse(self.input.as_bytes()).unwrap_or(Value::String(self.input));
            self.begun.insert("input".to_owned(), input);
        }
        if !self.citations.is_empty() {
            self.begun.insert("citations".to_owned(), Value::Array(self.citations));
        }
        if !self.begun.contains_key("type") {
            let kind = if self.begun.contains_key("thinking") { "thinking" } else { "text" };
            self.begun.insert("type".to_owned(), Value::from(kind));
        }
        Value::Object(self.begun)
    }
}
