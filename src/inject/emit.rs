//! Our own objects as lines of YAML.

use serde_json::Value;

/// Maps of so few plain entries stand on one line.
const SHORT_MAX: usize = 3;

/// `value` in block form, each line indented by `indent` blanks.
pub(super) fn lines(value: &Value, indent: usize) -> Vec<String> {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| entry(&format!("{pad}{key}:"), value, indent))
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| self::item(item, indent)).collect(),
        other => vec![format!("{pad}{}", scalar(other))],
    }
}

/// An item of a list whose dashes stand at `indent`.
pub(super) fn item(value: &Value, indent: usize) -> Vec<String> {
    let pad = " ".repeat(indent);
    if is_short(value) {
        return vec![format!("{pad}- {}", short(value))];
    }
    let mut lines = self::lines(value, indent + 2);
    if let Some(first) = lines.first_mut() {
        *first = format!("{pad}- {}", first.trim_start());
    }
    lines
}

fn entry(key: &str, value: &Value, indent: usize) -> Vec<String> {
    if is_short(value) {
        return vec![format!("{key} {}", short(value))];
    }
    let mut all = vec![key.to_owned()];
    all.extend(lines(value, indent + 2));
    all
}

fn is_short(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.len() <= SHORT_MAX && map.values().all(is_scalar),
        Value::Array(items) => items.iter().all(is_scalar),
        _ => true,
    }
}

fn is_scalar(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

fn short(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| format!("{key}: {}", scalar(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(scalar).collect::<Vec<_>>().join(", "))
        }
        other => scalar(other),
    }
}

/// Texts that YAML of any version could take for something else are quoted, as JSON does it.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

fn is_plain(text: &str) -> bool {
    const WORDS: &[&str] = &["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let first = text.as_bytes().first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'/');
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-');
    first && text.bytes().all(inner) && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::yaml;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_back_as_the_same() {
        let value = json!({"a": "x", "list": [{"name": "n", "value": "true"}, {"deep": {"er": {"x": [1, 2]}}, "b": "0"}],
            "words": ["ALL", "on", "1.5", "", "a: b", "# no", "ä\"\n", "-", "{x}", "*a", "&a", "%", "@", "`", "~"], "none": null, "empty": {}});
        let text = lines(&value, 3).join("\n");
        let read = yaml::parse(&text).expect("parses").documents[0].value().expect("a value");
        assert_eq!(read, value, "{text}");
    }
}
