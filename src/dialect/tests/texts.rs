//! What is found of texts where they stand is what the whole reading says, on recorded bytes and on whatever
//! bytes come near to them.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::super::{outlines, read};
use super::figures::{change, changed, recorded};
use super::*;
use crate::domain::{Node, Said, Texts};

const ASKED: &[&str] = &[
    r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#,
    r#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text","text":"a"},
        {"type":"text","text":""},{"type":"text","text":"b\nc"}]},{"role":"assistant","content":null}],"temperature":0.2}"#,
    r#"{"model":"m","messages":[],"input":"what is this","prompt":"once upon","question":"q","context":{"a":[1]}}"#,
    r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"hi"}]},{"role":"user","content":"more"}]}"#,
    r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"chat_history":[],"ground_truth":null}"#,
];

fn value(node: Node<'_, '_>) -> Value {
    serde_json::from_str(&node.line()).expect("JSON")
}

fn columns(texts: &Texts<'_, '_>) -> Vec<Option<Value>> {
    let said = |said: &Option<Said<'_, '_>>| match said {
        Some(Said::There(node)) => Some(value(*node)),
        Some(Said::Joined(text)) => Some(json!(text)),
        None => None,
    };
    let history = texts.chat_history.map(|(turns, count)| turns.first_items(count));
    let history = history.map(|turns| serde_json::from_str(&turns).expect("JSON"));
    let named = [texts.context.map(value), texts.ground_truth.map(value), history];
    let bodies = [Some(value(texts.request)), Some(value(texts.response))];
    [said(&texts.question), said(&texts.answer)].into_iter().chain(named).chain(bodies).collect()
}

/// What is found is the same; false where the exchange has to be read as a whole.
fn agree(exchange: &Exchange, tap: &Tap) -> Result<bool, TestCaseError> {
    let whole = read(exchange, tap);
    let outlines = outlines(exchange, whole.operation, None);
    let texts = outlines.as_ref().and_then(|found| found.texts(tap, whole.operation));
    let Some(texts) = texts else { return Ok(false) };
    let expected = vec![
        whole.question,
        whole.answer,
        whole.context,
        whole.ground_truth,
        whole.chat_history,
        whole.request_body,
        whole.response_body,
    ];
    prop_assert_eq!(columns(&texts), expected);
    Ok(true)
}

#[test]
fn recorded_texts_are_found_where_they_stand() {
    let plain = recorded().into_iter().filter(|(_, _, stream)| !stream);
    for (path, body, _) in plain.filter(|(path, _, _)| !path.contains("embeddings")) {
        for (at, asked) in ASKED.iter().enumerate() {
            let exchange = post(path, *asked, body.clone());
            let stands = agree(&exchange, &tap()).expect("the same");
            assert_eq!(stands, at < 4, "{path} {at}: a history in a field of its own");
        }
    }
}

#[test]
fn what_is_cut_coded_failed_or_mapped_by_a_path_is_read_as_a_whole() {
    let body = || fixture("openai/chat-refusal.json");
    let path = "/v1/chat/completions";
    assert!(agree(&post(path, ASKED[0], body()), &tap()).expect("the same"));
    let mut failed = post(path, ASKED[0], body());
    failed.status = Some(500);
    let mut cut = post(path, ASKED[0], body());
    cut.response.complete = false;
    let mut aborted = post(path, ASKED[0], body());
    aborted.outcome = Outcome::ClientAbort;
    for exchange in
        [failed, cut, aborted, streamed(path, ASKED[0], fixture("openai/chat-azure.sse"))]
    {
        let stands = agree(&exchange, &tap()).expect("the same");
        assert!(!stands, "{exchange:?}");
    }
    for column in ["/question", "$.question"] {
        let mapped = Tap { columns: Columns { question: column.into(), ..tap().columns }, ..tap() };
        assert!(!agree(&post(path, ASKED[0], body()), &mapped).expect("the same"));
    }
}

proptest! {
    #[test]
    fn changed_texts_are_found_where_they_stand_or_not_at_all(
        (path, body, _) in select(recorded().into_iter().filter(|(_, _, stream)| !stream).collect::<Vec<_>>()),
        asked in select(ASKED),
        changes in prop::collection::vec(change(), 0..4),
        asks in prop::collection::vec(change(), 0..4),
    ) {
        let body = changes.iter().fold(String::from_utf8_lossy(&body).into_owned(), |text, change| changed(&text, change));
        let asked = asks.iter().fold(asked.to_owned(), |text, change| changed(&text, change));
        agree(&post(path, asked, body.into_bytes()), &tap())?;
    }
}
