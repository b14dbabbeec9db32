//! The only place where a [`Span`] is made.

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{CleanTexts, Walk};
use super::record::cut;
use super::{Counts, Redactor, credential};
use crate::config::RedactKind;
use crate::domain::{Span, ToldSpan};

/// Bytes kept of what went into a step or came out of it, as JSON.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Bytes kept of an error, and of any other attribute.
const ATTRIBUTE_BYTES_MAX: usize = 1024;

impl Redactor {
    /// Makes spans of what was told; `redactions` counts what was found. Texts are redacted as bodies
    /// are: JSON by its members, anything else as text. What is too long is cut after that, and is text
    /// then. Each name, error and attribute passes the same detectors.
    pub fn spans(&self, told: Vec<ToldSpan>) -> (Vec<Span>, BTreeMap<String, u64>) {
        let mut counts = Counts::default();
        let spans = told.into_iter().map(|span| self.span(span, &mut counts)).collect();
        (spans, counts.into_named())
    }

    fn span(&self, told: ToldSpan, counts: &mut Counts) -> Span {
        let deployment = told.deployment().map(|name| self.name(name, counts));
        let model = told.model.best().map(|name| self.name(name, counts));
        Span {
            span_id: told.span_id,
            parent_span_id: told.parent_span_id,
            name: self.name(&told.name, counts),
            kind: told.kind,
            source: told.source,
            start: told.start,
            duration_ms: told.duration_ms,
            failed: told.failed,
            error: told.error.map(|text| cut(self.scan(&text, counts), ATTRIBUTE_BYTES_MAX)),
            model,
            deployment,
            usage: told.usage,
            inputs: told.inputs.and_then(|text| self.text_of_step(text, counts)),
            output: told.output.and_then(|text| self.text_of_step(text, counts)),
            attributes: told
                .attributes
                .into_iter()
                .filter_map(|attribute| self.attribute(attribute, counts))
                .collect(),
        }
    }

    fn text_of_step(&self, text: String, counts: &mut Counts) -> Option<Value> {
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let redacted = self.body(Some(value), &CleanTexts::default(), counts)?;
        if let Value::String(text) = redacted {
            return Some(Value::String(cut(text.into(), TEXT_BYTES_MAX)));
        }
        let json = redacted.to_string();
        if json.len() <= TEXT_BYTES_MAX {
            return Some(redacted);
        }
        Some(Value::String(cut(json.into(), TEXT_BYTES_MAX)))
    }

    fn attribute(
        &self,
        (name, value): (String, Value),
        counts: &mut Counts,
    ) -> Option<(String, Value)> {
        // Headers that an instrumentation recorded: `http.request.header.authorization`.
        let last = name.rsplit(['.', '/']).next().unwrap_or_default();
        let looks = self.kinds.contains(&RedactKind::Secret);
        if credential::is_header(last) || (looks && credential::is_name(last)) {
            counts.add("secret", 1);
            return None;
        }
        let mut object = serde_json::Map::new();
        object.insert(self.name(&name, counts), value);
        let redacted = Walk::new(self, counts).value(Value::Object(object));
        let (name, value) = match redacted {
            Value::Object(object) => object.into_iter().next()?,
            _ => return None,
        };
        let value = match value {
            Value::String(text) => Value::String(cut(text.into(), ATTRIBUTE_BYTES_MAX)),
            other => other,
        };
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::config::{Redact, RedactMode};
    use crate::domain::{ModelNames, SpanId, SpanKind, SpanSource, TraceId, Usage};

    const CARD: &str = "4111 1111 1111 1111";
    const KEY: &str = "sk-abcdefghijklmnopqrstuvwxyz0123456789ABCD";

    fn told() -> ToldSpan {
        ToldSpan {
            trace_id: TraceId::random(),
            span_id: SpanId::random(),
            parent_span_id: None,
            requests: vec![Box::from("r")],
            name: format!("call {KEY}"),
            kind: SpanKind::Llm,
            source: SpanSource::Collector,
            start: Timestamp::UNIX_EPOCH,
            duration_ms: 1.0,
            failed: true,
            error: Some(format!("{CARD} was refused")),
            model: ModelNames { request: Some(KEY.to_owned()), response: Some("gpt".to_owned()) },
            usage: Usage::default(),
            total_within: None,
            countable: None,
            inputs: Some(json!({"q": CARD, "api_key": "hunter2"}).to_string()),
            output: Some(format!("plain text with {KEY}")),
            attributes: [
                ("http.request.header.authorization", json!("Basic Zm9vOmJhcg==")),
                ("x.api_key", json!("hunter2")),
                ("note", json!(format!("call {CARD}"))),
                ("card", json!(4_111_111_111_111_111_u64)),
                ("count", json!(3)),
            ]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        }
    }

    fn redactor(mode: RedactMode) -> Redactor {
        let detect = vec![RedactKind::Secret, RedactKind::CreditCard];
        Redactor::new(&Redact { detect, mode, key: None }, &[])
    }

    #[test]
    fn nothing_of_a_span_passes_unredacted() {
        let (spans, counts) = redactor(RedactMode::Mask).spans(vec![told()]);
        let stored = serde_json::to_string(&spans).expect("JSON");
        for secret in [CARD, KEY, "hunter2", "Zm9v", "4111111111111111"] {
            assert!(!stored.contains(secret), "{secret}: {stored}");
        }
        assert_eq!(spans[0].inputs, Some(json!({"q": "[credit_card]", "api_key": "[secret]"})));
        assert_eq!((spans[0].attributes.len(), &spans[0].attributes["count"]), (3, &json!(3)));
        assert!(counts["secret"] >= 5 && counts["credit_card"] >= 3, "{counts:?}");
    }

    #[test]
    fn headers_with_credentials_are_not_kept_even_where_nothing_is_redacted() {
        let (spans, _) = redactor(RedactMode::Off).spans(vec![told()]);
        assert!(!serde_json::to_string(&spans).expect("JSON").contains("Zm9v"));
    }

    #[test]
    fn long_texts_are_cut_once_they_are_redacted() {
        let words = "word ".repeat(20_000);
        let long = ToldSpan {
            inputs: Some(json!({"messages": [words]}).to_string()),
            output: Some(format!("{} {KEY}", "x".repeat(TEXT_BYTES_MAX - 20))),
            ..told()
        };
        let (spans, _) = redactor(RedactMode::Mask).spans(vec![long]);
        let text =
            |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
        assert_eq!(text(&spans[0].inputs).map(|text| text.len()), Some(TEXT_BYTES_MAX));
        let output = text(&spans[0].output).expect("text");
        assert!(
            !output.contains("sk-") && output.len() <= TEXT_BYTES_MAX,
            "{}",
            &output[output.len() - 50..]
        );
    }
}
