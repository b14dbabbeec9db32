//! OpenAI and all that speak like it: chat, completions, responses, embeddings; on Azure with the
//! model's deployment in the path. Formats: <https://platform.openai.com/docs/api-reference>.

use crate::dialect::json::Members;
use serde_json::Value;

use super::detect::full_path;
use super::{Answer, View, json};
use crate::domain::{ChatTurn, Reading};

pub(super) mod chat;
pub(super) mod completions;
pub(super) mod embeddings;
pub(super) mod responses;
pub(super) mod stream;

/// Fills what all of OpenAI's calls share: names, usage and the response's id.
fn read_names(view: &View<'_>, answer: &Answer<'_>, reading: &mut Reading) {
    let named =
        |body: Option<&Value>, key: &str| json::name(body.and_then(|body| body.member(key)));
    reading.model.request = named(view.request.json(), "model");
    reading.model.response = named(answer.body, "model");
    reading.response_id = named(answer.body, "id");
    reading.model_deployment = deployment(&full_path(view.exchange, view.tap));
    let mut tally = answer.tally;
    if let Some(usage) = answer.reported() {
        tally.take_openai(usage);
    }
    reading.usage = tally.usage();
}

/// The deployment in an Azure OpenAI path: `/openai/deployments/{deployment}/...`.
pub(super) fn deployment(path: &str) -> Option<String> {
    let mut segments = path.split('/').skip_while(|segment| *segment != "deployments");
    segments.nth(1).and_then(json::short)
}

/// The text of a message's content: a string, or parts of which some are text. The flag is true
/// where a part is none (an image, audio, a file), whose tokens cannot be counted.
pub(super) fn content_text(content: Option<&Value>) -> (String, bool) {
    let mut text = String::new();
    let mut beyond_text = false;
    match content {
        Some(Value::String(content)) => text.push_str(content),
        Some(Value::Array(parts)) => {
            for part in parts {
                match part_text(part) {
                    Some(part) => add_line(&mut text, part),
                    None => beyond_text = true,
                }
            }
        }
        Some(Value::Null) | None => {}
        Some(_) => beyond_text = true,
    }
    (text, beyond_text)
}

fn part_text(part: &Value) -> Option<&str> {
    let of = |key: &str| part.member(key).and_then(Value::as_str);
    part.as_str().or_else(|| of("text")).or_else(|| of("refusal"))
}

/// Adds a part to a text, on a line of its own.
pub(super) fn add_line(text: &mut String, part: &str) {
    if !text.is_empty() && !part.is_empty() {
        text.push('\n');
    }
    text.push_str(part);
}

/// The messages before the last one of the user, and that one.
pub(super) fn last_of_user(messages: &[Value]) -> Option<(&[Value], &Value)> {
    let of_user = |message: &Value| message.member("role").and_then(Value::as_str) == Some("user");
    let at = messages.iter().rposition(of_user)?;
    Some((&messages[..at], &messages[at]))
}

/// Fills question and history from a list of messages, where the columns gave none.
pub(super) fn read_dialogue(messages: &[Value], reading: &mut Reading) {
    let Some((before, question)) = last_of_user(messages) else { return };
    let (text, _) = content_text(question.member("content"));
    if reading.question.is_none() && !text.is_empty() {
        reading.question = Some(Value::String(text));
    }
    if reading.chat_history.is_none() {
        reading.chat_history = Some(Value::Array(before.to_vec()));
    }
}

/// A message of a chat as a turn to count, with its tool calls; the flag as of [`content_text`].
fn turn(message: &Value) -> (ChatTurn, bool) {
    let (mut text, beyond_text) = content_text(message.member("content"));
    called(message).iter().for_each(|call| add_line(&mut text, call));
    let name = json::text(message, "name").map(str::to_owned);
    let role = json::text(message, "role").unwrap_or("user").to_owned();
    (ChatTurn { role, name, text }, beyond_text)
}

/// Names and arguments of the functions that a message calls, the legacy form included.
fn called(message: &Value) -> Vec<String> {
    let functions = json::items(message, "tool_calls")
        .iter()
        .filter_map(|call| call.member("function").or_else(|| call.member("custom")));
    let mut texts = Vec::new();
    for function in functions.chain(message.member("function_call")) {
        for key in ["name", "arguments", "input"] {
            texts.extend(json::text(function, key).map(str::to_owned));
        }
    }
    texts
}

/// The schemas of the tools offered, each as JSON text: OpenAI counts them in a form of its own.
fn tool_schemas(request: &Value) -> impl Iterator<Item = String> {
    let legacy = json::items(request, "functions").iter();
    json::items(request, "tools").iter().chain(legacy).map(Value::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_deployment_stands_after_its_folder() {
        let path = "/openai/deployments/gpt4-prod/chat/completions";
        assert_eq!(deployment(path).as_deref(), Some("gpt4-prod"));
        assert_eq!(deployment("/openai/deployments"), None);
        assert_eq!(deployment("/v1/chat/completions"), None);
    }

    #[test]
    fn content_is_text_or_parts() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"text": "b"}]);
        assert_eq!(content_text(Some(&parts)), ("a\nb".to_owned(), true));
        assert_eq!(content_text(Some(&json!("x"))), ("x".to_owned(), false));
        assert_eq!(content_text(None), (String::new(), false));
    }
}
