//! Every generation of names, and what is no span of theirs.

use serde_json::json;

use super::*;
use crate::config::{Overrides, load};

fn tap() -> Tap {
    let overrides =
        Overrides { upstream: Some("http://127.0.0.1:1".to_owned()), ..Overrides::default() };
    let mut config = load(None, &overrides, &[]).expect("an upstream is enough");
    config.taps.remove(0)
}

fn read_all(attributes: Value) -> ToldSpan {
    let Value::Object(attributes) = attributes else { panic!("an object") };
    let raw = RawSpan {
        trace_id: TraceId::random(),
        span_id: SpanId::random(),
        parent_span_id: None,
        name: "openai_chat".to_owned(),
        source: SpanSource::Otlp,
        start: Timestamp::UNIX_EPOCH,
        end: Timestamp::from_millisecond(1500).expect("a time"),
        failed: false,
        error: None,
        attributes,
    };
    read(raw, &tap())
}

#[test]
fn every_generation_of_names_tells_the_same() {
    let generations = [
        json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4", "gen_ai.response.model": "gpt-4-0613",
            "gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 5, "gen_ai.usage.cache_read.input_tokens": 3,
            "gen_ai.usage.reasoning.output_tokens": 2, "gen_ai.input.messages": "[]", "gen_ai.output.messages": "[]"}),
        json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4", "gen_ai.response.model": "gpt-4-0613",
            "gen_ai.usage.prompt_tokens": 12, "gen_ai.usage.completion_tokens": "5", "gen_ai.usage.cache_read_input_tokens": 3,
            "gen_ai.usage.reasoning_tokens": 2, "gen_ai.prompt.0.role": "user", "gen_ai.completion.0.content": "x"}),
        json!({"llm.request.type": "chat", "gen_ai.request.model": "gpt-4", "gen_ai.response.model": "gpt-4-0613",
            "llm.usage.prompt_tokens": 12.0, "llm.usage.completion_tokens": 5, "llm.usage.total_tokens": 17,
            "llm.usage.cache_read_input_tokens": 3, "llm.usage.reasoning_tokens": 2,
            "traceloop.entity.input": "{}", "traceloop.entity.output": "{}"}),
        json!({"openinference.span.kind": "LLM", "llm.model_name": "gpt-4", "gen_ai.response.model": "gpt-4-0613",
            "llm.token_count.prompt": 12, "llm.token_count.completion": 5, "llm.token_count.prompt_details.cache_read": 3,
            "llm.token_count.completion_details.reasoning": 2, "input.value": "a", "output.value": "b"}),
    ];
    for attributes in generations {
        let told = read_all(attributes.clone());
        let usage = Usage {
            cached_input: Some(3),
            reasoning_output: Some(2),
            ..Usage::of(Some(12), Some(5), UsageSource::Traced)
        };
        assert_eq!((told.kind, told.usage), (SpanKind::Llm, usage), "{attributes}");
        assert_eq!((told.model.best(), told.deployment()), (Some("gpt-4-0613"), Some("gpt-4")));
        assert!(told.inputs.is_some() && told.output.is_some(), "{attributes}");
        assert_eq!(told.duration_ms, 1500.0);
    }
}

#[test]
fn promptflow_tells_parts_and_streams_in_its_texts() {
    let function = "openai.resources.chat.completions.completions.Completions.create";
    let asked = json!({"model": "gpt4-prod", "stream": true, "messages": [{"role": "user", "content": "hello there"}]});
    let base = json!({"framework": "promptflow", "span_type": "LLM", "function": function,
        "request_id": "r", "line_run_id": "r", "inputs": asked.to_string()});
    let with = |more: Value| {
        let mut all = base.clone();
        all.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        read_all(all)
    };
    let answer = json!({"model": "gpt-4-0613", "usage": {"prompt_tokens": 22, "completion_tokens": 8, "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}});
    let plain = with(
        json!({"output": answer.to_string(), "llm.usage.prompt_tokens": 22, "llm.usage.completion_tokens": 8}),
    );
    assert_eq!((plain.usage.cached_input, plain.usage.reasoning_output), (Some(4), Some(2)));
    assert_eq!((&*plain.requests, plain.deployment()), (&[Box::from("r")][..], None));

    let chunk = |content: &str| {
        json!({"object": "chat.completion.chunk", "model": "gpt-4-0613",
        "choices": [{"index": 0, "delta": {"content": content}}]})
    };
    let told = json!({"object": "chat.completion.chunk", "model": "gpt-4-0613", "choices": [], "usage": answer["usage"]});
    let message = "{\"content\": \"one two\"}";
    let streamed = with(json!({"output": json!([chunk("one"), chunk(" two"), told]).to_string(),
        "llm.generated_message": message, "llm.response.model": "gpt-4-0613"}));
    assert_eq!(
        (streamed.usage.input, streamed.usage.output),
        (Some(22), Some(8)),
        "the last chunk reports it"
    );
    assert_eq!(streamed.usage.source, Some(UsageSource::Traced));
    assert_eq!((streamed.output.as_deref(), streamed.countable), (Some(message), None));
    assert_eq!(streamed.model.request.as_deref(), Some("gpt4-prod"));

    let silent = with(
        json!({"output": json!([chunk("one"), chunk(" two")]).to_string(), "llm.generated_message": message}),
    );
    assert!(silent.usage.is_unknown());
    let countable = silent.countable.expect("its texts are all there");
    assert_eq!(
        (&*countable.turns[0].text, &*countable.output.concat()),
        ("hello there", "one two")
    );
    assert_eq!(silent.model.response.as_deref(), Some("gpt-4-0613"));
}

#[test]
fn what_is_no_figure_and_no_name_is_unknown() {
    let told = read_all(
        json!({"span_type": 7, "llm.usage.prompt_tokens": -1, "llm.usage.completion_tokens": 1e300,
        "llm.response.model": "", "request_id": "", "line_run_id": "x".repeat(129), "inputs": null, "output": [1, 2],
        "__computed__.cumulative_token_count.total": 30, "gen_ai.prompt.x.role": "?", "nested": {"a": [1]}, "nothing": null}),
    );
    assert!(told.usage.is_unknown() && told.model.best().is_none() && told.requests.is_empty());
    assert_eq!((told.inputs, told.output.as_deref()), (None, Some("[1,2]")));
    assert_eq!(told.attributes["nested"], "{\"a\":[1]}");
    assert!(
        !told.attributes.contains_key("nothing") && told.attributes.len() == 4,
        "{:?}",
        told.attributes
    );
}

#[test]
fn what_is_too_long_is_left_out_as_a_whole() {
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    let mut many: Map<String, Value> = (0..500).map(|n| (format!("a{n}"), json!(n))).collect();
    many.insert("inputs".to_owned(), json!(long));
    many.insert("gen_ai.request.model".to_owned(), json!(long));
    many.insert("big".to_owned(), json!("y".repeat(ATTRIBUTE_BYTES_MAX + 1)));
    let told = read_all(Value::Object(many));
    assert_eq!(
        (told.inputs, told.model.request, told.attributes.len()),
        (None, None, ATTRIBUTES_MAX)
    );
}
