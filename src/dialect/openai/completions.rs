//! The older text completions: a prompt in, texts out.

use crate::dialect::json::Members;
use serde_json::Value;

use super::chat::first_choice;
use super::read_names;
use crate::dialect::{Answer, Fault, View, json};
use crate::domain::{Countable, Reading};

/// Reads a text completion, streamed or not.
pub(in crate::dialect) fn read(view: &View<'_>, answer: &Answer<'_>, reading: &mut Reading) {
    read_names(view, answer, reading);
    let prompt = view.request.json().and_then(|body| body.member("prompt"));
    if reading.question.is_none() {
        reading.question = prompt.filter(|prompt| prompt.is_string()).cloned();
    }
    let choices = answer.body.and_then(|body| body.member("choices")).and_then(Value::as_array);
    let choices = choices.map(Vec::as_slice);
    let first = choices.and_then(first_choice);
    reading.finish_reason = first.and_then(|choice| json::name(choice.member("finish_reason")));
    if !view.succeeded() {
        return;
    }
    if reading.answer.is_none() {
        reading.answer = first.and_then(|choice| choice.member("text")).cloned();
    }
    let texts = choices.unwrap_or_default().iter().filter_map(|choice| json::text(choice, "text"));
    let output: Vec<String> = texts.map(str::to_owned).collect();
    if answer.whole_success {
        match choices {
            None if !answer.stream => reading.fault = Some(Fault::Shape.label()),
            _ => reading.empty = output.iter().all(|text| text.trim().is_empty()),
        }
    }
    reading.countable = prompt_texts(prompt).map(|input| Countable {
        input,
        output,
        input_truncated: view.request.partial(),
        output_truncated: answer.cut,
        ..Countable::default()
    });
}

/// The prompt's texts; `None` where it came as token ids, which are no text to count.
pub(super) fn prompt_texts(prompt: Option<&Value>) -> Option<Vec<String>> {
    match prompt {
        Some(Value::Array(items)) if !items.iter().all(Value::is_string) => None,
        prompt => {
            let mut texts = Vec::new();
            prompt.into_iter().for_each(|prompt| json::texts(prompt, &mut texts));
            Some(texts)
        }
    }
}
