//! JSON on its way into a record.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::Value;

/// What a record keeps of a body or a column: redacted.
#[derive(Clone, Debug)]
pub enum Json<'a> {
    /// What was read, and perhaps changed.
    Value(Value),
    /// The JSON of a text with an [`super::Outline`], on one line; written as it is.
    Text(Cow<'a, str>),
}

impl Json<'_> {
    /// The value; `None` only for a text that is no JSON, which would be a bug.
    pub fn into_value(self) -> Option<Value> {
        match self {
            Self::Value(value) => Some(value),
            Self::Text(text) => serde_json::from_str(&text).ok(),
        }
    }
}

/// The name by which serde_json knows text that is JSON already (its `RawValue`).
pub(super) const JSON_TEXT: &str = "$serde_json::private::RawValue";

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Text(text) => {
                let mut whole = serializer.serialize_struct(JSON_TEXT, 1)?;
                whole.serialize_field(JSON_TEXT, text)?;
                whole.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::to_line;
    use super::*;

    #[test]
    fn a_text_is_written_as_it_is_by_whoever_writes() {
        let text = r#"{"a" : [1.0, "\u00e9\n"], "b": null}"#;
        let whole = (Json::Text(text.into()), Json::Value(Value::from(1)), "x");
        let written = format!(r#"[{text},1,"x"]"#);
        assert_eq!(serde_json::to_string(&whole).ok().as_ref(), Some(&written));
        assert_eq!(to_line(&whole, 0).ok(), Some(written.clone().into_bytes()));
        let value: Option<Value> = serde_json::from_str(&written).ok();
        assert_eq!(serde_json::to_value(&whole).ok(), value);
        assert_eq!(whole.0.into_value(), value.map(|value| value[0].clone()));
    }
}
