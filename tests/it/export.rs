//! A bucket in the forms that other tools read, written by the program: Azure ML's data collector, read by
//! pandas; Parquet tables, read by pandas with pyarrow and by DuckDB.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::peers::{UP_WITHIN, peer_python, peers_wanted, pf_serve};
use crate::support::api::{await_answer, get_with};
use crate::support::process::{Process, free_port};
use crate::support::tap::{Setup, rows};
use crate::support::wire::{Upstream, json_post, json_response};

fn export(bucket: &Path, more: &[&str]) -> Output {
    export_as("azureml", bucket, more)
}

fn export_as(format: &str, bucket: &Path, more: &[&str]) -> Output {
    let url = format!("file://{}", bucket.display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["export", "--format", format, &url]).args(more);
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

/// What pandas and DuckDB see of tables.
fn read_tables(arguments: &[&str]) -> Value {
    let mut reader = peer_python("tables");
    let read = reader.arg("tests/peers/read_tables.py").args(arguments).output().expect("python");
    assert!(read.status.success(), "{}", text(&read.stderr));
    serde_json::from_slice(&read.stdout).expect("JSON")
}

/// A table has the rows that the bucket has, with the types that readers need.
fn assert_table_of(seen: &Value, wanted: &[Value]) {
    const FIELDS: &str = "id tap deployment status stream model usage sample latency_ms overhead_us \
                          question answer request_id time";
    assert_eq!(seen["columns"]["time"], "timestamp[us, tz=UTC]");
    assert_eq!(seen["columns"]["model"], "struct<request: string, response: string>");
    assert_eq!(seen["pandas_sees_times"], true);
    assert_eq!(
        seen["duckdb"].as_array().expect("a row")[..3],
        [json!(30), json!("number 0: ä, \"quoted\"?"), json!(360)]
    );
    let mut told = seen["rows"].as_array().expect("rows").clone();
    told.sort_by_key(|row| row["id"].to_string());
    assert_eq!(told.len(), wanted.len());
    for (told, wanted) in told.iter().zip(wanted) {
        let mut wanted = wanted.clone();
        // What a line leaves out is a column all the same.
        wanted["sample"]["least"] = Value::Null;
        for field in FIELDS.split_whitespace() {
            assert_eq!(told[field], wanted[field], "{field}");
        }
        let body = told["response"]["body"].as_str().expect("JSON as text");
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body, wanted["response"]["body"]);
    }
}

#[test]
fn pandas_and_duckdb_read_the_tables() {
    if !peers_wanted() {
        return;
    }
    let answer = r#"{"model":"gpt-4","choices":[{"message":{"content":"Größe \"42\""}}],
        "usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}"#;
    let upstream = Upstream::answering(json_response(answer));
    let flowtap =
        Setup::before(upstream.port).tap("deployment: blue").top("sample: {rate: 1}").start();
    for number in 0..30 {
        let mut client = flowtap.client();
        let messages =
            json!([{"role": "user", "content": format!("number {number}: ä, \"quoted\"?")}]);
        client.send(json_post("/v1/chat/completions", &json!({"messages": messages}).to_string()));
        assert_eq!(client.read_response().status(), 200);
    }
    let port = flowtap.admin;
    await_answer(port, "/samples?limit=100", |answer| {
        answer["samples"].as_array().is_some_and(|samples| samples.len() == 30)
    });
    let downloaded = get_with(port, "/samples.parquet?order=asc", "");
    assert_eq!(downloaded.header("content-type"), Some("application/vnd.apache.parquet"));
    let stopped = flowtap.stop();
    let (bucket, target) = (stopped.folder().join("bucket"), stopped.folder().join("tables"));
    let file = stopped.folder().join("samples.parquet");
    std::fs::write(&file, downloaded.body()).expect("written");
    let to = target.display().to_string();
    let told = export_as("parquet", &bucket, &["--to", &to]);
    assert!(told.status.success(), "{}{}", text(&told.stdout), text(&told.stderr));
    assert!(text(&told.stdout).contains("30 exchanges in"), "{}", text(&told.stdout));

    let mut wanted = rows(&bucket.join("exchanges"));
    wanted.sort_by_key(|row| row["id"].to_string());
    for seen in [read_tables(&[&to, "exchanges"]), read_tables(&[&file.display().to_string()])] {
        assert_table_of(&seen, &wanted);
    }
    assert_eq!(read_tables(&[&to, "usage"])["duckdb"], json!([30, 270, 30]));
    assert_eq!(read_tables(&[&to, "ledger"])["duckdb"], json!([30, true]));
    let refused = export_as("parquet", &bucket, &["--to", &to, "--endpoint", "shop"]);
    assert_eq!(refused.status.code(), Some(64), "{}", text(&refused.stderr));
}
