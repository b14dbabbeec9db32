//! Answers in pieces: no way of sending them keeps their texts apart.

use serde_json::json;

use super::*;

/// A stream that no dialect folds would hide a secret in its pieces: it is kept as one text.
#[test]
fn a_stream_that_cannot_be_folded_is_kept_as_one_text() {
    let pieces = ["sk-pr", "oj-abc", "def 1", "23"];
    let events = |event: &dyn Fn(&str) -> String| {
        pieces.iter().map(|piece| format!("data: {}\n\n", event(piece))).collect::<String>()
    };
    let quoted = |piece: &str| format!("{piece:?}");
    let streams = [
        (
            "/v1/chat/completions",
            events(&|piece| piece.to_owned()) + "data: [DONE]\n\n",
            json!(pieces.concat()),
        ),
        ("/v1/chat/completions", events(&quoted), json!(pieces.concat())),
        ("/v1/chat/completions", events(&|piece| format!("[{piece:?}]")), json!(pieces)),
        ("/score", events(&|piece| format!("[{piece:?}]")), json!(pieces)),
        (
            "/v1/messages",
            events(&|piece| json!({"type": "new", "new": piece}).to_string()),
            json!({"type": "new", "new": pieces.concat()}),
        ),
    ];
    for (path, stream, joined) in streams {
        let reading = read_one(&streamed(path, r#"{"messages":[]}"#, stream.as_str()));
        assert_eq!(reading.response_body, Some(joined), "{stream}");
    }
    let lines =
        pieces.iter().map(|piece| format!("{{\"answer\":{piece:?}}}\n")).collect::<String>();
    let mut exchange = post("/score", r#"{"question":"q"}"#, lines.as_str());
    exchange.response_headers.set("content-type", HeaderValue::from_static("application/x-ndjson"));
    assert_eq!(read_one(&exchange).response_body, Some(json!({"answer": pieces.concat()})));
}

/// Some servers leave the `index` of parts and calls out.
#[test]
fn pieces_without_an_index_go_on_with_the_one_before() {
    let chunk = |delta: serde_json::Value| {
        format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta}]}))
    };
    let part = |text: &str| chunk(json!({"content": [{"type": "text", "text": text}]}));
    let call = |id: &str, name: &str, arguments: &str| {
        chunk(
            json!({"tool_calls": [{"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}]}),
        )
    };
    let stream =
        [part("a"), part("b"), call("c1", "f", "{"), call("", "", "}"), call("c2", "g", "{}")]
            .concat();
    let body = read_one(&streamed("/v1/chat/completions", r#"{"messages":[]}"#, stream.as_str()))
        .response_body;
    let message = body.expect("folded")["choices"][0]["message"].take();
    assert_eq!(message["content"], json!([{"type": "text", "text": "ab"}]));
    let called = |at: usize| message["tool_calls"][at]["function"]["arguments"].clone();
    assert_eq!((called(0), called(1)), (json!("{}"), json!("{}")), "{message}");
}
