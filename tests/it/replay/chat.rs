//! Chat completions of a real model, recorded and replayed to it: whole and streamed.

use serde_json::json;

use super::replay;
use crate::peers::{MODEL, UP_WITHIN, llama, peers_wanted};
use crate::support::judge::ScriptedJudge;
use crate::support::process::{Process, free_port};
use crate::support::tap::{Setup, rows};
use crate::support::wire::json_post;

#[test]
fn a_real_model_s_chats_are_replayed_to_it() {
    if !peers_wanted() {
        return;
    }
    let port = free_port();
    let mut model = Process::start("llama.cpp", &mut llama(port));
    model.await_http(port, "/v1/models", UP_WITHIN);
    let flowtap = Setup::before(port).top("sample: {rate: 1}").start();
    for n in 0..4 {
        let body = json!({
            "model": MODEL, "max_tokens": 12, "temperature": 0, "stream": n % 2 == 1,
            "messages": [{"role": "system", "content": "Answer briefly."},
                         {"role": "user", "content": format!("Is tent {n} dry?")}],
        });
        let mut client = flowtap.client();
        client.send(json_post("/v1/chat/completions", &body.to_string()));
        assert_eq!(client.read_response().status(), 200);
    }
    flowtap.await_idle();
    let stopped = flowtap.stop();
    let recorded = stopped.rows("exchanges");
    assert_eq!(recorded.iter().filter(|row| row["stream"] == true).count(), 2, "{recorded:?}");

    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    let told = replay(&stopped, &judge, port, &[]);
    told.is(4, "not_enough_data");
    assert_eq!(told.report["requests"]["sent"], 4);
    assert_eq!(told.report["new"]["outcomes"], json!({"ok": 4}), "{:#}", told.report);
    let fluency = told.criterion("fluency");
    assert_eq!((&fluency["pairs"], &fluency["difference"]), (&json!(4), &json!(0.0)));
    assert!(told.report["new"]["first_token_ms"]["p50"].as_f64().is_some(), "{:#}", told.report);

    // The same questions went out, and every answer was read, from JSON as from a stream.
    let cases = rows(&stopped.folder().join("bucket/replays/kind=case"));
    assert_eq!(cases.len(), 4);
    let asked = judge.questions();
    for case in &cases {
        let old = recorded.iter().find(|row| row["id"] == case["exchange"]).expect("a pair");
        let (question, answer) = (old["question"].as_str(), case["answer"].as_str());
        assert!(answer.is_some_and(|answer| !answer.is_empty()), "{case}");
        let about = asked.iter().filter(|asked| !asked.is_test());
        assert!(about.clone().any(|of| Some(of.material("question")) == question), "{old}");
    }
}
