//! What is read of an exchange that is not kept is what the whole reading says: on recorded bytes and
//! on whatever bytes come near to them.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::{detect, figures as light};
use super::*;
use crate::domain::{Dialect, Operation};

const CHAT: &str = "/v1/chat/completions";

fn is_light(exchange: &Exchange) -> bool {
    let detect::Glance::Known(dialect, operation) = detect::at_a_glance(exchange, &tap()) else {
        return false;
    };
    light::read(exchange, &tap(), dialect, operation).is_some()
}

fn agree(exchange: &Exchange) -> Result<(), TestCaseError> {
    let (whole, light) = (read(exchange, &tap()), read_figures(exchange, &tap()));
    prop_assert_eq!(figures(&light), figures(&whole));
    prop_assert_eq!(figures(&read_kept(exchange, &tap())), figures(&whole));
    Ok(())
}

const ASKED: &str =
    r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"metadata":{"session_id":"s1"}}"#;
const REPORTED: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n";
const COMPLETION: &str = r#"{"id":"cmpl-1","object":"text_completion","model":"m","choices":[
    {"text":"Once","index":0,"logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

/// Answers as real servers give them: path, body, whether it is a stream.
pub(super) fn recorded() -> Vec<(&'static str, Vec<u8>, bool)> {
    let of = |path, name: &str, stream| {
        let mut body = fixture(name);
        if name.starts_with("openai/c") && stream {
            body.extend_from_slice(REPORTED.as_bytes());
        }
        (path, body, stream)
    };
    vec![
        of(CHAT, "openai/chat-azure.sse", true),
        of(CHAT, "openai/chat-tools.sse", true),
        of(CHAT, "openai/chat-two-choices.sse", true),
        of(CHAT, "openai/chat-reasoning.sse", true),
        of(CHAT, "openai/chat-refusal.json", false),
        of(CHAT, "openai/chat-tools.json", false),
        of(COMPLETIONS, "openai/completion.sse", true),
        (COMPLETIONS, COMPLETION.into(), false),
        of("/v1/embeddings", "openai/embeddings.json", false),
        of(RESPONSES, "openai/responses.json", false),
        of(RESPONSES, "openai/responses.sse", true),
        of(MESSAGES, "anthropic/message.json", false),
        of(MESSAGES, "anthropic/message-thinking.sse", true),
        of(MESSAGES, "anthropic/message-tools.sse", true),
    ]
}

fn exchanged(path: &str, asked: &str, body: Vec<u8>, stream: bool) -> Exchange {
    if stream { streamed(path, asked, body) } else { post(path, asked, body) }
}

#[test]
fn recorded_answers_are_read_without_building_them() {
    for (at, (path, body, stream)) in recorded().into_iter().enumerate() {
        let exchange = exchanged(path, ASKED, body, stream);
        assert!(is_light(&exchange), "{path} {at}");
        assert_eq!(read_one(&exchange).session.as_deref(), Some("s1"));
    }
}

/// One change to a JSON text: where, what takes its place, and under which key it comes besides.
pub(super) type Change = (prop::sample::Index, &'static str, Option<&'static str>, bool);

pub(super) fn change() -> impl Strategy<Value = Change> {
    let key = prop::option::of(select(super::hostile::KEYS));
    (any::<prop::sample::Index>(), member(), key, any::<bool>())
}

/// The text with one of its values replaced, left out, or joined by another.
pub(super) fn changed(text: &str, (place, value, key, out): &Change) -> String {
    let Ok(mut whole) = serde_json::from_str::<serde_json::Value>(text) else {
        return text.to_owned();
    };
    let mut places = Vec::new();
    pointers(&whole, String::new(), &mut places);
    let place = &places[place.index(places.len())];
    let hole = serde_json::Value::from("@@");
    match (whole.pointer_mut(place), key) {
        (Some(serde_json::Value::Object(members)), Some(key)) => {
            members.insert((*key).to_owned(), hole);
        }
        (Some(serde_json::Value::Object(members)), None) if *out => {
            let last = members.keys().next_back().cloned();
            last.into_iter().for_each(|key| drop(members.shift_remove(&key)));
        }
        (Some(serde_json::Value::Array(items)), _) if *out => _ = items.pop(),
        (Some(found), _) => *found = hole,
        (None, _) => {}
    }
    whole.to_string().replace("\"@@\"", value)
}

fn pointers(value: &serde_json::Value, at: String, into: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => {
            members.iter().for_each(|(key, value)| pointers(value, format!("{at}/{key}"), into));
        }
        serde_json::Value::Array(items) => {
            let numbered = items.iter().enumerate();
            numbered.for_each(|(index, item)| pointers(item, format!("{at}/{index}"), into));
        }
        _ => {}
    }
    into.push(at);
}

/// A recorded answer with some changes to its objects and, of a stream, to the order of its events.
fn near(
    body: &[u8],
    stream: bool,
    changes: &[(prop::sample::Index, Change)],
    moves: &[(prop::sample::Index, prop::sample::Index)],
) -> Vec<u8> {
    let text = String::from_utf8_lossy(body).into_owned();
    if !stream {
        let all = changes.iter().fold(text, |text, (_, change)| changed(&text, change));
        return all.into_bytes();
    }
    let mut events: Vec<String> = text.split_inclusive("\n\n").map(str::to_owned).collect();
    for (event, change) in changes {
        let event = event.get_mut(&mut events);
        let Some((head, data)) = event.split_once("data: ") else { continue };
        *event = format!("{head}data: {}\n\n", changed(data.trim_end(), change));
    }
    for (from, to) in moves {
        let (from, to) = (from.index(events.len()), to.index(events.len()));
        let event = events[from].clone();
        events.insert(to, event);
    }
    events.concat().into_bytes()
}

/// JSON texts of which some are what a chat's members hold.
fn member() -> impl Strategy<Value = &'static str> {
    select(vec![
        "null",
        "\"\"",
        "\"x\"",
        "\" \"",
        "\"a\\n\"",
        "\"\\ud800\"",
        "\"é\"",
        "0",
        "1",
        "-1",
        "1.0",
        "0.0",
        "2.5",
        "1e999",
        "18446744073709551616",
        "true",
        "[]",
        "{}",
        "[1]",
        "[\"x\"]",
        "{\"index\":1}",
        "[{\"index\":200}]",
        "{\"transcript\":\"hm\"}",
        "[{\"type\":\"text\",\"text\":\"x\"}]",
        "{\"name\":\"f\",\"arguments\":\"\"}",
        "[{\"index\":0,\"function\":{\"name\":\"f\"}}]",
        "[{\"function\":{\"name\":\"\",\"arguments\":\"1\"}}]",
        "[{\"custom\":{\"name\":\"c\"}}]",
        "[{\"index\":0,\"function\":null}]",
        "{\"prompt_tokens\":3}",
        "{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":9}",
        "{\"input_tokens\":3,\"output_tokens\":4,\"input_tokens_details\":{\"cached_tokens\":2}}",
        "{\"prompt_tokens\":3,\"completion_tokens\":4,\"prompt_tokens_details\":{\"cached_tokens\":1},\"completion_tokens_details\":{\"reasoning_tokens\":2}}",
        "{\"cached_tokens\":1}",
        "{\"id\":\"i\",\"session_id\":\"s\"}",
        "\"stop\"",
        "[",
        "nul",
        "01",
        "\"\t\"",
    ])
}

/// An object with some of `keys`; with luck as it should be.
fn object(
    usual: &'static str,
    keys: &'static [&'static str],
    inner: impl Strategy<Value = String> + 'static,
) -> impl Strategy<Value = String> {
    let one =
        (select(keys), prop_oneof![3 => member().prop_map(str::to_owned), 1 => inner.boxed()]);
    (any::<bool>(), prop::collection::vec(one, 0..3), any::<bool>()).prop_map(
        move |(begins, members, ends)| {
            let mut all: Vec<String> =
                members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            let usual = (begins || ends).then(|| usual.to_owned());
            if begins {
                all.splice(0..0, usual);
            } else {
                all.extend(usual);
            }
            format!("{{{}}}", all.join(","))
        },
    )
}

fn list(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec(inner, 0..3).prop_map(|elements| format!("[{}]", elements.join(",")))
}

#[rustfmt::skip]
const MESSAGE: &[&str] = &["role", "content", "refusal", "audio", "tool_calls", "function_call", "reasoning", "reasoning_content", "x"];
const CHOICE: &[&str] = &["index", "finish_reason", "message", "delta", "text", "logprobs", "x"];
#[rustfmt::skip]
const ANSWER: &[&str] = &["id", "model", "usage", "choices", "error", "object", "obfuscation", "x"];
#[rustfmt::skip]
const REQUEST: &[&str] = &["model", "session_id", "conversation_id", "conversation", "metadata", "messages", "x"];

const USAGE: &str = r#""id":"c","model":"m","usage":{"prompt_tokens":3,"completion_tokens":4}"#;

fn answer() -> impl Strategy<Value = String> {
    let message = object(r#""role":"assistant","content":"hello""#, MESSAGE, Just("[]".to_owned()));
    let choice = object(r#""index":0,"finish_reason":"stop""#, CHOICE, message);
    list(choice).prop_flat_map(|choices| {
        object(USAGE, ANSWER, Just(choices.clone())).prop_map(move |answer| {
            if answer.contains("choices") || answer == "{}" {
                return answer;
            }
            format!("{},\"choices\":{choices}}}", &answer[..answer.len() - 1])
        })
    })
}

fn chunk() -> impl Strategy<Value = String> {
    let delta = object(r#""content":"hello""#, MESSAGE, Just("[]".to_owned()));
    let piece = prop_oneof![
        object(r#""index":0,"delta":{"content":"hi"}"#, CHOICE, delta),
        Just(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#.to_owned()),
        Just(r#"{"index":1,"delta":{"content":""}}"#.to_owned()),
    ];
    list(piece).prop_flat_map(|choices| {
        object(USAGE, ANSWER, Just(choices.clone())).prop_map(move |chunk| {
            if chunk.contains("choices") || chunk == "{}" {
                return chunk;
            }
            format!("{},\"choices\":{choices}}}", &chunk[..chunk.len() - 1])
        })
    })
}

fn events() -> impl Strategy<Value = String> {
    let event = prop_oneof![
        4 => chunk(),
        3 => (0..3usize, "[a-z]{0,3}").prop_map(|(index, text)| format!(
            r#"{{"id":"c","choices":[{{"index":{index},"delta":{{"content":"{text}"}}}}],"usage":null}}"#)),
        1 => Just("[DONE]".to_owned()),
    ];
    (prop::collection::vec(event, 0..8), select(vec!["\n\n", "\r\n\r\n", "\n\n: note\n\n", "\n"]))
        .prop_map(|(events, end)| {
            events.iter().map(|event| format!("data: {event}{end}")).collect()
        })
}

fn asked() -> impl Strategy<Value = String> {
    object(r#""model":"m""#, REQUEST, Just("{}".to_owned()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn answers_of_any_shape_are_read_alike(request in asked(), response in answer()) {
        agree(&post(CHAT, request, response))?;
    }

    #[test]
    fn what_is_near_to_recorded_answers_is_read_alike(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), change()), 0..3),
        moves in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 0..2),
    ) {
        let all = recorded();
        let (path, body, stream) = which.get(&all);
        let body = near(body, *stream, &changes, &moves);
        agree(&exchanged(path, ASKED, body, *stream))?;
    }

    #[test]
    fn streams_of_any_shape_are_read_alike(request in asked(), response in events()) {
        agree(&streamed(CHAT, request, response))?;
    }
}

#[test]
fn an_event_is_no_repetition_where_another_came_in_between() {
    let chunk = |text: &str, end: &str| {
        format!(
            "data: {{\"choices\":[{{\"text\":\"{text}\",\"index\":0,\"finish_reason\":\"{end}\"}}]}}\n\n"
        )
    };
    let events = [chunk("a", "stop"), chunk("", "length"), chunk("b", "stop")].concat();
    let exchange = streamed(COMPLETIONS, ASKED.to_owned(), format!("{events}{REPORTED}"));
    agree(&exchange).expect("alike");
    assert_eq!(read_figures(&exchange, &tap()).finish_reason.as_deref(), Some("stop"));
}

#[test]
fn many_of_those_shapes_are_read_without_building_them() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut light = [0; 2];
    for _ in 0..1000 {
        let mut sample = |shapes: &BoxedStrategy<String>| {
            shapes.new_tree(&mut runner).expect("a shape").current()
        };
        let whole = sample(&answer().boxed());
        light[0] += usize::from(is_light(&post(CHAT, r#"{"model":"m"}"#, whole)));
        let chunks = sample(&events().boxed());
        light[1] += usize::from(is_light(&streamed(CHAT, r#"{"model":"m"}"#, chunks)));
    }
    assert!(light.iter().all(|count| *count > 20), "{light:?}");
}

#[test]
fn deep_and_long_answers_are_read_alike() {
    for depth in [40, 60, 63, 70, 130] {
        let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let response = format!(r#"{{{USAGE},"choices":[],"x":{deep}}}"#);
        agree(&post(CHAT, "{}", response.clone())).expect("alike");
        agree(&post(CHAT, response, format!(r#"{{{USAGE},"choices":[]}}"#))).expect("alike");
    }
    let many = format!(r#"{{{USAGE},"choices":[],"x":[{}0]}}"#, "0,".repeat(1 << 17));
    agree(&post(CHAT, "{}", many)).expect("alike");
    assert_eq!(read(&post(CHAT, "{}", "{}"), &tap()).operation, Operation::Chat);
    assert_eq!(read(&post(CHAT, "{}", "{}"), &tap()).dialect, Dialect::Openai);
}
