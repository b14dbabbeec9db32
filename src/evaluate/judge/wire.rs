//! Chat completions on the wire: what is sent, in the shape that this judge takes, and what comes.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Ask, Reply};
use crate::domain::ScoreError;

/// How the answer's form is asked for, the strictest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Schema,
    JsonObject,
    Text,
}

/// What a judge has turned out to take. Servers differ: some know no schemas, newer models refuse
/// `max_tokens`, `temperature` or `seed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) format: Format,
    completion_tokens: bool,
    temperature: bool,
    seed: bool,
}

impl Shape {
    /// Everything that a judge may know.
    pub(super) const FULL: Self =
        Self { format: Format::Schema, completion_tokens: false, temperature: true, seed: true };

    /// The next shape to try after a refusal with this text; `None` where nothing is left to give up.
    pub(super) fn after_refusal(self, text: &str) -> Option<Self> {
        let names = |word: &str| text.contains(word);
        if !self.completion_tokens && names("max_completion_tokens") {
            return Some(Self { completion_tokens: true, ..self });
        }
        if self.temperature && names("temperature") {
            return Some(Self { temperature: false, ..self });
        }
        if self.seed && names("seed") {
            return Some(Self { seed: false, ..self });
        }
        match self.format {
            Format::Schema => Some(Self { format: Format::JsonObject, ..self }),
            Format::JsonObject => Some(Self { format: Format::Text, ..self }),
            Format::Text => None,
        }
    }

    /// The body of a request.
    pub(super) fn body(self, ask: &Ask, model: &str, max_tokens: u64) -> Value {
        let mut body = Map::new();
        body.insert("model".to_owned(), json!(model));
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let messages = [message("system", &ask.system), message("user", &ask.user)];
        body.insert("messages".to_owned(), json!(messages));
        let limit = if self.completion_tokens { "max_completion_tokens" } else { "max_tokens" };
        body.insert(limit.to_owned(), json!(max_tokens));
        if self.temperature {
            body.insert("temperature".to_owned(), json!(0));
        }
        if self.seed {
            body.insert("seed".to_owned(), json!(1));
        }
        match self.format {
            Format::Schema => {
                let schema = json!({"name": "verdict", "strict": true, "schema": ask.schema});
                let format = json!({"type": "json_schema", "json_schema": schema});
                body.insert("response_format".to_owned(), format);
            }
            Format::JsonObject => {
                body.insert("response_format".to_owned(), json!({"type": "json_object"}));
            }
            Format::Text => {}
        }
        Value::Object(body)
    }
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Spent>,
}

#[derive(Deserialize)]
struct Choice {
    message: Option<Message>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Value>,
    refusal: Option<Value>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Spent {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

/// Reads a 200. What is no chat completion (HTML, half a JSON, a tool call) is unparsable.
pub(super) fn read(body: &[u8]) -> Reply {
    let Ok(completion) = serde_json::from_slice::<Completion>(body) else {
        return Reply::failed(ScoreError::Unparsable);
    };
    let spent = completion.usage.unwrap_or_default();
    let text = match completion.choices.into_iter().next() {
        Some(choice) => said(choice),
        None => Err(ScoreError::Unparsable),
    };
    Reply { text, input: spent.prompt_tokens, output: spent.completion_tokens }
}

fn said(choice: Choice) -> Result<String, ScoreError> {
    if choice.finish_reason.as_deref() == Some("content_filter") {
        return Err(ScoreError::Refused);
    }
    let message = choice.message.ok_or(ScoreError::Unparsable)?;
    let refusal = message.refusal.as_ref().and_then(Value::as_str).unwrap_or_default();
    match message.content {
        _ if !refusal.is_empty() => Err(ScoreError::Refused),
        Some(Value::String(text)) => Ok(text),
        _ => Err(ScoreError::Unparsable),
    }
}

/// True where a 400 is a content filter's.
pub(super) fn is_filtered(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Refused {
        error: Option<Told>,
    }
    #[derive(Deserialize)]
    struct Told {
        code: Option<Value>,
    }
    let told = serde_json::from_slice::<Refused>(body).ok().and_then(|refused| refused.error);
    let code = told.and_then(|told| told.code);
    matches!(
        code.as_ref().and_then(Value::as_str),
        Some("content_filter" | "content_policy_violation")
    )
}

/// True where an error speaks of the answer's format, and not of the server's troubles.
pub(super) fn names_the_format(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("response_format") || text.contains("json_schema")
}

/// True where a 429 says that no money is left, which waiting does not heal.
pub(super) fn is_out_of_quota(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.contains("insufficient_quota") || text.contains("billing_hard_limit_reached")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        let schema = json!({"type": "object"});
        Ask { system: "s".to_owned(), user: "u".to_owned(), schema }
    }

    #[test]
    fn what_a_judge_refuses_is_left_out() {
        let body = Shape::FULL.body(&ask(), "m", 800);
        assert_eq!(body["response_format"]["type"], "json_schema");
        assert_eq!((&body["temperature"], &body["max_tokens"]), (&json!(0), &json!(800)));
        let shape = Shape::FULL
            .after_refusal("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'")
            .and_then(|shape| shape.after_refusal("'temperature' does not support 0"))
            .and_then(|shape| shape.after_refusal("unknown field seed"))
            .and_then(|shape| shape.after_refusal("response_format json_schema"))
            .expect("there is something left");
        let body = shape.body(&ask(), "m", 800);
        assert_eq!(body["response_format"], json!({"type": "json_object"}));
        assert_eq!(body["max_completion_tokens"], 800);
        assert!(body.get("temperature").is_none() && body.get("seed").is_none());
        let text = shape.after_refusal("no").expect("text is left");
        assert!(text.body(&ask(), "m", 1).get("response_format").is_none());
        assert_eq!(text.after_refusal("no"), None);
    }

    #[test]
    fn only_text_is_an_answer() {
        let text = |body: &str| read(body.as_bytes()).text;
        let good = r#"{"choices":[{"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#;
        let reply = read(good.as_bytes());
        assert_eq!((reply.text, reply.input, reply.output), (Ok("x".into()), Some(7), Some(2)));
        for (body, error) in [
            ("<html>", ScoreError::Unparsable),
            ("{}", ScoreError::Unparsable),
            ("[]", ScoreError::Unparsable),
            (r#"{"choices":[]}"#, ScoreError::Unparsable),
            (
                r#"{"choices":[{"message":{"content":null,"tool_calls":[{}]}}]}"#,
                ScoreError::Unparsable,
            ),
            (r#"{"choices":[{"message":{"content":["x"]}}]}"#, ScoreError::Unparsable),
            (r#"{"choices":[{"message":{"content":null,"refusal":"no"}}]}"#, ScoreError::Refused),
            (
                r#"{"choices":[{"message":{"content":""},"finish_reason":"content_filter"}]}"#,
                ScoreError::Refused,
            ),
        ] {
            assert_eq!(text(body), Err(error), "{body}");
        }
    }

    #[test]
    fn filters_and_empty_purses_are_told_apart() {
        assert!(is_filtered(br#"{"error":{"code":"content_filter","message":"x"}}"#));
        assert!(!is_filtered(br#"{"error":{"code":400}}"#) && !is_filtered(b"<html>"));
        assert!(
            names_the_format(b"literal_error: response_format") && !names_the_format(b"overloaded")
        );
        assert!(is_out_of_quota(br#"{"error":{"code":"insufficient_quota"}}"#));
    }
}
