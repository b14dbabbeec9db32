//! Events that repeat the one before are folded as if each were built.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// What a reading tells, texts included.
fn all(reading: &Reading) -> String {
    let columns = [&reading.question, &reading.answer, &reading.chat_history];
    let bodies = [&reading.request_body, &reading.response_body];
    let ends = (&reading.finish_reason, &reading.response_id, reading.empty, reading.fault);
    format!("{columns:?} {bodies:?} {ends:?} {:?} {:?}", reading.usage, reading.countable)
}

/// The same events, each of which another blank follows than the one before: none is a repetition.
fn unlike(events: &[&str]) -> String {
    let blanks = ["", " ", "\t", "  "];
    let data = events.iter().zip(blanks.iter().cycle());
    let padded = |event: &str, blank| if event == "[DONE]" { "" } else { blank };
    data.map(|(event, blank)| format!("data: {event}{}\n\n", padded(event, blank))).collect()
}

fn agree(path: &str, events: &[&str]) -> Result<String, TestCaseError> {
    let asked = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}"#;
    let plain: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    let [repeated, built] =
        [plain, unlike(events)].map(|stream| all(&read(&streamed(path, asked, stream), &tap())));
    prop_assert_eq!(&repeated, &built);
    Ok(repeated)
}

const EVENTS: &[&str] = &[
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"one"}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"two é"}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"a\n\"b\" \u00e9"}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"\ud83c"}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":""}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":null}}]}"#,
    r#"{"id":"c","choices":[{"index":1,"delta":{"content":"other"}}]}"#,
    r#"{"id":"c","choices":[{"delta":{"content":"no index"}}]}"#,
    r#"{"id":"","choices":[{"index":0,"delta":{"role":"assistant","content":"said"},"finish_reason":null}]}"#,
    r#"{"id":"","choices":[{"index":0,"delta":{"role":"assistant","content":"more"},"finish_reason":null}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"x","reasoning":"y"}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"z","reasoning":"y"}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"s"},"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"t"},"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"p"}}],"obfuscation":"aa"}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"q"}}],"obfuscation":"bbbb"}"#,
    r#"{"obfuscation":"","id":"c","choices":[{"index":0,"delta":{"content":"r"}}]}"#,
    r#"{"obfuscation":"c","id":"c","choices":[{"index":0,"delta":{"content":"s"}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"l"},"logprobs":{"content":[{"token":"l"}]}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"m"},"logprobs":{"content":[{"token":"l"}]}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"u"}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"v"}}],"usage":{"prompt_tokens":5,"completion_tokens":6}}"#,
    r#"{"id":"c","choices":[{"index":0,"text":"plain"}]}"#,
    r#"{"id":"c","choices":[{"index":0,"text":" text"}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"t","function":{"name":"f","arguments":"{}"}}]}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"a"}},{"index":0,"delta":{"content":"b"}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":"e"},"message":{"content":"f"}}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    r#"{"id":"c","choices":[{"index":0,"delta":{"content":{"a":"b"}}}]}"#,
    r#"{"error":{"message":"no"}}"#,
    "[DONE]",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn what_repeats_is_what_was_built(
        events in prop::collection::vec(select(EVENTS), 0..8),
        times in prop::collection::vec(1_usize..4, 8),
        path in select(vec!["/v1/chat/completions", "/v1/completions"]),
    ) {
        let repeated = events.iter().zip(&times).flat_map(|(event, times)| std::iter::repeat_n(*event, *times));
        agree(path, &repeated.collect::<Vec<_>>())?;
    }
}

#[test]
fn texts_of_one_stream_are_joined() {
    let chunks = ["one ", "two", "", "\\n\\\"three\\\"", " é"].map(|text| {
        format!(
            r#"{{"id":"c","object":"chat.completion.chunk","choices":[{{"index":0,"delta":{{"content":"{text}"}},"content_filter_results":{{"hate":{{"severity":"safe"}}}}}}],"obfuscation":"{}"}}"#,
            "x".repeat(text.len() + 1)
        )
    });
    let events: Vec<&str> = chunks.iter().map(String::as_str).collect();
    let told = agree("/v1/chat/completions", &events).expect("the same");
    assert!(told.contains(r#"one two\n\"three\" é"#), "{told}");
    assert!(told.contains(r#""severity": String("safe")"#), "{told}");
}
