//! Which exchange is read by which dialect, and what is never kept.

use serde_json::json;

use super::*;
use crate::domain::{Dialect, Operation};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
const CHAT_ANSWER: &str =
    r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"Hello"}}]}"#;
const MESSAGE: &str = r#"{"type":"message","content":[{"type":"text","text":"Hello"}]}"#;

fn fixed(dialect: Dialect) -> Tap {
    Tap { dialect: DialectChoice::Fixed(dialect), ..tap() }
}

fn route(exchange: &Exchange, tap: &Tap) -> (Dialect, Operation) {
    let reading = read(exchange, tap);
    (reading.dialect, reading.operation)
}

#[test]
fn an_unknown_endpoint_leaves_no_content() {
    for (path, request, response) in [
        ("/login", r#"{"user":"a","password":"b"}"#, r#"{"token":"c"}"#),
        ("/v1/models", "", "{}"),
        ("/v1/messages/count_tokens", CHAT, r#"{"input_tokens":5}"#),
        ("/chatter", CHAT, r#"{"posted":true}"#),
        ("/odd", r#"{"input":"x","model":"m"}"#, r#"{"output":"y"}"#),
    ] {
        let reading = read_one(&post(path, request, response));
        assert_eq!(reading.operation, Operation::Other, "{path}");
        assert!(reading.request_body.is_none() && reading.response_body.is_none(), "{path}");
        assert!(
            reading.question.is_none() && reading.answer.is_none() && reading.countable.is_none()
        );
    }
}

#[test]
fn a_shape_decides_only_where_both_sides_agree() {
    let chat = (Dialect::Openai, Operation::Chat);
    assert_eq!(route(&post("/llm", CHAT, CHAT_ANSWER), &tap()), chat);
    let stream = fixture("openai/chat-azure.sse");
    assert_eq!(route(&streamed("/llm", CHAT, stream), &tap()), chat);
    let messages = (Dialect::Anthropic, Operation::Messages);
    assert_eq!(route(&post("/llm", CHAT, MESSAGE), &tap()), messages);
    let mut named = post("/llm", CHAT, "{}");
    named.request_headers = headers(&[("anthropic-version", "2023-06-01")]);
    assert_eq!(route(&named, &tap()), messages);
    let responses = fixture("openai/responses.sse");
    let response = (Dialect::Openai, Operation::Responses);
    assert_eq!(route(&streamed("/llm", r#"{"input":"x"}"#, responses), &tap()), response);
}

#[test]
fn azure_ml_names_its_deployment_on_any_path() {
    let mut exchange = post("/flows/qa", r#"{"question":"q"}"#, r#"{"answer":"a"}"#);
    exchange.request_headers.set("azureml-model-deployment", HeaderValue::from_static("blue"));
    assert_eq!(route(&exchange, &tap()), (Dialect::Promptflow, Operation::Score));
    exchange
        .response_headers
        .set("ms-azureml-model-error-statuscode", HeaderValue::from_static("400"));
    assert_eq!(super::super::model_status(&exchange), Some(400));
    exchange
        .response_headers
        .set("ms-azureml-model-error-statuscode", HeaderValue::from_static("x"));
    assert_eq!(super::super::model_status(&exchange), None);
}

#[test]
fn a_fixed_dialect_needs_no_path() {
    let flow = post("/anything", r#"{"question":"q"}"#, r#"{"answer":"a"}"#);
    assert_eq!(route(&flow, &fixed(Dialect::Promptflow)), (Dialect::Promptflow, Operation::Score));
    assert_eq!(route(&flow, &fixed(Dialect::Generic)), (Dialect::Generic, Operation::Call));
    assert_eq!(route(&flow, &fixed(Dialect::Openai)), (Dialect::Openai, Operation::Other));
    let chat = post("/anything", CHAT, CHAT_ANSWER);
    assert_eq!(route(&chat, &fixed(Dialect::Openai)), (Dialect::Openai, Operation::Chat));
    let health = Exchange { method: Method::GET, ..post("/health", "", "{}") };
    for dialect in Dialect::ALL {
        assert_eq!(route(&health, &fixed(*dialect)), (*dialect, Operation::Other));
    }
}

#[test]
fn configured_columns_read_any_call() {
    let mut tap = tap();
    tap.columns.question = "$.turns[-1].text".into();
    tap.columns.answer = "/result/0/text".into();
    tap.columns.context = "$.result[*].source".into();
    tap.columns.configured = true;
    let exchange = post(
        "/ask",
        r#"{"turns":[{"text":"a"},{"text":"b"}],"session_id":"s1"}"#,
        r#"{"result":[{"text":"c","source":"d"},{"text":"e","source":"f"}],"model":"m"}"#,
    );
    let reading = read(&exchange, &tap);
    assert_eq!((reading.dialect, reading.operation), (Dialect::Generic, Operation::Call));
    assert_eq!((reading.question, reading.answer), (Some("b".into()), Some("c".into())));
    assert_eq!(reading.context, Some(json!(["d", "f"])));
    assert_eq!((reading.session.as_deref(), reading.empty), (Some("s1"), false));
    tap.columns.ground_truth = "$[".into();
    assert_eq!(read(&exchange, &tap).fault, Some("column"));
}

#[test]
fn columns_win_over_what_the_dialect_would_take() {
    let mut tap = tap();
    tap.columns.question = "$.messages[0].content".into();
    tap.columns.context = "/metadata/documents".into();
    tap.columns.configured = true;
    let request = r#"{"messages":[{"role":"user","content":"One"},{"role":"user","content":"Two"}],"metadata":{"documents":"D"}}"#;
    let reading = read(&post("/v1/chat/completions", request, CHAT_ANSWER), &tap);
    assert_eq!((reading.question, reading.context), (Some("One".into()), Some("D".into())));
    assert_eq!(reading.answer, Some("Hello".into()), "the default column finds nothing");
}

#[test]
fn flows_answer_in_many_forms() {
    let read_flow = |response: &str| read_one(&post("/score", r#"{"question":"q"}"#, response));
    let cases = [
        (r#"{"answer":"a","context":"c"}"#, Some(json!("a")), false),
        (r#""bare""#, Some(json!("bare")), false),
        (r#""""#, Some(json!("")), true),
        (r#"{"answer":"","context":"c"}"#, Some(json!("")), true),
        (r#"{"answer":null,"context":"c"}"#, None, true),
        (r#"{"context":"c"}"#, None, true),
        ("{}", None, true),
        ("", None, true),
        (r#"{"output":"a"}"#, Some(json!("a")), false),
        (r#"{"reply":"a","context":"c"}"#, Some(json!("a")), false),
        (r#"{"reply":"a","score":5}"#, None, false),
        (r#"{"answer":{"text":"a"}}"#, Some(json!({"text":"a"})), false),
        ("[1,2]", None, false),
    ];
    for (response, answer, empty) in cases {
        let reading = read_flow(response);
        assert_eq!(
            (&reading.answer, reading.empty, reading.fault),
            (&answer, empty, None),
            "{response}"
        );
    }
    assert_eq!(read_flow("plain words").fault, Some("json"));
    let raw = read_one(&Exchange {
        request_headers: headers(&[("content-type", "text/plain")]),
        ..post("/score", "What is it?", r#"{"answer":"a"}"#)
    });
    assert_eq!((raw.question, raw.fault), (Some("What is it?".into()), None));
}

#[test]
fn a_flow_that_streams_nothing_is_empty_and_reported_usage_is_taken() {
    let read_stream = |stream: &str| read_one(&streamed("/score", r#"{"question":"q"}"#, stream));
    assert!(read_stream("").empty);
    assert!(read_stream("data: {\"context\": \"c\"}\n\n").empty);
    assert!(read_stream("data: {\"answer\": \"\"}\n\n").empty);
    let words = read_stream("data: words\n\n");
    assert_eq!((words.empty, words.fault), (false, Some("json")), "not understood is not empty");
    let reading = read_stream(
        "data: {\"docs\": \"d\"}\n\ndata: {\"answer\": \"a\"}\n\ndata: {\"usage\": {\"prompt_tokens\": 3, \"completion_tokens\": 4}}\n\n",
    );
    assert_eq!((reading.answer, reading.usage.total), (Some("a".into()), Some(7)));
    assert_eq!(reading.first_content_offset, Some(21), "a named answer beats an unnamed piece");
    let unnamed = read_stream("data: {\"reply\": \"a\"}\n\ndata: {\"reply\": \"b\"}\n\n");
    assert_eq!((unnamed.answer, unnamed.first_content_offset), (Some("ab".into()), Some(0)));
}

#[test]
fn providers_by_host_path_and_header() {
    let exchange = post("/v1/chat/completions", CHAT, CHAT_ANSWER);
    let at = |host: &str| {
        let mut tap = tap();
        tap.upstream.host = host.into();
        read(&exchange, &tap).provider
    };
    assert_eq!(at("127.0.0.1"), Some("openai"));
    assert_eq!(at("contoso.OpenAI.azure.com"), Some("azure.ai.openai"));
    assert_eq!(at("api.deepseek.com"), Some("deepseek"));
    assert_eq!(at("notx.ai"), Some("openai"));
    let mut with_key = post("/v1/chat/completions", CHAT, CHAT_ANSWER);
    with_key.request_headers.set("api-key", HeaderValue::from_static("k"));
    assert_eq!(read_one(&with_key).provider, Some("azure.ai.openai"));
    assert_eq!(read_one(&post("/score", "{}", "{}")).provider, None);
}

#[test]
fn the_prefix_of_the_upstream_is_part_of_the_path() {
    let mut tap = tap();
    tap.upstream.path_prefix = "/openai/deployments/gpt4".into();
    let reading = read(&post("/chat/completions", CHAT, CHAT_ANSWER), &tap);
    assert_eq!(reading.model_deployment.as_deref(), Some("gpt4"));
    assert_eq!(reading.provider, Some("azure.ai.openai"));
}

#[test]
fn a_session_is_named_by_headers_or_body() {
    let mut exchange = post("/score", r#"{"question":"q","conversation_id":"c1"}"#, "{}");
    assert_eq!(read_one(&exchange).session.as_deref(), Some("c1"));
    exchange.request_headers.set("x-session-id", HeaderValue::from_static("h1"));
    assert_eq!(read_one(&exchange).session.as_deref(), Some("h1"));
}

#[test]
fn bodies_are_kept_as_json_text_or_base64() {
    let kept = |response: &[u8], media: &str| {
        let response_headers = headers(&[("content-type", media)]);
        read_one(&Exchange { response_headers, ..post("/score", "", response) }).response_body
    };
    assert_eq!(kept(b"\xef\xbb\xbf{\"a\":1}", "application/json"), Some(json!({"a": 1})));
    assert_eq!(kept(b"words", "text/plain"), Some(json!("words")));
    assert_eq!(kept(b"{\"a\":1} x", "application/json"), Some(json!("{\"a\":1} x")));
    assert_eq!(kept(b"\x89PNG\xff", "image/png"), Some(json!({"base64": "iVBOR/8="})));
    assert_eq!(kept(b"", "application/json"), None);
}
