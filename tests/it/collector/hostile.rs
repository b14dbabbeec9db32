//! Malformed, huge, unauthenticated and flooding posts: refused in the protocol's own words, counted,
//! bounded in memory, and nothing to the traffic.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use serde_json::{Value, json};

use super::{ask, azureml_post, quick_flow, row, setup, spent, start, tell};
use crate::support::process::resident_bytes;
use crate::support::tap::Setup;
use crate::support::wire::{Message, Peer};

fn post(port: u16, text: impl AsRef<[u8]>) -> Message {
    let mut sender = Peer::connect(port);
    sender.send(text);
    sender.read_response()
}

fn otlp_post(media: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {media}\r\n{more}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const PROTOBUF: &str = "application/x-protobuf";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(bytes).expect("in memory");
    packer.finish().expect("in memory")
}

/// The spans as OTLP's message; one that is valid, one whose ids are not.
fn one_of_two() -> ExportTraceServiceRequest {
    let valid = Span {
        trace_id: vec![1; 16],
        span_id: vec![1; 8],
        start_time_unix_nano: 1_795_474_598_000_000_000,
        ..Span::default()
    };
    let spans = vec![valid, Span { trace_id: vec![0; 16], ..Span::default() }];
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }],
    }
}

fn status(answer: &Message) -> tonic_types::Status {
    tonic_types::Status::decode(answer.body().as_slice()).expect("a google.rpc.Status")
}

#[test]
fn the_collectors_endpoint_refuses_what_is_no_post_of_its_clients() {
    let flow = quick_flow();
    let flowtap = start(&flow, "");
    let port = flowtap.port_of_endpoint("azureml");
    let bad_span = json!([{"name": "x", "context": {"trace_id": "0x0", "span_id": "0x1"}, "start_time": "2026-11-23T22:56:35Z"}]);
    let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
    let many = format!("[{}0]", "0,".repeat(1_000_000));
    let cases = [
        (azureml_post("app_traces", "not json"), 400, "malformed"),
        (azureml_post("app_traces", "{}"), 400, "malformed"),
        (azureml_post("app_traces", &bad_span.to_string()), 400, "malformed"),
        (azureml_post("app_traces", "[1]"), 400, "malformed"),
        (azureml_post("app_traces", &deep), 400, "malformed"),
        (azureml_post("app_traces", &many), 400, "malformed"),
        (azureml_post("model_inputs", "[{]"), 400, "malformed"),
        (azureml_post("app_traces", "[]").replace("ce-type", "no-type"), 400, "malformed"),
        (azureml_post("app_traces", "[]").replace("azureml.inference.", ""), 400, "malformed"),
        (azureml_post("app_traces", "[]").replace("/modeldata/log", "/nothing"), 404, "unknown"),
        (azureml_post("app_traces", "[]").replacen("POST", "PUT", 1), 405, "unknown"),
        (
            azureml_post("app_traces", "[]").replace("application/json", "text/plain"),
            415,
            "unknown",
        ),
        (azureml_post("app_traces", &format!("[{}]", " ".repeat(5 << 20))), 413, "too_large"),
    ];
    for (text, wanted, code) in cases {
        let answer = post(port, &text);
        let body: Value = serde_json::from_str(&answer.text()).expect("JSON");
        let shown = &text[..text.len().min(300)];
        assert_eq!((answer.status(), &body["error"]["code"]), (wanted, &json!(code)), "{shown}");
        assert!(body["error"]["message"].as_str().is_some_and(|text| text.len() > 5), "{body}");
    }
    for fine in
        [azureml_post("app_traces", "[]"), azureml_post("model_outputs", r#"[{"answer": 1}]"#)]
    {
        assert_eq!(post(port, fine).status(), 200);
    }
    let counted = |result: &str| {
        flowtap.metric("flowtap_collector_posts_total", &["protocol=\"azureml\"", result])
    };
    assert_eq!(
        [
            "result=\"malformed\"",
            "result=\"unknown\"",
            "result=\"too_large\"",
            "result=\"accepted\""
        ]
        .map(counted),
        [9.0, 3.0, 1.0, 2.0]
    );
    ask(&flowtap, "still served");
}

#[test]
fn otlp_over_http_refuses_with_a_status_in_the_senders_own_form() {
    let flow = quick_flow();
    let flowtap = start(&flow, "");
    let port = flowtap.port_of_endpoint("otlp_http");
    let huge = vec![0_u8; 5 << 20];
    let bomb = gzip(&vec![0_u8; 50 << 20]);
    let zipped = "Content-Encoding: gzip\r\n";
    let cases: [(Vec<u8>, u16, i32); 6] = [
        (otlp_post(PROTOBUF, "", b"\xff\xff\xff"), 400, 3),
        (otlp_post(PROTOBUF, zipped, b"no gzip"), 400, 3),
        (otlp_post(PROTOBUF, "Content-Encoding: br\r\n", b"x"), 415, 3),
        (otlp_post(PROTOBUF, "", &huge), 413, 8),
        (otlp_post(PROTOBUF, zipped, &bomb), 413, 8),
        (
            String::from_utf8_lossy(&otlp_post(PROTOBUF, "", b""))
                .replace("/v1/traces", "/v1/metrics")
                .into_bytes(),
            404,
            12,
        ),
    ];
    for (text, wanted, code) in cases {
        let answer = post(port, &text);
        assert_eq!((answer.status(), answer.header("content-type")), (wanted, Some(PROTOBUF)));
        let status = status(&answer);
        assert_eq!(status.code, code, "{}", status.message);
        assert!(!status.message.is_empty());
    }
    let json = post(port, otlp_post("application/json", "", br#"{"resourceSpans": 7}"#));
    let said: Value = serde_json::from_str(&json.text()).expect("JSON");
    assert_eq!((json.status(), &said["code"]), (400, &json!(3)));
    assert_eq!(post(port, otlp_post("text/html", "", b"x")).status(), 415);

    let partial = post(port, otlp_post(PROTOBUF, zipped, &gzip(&one_of_two().encode_to_vec())));
    assert_eq!(partial.status(), 200);
    let answer = ExportTraceServiceResponse::decode(partial.body().as_slice()).expect("a response");
    let refused = answer.partial_success.expect("one was refused");
    assert_eq!(
        (refused.rejected_spans, refused.error_message.as_str()),
        (1, "start_time_unix_nano is no time")
    );
    let counted = |result: &str| {
        flowtap.metric("flowtap_collector_spans_total", &["protocol=\"otlp_http\"", result])
    };
    assert_eq!((counted("result=\"taken\""), counted("result=\"refused\"")), (1.0, 1.0));
    ask(&flowtap, "still served");
}

#[test]
fn otlp_over_grpc_refuses_with_its_codes() {
    let flow = quick_flow();
    let flowtap = setup(&flow).start();
    let url = format!("http://127.0.0.1:{}", flowtap.port_of_endpoint("otlp_grpc"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = TraceServiceClient::connect(url.clone()).await.expect("connected");
        let answer = client.export(one_of_two()).await.expect("taken").into_inner();
        assert_eq!(answer.partial_success.map(|partial| partial.rejected_spans), Some(1));
        let mut packing = client.clone().send_compressed(tonic::codec::CompressionEncoding::Gzip);
        packing.export(one_of_two()).await.expect("gzip is taken");
        let mut huge = one_of_two();
        huge.resource_spans[0].scope_spans[0].spans[0].name = "x".repeat(5 << 20);
        let refused = client.export(huge.clone()).await.expect_err("too large");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
        let refused = packing.export(huge).await.expect_err("too large once unpacked");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    });
    let counted = |result: &str| {
        flowtap.metric("flowtap_collector_posts_total", &["protocol=\"otlp_grpc\"", result])
    };
    assert_eq!((counted("result=\"partial\""), counted("result=\"too_large\"")), (2.0, 2.0));
    ask(&flowtap, "still served");
}

#[test]
fn without_the_token_nothing_is_taken() {
    let flow = quick_flow();
    let guarded = super::EVERYWHERE.replace('}', ", token: t0ken}");
    let flowtap = Setup::before(flow.port).top(&guarded).start();
    let with = |port: &str| flowtap.port_of_endpoint(port);
    let post_with = |authorization: &str| {
        azureml_post("app_traces", "[]").replacen("Host", &format!("{authorization}Host"), 1)
    };
    for (authorization, wanted) in [
        ("", 401),
        ("Authorization: Bearer wrong\r\n", 401),
        ("Authorization: Bearer t0ken\r\n", 200),
        // What `requests` sends for http://flowtap:t0ken@127.0.0.1.
        ("Authorization: Basic Zmxvd3RhcDp0MGtlbg==\r\n", 200),
    ] {
        let answer = post(with("azureml"), post_with(authorization));
        assert_eq!(answer.status(), wanted, "{authorization}");
        assert_eq!(answer.header("www-authenticate").is_some(), wanted == 401);
        let otlp = post(with("otlp_http"), otlp_post(PROTOBUF, authorization, b""));
        assert_eq!(otlp.status(), wanted, "{authorization}");
        assert!(wanted == 200 || status(&otlp).code == 16);
    }
    let url = format!("http://127.0.0.1:{}", with("otlp_grpc"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = TraceServiceClient::connect(url).await.expect("connected");
        let refused = client.export(one_of_two()).await.expect_err("no token");
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        let mut request = tonic::Request::new(one_of_two());
        request.metadata_mut().insert("authorization", "Bearer t0ken".parse().expect("ASCII"));
        assert!(client.export(request).await.is_ok());
    });
    for protocol in ["azureml", "otlp_http", "otlp_grpc"] {
        let labels = [&*format!("protocol=\"{protocol}\""), "result=\"unauthorized\""];
        assert!(flowtap.metric("flowtap_collector_posts_total", &labels) >= 1.0, "{protocol}");
    }
}

/// Promise (security): a flood of spans is bounded, and traffic goes on.
#[test]
fn a_flood_is_bounded_and_traffic_goes_on() {
    let flow = quick_flow();
    let flowtap = start(&flow, "join: {requests_max: 100}");
    let port = flowtap.port_of_endpoint("azureml");
    let before = resident_bytes(flowtap.id());
    let text = "x".repeat(50_000);
    std::thread::scope(|scope| {
        for sender in 0..8_u64 {
            let (flowtap, text) = (&flowtap, &text);
            scope.spawn(move || {
                let mut peer = Peer::connect(port);
                for post in 0..40_u64 {
                    let rows: Vec<Value> = (0..20)
                        .map(|n| {
                            let id = 1 + sender * 1_000_000 + post * 1000 + n;
                            let mut row =
                                row(id, None, "LLM", &format!("nobody-{id}"), spent("gpt-4", 1, 1));
                            row["attributes"]["inputs"] = json!(text);
                            row
                        })
                        .collect();
                    peer.send(azureml_post("app_traces", &json!(rows).to_string()));
                    let status = peer.read_response().status();
                    assert!(matches!(status, 200 | 429 | 0), "{status}");
                    if status == 0 {
                        // There was no room for one more connection.
                        std::thread::sleep(Duration::from_millis(20));
                        peer = Peer::connect(port);
                    }
                    if post % 10 == 0 {
                        ask(flowtap, &format!("s{sender}-{post}"));
                    }
                }
            });
        }
        // Connections that send nothing, and more than there may be.
        let idle: Vec<Peer> = (0..300).map(|_| Peer::connect(port)).collect();
        std::thread::sleep(Duration::from_millis(500));
        drop(idle);
    });
    flowtap.await_metric("flowtap_spans_told_total", &["result=\"evicted\""], 1000.0);
    let grown = resident_bytes(flowtap.id()).saturating_sub(before);
    assert!(grown < 250 << 20, "grew by {} MiB", grown >> 20);
    // After it, everything works as before.
    ask(&flowtap, "r-1");
    tell(
        &flowtap,
        &json!([
            row(3, None, "LLM", "r-1", spent("gpt-4", 22, 8)),
            row(1, None, "Flow", "r-1", json!({}))
        ]),
    );
    flowtap.await_metric("flowtap_tokens_total", &["source=\"traced\""], 30.0);
}
