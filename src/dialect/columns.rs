//! The user's mapping of fields to question, answer, context, ground truth and chat history.

use serde_json::Value;
use serde_json_path::JsonPath;

use super::Fault;
use super::side::Side;
use crate::config;
use crate::domain::Reading;

/// Where one column is found: a field of the outermost object, a JSON pointer (RFC 6901) or a
/// JSONPath (RFC 9535).
#[derive(Clone, Debug)]
pub(super) enum Column<'a> {
    Field(&'a str),
    Pointer(&'a str),
    Path(Box<JsonPath>),
    Invalid,
}

impl<'a> Column<'a> {
    /// Reads what the user typed; `/` begins a pointer, `$` a path.
    pub(super) fn of(text: &'a str) -> Self {
        match text.as_bytes().first() {
            Some(b'/') => Self::Pointer(text),
            Some(b'$') => match JsonPath::parse(text) {
                Ok(path) => Self::Path(Box::new(path)),
                Err(_) => Self::Invalid,
            },
            _ => Self::Field(text),
        }
    }

    /// The value found; several are given as an array; null counts as not found.
    pub(super) fn find(&self, body: &Value) -> Option<Value> {
        let found = match self {
            Self::Field(name) => body.get(name).cloned(),
            Self::Pointer(pointer) => body.pointer(pointer).cloned(),
            Self::Path(path) => several(path.query(body).all()),
            Self::Invalid => None,
        };
        found.filter(|value| !value.is_null())
    }
}

/// The outermost field that a column lies in, where that is plain.
pub(super) fn field(text: &str) -> Option<&str> {
    let path = text.strip_prefix('/').or_else(|| text.strip_prefix("$."));
    let Some(path) = path else { return (!text.starts_with('$')).then_some(text) };
    path.split(['/', '.', '[']).next().filter(|name| !name.is_empty())
}

/// Fills question, answer, context, ground truth and chat history from the two bodies, where the
/// reading does not know them yet. The answer is looked for only if the call succeeded.
pub(super) fn fill(
    reading: &mut Reading,
    columns: &config::Columns,
    request: &Side<'_>,
    response: Option<&Value>,
) {
    let asked = request.json();
    let in_request = |column: &str| asked.and_then(|body| Column::of(column).find(body));
    let in_response = |column: &str| response.and_then(|body| Column::of(column).find(body));
    let known = |slot: &mut Option<Value>, found: Option<Value>| {
        if slot.is_none() {
            *slot = found;
        }
    };
    known(&mut reading.question, in_request(&columns.question));
    known(&mut reading.answer, in_response(&columns.answer));
    known(
        &mut reading.context,
        in_response(&columns.context).or_else(|| in_request(&columns.context)),
    );
    known(
        &mut reading.ground_truth,
        in_request(&columns.ground_truth).or_else(|| in_response(&columns.ground_truth)),
    );
    // Of a body that was cut, the turns that are whole are not all turns.
    if !request.partial() {
        known(&mut reading.chat_history, in_request(&columns.chat_history));
    }
    if any_invalid(columns) && reading.fault.is_none() {
        reading.fault = Some(Fault::Column.label());
    }
}

/// True where a column is no valid JSONPath.
pub(super) fn any_invalid(columns: &config::Columns) -> bool {
    let all = [
        &columns.question,
        &columns.answer,
        &columns.context,
        &columns.ground_truth,
        &columns.chat_history,
    ];
    all.into_iter()
        .filter(|text| text.starts_with('$'))
        .any(|text| matches!(Column::of(text), Column::Invalid))
}

fn several(found: Vec<&Value>) -> Option<Value> {
    match found.as_slice() {
        [] => None,
        [one] => Some((*one).clone()),
        many => Some(Value::Array(many.iter().map(|value| (*value).clone()).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_column_is_a_field_a_pointer_or_a_path() {
        let body = json!({"question": "q", "data": {"a/b": ["x"]}, "turns": [{"t": 1}, {"t": 2}], "no": null});
        assert_eq!(Column::of("question").find(&body), Some(json!("q")));
        assert_eq!(Column::of("/data/a~1b/0").find(&body), Some(json!("x")));
        assert_eq!(Column::of("$.turns[-1].t").find(&body), Some(json!(2)));
        assert_eq!(Column::of("$.turns[*].t").find(&body), Some(json!([1, 2])));
        assert_eq!(Column::of("no").find(&body), None);
        assert_eq!(Column::of("question").find(&json!([1])), None);
        assert!(matches!(Column::of("$..["), Column::Invalid));
        assert_eq!(field("$.answer.text"), Some("answer"));
        assert_eq!(field("/answer/text"), Some("answer"));
    }
}
