//! The API over what one flowtap saw: lists, records, files, and what is told of wrong questions.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::peers::{peer_python, peers_wanted};
use crate::support::api::{answering_upstream, ask, await_answer, get, get_with};
use crate::support::process::Process;
use crate::support::tap::{Flowtap, Setup, rows};
use crate::support::wire::Peer;

fn after(questions: &[&str], top: &str) -> (Flowtap, crate::support::wire::Upstream) {
    let upstream = answering_upstream();
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}").top(top).start();
    questions.iter().for_each(|question| ask(&flowtap, question));
    (flowtap, upstream)
}

fn ids(answer: &Value) -> Vec<String> {
    let samples = answer["samples"].as_array().expect("samples");
    samples.iter().map(|sample| sample["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn samples_are_listed_searched_paged_and_told_in_full() {
    let questions: Vec<_> = (0..12).map(|n| format!("number {n} of twelve")).collect();
    let mut questions: Vec<_> = questions.iter().map(String::as_str).collect();
    questions.push("please fail");
    let (flowtap, _upstream) = after(&questions, "");
    let port = flowtap.admin;
    let all = await_answer(port, "/samples", |answer| ids(answer).len() == 13);
    assert!(all["next"].is_null(), "one page holds them");

    let failed = get(port, "/samples?outcome=upstream_error");
    assert_eq!(failed["samples"][0]["status"], 500);
    let found = get(port, "/samples?q=%22number%207%22");
    assert_eq!(found["samples"][0]["question"], "number 7 of twelve");
    assert_eq!((ids(&found).len(), ids(&get(port, "/samples?q=GRO%C3%9FE")).len()), (1, 12));

    let (mut paged, mut path) = (Vec::new(), "/samples?limit=5&sort=latency".to_owned());
    for _ in 0..4 {
        let page = get(port, &path);
        paged.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/samples?limit=5&sort=latency&cursor={next}");
    }
    let distinct: BTreeSet<_> = paged.iter().cloned().collect();
    assert_eq!((paged.len(), distinct), (13, ids(&all).into_iter().collect()));

    let id = &ids(&found)[0];
    let one = get(port, &format!("/samples/{id}"));
    let record = rows(&flowtap.folder().join("bucket/exchanges"));
    let record = record.into_iter().find(|record| record["id"] == **id).expect("in the bucket");
    assert_eq!(one["record"], record);
    assert!(one["missing"].is_null() && one["scores"] == serde_json::json!([]));
    let trace = get(port, &format!("/traces/{id}"));
    assert_eq!((&trace["calls"], &trace["spans"]), (&record["calls"], &serde_json::json!([])));

    std::fs::remove_dir_all(flowtap.folder().join("bucket/exchanges")).expect("removed");
    let gone = get(port, &format!("/samples/{id}"));
    assert_eq!((&gone["record"], &gone["missing"]), (&Value::Null, &"not_found".into()));
    assert_eq!(gone["sample"]["question"], "number 7 of twelve", "what a list shows is known");
}

#[test]
fn samples_are_written_as_files_and_no_formula_gets_through() {
    let (flowtap, _upstream) = after(&["=cmd(\"x\"), <b>", "plain words"], "");
    let port = flowtap.admin;
    await_answer(port, "/samples", |answer| ids(answer).len() == 2);
    let csv = get_with(port, "/samples.csv?order=asc", "");
    assert_eq!(csv.status(), 200, "{}", csv.text());
    assert_eq!(csv.header("content-disposition"), Some("attachment; filename=\"samples.csv\""));
    let text = csv.text();
    let lines: Vec<_> = text.split("\r\n").collect();
    assert!(lines[0].starts_with("id,time,tap,") && lines[0].ends_with(",user_feedback"));
    assert!(lines[1].contains(",\"'=cmd(\"\"x\"\"), <b>\",\"Forty-two, Größe\","), "{text}");
    assert_eq!((lines.len(), lines[3]), (4, ""));
    let jsonl = get_with(port, "/samples.jsonl?limit=1", "").text();
    let record: Value = serde_json::from_str(jsonl.trim_end()).expect("one record");
    assert_eq!(
        (&record["schema"], &record["question"]),
        (&"flowtap.exchange.v1".into(), &"plain words".into())
    );
}

#[test]
fn wrong_questions_are_told_what_is_wrong() {
    let (flowtap, _upstream) = after(&[], "");
    for (path, status, words) in [
        ("/samples?limit=0", 400, "\"parameter\":\"limit\""),
        ("/samples?colour=red", 400, "\"parameter\":\"colour\""),
        ("/samples?cursor=x", 400, "\"parameter\":\"cursor\""),
        ("/usage?from=yesterday", 400, "RFC 3339"),
        ("/usage?step=1m&from=2026-01-01T00:00:00Z", 400, "\"parameter\":\"step\""),
        ("/samples/nonsense", 400, "\"parameter\":\"id\""),
        ("/samples/01J00000000000000000000000", 404, "not in the store"),
        ("/traces/01J00000000000000000000000", 404, "not in the store"),
        ("/nothing", 404, "/api/v1/openapi.json"),
    ] {
        let answer = get_with(flowtap.admin, path, "");
        assert_eq!(answer.status(), status, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        let problem: Value = serde_json::from_str(&answer.text()).expect("JSON");
        assert_eq!(problem["status"], status);
        assert!(answer.text().contains(words), "{path}: {}", answer.text());
    }
    let mut client = Peer::connect(flowtap.admin);
    client.send("POST /api/v1/samples HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let refused = client.read_response();
    assert_eq!((refused.status(), refused.header("allow")), (405, Some("GET,HEAD")));
}

#[test]
fn the_api_asks_for_the_token_and_a_host_of_ours() {
    let (flowtap, _upstream) = after(&[], "");
    let port = flowtap.admin;
    let mut client = Peer::connect(port);
    client.send("GET /api/v1/overview HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n");
    assert_eq!(client.read_response().status(), 421);
    let mut client = Peer::connect(port);
    client.send("POST /api/v1/overview HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.test\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.read_response().status(), 403);

    let upstream = answering_upstream();
    let process = Setup::before(upstream.port)
        .top("log: info")
        .environment("FLOWTAP_ADMIN__TOKEN", "t0ken")
        .start();
    let answer = get_with(process.admin, "/overview", "");
    assert_eq!((answer.status(), answer.header("www-authenticate")), (401, Some("Bearer")));
    let right = get_with(process.admin, "/overview", "Authorization: Bearer t0ken\r\n");
    assert_eq!(right.status(), 200);
}

#[test]
fn every_question_that_is_described_is_answered() {
    let (flowtap, _upstream) = after(&["one"], "");
    let port = flowtap.admin;
    let all = await_answer(port, "/samples", |answer| ids(answer).len() == 1);
    let description = get(port, "/openapi.json");
    let paths = description["paths"].as_object().expect("paths");
    assert!(paths.len() >= 14, "{paths:?}");
    for path in paths.keys() {
        let path = path.strip_prefix("/api/v1").expect("below /api/v1");
        let path = path.replace("{id}", &ids(&all)[0]);
        let answer = get_with(port, &path, "");
        let unknown = path.starts_with("/monitors/") || path.ends_with("/{name}");
        assert_eq!(answer.status(), if unknown { 404 } else { 200 }, "{path}: {}", answer.text());
        assert!(answer.header("content-security-policy").is_some(), "{path}");
    }
}

#[test]
fn schemathesis_finds_no_answer_that_is_not_described() {
    if !peers_wanted() {
        return;
    }
    let upstream = answering_upstream();
    let flowtap = Setup::before(upstream.port)
        .top("sample: {rate: 1}")
        .environment("FLOWTAP_ADMIN__TOKEN", "t0ken")
        .start();
    (0..5).for_each(|n| ask(&flowtap, &format!("question {n}")));
    let place = format!("http://127.0.0.1:{}", flowtap.admin);
    let token = "Authorization: Bearer t0ken";
    let mut command = peer_python("schemathesis");
    command.args(["-m", "schemathesis.cli", "run", &format!("{place}/api/v1/openapi.json")]);
    command.args(["--url", &place, "--header", token, "--no-color", "--checks", "all"]);
    // A window that ends before it begins fits its schema and is refused all the same.
    command.args(["--exclude-checks", "positive_data_acceptance"]);
    command.args(["--max-examples", "15", "--generation-deterministic"]);
    let mut process = Process::start("schemathesis", command.current_dir(flowtap.folder()));
    let status = process.await_end(Duration::from_secs(300));
    let printed = process.printed();
    assert!(status.success() && printed.contains("Tested: 19"), "{printed}");
}

#[test]
fn traffic_goes_on_without_an_index() {
    let upstream = answering_upstream();
    let setup = Setup::before(upstream.port);
    std::fs::write(setup.folder().join("store"), "in the way").expect("written");
    let flowtap = setup.start();
    ask(&flowtap, "still there?");
    let answer = get_with(flowtap.admin, "/overview", "");
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("2")));
    assert!(flowtap.printed().contains("there is no index"));
}
