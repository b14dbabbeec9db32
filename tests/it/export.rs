//! A bucket in the form of Azure ML's data collector, written by the program, read by pandas.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::peers::{UP_WITHIN, peer_python, peers_wanted, pf_serve};
use crate::support::process::{Process, free_port};
use crate::support::tap::Setup;
use crate::support::wire::{Upstream, json_post, json_response};

fn export(bucket: &Path, more: &[&str]) -> Output {
    let url = format!("file://{}", bucket.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["export", "--format", "azureml", &url]).args(more);
    command.output().expect("flowtap runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn pandas_reads_what_a_real_flow_was_asked_and_answered() {
    if !peers_wanted() {
        return;
    }
    let port = free_port();
    let mut flow = Process::start("flask", &mut pf_serve("qa_basic", port, "flask"));
    flow.await_http(port, "/health", UP_WITHIN);
    let flowtap = Setup::before(port).tap("deployment: blue").top("sample: {rate: 1}").start();
    let mut asked = Vec::new();
    for number in 0..20 {
        let mut client = flowtap.client();
        let question = format!("number {number}: ä \"quoted\" 10.50?");
        let post =
            json_post("/score", &json!({"question": question, "chat_history": []}).to_string());
        client.send(post.replacen("Host", &format!("x-request-id: id-{number}\r\nHost"), 1));
        let answer: Value = serde_json::from_str(&client.read_response().text()).expect("JSON");
        asked.push((format!("id-{number}"), question, answer["answer"].clone()));
    }
    let mut failing = flowtap.client();
    failing.send(json_post("/score", "{}"));
    assert_eq!(failing.read_response().status(), 400);
    let stopped = flowtap.stop();
    let target = stopped.folder().join("azure");
    let output = export(&stopped.folder().join("bucket"), &["--to", &target.display().to_string()]);
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}{}", text(&output.stderr));
    for line in ["20 model_inputs in", "20 model_outputs in", "1 not successful"] {
        assert!(told.contains(line), "{told}");
    }
    let mut reader = peer_python("promptflow");
    let reader = reader.arg("tests/peers/read_export.py").arg(&target).output().expect("python");
    assert!(reader.status.success(), "{}", text(&reader.stderr));
    let read: Value = serde_json::from_slice(&reader.stdout).expect("JSON");
    assert_eq!((&read["inputs"], &read["outputs"]), (&json!(20), &json!(20)));
    let joined = read["joined"].as_array().expect("rows");
    assert_eq!(joined.len(), 20);
    for (id, question, answer) in asked {
        let row = joined.iter().find(|row| row["correlationid"] == *id).expect("joined");
        assert_eq!((&row["question"], &row["answer"]), (&json!(question), &answer));
    }
}

#[test]
fn an_export_tells_what_it_could_not_do() {
    let flow = Upstream::answering(json_response(r#"{"answer":"because"}"#));
    let flowtap = Setup::before(flow.port).top("sample: {rate: 1}").start();
    let mut client = flowtap.client();
    client.send(json_post("/score", r#"{"question":"why?"}"#));
    assert_eq!(client.read_response().status(), 200);
    let stopped = flowtap.stop();
    let (bucket, target) = (stopped.folder().join("bucket"), stopped.folder().join("out"));
    let to = target.display().to_string();
    let json =
        export(&bucket, &["--to", &to, "--endpoint", "shop", "--from", "2020-01-01", "--json"]);
    assert!(json.status.success());
    let report: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(report["exported"]["model_inputs"]["lines"], 1);
    assert!(target.join("modelDataCollector/shop/default/model_outputs").is_dir());
    let early = export(&bucket, &["--to", &to, "--to-time", "2020-01-01T00:00:00Z"]);
    assert_eq!(early.status.code(), Some(1));
    assert!(text(&early.stdout).contains("nothing was exported"));
    for wrong in [["--from", "soon"], ["--endpoint", "../up"]] {
        let refused = export(&bucket, &[&["--to", &to], &wrong[..]].concat());
        assert_eq!(refused.status.code(), Some(64), "{wrong:?}");
    }
    let nowhere = export(&bucket, &["--to", "ftp://nowhere"]);
    assert_eq!(nowhere.status.code(), Some(78));
}
