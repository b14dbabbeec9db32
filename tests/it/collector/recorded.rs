//! Posts that a real promptflow server sent, played again.

use serde_json::{Value, json};

use super::{ask, azureml_post, only, quick_flow, start, stored};
use crate::support::tap::Flowtap;
use crate::support::wire::Peer;

fn play(flowtap: &Flowtap, posts: &[&Value]) {
    let mut sender = Peer::connect(flowtap.port_of_endpoint("azureml"));
    for post in posts {
        let kind = post["headers"]["ce-type"].as_str().expect("a header");
        let collection = kind.trim_start_matches("azureml.inference.");
        sender.send(azureml_post(collection, &post["body"].to_string()));
        assert_eq!(sender.read_response().status(), 200, "{post}");
    }
}

fn fixture(name: &str) -> Value {
    let path = format!("tests/fixtures/promptflow/collector/{name}.json");
    serde_json::from_slice(&std::fs::read(path).expect("a fixture")).expect("JSON")
}

#[test]
fn recorded_posts_of_each_kind_join_the_request_that_they_name() {
    let flow = quick_flow();
    let flowtap = start(&flow, "join: {spans_wait: 2s}");
    ask(&flowtap, "aaaaaaaa-0000-0000-0000-000000000001");
    let recorded = fixture("recorded");
    let posts: Vec<&Value> = recorded.as_object().expect("posts by name").values().collect();
    play(&flowtap, &posts);
    flowtap.await_metric("flowtap_spans_told_total", &["result=\"joined\""], 2.0);
    flowtap.await_metric("flowtap_collector_posts_total", &["result=\"accepted\""], 5.0);
    let stopped = flowtap.stop();
    let sample = only(&stopped);
    // One of the steps between the flow and its call was not recorded; the flow's own sum says that nothing
    // is missing.
    assert_eq!((&sample["usage"]["input"], &sample["usage"]["output"]), (&json!(22), &json!(8)));
    assert_eq!(sample["usage"]["source"], "traced");
    assert_eq!(sample["calls"][0]["model"], "smollm2-135m");
    let spans = stored(&stopped, &sample["id"]);
    let call = &spans["openai_chat"];
    assert_eq!((&call["kind"], &call["usage"]["total"]), (&json!("llm"), &json!(30)));
    assert_eq!(call["inputs"]["messages"][1]["content"], "What is the tent rating?");
    assert_eq!(call["attributes"]["node_name"], "llm_node");
    assert_eq!(spans["qa_llm_dag"]["output"]["answer"], "stub answer to: What is the tent rating?");
}

#[test]
fn a_streamed_answer_that_is_told_in_four_traces_is_one() {
    let flow = quick_flow();
    let flowtap = start(&flow, "");
    ask(&flowtap, "R3");
    let recorded = fixture("streamed");
    let posts: Vec<&Value> = recorded.as_array().expect("posts").iter().collect();
    play(&flowtap, &posts);
    flowtap.await_metric("flowtap_tokens_total", &["source=\"traced\""], 60.0);
    let stopped = flowtap.stop();
    let sample = only(&stopped);
    let models: Vec<&Value> =
        sample["calls"].as_array().expect("calls").iter().map(|c| &c["model"]).collect();
    assert_eq!(models, [&json!("small-0613"), &json!("large-0613")]);
    assert_eq!(sample["calls"][1]["deployment"], "large");
    assert_eq!(
        (&sample["usage"]["cached_input"], &sample["usage"]["reasoning_output"]),
        (&json!(8), &json!(4))
    );
    assert_eq!(stopped.rows("traces")[0]["spans"].as_array().map(Vec::len), Some(5));
}
