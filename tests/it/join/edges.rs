//! What is missing, refused, late, too much, or without a name.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{
    ModelsPort, RUN, ask, call, chat_answer, flow, models, number, only, question, reported, run,
    run_named, samples, start,
};
use crate::support::wire::{Upstream, json_response};

#[test]
fn flows_without_calls_and_calls_without_a_flow_stay_what_they_are() {
    let port = ModelsPort::default();
    let model = models(&Arc::default());
    let flow = flow(&port, |_, _, _| {});
    let flowtap = start(&flow, &model, &port, "");
    let mut client = flowtap.client();
    client.send(question(4));
    assert_eq!(client.read_response().text(), r#"{"answer":"answer 4"}"#);
    let mut direct = port.client();
    for header in [run_named("nobody"), "no json".to_owned(), run_named(&"x".repeat(200))] {
        direct.send(call("gpt4-prod", 6, false, RUN, &header));
        assert_eq!(direct.read_response().status(), 200);
    }
    flowtap.await_metric("flowtap_requests_total", &["tap=\"models\""], 3.0);
    flowtap.await_metric("flowtap_requests_total", &["tap=\"chat\""], 1.0);
    flowtap.await_metric("flowtap_queue_depth", &["queue=\"join\""], 1.0);
    assert_eq!(flowtap.metric("flowtap_join_total", &[]), 0.0, "one waits, two name nobody");
    let stopped = flowtap.stop();
    let flow = only(&stopped, "chat");
    assert_eq!((&flow["calls"], &flow["usage"]["source"]), (&json!([]), &json!("counted")));
    for call in samples(&stopped, "models").into_values().flatten() {
        assert_eq!(call["usage"]["source"], "reported");
    }
}

#[test]
fn a_flood_of_calls_without_a_flow_is_bounded_and_flows_go_on() {
    let port = ModelsPort::default();
    let model = models(&Arc::default());
    let flow = flow(&port, |request, number, models| {
        models.send(call("gpt4-prod", number, false, RUN, &run(request)));
        assert_eq!(models.read_response().status(), 200);
    });
    let flowtap = start(&flow, &model, &port, "join: {requests_max: 50}");
    let mut direct = port.client();
    for number in 0..1000 {
        let nobody = run_named(&format!("nobody-{number}"));
        direct.send(call("gpt4-prod", number, false, RUN, &nobody));
        assert_eq!(direct.read_response().status(), 200);
    }
    flowtap.await_metric("flowtap_join_total", &["result=\"evicted\""], 950.0);
    let mut client = flowtap.client();
    client.send(question(8));
    assert_eq!(client.read_response().status(), 200);
    flowtap.await_metric("flowtap_join_total", &["result=\"joined\""], 1.0);
    assert!(flowtap.metric("flowtap_queue_depth", &["queue=\"join\""]) <= 50.0);
    let flow = only(&flowtap.stop(), "chat");
    assert_eq!(flow["calls"][0]["input"], reported(8).0);
    assert_eq!(flow["usage"]["source"], "joined");
}

#[test]
fn a_call_from_within_a_streamed_answer_is_joined_where_only_one_flow_can_have_made_it() {
    let port = ModelsPort::default();
    let model = models(&Arc::default());
    let models = port.clone();
    let both = Arc::new(std::sync::Barrier::new(2));
    // Prompt flow names no run in the header of such a call.
    let flow = Upstream::start(move |peer| {
        while let Some(request) = peer.read_request() {
            let number = number(&request.text());
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
            let mut client = models.client();
            for call in
                [call("gpt4-prod", number, false, RUN, "{}"), call("mini", number, true, RUN, "{}")]
            {
                if number >= 100 {
                    both.wait();
                }
                client.send(call);
                assert_eq!(client.read_response().status(), 200);
            }
            if number >= 100 {
                both.wait();
            }
            peer.chunk(format!("data: {{\"answer\": \"answer {number}\"}}\n\n"));
            peer.send("0\r\n\r\n");
        }
    });
    let flowtap = start(&flow, &model, &port, "");
    ask(&flowtap, 20, 1);
    std::thread::scope(|scope| {
        for number in [100, 101] {
            let mut client = flowtap.client();
            scope.spawn(move || {
                client.send(question(number));
                assert_eq!(client.read_response().status(), 200);
            });
        }
    });
    let flows = samples(&flowtap.stop(), "chat");
    for number in 0..20 {
        let flow = &flows[&number][0];
        assert_eq!(flow["calls"].as_array().map(Vec::len), Some(2), "{flow}");
        assert_eq!(flow["calls"][0]["input"], reported(number).0);
        assert_eq!(flow["usage"]["source"], "joined");
    }
    for number in [100, 101] {
        let flow = &flows[&number][0];
        assert_eq!((&flow["calls"], &flow["usage"]["source"]), (&json!([]), &json!("counted")));
    }
}

#[test]
fn a_refused_call_is_listed_and_spends_nothing() {
    let port = ModelsPort::default();
    let refusal = r#"{"error":{"code":"429","message":"slow down"}}"#;
    let model = Upstream::start(move |peer| {
        peer.read_request();
        peer.send(json_response(refusal).replace("200 OK", "429 Too Many Requests"));
        peer.read_request();
        peer.send(json_response(&chat_answer(11, 2)));
    });
    let flow = flow(&port, |request, number, models| {
        for status in [429, 200] {
            models.send(call("gpt4-prod", number, false, RUN, &run(request)));
            assert_eq!(models.read_response().status(), status);
        }
    });
    let flowtap = start(&flow, &model, &port, "");
    let mut client = flowtap.client();
    client.send(question(2));
    assert_eq!(client.read_response().status(), 200);
    let flow = only(&flowtap.stop(), "chat");
    let calls = flow["calls"].as_array().expect("a list");
    assert_eq!((&calls[0]["status"], &calls[0]["input"]), (&json!(429), &json!(null)));
    assert_eq!((&calls[1]["status"], &calls[1]["input"]), (&json!(200), &json!(11)));
    assert_eq!(flow["usage"]["source"], "joined");
    assert_eq!((&flow["usage"]["input"], &flow["usage"]["output"]), (&json!(11), &json!(2)));
}

#[test]
fn what_the_flow_reports_itself_stands_and_its_calls_are_listed_beside_it() {
    let port = ModelsPort::default();
    let model = models(&Arc::default());
    let models = port.clone();
    let answer =
        r#"{"answer":"yes","usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;
    let flow = Upstream::start(move |peer| {
        while let Some(request) = peer.read_request() {
            let mut models = models.client();
            models.send(call("gpt4-prod", 2, false, RUN, &run(&request)));
            assert_eq!(models.read_response().status(), 200);
            peer.send(json_response(answer));
        }
    });
    let flowtap = start(&flow, &model, &port, "");
    let mut client = flowtap.client();
    client.send(question(2));
    assert_eq!(client.read_response().text(), answer);
    flowtap.await_metric("flowtap_tokens_total", &["tap=\"chat\"", "source=\"reported\""], 10.0);
    assert_eq!(flowtap.metric("flowtap_tokens_total", &["tap=\"chat\""]), 10.0);
    let flow = only(&flowtap.stop(), "chat");
    assert_eq!(
        (&flow["usage"]["source"], &flow["usage"]["input"]),
        (&json!("reported"), &json!(7))
    );
    assert_eq!(flow["calls"][0]["input"], reported(2).0);
}

#[test]
fn a_call_that_ends_after_its_flow_was_settled_is_counted_as_late() {
    let port = ModelsPort::default();
    let model = Upstream::start(|peer| {
        while peer.read_request().is_some() {
            std::thread::sleep(Duration::from_millis(700));
            peer.send(json_response(&chat_answer(5, 5)));
        }
    });
    let models = port.clone();
    let flow = flow(&port, move |request, number, _| {
        let mut client = models.client();
        client.send(call("gpt4-prod", number, false, RUN, &run(request)));
        std::thread::spawn(move || client.read_response());
        std::thread::sleep(Duration::from_millis(100));
    });
    let flowtap = start(&flow, &model, &port, "join: {wait: 10ms}");
    let mut client = flowtap.client();
    client.send(question(2));
    assert_eq!(client.read_response().status(), 200);
    flowtap.await_metric("flowtap_join_total", &["result=\"late\""], 1.0);
    let flow = only(&flowtap.stop(), "chat");
    assert_eq!((&flow["calls"], &flow["usage"]["source"]), (&json!([]), &json!("counted")));
}

#[test]
fn no_request_waits_for_the_join() {
    let port = ModelsPort::default();
    let model = models(&Arc::default());
    let flow = flow(&port, |_, _, _| {});
    let flowtap = start(&flow, &model, &port, "join: {wait: 30s}\ndrain_timeout: 5s");
    let began = std::time::Instant::now();
    ask(&flowtap, 20, 1);
    assert!(began.elapsed() < Duration::from_secs(10));
    let stopped = flowtap.stop();
    assert!(began.elapsed() < Duration::from_secs(15), "nor does the end of the process");
    assert_eq!(samples(&stopped, "chat").len(), 20);
}
