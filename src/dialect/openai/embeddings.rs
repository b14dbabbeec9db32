//! Embeddings: texts in, vectors out. There is no answer to read.

use crate::dialect::json::Members;
use serde_json::{Value, json};

use super::completions::prompt_texts;
use super::read_names;
use crate::dialect::{Answer, View};
use crate::domain::{Countable, Reading};

/// Reads an embeddings call.
pub(in crate::dialect) fn read(view: &View<'_>, answer: &Answer<'_>, reading: &mut Reading) {
    read_names(view, answer, reading);
    let texts = prompt_texts(view.request.json().and_then(|body| body.member("input")));
    reading.countable = texts.filter(|_| view.succeeded()).map(|input| Countable {
        input,
        input_truncated: view.request.partial(),
        ..Countable::default()
    });
}

/// Leaves the vectors out of what is kept: they are no text that could be redacted, and the text
/// that they stand for can be guessed from them. Their length stays, as `{"omitted": length}`.
pub(in crate::dialect) fn leave_vectors_out(body: &mut Option<Value>) {
    let data = body.as_mut().and_then(|body| body.get_mut("data")).and_then(Value::as_array_mut);
    for vector in data.into_iter().flatten().filter_map(|entry| entry.get_mut("embedding")) {
        let length = match &*vector {
            Value::Array(numbers) => numbers.len(),
            Value::String(encoded) => encoded.len(),
            _ => continue,
        };
        *vector = json!({ "omitted": length });
    }
    // A body that could not be read may be full of vectors.
    if body.as_ref().is_some_and(Value::is_string) {
        *body = None;
    }
}
