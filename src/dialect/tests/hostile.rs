//! Whatever strangers send: no panic, a fault of the closed set, and nothing unbounded.

use proptest::prelude::*;

use super::super::{Fault, json};
use super::*;
use crate::domain::Dialect;

const PATHS: &[&str] = &[
    "/score",
    "/feedback",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
    "/elsewhere",
];
const CODINGS: &[&str] = &["identity", "gzip", "deflate", "br", "zstd", "gzip, br", "\u{e9}"];
const MEDIA: &[&str] = &["application/json", "text/event-stream", "text/plain", ""];

#[rustfmt::skip]
const TYPES: &[&str] = &["text", "message", "user", "tool_use", "response.completed", "message_delta", "content_block_delta", "message_start", "response.output_item.done", "response.output_text.delta", "error"];
#[rustfmt::skip]
pub(super) const KEYS: &[&str] = &["messages", "role", "content", "choices", "delta", "index", "message", "text", "type", "usage", "prompt_tokens", "completion_tokens", "input_tokens", "tool_calls", "function", "arguments", "name", "input", "output", "response", "item", "output_index", "content_block", "partial_json", "model", "question", "answer", "context", "embedding", "data", "prompt", "error", "finish_reason", "tools", "stop_reason", "prompt_tokens_details", "cached_tokens", "object", "conversation", "metadata",];

/// JSON of any shape, in the words of the dialects.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{Value, json};
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|n| json!(n)),
        "[a-z \u{e9}\u{1f600}]{0,8}".prop_map(Value::from),
        prop::sample::select(TYPES).prop_map(Value::from),
    ];
    let keys = prop::sample::select(KEYS);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((keys.clone(), inner), 0..6).prop_map(|members| {
                Value::Object(
                    members.into_iter().map(|(key, value)| ((*key).to_owned(), value)).collect(),
                )
            }),
        ]
    })
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        any_json().prop_map(|value| value.to_string().into_bytes()),
        prop::collection::vec(any_json(), 0..6).prop_map(|events| {
            events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>().into_bytes()
        }),
    ]
}

prop_compose! {
    fn any_body()(
        bytes in any_bytes(),
        head in any::<prop::sample::Index>(),
        tail in any::<prop::sample::Index>(),
        complete in any::<bool>(),
        hole in any::<bool>(),
    ) -> CapturedBody {
        if !hole || bytes.is_empty() {
            return CapturedBody { complete, ..whole(bytes) };
        }
        let head = head.index(bytes.len());
        let tail = tail.index(bytes.len() - head);
        CapturedBody { complete, ..holed(&bytes, head, tail) }
    }
}

fn choices() -> Vec<DialectChoice> {
    Dialect::ALL
        .iter()
        .map(|dialect| DialectChoice::Fixed(*dialect))
        .chain([DialectChoice::Auto])
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn nothing_panics_and_every_fault_is_known(
        request in any_body(),
        response in any_body(),
        path in prop::sample::select(PATHS),
        coding in prop::sample::select(CODINGS),
        media in prop::sample::select(MEDIA),
        dialect in prop::sample::select(choices()),
        status in prop::sample::select(vec![None, Some(200), Some(400), Some(424), Some(101)]),
    ) {
        let mut exchange = Exchange { request, response, status, ..post(path, "", "") };
        let value = HeaderValue::from_bytes(coding.as_bytes()).expect("a value");
        exchange.response_headers.set("content-encoding", value);
        exchange.response_headers.set("content-type", HeaderValue::from_static(media));
        let reading = read(&exchange, &Tap { dialect, ..tap() });
        let known = |label| Fault::ALL.iter().any(|fault| fault.label() == label);
        prop_assert!(reading.fault.is_none_or(known));
        prop_assert!(reading.usage.input.is_none_or(|count| count <= 2_000_000_000_000));
        prop_assert!(reading.answer.is_none() || status == Some(200));
        let again = read(&exchange, &Tap { dialect, ..tap() });
        prop_assert_eq!(reading.response_body, again.response_body, "the same in gives the same out");
    }

    #[test]
    fn a_cut_json_text_never_gives_what_the_whole_does_not_hold(
        value in any_json(),
        cut in any::<prop::sample::Index>(),
    ) {
        let text = value.to_string();
        let cut = cut.index(text.len());
        if let Some(salvaged) = json::salvage(&text.as_bytes()[..cut]) {
            prop_assert!(is_part_of(&salvaged, &value), "{salvaged} of {value}");
        }
    }
}

/// Every leaf of `part` stands at the same place of `whole`; lists may end early.
fn is_part_of(part: &serde_json::Value, whole: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object};
    match (part, whole) {
        (Object(part), Object(whole)) => part
            .iter()
            .all(|(key, value)| whole.get(key).is_some_and(|other| is_part_of(value, other))),
        (Array(part), Array(whole)) => {
            part.len() <= whole.len() && part.iter().zip(whole).all(|(a, b)| is_part_of(a, b))
        }
        (part, whole) => part == whole || (part.is_f64() && whole.is_f64()),
    }
}

#[test]
fn a_stream_of_absurd_indices_is_bounded_and_told() {
    let event = |n: usize| {
        format!(
            "data: {{\"choices\":[{{\"index\":{n},\"delta\":{{\"content\":\"x\",\"tool_calls\":[{{\"index\":{n},\"id\":\"i\"}}]}}}}]}}\n\n"
        )
    };
    let stream: String = (0..20_000).map(event).collect();
    let reading = read_one(&streamed("/v1/chat/completions", "{}", stream));
    let body = reading.response_body.expect("a body");
    assert_eq!(body["choices"].as_array().map(Vec::len), Some(128));
    assert_eq!(reading.fault, Some("shape"));
}

#[test]
fn names_are_short_whatever_is_sent() {
    let long = "é".repeat(100_000);
    let request =
        serde_json::json!({"model": long, "session_id": long, "messages": []}).to_string();
    let response =
        serde_json::json!({"model": long, "id": long, "choices": [{"finish_reason": long}]})
            .to_string();
    let reading = read_one(&post("/v1/chat/completions", request, response));
    let names = [
        reading.model.request,
        reading.model.response,
        reading.response_id,
        reading.finish_reason,
        reading.session,
    ];
    for name in names {
        assert_eq!(name.map(|name| name.len()), Some(json::NAME_BYTES_MAX));
    }
}

#[test]
fn depth_and_number_of_values_are_bounded_and_the_text_is_kept() {
    let deep = format!("{{\"question\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    let reading = read_one(&post("/score", deep.clone(), "{}"));
    assert_eq!((reading.fault, reading.request_body), (Some("json_limits"), Some(deep.into())));
    let wide = format!("[{}0]", "0,".repeat(json::NODES_MAX));
    assert_eq!(read_one(&post("/score", wide, "{}")).fault, Some("json_limits"));
}

#[test]
fn lone_surrogates_are_replaced_not_lost() {
    let reading = read_one(&post("/score", r#"{"question":"q"}"#, r#"{"answer":"a \ud83c b"}"#));
    assert_eq!((reading.answer, reading.fault), (Some("a \u{fffd} b".into()), None));
}
