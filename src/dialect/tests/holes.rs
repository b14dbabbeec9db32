//! Bodies of which only head and tail were captured, or whose end never came.

use serde_json::json;

use super::*;

fn long_chat_stream() -> Vec<u8> {
    let piece = |n: usize| {
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"w{n} \"}}}}]}}\n\n")
    };
    let mut stream: String = (0..1000).map(piece).collect();
    stream.push_str(
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    );
    stream.push_str("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2000}}\n\ndata: [DONE]\n\n");
    stream.into_bytes()
}

#[test]
fn the_usage_of_a_stream_survives_any_hole() {
    let stream = long_chat_stream();
    let stop = memchr::memmem::find(&stream, b"stop").expect("the last chunk but one");
    let end = memchr::memmem::rfind(&stream[..stop], b"data:").expect("its event");
    for tail in 150..500 {
        let mut exchange = streamed("/v1/chat/completions", r#"{"messages":[]}"#, "");
        exchange.response = holed(&stream, 1000 + tail, tail);
        let reading = read_one(&exchange);
        assert_eq!(
            (reading.usage.input, reading.usage.output),
            (Some(5), Some(2000)),
            "tail of {tail}"
        );
        let seen = Some("stop").filter(|_| tail >= stream.len() - end + 2);
        assert_eq!(reading.finish_reason.as_deref(), seen, "tail of {tail}");
        assert_eq!((reading.fault, reading.empty), (Some("truncated"), false));
        let answer = reading.answer.expect("what was captured");
        assert!(answer.as_str().is_some_and(|text| text.starts_with("w0 w1 ")));
        assert!(reading.countable.expect("countable").output_truncated);
        assert_eq!(reading.first_content_offset, Some(0));
    }
}

#[test]
fn a_first_content_after_the_hole_has_its_offset_on_the_wire() {
    let stream = format!(": {}\n\ndata: {{\"answer\": \"x\"}}\n\n", "pad".repeat(1000));
    let mut exchange = streamed("/score", r#"{"question":"q"}"#, "");
    exchange.response = holed(stream.as_bytes(), 100, 60);
    let reading = read_one(&exchange);
    assert_eq!(reading.first_content_offset, Some(stream.find("data").expect("an event") as u64));
}

#[test]
fn the_usage_of_a_plain_body_is_found_in_its_tail() {
    let text = "word ".repeat(2000);
    let body = json!({"id":"c1","model":"m","choices":[{"index":0,"message":{"content":text},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":4,"completion_tokens":2000,"total_tokens":2004}});
    let bytes = body.to_string().into_bytes();
    let mut exchange = post("/v1/chat/completions", r#"{"messages":[]}"#, "");
    exchange.response = holed(&bytes, 500, 200);
    let reading = read_one(&exchange);
    assert_eq!(reading.usage.total, Some(2004));
    assert_eq!(
        (reading.model.response.as_deref(), reading.response_id.as_deref()),
        (Some("m"), Some("c1"))
    );
    assert_eq!((reading.answer, reading.fault, reading.empty), (None, Some("truncated"), false));
    let kept = reading.response_body.expect("text");
    let kept = kept.as_str().expect("text");
    let (head, rest) = kept.split_once("\n[").expect("a hole");
    let (hole, tail) = rest.split_once(" bytes not captured]\n").expect("its size");
    let hole: usize = hole.parse().expect("a number");
    assert!(head.starts_with("{\"id\"") && head.ends_with("word ") && tail.starts_with(" word"));
    assert_eq!((head.len() + hole + tail.len(), hole < bytes.len() - 690), (bytes.len(), true));

    let lie = json!({"choices":[{"message":{"content":text,"usage":{"prompt_tokens":9,"completion_tokens":9}}}]});
    exchange.response = holed(lie.to_string().as_bytes(), 500, 200);
    assert!(read_one(&exchange).usage.is_unknown(), "not the outermost member");
}

#[test]
fn a_cut_request_gives_whole_members_and_no_false_question() {
    let turn =
        |n: usize| json!({"role": "user", "content": format!("turn {n} {}", "x".repeat(200))});
    let request =
        json!({"model":"gpt-4o","messages": (0..50).map(turn).collect::<Vec<_>>(),"stream":false});
    let bytes = request.to_string().into_bytes();
    let mut exchange = post("/v1/chat/completions", "", fixture("openai/chat-refusal.json"));
    exchange.request = holed(&bytes, 2000, 300);
    let reading = read_one(&exchange);
    assert_eq!(reading.model.request.as_deref(), Some("gpt-4o"));
    assert_eq!((reading.question, reading.chat_history), (None, None));
    assert_eq!(reading.fault, Some("truncated"));
    let countable = reading.countable.expect("countable");
    assert!(countable.input_truncated && countable.turns.len() >= 8);
}

#[test]
fn a_body_of_which_nothing_was_captured_is_unknown_not_empty() {
    let nothing = || CapturedBody { bytes: 4096, complete: true, ..CapturedBody::default() };
    for path in
        ["/score", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"]
    {
        for stream in [false, true] {
            let mut exchange = if stream { streamed(path, "", "") } else { post(path, "", "") };
            (exchange.request, exchange.response) = (nothing(), nothing());
            let reading = read_one(&exchange);
            assert_eq!((reading.fault, reading.empty), (Some("truncated"), false), "{path}");
            assert!(reading.countable.is_none(), "{path}: nothing to count is not zero");
            assert!(reading.usage.is_unknown() && reading.answer.is_none());
        }
    }
}

#[test]
fn a_cut_body_without_a_hole_is_truncated_rather_than_bad_json() {
    let mut exchange =
        post("/score", r#"{"question":"q"}"#, r#"{"context":"c","answer":"half an ans"#);
    exchange.response.complete = false;
    exchange.outcome = Outcome::UpstreamAbort;
    let reading = read_one(&exchange);
    assert_eq!((reading.fault, reading.empty), (Some("truncated"), false));
    assert_eq!((reading.context, reading.answer), (Some("c".into()), None));
}
