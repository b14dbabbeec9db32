//! Tokens that OpenAI adds around chat turns and tools, as its cookbook documents them:
//! <https://github.com/openai/openai-cookbook/blob/main/examples/How_to_count_tokens_with_tiktoken.ipynb>
//! (sections 6 and 7; the older figures of gpt-3.5-turbo-0301 stand in its earlier revisions).

use serde_json::{Map, Value};

use super::Tally;
use super::encoding::{Encoding, Tokenizer};
use crate::domain::ChatTurn;

/// Every reply is primed with `<|start|>assistant<|message|>`.
const REPLY_TOKENS: u64 = 3;

/// Tokens of a prompt's turns, each in its frame; 0 for none.
pub(super) fn turns(tokenizer: &Tokenizer, turns: &[ChatTurn], tally: &mut Tally) -> u64 {
    if turns.is_empty() {
        return 0;
    }
    let oldest = matches!(tokenizer.name.as_str(), "gpt-3.5-turbo-0301" | "gpt-35-turbo-0301");
    turns.iter().map(|turn| turn_tokens(turn, oldest, tally)).sum::<u64>() + REPLY_TOKENS
}

fn turn_tokens(turn: &ChatTurn, oldest: bool, tally: &mut Tally) -> u64 {
    let frame = if oldest { 4 } else { 3 };
    let text = tally.text(&turn.role) + tally.text(&turn.text);
    let name = turn.name.as_deref().map_or(0, |name| tally.text(name));
    match (&turn.name, oldest) {
        (None, _) => frame + text,
        (Some(_), false) => frame + text + name + 1,
        // A name took the role's place.
        (Some(_), true) => frame + text + name - 1,
    }
}

/// Tokens of what a chat request carries beside its turns: tools by the cookbook's formula where it
/// fits, anything else plainly, since its framing is not documented.
pub(super) fn beside_turns(texts: &[String], tally: &mut Tally) -> u64 {
    let mut tokens = 0;
    let mut any_tool = false;
    for text in texts {
        match tools_of(text) {
            Some(tools) => {
                any_tool |= !tools.is_empty();
                tokens += tools.iter().map(|tool| tool_tokens(tool, tally)).sum::<u64>();
            }
            None => tokens += tally.text(text),
        }
    }
    if any_tool {
        tokens += TOOLS_END;
    }
    tokens
}

const TOOLS_END: u64 = 12;
const PROPERTIES_TOKENS: u64 = 3;
const PROPERTY_TOKENS: u64 = 3;
const ENUM_ITEM_TOKENS: u64 = 3;
/// An enum takes three tokens off.
const ENUM_DISCOUNT: u64 = 3;

/// Larger texts are not parsed, but counted plainly.
const TOOLS_BYTES_MAX: usize = super::TEXT_BYTES_MAX;

/// The tools in `text`: one, or an array of them. `None` where it holds anything else.
fn tools_of(text: &str) -> Option<Vec<Value>> {
    let looks_like_json = text.trim_start().starts_with(['{', '[']);
    if !looks_like_json || text.len() > TOOLS_BYTES_MAX {
        return None;
    }
    let tools = match serde_json::from_str(text).ok()? {
        Value::Array(tools) => tools,
        tool => vec![tool],
    };
    tools.iter().all(|tool| function_of(tool).is_some()).then_some(tools)
}

/// The function's definition: under `function` in a tool, or the tool itself in older requests.
fn function_of(tool: &Value) -> Option<&Map<String, Value>> {
    let function = tool.get("function").unwrap_or(tool).as_object()?;
    function.get("name")?.as_str()?;
    Some(function)
}

fn tool_tokens(tool: &Value, tally: &mut Tally) -> u64 {
    let start = if tally.encoding == Some(Encoding::Cl100k) { 10 } else { 7 };
    let Some(lines) = function_of(tool).and_then(lines_of) else {
        return start + tally.text(&tool.to_string());
    };
    let text: u64 = lines.texts.iter().map(|text| tally.text(text)).sum();
    (start + text + lines.extra).saturating_sub(lines.discount)
}

/// What the formula counts of a function.
#[derive(Default)]
struct Lines {
    texts: Vec<String>,
    extra: u64,
    discount: u64,
}

/// `None` where the definition holds what the formula does not know: nested objects, arrays, or
/// fields without a type or a description.
fn lines_of(function: &Map<String, Value>) -> Option<Lines> {
    let text = |key: &str| function.get(key).and_then(Value::as_str);
    let mut lines = Lines::default();
    lines.texts.push(format!("{}:{}", text("name")?, without_stop(text("description")?)));
    let Some(parameters) = function.get("parameters") else { return Some(lines) };
    let properties = parameters.get("properties")?.as_object()?;
    if !properties.is_empty() {
        lines.extra += PROPERTIES_TOKENS;
    }
    for (name, property) in properties {
        add_property(&mut lines, name, property)?;
    }
    Some(lines)
}

fn add_property(lines: &mut Lines, name: &str, property: &Value) -> Option<()> {
    let text = |key: &str| property.get(key).and_then(Value::as_str);
    let nested = ["properties", "items", "anyOf", "oneOf", "allOf", "$ref"];
    if nested.iter().any(|key| property.get(key).is_some()) {
        return None;
    }
    lines.extra += PROPERTY_TOKENS;
    if let Some(choices) = property.get("enum") {
        lines.discount += ENUM_DISCOUNT;
        for choice in choices.as_array()? {
            lines.extra += ENUM_ITEM_TOKENS;
            lines.texts.push(choice.as_str()?.to_owned());
        }
    }
    let description = without_stop(text("description")?);
    lines.texts.push(format!("{name}:{}:{description}", text("type")?));
    Some(())
}

fn without_stop(text: &str) -> &str {
    text.strip_suffix('.').unwrap_or(text)
}
