//! The names by which a call tells the request that it is made for.

use serde::Deserialize;

use crate::domain::{Fields, TraceId};

/// Prompt flow's patched OpenAI client sends it with every call: a JSON object whose `root_run_id`
/// is the `x-request-id` (else the `x-ms-client-request-id`) of the flow's own request.
pub const PROMPTFLOW_HEADER: &str = "ms-azure-ai-promptflow";

/// Bytes of the header that are looked at.
const HEADER_BYTES_MAX: usize = 4096;
/// Characters of a request's name: as many as the proxy keeps.
const NAME_CHARS_MAX: usize = 128;

/// The request that a call is made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// By the request's own name.
    Request(Box<str>),
    /// By the trace that both belong to.
    Trace(TraceId),
    /// By the trace, though it names a request: where that turns out to be none, or the wrong one.
    TraceOfNamed(TraceId),
    /// Not at all, while only one exchange was under way that it can have been made for.
    Unnamed,
}

impl Key {
    /// A request's name as a key; `None` for what is no usable name.
    pub fn request(name: &str) -> Option<Self> {
        let usable = !name.is_empty() && name.chars().nth(NAME_CHARS_MAX).is_none();
        usable.then(|| Self::Request(Box::from(name)))
    }
}

#[derive(Deserialize)]
struct Promptflow {
    root_run_id: Option<String>,
}

/// What [`PROMPTFLOW_HEADER`] names: a request, or [`Key::Unnamed`] where it has no `root_run_id`,
/// which is so for calls that a flow makes only while its streamed answer is being read. `None`
/// where the header is missing, repeated, longer than 4 KiB, no JSON object, or where `root_run_id`
/// has not 1 to 128 characters.
pub fn run_id(headers: &Fields) -> Option<Key> {
    let mut values = headers.get_all(PROMPTFLOW_HEADER);
    let value = values.next().filter(|_| values.next().is_none())?.as_bytes();
    if value.len() > HEADER_BYTES_MAX || !value.starts_with(b"{") {
        return None;
    }
    let told: Promptflow = serde_json::from_slice(value).ok()?;
    told.root_run_id.map_or(Some(Key::Unnamed), |name| Key::request(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Option<Key> {
        let mut headers = Fields::default();
        for value in values {
            headers.append(
                http::HeaderName::from_static(PROMPTFLOW_HEADER),
                value.parse().expect("a header's value"),
            );
        }
        run_id(&headers)
    }

    #[test]
    fn the_run_is_read_from_the_header_that_promptflow_sends() {
        let sent = r#"{"execution_target": "dag", "run_mode": "Test", "flow_id": "default_flow_id", "root_run_id": "r-7"}"#;
        assert_eq!(read(&[sent]), Some(Key::Request("r-7".into())));
        assert_eq!(read(&["{}"]), Some(Key::Unnamed), "sent from within a streamed answer");
    }

    #[test]
    fn what_is_not_exactly_that_names_no_run() {
        let id = |id: &str| format!(r#"{{"root_run_id":"{id}"}}"#);
        assert!(read(&[&id(&"x".repeat(128))]).is_some());
        let padded = format!(r#"{{"root_run_id":"r","x":"{}"}}"#, "x".repeat(4096));
        let deep = format!(r#"{{"root_run_id":"r","x":{}}}"#, "[".repeat(3000));
        let bad = [
            "",
            "r-7",
            "[]",
            r#"["r"]"#,
            r#"{"root_run_id":7}"#,
            r#"{"root_run_id":"r"} x"#,
            r#"{"root_run_id":"r","root_run_id":"s"}"#,
            &id(""),
            &id(&"x".repeat(129)),
            &padded,
            &deep,
        ];
        for value in bad {
            assert_eq!(read(&[value]), None, "{value}");
        }
        assert_eq!(read(&[&id("a"), &id("a")]), None, "two headers");
        assert_eq!(read(&[]), None);
    }
}
