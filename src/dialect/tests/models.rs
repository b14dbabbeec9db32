//! Calls to models: OpenAI's chat, completions, responses and embeddings, and Anthropic's messages.

use serde_json::{Value, json};

use super::*;
use crate::domain::{Dialect, Operation, UsageSource};

const CHAT: &str = r#"{"model":"gpt-4o","messages":[{"role":"system","content":"Be kind."},
    {"role":"user","content":"First?"},{"role":"assistant","content":"Yes."},
    {"role":"user","name":"ann","content":[{"type":"text","text":"Second?"}]}],
    "tools":[{"type":"function","function":{"name":"get_weather"}}],"stream":true}"#;
const MESSAGES: &str = r#"{"model":"claude-sonnet-4-0","max_tokens":100,"system":[{"type":"text","text":"Be kind."}],
    "messages":[{"role":"user","content":"Weather?"}],"tools":[{"name":"get_weather","input_schema":{}}]}"#;

fn chat(stream: &str) -> Reading {
    read_one(&streamed("/v1/chat/completions", CHAT, fixture(&format!("openai/{stream}"))))
}

fn messages(stream: &str) -> Reading {
    read_one(&streamed("/v1/messages", MESSAGES, fixture(&format!("anthropic/{stream}"))))
}

fn tokens(reading: &Reading) -> (Option<u64>, Option<u64>, Option<u64>) {
    (reading.usage.input, reading.usage.output, reading.usage.total)
}

/// Where in the stream the event that holds `needle` begins.
fn event_with(stream: &[u8], needle: &str) -> Option<u64> {
    let at = memchr::memmem::find(stream, needle.as_bytes()).expect("in the stream");
    let before = &stream[..at];
    let start = before.windows(2).rposition(|pair| pair == b"\n\n").map_or(0, |at| at + 2);
    Some(start as u64)
}

#[test]
fn a_chat_has_a_question_a_history_and_turns_to_count() {
    let reading = chat("chat-azure.sse");
    assert_eq!((reading.dialect, reading.operation), (Dialect::Openai, Operation::Chat));
    assert_eq!(reading.question, Some("Second?".into()));
    let history = reading.chat_history.expect("a history");
    assert_eq!(history.as_array().map(Vec::len), Some(3));
    assert_eq!(history[0]["content"], "Be kind.");
    assert_eq!(reading.context, None);
    let countable = reading.countable.expect("countable");
    let roles: Vec<_> = countable.turns.iter().map(|turn| turn.role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    assert_eq!(countable.turns[3].name.as_deref(), Some("ann"));
    assert_eq!(countable.turns[3].text, "Second?");
    assert_eq!(countable.input, [r#"{"type":"function","function":{"name":"get_weather"}}"#]);
    assert!(!countable.input_truncated && !countable.output_truncated);
}

#[test]
fn azure_chunks_are_folded_with_names_and_usage() {
    let stream = fixture("openai/chat-azure.sse");
    let path = "/openai/deployments/gpt4-prod/chat/completions";
    let reading = read_one(&streamed(path, CHAT, stream.clone()));
    assert_eq!(reading.provider, Some("azure.ai.openai"));
    assert_eq!(reading.model_deployment.as_deref(), Some("gpt4-prod"));
    assert_eq!(reading.model.request.as_deref(), Some("gpt-4o"));
    assert_eq!(reading.model.response.as_deref(), Some("gpt-4o-2024-11-20"));
    assert_eq!(reading.response_id.as_deref(), Some("chatcmpl-A1"));
    assert_eq!(reading.answer, Some("Bonjour 🌍!".into()));
    assert_eq!(reading.finish_reason.as_deref(), Some("stop"));
    assert_eq!(tokens(&reading), (Some(20), Some(4), Some(24)));
    assert_eq!(
        (reading.usage.cached_input, reading.usage.source),
        (Some(16), Some(UsageSource::Reported))
    );
    assert_eq!(reading.first_content_offset, event_with(&stream, "Bonjour"));
    let body = reading.response_body.expect("a folded body");
    assert_eq!(
        (&body["object"], &body["created"]),
        (&json!("chat.completion"), &json!(1764000000))
    );
    assert_eq!(
        body["choices"][0]["message"],
        json!({"role":"assistant","content":"Bonjour 🌍!","refusal":null})
    );
    assert_eq!(body["usage"]["total_tokens"], 24);
    assert_eq!((reading.fault, reading.empty, reading.stream), (None, false, true));
}

#[test]
fn streamed_tool_calls_are_joined_by_index() {
    let reading = chat("chat-tools.sse");
    assert_eq!(reading.answer, None);
    assert!(!reading.empty, "a call is an answer");
    assert_eq!(reading.finish_reason.as_deref(), Some("tool_calls"));
    assert_eq!(reading.first_content_offset, Some(0));
    let calls = &reading.response_body.expect("a body")["choices"][0]["message"]["tool_calls"];
    assert_eq!(
        *calls,
        json!([
            {"id":"call_a","type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}},
            {"id":"call_b","type":"function","function":{"name":"get_time","arguments":"{\"zone\":\"CET\"}"}},
        ])
    );
    let output = reading.countable.expect("countable").output;
    assert_eq!(output, ["get_weather", "{\"city\":\"Paris\"}", "get_time", "{\"zone\":\"CET\"}"]);
}

#[test]
fn several_choices_are_all_counted_and_the_first_answers() {
    let reading = chat("chat-two-choices.sse");
    assert_eq!(reading.answer, Some("Heads".into()));
    assert_eq!(reading.countable.expect("countable").output, ["Heads", "Height"]);
    let body = reading.response_body.expect("a body");
    assert_eq!(
        (&body["choices"][0]["index"], &body["choices"][1]["index"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(reading.usage.total, Some(15));
}

#[test]
fn thoughts_count_but_are_no_answer() {
    let stream = fixture("openai/chat-reasoning.sse");
    let reading = chat("chat-reasoning.sse");
    assert_eq!(reading.answer, Some("42".into()));
    assert_eq!(reading.countable.expect("countable").output, ["Let me think.", "42"]);
    assert_eq!((reading.usage.output, reading.usage.reasoning_output), (Some(9), Some(7)));
    let at = memchr::memmem::find(&stream, b"Let me").expect("the thought");
    let start = memchr::memmem::rfind(&stream[..at], b"data:").expect("its event");
    assert_eq!(reading.first_content_offset, Some(start as u64));
}

#[test]
fn plain_answers_are_read_like_streamed_ones() {
    let tools = read_one(&post("/chat/completions", CHAT, fixture("openai/chat-tools.json")));
    assert_eq!((tools.empty, tools.answer.clone(), tools.stream), (false, None, false));
    assert_eq!(tokens(&tools), (Some(81), Some(17), Some(98)));
    assert_eq!(tools.countable.expect("countable").output, ["get_weather", "{\"city\":\"Paris\"}"]);
    let refusal =
        read_one(&post("/v1/chat/completions", CHAT, fixture("openai/chat-refusal.json")));
    assert_eq!(refusal.answer, Some("I can not help with that.".into()));
    assert!(!refusal.empty);
}

#[test]
fn nothing_said_is_empty_and_an_error_is_not() {
    let nothing = br#"{"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"length"}]}"#;
    let reading = read_one(&post("/v1/chat/completions", CHAT, nothing));
    assert!(reading.empty);
    assert!(read_one(&streamed("/v1/chat/completions", CHAT, "")).empty, "a stream without events");
    let mut refused = post("/v1/chat/completions", CHAT, r#"{"error":{"message":"no"}}"#);
    refused.status = Some(429);
    let reading = read_one(&refused);
    assert_eq!((reading.empty, reading.countable.is_none(), reading.fault), (false, true, None));
    let odd = read_one(&post("/v1/chat/completions", CHAT, r#"{"detail":"hm"}"#));
    assert_eq!((odd.empty, odd.fault), (false, Some("shape")));
}

#[test]
fn a_cut_stream_counts_what_was_delivered() {
    let stream = fixture("openai/chat-azure.sse");
    let cut = memchr::memmem::find(&stream, b"\"!\"").expect("the last piece");
    let mut exchange = streamed("/v1/chat/completions", CHAT, &stream[..cut]);
    exchange.response.complete = false;
    exchange.outcome = Outcome::ClientAbort;
    let reading = read_one(&exchange);
    assert_eq!(reading.answer, Some("Bonjour 🌍".into()));
    assert!(reading.usage.is_unknown() && !reading.empty);
    assert_eq!(reading.fault, None, "the outcome tells of the cut");
    assert!(reading.countable.expect("countable").output_truncated);
    let silent_end = read_one(&streamed("/v1/chat/completions", CHAT, &stream[..cut]));
    assert!(
        silent_end.countable.expect("countable").output_truncated,
        "no end mark, no reason to end"
    );
}

#[test]
fn an_event_without_its_blank_line_is_not_lost() {
    let stream = br#"data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}

data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
    let reading = read_one(&streamed("/v1/chat/completions", CHAT, stream));
    assert_eq!(tokens(&reading), (Some(3), Some(1), Some(4)));
}

#[test]
fn parts_that_are_no_text_make_the_count_an_estimate() {
    let request = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]}"#;
    let reading =
        read_one(&post("/v1/chat/completions", request, fixture("openai/chat-refusal.json")));
    let countable = reading.countable.expect("countable");
    assert_eq!(countable.turns[0].text, "What is it?");
    assert!(countable.input_truncated);
}

#[test]
fn completions_and_embeddings() {
    let request = r#"{"model":"gpt-3.5-turbo-instruct","prompt":"Begin a tale","stream":true}"#;
    let reading = read_one(&streamed("/v1/completions", request, fixture("openai/completion.sse")));
    assert_eq!(reading.operation, Operation::TextCompletion);
    assert_eq!(
        (reading.question, reading.answer),
        (Some("Begin a tale".into()), Some("Once upon".into()))
    );
    assert_eq!(reading.response_body.expect("a body")["choices"][0]["text"], "Once upon");
    let countable = reading.countable.expect("countable");
    assert_eq!(
        (countable.input, countable.output),
        (vec!["Begin a tale".into()], vec!["Once upon".into()])
    );

    let request = r#"{"model":"text-embedding-3-small","input":["one","two"]}"#;
    let reading = read_one(&post("/v1/embeddings", request, fixture("openai/embeddings.json")));
    assert_eq!(tokens(&reading), (Some(8), None, Some(8)));
    assert_eq!((reading.answer.clone(), reading.empty), (None, false));
    assert_eq!(reading.countable.expect("countable").input, ["one", "two"]);
    let body = reading.response_body.expect("a body");
    assert_eq!(body["data"][1]["embedding"], json!({"omitted": 3}));
    let ids = read_one(&post("/v1/embeddings", r#"{"input":[[1,2,3]]}"#, "{}"));
    assert_eq!(ids.countable, None, "token ids are no text");
}

#[test]
fn responses_are_read_in_both_forms() {
    let request = r#"{"model":"gpt-4.1","instructions":"Be kind.","input":"Hello?","stream":true,"conversation":{"id":"conv_1"}}"#;
    let stream = fixture("openai/responses.sse");
    let streamed_one = read_one(&streamed("/v1/responses", request, stream.clone()));
    let plain = read_one(&post("/v1/responses", request, fixture("openai/responses.json")));
    for reading in [&streamed_one, &plain] {
        assert_eq!(reading.operation, Operation::Responses);
        assert_eq!(
            (reading.question.clone(), reading.answer.clone()),
            (Some("Hello?".into()), Some("Hi there!".into()))
        );
        assert_eq!(tokens(reading), (Some(37), Some(30), Some(67)));
        assert_eq!(
            (reading.usage.cached_input, reading.usage.reasoning_output),
            (Some(5), Some(12))
        );
        assert_eq!(reading.finish_reason.as_deref(), Some("completed"));
        assert_eq!(reading.session.as_deref(), Some("conv_1"));
        let countable = reading.countable.as_ref().expect("countable");
        assert_eq!(countable.output, ["Greeting.", "Hi there!", "lookup\n{\"q\":\"x\"}"]);
        assert!(
            !countable.output_truncated && countable.input_truncated,
            "a conversation holds more"
        );
    }
    assert_eq!(streamed_one.response_body, plain.response_body);
    assert_eq!(
        streamed_one.first_content_offset,
        event_with(&stream, "reasoning_summary_text.delta")
    );
}

#[test]
fn a_cut_response_is_rebuilt_from_its_pieces() {
    let stream = fixture("openai/responses.sse");
    let cut = memchr::memmem::find(&stream, b"event: response.output_text.done").expect("an event");
    let mut exchange = streamed("/v1/responses", r#"{"input":"Hello?"}"#, &stream[..cut]);
    exchange.outcome = Outcome::UpstreamAbort;
    exchange.response.complete = false;
    let reading = read_one(&exchange);
    assert_eq!(reading.answer, Some("Hi there!".into()));
    assert!(reading.usage.is_unknown());
    let countable = reading.countable.expect("countable");
    assert_eq!(
        (countable.output, countable.output_truncated),
        (vec!["Greeting.".into(), "Hi there!".into()], true)
    );
}

#[test]
fn a_message_of_anthropic_is_folded_with_its_tools_and_cache() {
    let reading = messages("message-tools.sse");
    assert_eq!((reading.dialect, reading.operation), (Dialect::Anthropic, Operation::Messages));
    assert_eq!(reading.provider, Some("anthropic"));
    assert_eq!(reading.question, Some("Weather?".into()));
    assert_eq!(reading.answer, Some("Let me look.".into()));
    assert_eq!(tokens(&reading), (Some(142), Some(55), Some(197)));
    assert_eq!(reading.usage.cached_input, Some(100));
    assert_eq!(reading.finish_reason.as_deref(), Some("tool_use"));
    let stream = fixture("anthropic/message-tools.sse");
    assert_eq!(reading.first_content_offset, event_with(&stream, "Let me"));
    let body = reading.response_body.expect("a body");
    assert_eq!(body["content"][1]["input"], json!({"city": "Zürich"}));
    assert_eq!(body["usage"]["output_tokens"], 55);
    let countable = reading.countable.expect("countable");
    assert_eq!(countable.turns[0].role, "system");
    assert_eq!(countable.output, ["Let me look.", "get_weather\n{\"city\":\"Zürich\"}"]);
    assert!(!countable.output_truncated);
}

#[test]
fn thinking_of_anthropic_counts_but_is_no_answer() {
    let reading = messages("message-thinking.sse");
    assert_eq!(reading.answer, Some("Four.".into()));
    assert_eq!(tokens(&reading), (Some(142), Some(21), Some(163)));
    assert_eq!(reading.countable.expect("countable").output, ["Two and two.", "Four."]);
    let body = reading.response_body.expect("a body");
    assert_eq!(
        body["content"][0],
        json!({"type":"thinking","thinking":"Two and two.","signature":"c2ln"})
    );
    let plain = read_one(&post("/v1/messages", MESSAGES, fixture("anthropic/message.json")));
    assert_eq!(
        (plain.answer.clone(), tokens(&plain)),
        (Some("Four.".into()), (Some(142), Some(5), Some(147)))
    );
}

#[test]
fn an_error_amid_a_message_leaves_the_output_unknown() {
    let reading = messages("message-error.sse");
    assert_eq!(reading.answer, Some("Let me look.".into()));
    assert_eq!(tokens(&reading), (Some(142), None, None), "the figure at the start is no count");
    assert_eq!(reading.finish_reason.as_deref(), Some("error"));
    let countable = reading.countable.expect("countable");
    assert!(countable.output_truncated);
    assert_eq!(reading.response_body.expect("a body")["error"]["type"], "overloaded_error");
}

#[test]
fn hostile_usage_in_a_stream_is_never_wrong() {
    let event = |usage: Value| format!("data: {}\n\n", json!({"choices":[], "usage": usage}));
    let stream = [
        event(json!({"prompt_tokens": 7, "completion_tokens": -1})),
        event(json!({"prompt_tokens": "99", "completion_tokens": 3, "total_tokens": 1e308})),
        event(json!(["prompt_tokens"])),
        event(json!({"prompt_tokens": 7.5, "completion_tokens": 2})),
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"late\"}}]}\n\ndata: [DONE]\n\n"
            .into(),
    ];
    let reading = read_one(&streamed("/v1/chat/completions", CHAT, stream.concat()));
    assert_eq!(tokens(&reading), (Some(7), Some(3), Some(10)));
    assert_eq!(reading.answer, Some("late".into()));
}
