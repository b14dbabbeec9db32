//! What a dialect understood of an exchange: unredacted, on its way through the pipeline only.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outcome::labelled;
use super::{Node, Outline, Usage};

labelled! {
    /// A wire format.
    Dialect {
        /// Microsoft prompt flow behind `/score`.
        Promptflow = "promptflow",
        /// OpenAI and all that speak like it, Azure OpenAI included.
        Openai = "openai",
        /// Anthropic messages.
        Anthropic = "anthropic",
        /// Anything else.
        Generic = "generic",
    }
}

labelled! {
    /// What was asked of the upstream.
    Operation {
        /// A prompt flow's `/score`.
        Score = "score",
        /// Chat completions.
        Chat = "chat",
        /// The older text completions.
        TextCompletion = "text_completion",
        /// OpenAI's responses.
        Responses = "responses",
        /// Embeddings.
        Embeddings = "embeddings",
        /// Anthropic's messages.
        Messages = "messages",
        /// A prompt flow's `/feedback`.
        Feedback = "feedback",
        /// A call that the user's own column mapping reads.
        Call = "call",
        /// Health checks, model lists and whatever else passes: never stored with content.
        Other = "other",
    }
}

/// The names that a request and its response gave the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct ModelNames {
    /// As asked for.
    pub request: Option<String>,
    /// As answered.
    pub response: Option<String>,
}

impl ModelNames {
    /// The name that says most: what answered, else what was asked for.
    pub fn best(&self) -> Option<&str> {
        self.response.as_deref().or(self.request.as_deref())
    }
}

/// One turn of a chat, as counted for tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatTurn {
    /// `system`, `user`, `assistant`, `tool`, ...
    pub role: String,
    /// The author's name, where the message carries one.
    pub name: Option<String>,
    /// All text of the turn.
    pub text: String,
}

/// The texts from which tokens can be counted where the upstream reports none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Countable {
    /// Chat turns of the prompt; framing tokens are added per turn.
    pub turns: Vec<ChatTurn>,
    /// Other prompt text, counted plainly (completions, embeddings, a flow's inputs, tool schemas).
    pub input: Vec<String>,
    /// What was generated, tool calls included.
    pub output: Vec<String>,
    /// Bytes of the request were not captured: the count is a lower bound, marked estimated.
    pub input_truncated: bool,
    /// Bytes of the response are missing or the stream was cut: marked estimated.
    pub output_truncated: bool,
}

/// What a dialect understood of one exchange.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The wire format.
    pub dialect: Dialect,
    /// What was asked of the upstream.
    pub operation: Operation,
    /// The provider, in the words of the semantic conventions (`openai`, `azure.ai.openai`, ...).
    pub provider: Option<&'static str>,
    /// The model's names.
    pub model: ModelNames,
    /// The model deployment named in an Azure OpenAI path.
    pub model_deployment: Option<String>,
    /// The answer came as a stream of events.
    pub stream: bool,
    /// What the upstream reported of tokens; unknown where it reported nothing.
    pub usage: Usage,
    /// Texts to count where `usage` is unknown; `None` where counting would be a guess
    /// (a prompt flow's prompts are not visible from outside, audio, images).
    pub countable: Option<Countable>,
    /// The question, answer, context and ground truth by the columns' mapping.
    pub question: Option<Value>,
    /// See `question`.
    pub answer: Option<Value>,
    /// See `question`.
    pub context: Option<Value>,
    /// See `question`.
    pub ground_truth: Option<Value>,
    /// The turns before the question.
    pub chat_history: Option<Value>,
    /// A successful answer that should hold text and holds none.
    pub empty: bool,
    /// Offset in the response's body, as it came over the wire, of the first byte of the event
    /// that carried the first content; `None` for answers that are no streams.
    pub first_content_offset: Option<u64>,
    /// Why generation ended (`stop`, `length`, `tool_calls`, ...).
    pub finish_reason: Option<String>,
    /// The upstream's id of the response.
    pub response_id: Option<String>,
    /// A conversation's id, for sampling whole sessions.
    pub session: Option<String>,
    /// The request's body as JSON where it is JSON, else as text, else base64.
    pub request_body: Option<Value>,
    /// The response's body likewise; a stream is folded into one object.
    pub response_body: Option<Value>,
    /// Where the values of the request's body and of the response's stand, in place of the bodies.
    pub outlines: Option<[Outline; 2]>,
    /// What could not be understood, for the record and a counter: never any content.
    pub fault: Option<&'static str>,
}

/// The texts of a [`Reading`] where they stand in the bodies, of which nothing was copied.
#[derive(Clone, Debug)]
pub struct Texts<'o, 'a> {
    /// See [`Reading::request_body`].
    pub request: Node<'o, 'a>,
    /// See [`Reading::response_body`].
    pub response: Node<'o, 'a>,
    /// See [`Reading::question`].
    pub question: Option<Said<'o, 'a>>,
    /// See [`Reading::question`].
    pub answer: Option<Said<'o, 'a>>,
    /// See [`Reading::question`].
    pub context: Option<Node<'o, 'a>>,
    /// See [`Reading::question`].
    pub ground_truth: Option<Node<'o, 'a>>,
    /// See [`Reading::chat_history`]: so many elements of a list.
    pub chat_history: Option<(Node<'o, 'a>, usize)>,
}

/// A text of a body.
#[derive(Clone, Debug)]
pub enum Said<'o, 'a> {
    /// It stands there as one.
    There(Node<'o, 'a>),
    /// It stands there in parts.
    Joined(String),
}

impl Reading {
    /// A reading in which nothing was understood yet.
    pub fn new(dialect: Dialect, operation: Operation) -> Self {
        Self {
            dialect,
            operation,
            provider: None,
            model: ModelNames::default(),
            model_deployment: None,
            stream: false,
            usage: Usage::default(),
            countable: None,
            question: None,
            answer: None,
            context: None,
            ground_truth: None,
            chat_history: None,
            empty: false,
            first_content_offset: None,
            finish_reason: None,
            response_id: None,
            session: None,
            request_body: None,
            response_body: None,
            outlines: None,
            fault: None,
        }
    }
}

impl Reading {
    /// Bytes that the parsed texts take on the heap: for hostile JSON a hundred times its text. Rough,
    /// and never much too few.
    pub fn heap_bytes(&self) -> u64 {
        let columns = [&self.question, &self.answer, &self.context, &self.ground_truth];
        let bodies = [&self.chat_history, &self.request_body, &self.response_body];
        let values = columns.into_iter().chain(bodies).flatten().map(heap_bytes);
        let counted = self.countable.as_ref().map_or(0, Countable::heap_bytes);
        let outlines = self.outlines.iter().flatten().map(Outline::heap_bytes);
        (values.sum::<usize>() + counted + outlines.sum::<usize>()) as u64
    }
}

impl Countable {
    pub(super) fn heap_bytes(&self) -> usize {
        let turns = self.turns.iter().map(|turn| size_of::<ChatTurn>() + turn.text.capacity());
        let texts = self.input.iter().chain(&self.output);
        turns.sum::<usize>()
            + texts.map(|text| size_of::<String>() + text.capacity()).sum::<usize>()
    }
}

/// Parsers bound the depth, so this may recurse.
fn heap_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.capacity(),
        Value::Array(items) => {
            items.capacity() * size_of::<Value>() + items.iter().map(heap_bytes).sum::<usize>()
        }
        Value::Object(members) => {
            // Entries with key and hash, and a table of indices, both with room to grow.
            let entry = size_of::<Value>() + size_of::<String>() + 24;
            let room = members.len().next_power_of_two().max(4) * entry;
            let within = members.iter().map(|(key, value)| key.capacity() + heap_bytes(value));
            room + within.sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reading_takes_is_told_by_its_parts_and_not_by_its_text() {
        let mut reading = Reading::new(Dialect::Generic, Operation::Other);
        assert_eq!(reading.heap_bytes(), 0);
        let text = format!("[{}0]", r#"{"":0},"#.repeat(1000));
        reading.request_body = serde_json::from_str(&text).ok();
        assert!(reading.heap_bytes() > 50 * text.len() as u64, "{}", reading.heap_bytes());
        reading.request_body = Some(Value::String("x".repeat(1000)));
        reading.countable =
            Some(Countable { output: vec!["y".repeat(500)], ..Countable::default() });
        assert!((1500..1700).contains(&reading.heap_bytes()), "{}", reading.heap_bytes());
    }
}
