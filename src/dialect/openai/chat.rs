//! Chat completions: messages in, choices out.

use crate::dialect::json::Members;
use serde_json::Value;

use super::{add_line, called, content_text, read_dialogue, read_names, tool_schemas, turn};
use crate::dialect::{Answer, Fault, View, json};
use crate::domain::{Countable, Reading};

/// Reads a chat completion, streamed or not.
pub(in crate::dialect) fn read(view: &View<'_>, answer: &Answer<'_>, reading: &mut Reading) {
    read_names(view, answer, reading);
    let messages = view.request.json().map_or(&[][..], |body| json::items(body, "messages"));
    // Of messages that were cut, the last one seen is not the last one sent.
    if !view.request.partial() {
        read_dialogue(messages, reading);
    }
    let choices = answer.body.and_then(|body| body.member("choices")).and_then(Value::as_array);
    let choices = choices.map(Vec::as_slice);
    let first = choices.and_then(first_choice);
    reading.finish_reason = first.and_then(|choice| json::name(choice.member("finish_reason")));
    if !view.succeeded() {
        return;
    }
    if reading.answer.is_none() {
        reading.answer = first.and_then(|choice| choice.member("message")).and_then(said);
    }
    if answer.whole_success {
        match choices {
            None if !answer.stream => reading.fault = Some(Fault::Shape.label()),
            choices => reading.empty = choices.unwrap_or_default().iter().all(silent),
        }
    }
    reading.countable = Some(countable(view, answer, messages, choices.unwrap_or_default()));
}

/// The choice with index 0, else the first.
pub(super) fn first_choice(choices: &[Value]) -> Option<&Value> {
    let zero = |choice: &&Value| choice.member("index").and_then(Value::as_u64) == Some(0);
    choices.iter().find(zero).or_else(|| choices.first())
}

/// What a message says to the user: its text, else its refusal, else what its sound says.
fn said(message: &Value) -> Option<Value> {
    let (mut text, _) = content_text(message.member("content"));
    if text.is_empty() {
        let spoken = message.member("audio").and_then(|audio| json::text(audio, "transcript"));
        text = json::text(message, "refusal").or(spoken).unwrap_or_default().to_owned();
    }
    (!text.is_empty()).then_some(Value::String(text))
}

fn silent(choice: &Value) -> bool {
    let Some(message) = choice.member("message") else { return true };
    let sound = message.member("audio").is_some_and(Value::is_object);
    said(message).is_none() && called(message).is_empty() && !sound
}

fn countable(
    view: &View<'_>,
    answer: &Answer<'_>,
    messages: &[Value],
    choices: &[Value],
) -> Countable {
    let mut countable = Countable {
        input_truncated: view.request.partial(),
        output_truncated: answer.cut,
        ..Countable::default()
    };
    for message in messages {
        let (turn, beyond_text) = turn(message);
        countable.turns.push(turn);
        countable.input_truncated |= beyond_text;
    }
    countable.input.extend(view.request.json().into_iter().flat_map(tool_schemas));
    for message in choices.iter().filter_map(|choice| choice.member("message")) {
        countable.output.extend(generated(message));
    }
    countable
}

/// All that the model wrote for one choice: thought, text, refusal and calls.
fn generated(message: &Value) -> Vec<String> {
    let mut texts = Vec::new();
    let thought =
        ["reasoning_content", "reasoning"].iter().find_map(|key| json::text(message, key));
    let (mut text, _) = content_text(message.member("content"));
    add_line(&mut text, json::text(message, "refusal").unwrap_or_default());
    texts.extend(thought.map(str::to_owned));
    texts.extend(Some(text).filter(|text| !text.is_empty()));
    texts.extend(called(message));
    texts
}
