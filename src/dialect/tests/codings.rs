//! Content codings: undone for the copy, within bounds, whatever the label says.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::super::decode::{OUTPUT_BYTES_MAX, RATIO_FLOOR_BYTES, decode};
use super::*;

const ANSWER: &[u8] =
    br#"{"answer":"It has a rating of 3000 mm, and it is waterproof.","context":"c"}"#;
const QUESTION: &[u8] = br#"{"question":"q"}"#;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 9, 22);
    encoder.write_all(bytes).expect("memory");
    drop(encoder);
    out
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).expect("memory")
}

type Encode = fn(&[u8]) -> Vec<u8>;

/// Every coding: its label and its encoder.
const CODINGS: &[(&str, Encode)] = &[
    ("gzip", gzip),
    ("X-GZip", gzip),
    ("deflate", zlib),
    ("deflate", raw_deflate),
    ("br", brotli),
    ("zstd", zstd),
];

fn answered(label: &str, body: CapturedBody) -> Exchange {
    let response_headers =
        headers(&[("content-type", "application/json"), ("content-encoding", label)]);
    Exchange { response_headers, response: body, ..post("/score", QUESTION, "") }
}

#[test]
fn every_coding_is_undone_on_both_sides() {
    for (label, encode) in CODINGS {
        let mut exchange = answered(label, whole(encode(ANSWER)));
        exchange.request_headers = headers(&[("content-encoding", label)]);
        exchange.request = whole(encode(QUESTION));
        let reading = read_one(&exchange);
        assert_eq!(reading.question, Some("q".into()), "{label}");
        assert_eq!(reading.context, Some("c".into()), "{label}");
        assert_eq!((reading.fault, reading.empty), (None, false), "{label}");
    }
}

#[test]
fn a_coded_stream_is_read_but_its_offsets_are_not_those_of_the_wire() {
    let stream = fixture("openai/chat-azure.sse");
    for (label, encode) in CODINGS {
        let mut exchange = streamed("/v1/chat/completions", "{}", encode(&stream));
        exchange.response_headers.set("content-encoding", HeaderValue::from_static(label));
        let reading = read_one(&exchange);
        assert_eq!(reading.answer, Some("Bonjour 🌍!".into()), "{label}");
        assert_eq!(
            (reading.usage.total, reading.first_content_offset),
            (Some(24), None),
            "{label}"
        );
    }
}

#[test]
fn head_and_tail_without_a_hole_are_one_body() {
    let bytes = gzip(ANSWER);
    let body =
        CapturedBody { head: bytes[..20].to_vec(), tail: bytes[20..].to_vec(), ..whole(bytes) };
    assert_eq!(read_one(&answered("gzip", body)).context, Some("c".into()));
}

#[test]
fn a_cut_body_gives_what_could_be_decoded() {
    let stream: Vec<u8> = (0..20_000)
        .flat_map(|n| format!("data: {{\"answer\": \"{} \"}}\n\n", n * 7919 % 10007).into_bytes())
        .collect();
    for (label, encode) in CODINGS {
        let bytes = encode(&stream);
        let mut exchange = streamed("/score", QUESTION, "");
        exchange.response_headers.append(
            http::HeaderName::from_static("content-encoding"),
            HeaderValue::from_static(label),
        );
        exchange.response = holed(&bytes, bytes.len() * 3 / 4, 16);
        let reading = read_one(&exchange);
        let answer = reading.answer.as_ref().and_then(|answer| answer.as_str()).unwrap_or_default();
        assert!(
            answer.starts_with("0 7919 5831 ") && answer.len() > 20_000,
            "{label}: {}",
            answer.len()
        );
        assert_eq!((reading.fault, reading.empty), (Some("truncated"), false), "{label}");
        assert!(reading.countable.expect("countable").output_truncated, "{label}");
    }
}

#[test]
fn labels_that_cannot_be_true_are_faults_and_nothing_is_kept_of_the_body() {
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("gzip, gzip", gzip(&gzip(ANSWER)), "encoding_nested"),
        ("gzip, br", gzip(ANSWER), "encoding_nested"),
        ("compress", ANSWER.to_vec(), "encoding"),
        ("gzip", ANSWER.to_vec(), "encoding"),
        ("deflate", ANSWER.to_vec(), "encoding"),
        ("br", ANSWER.to_vec(), "encoding"),
        ("zstd", ANSWER.to_vec(), "encoding"),
        ("zstd", gzip(ANSWER), "encoding"),
    ];
    for (label, bytes, fault) in cases {
        let reading = read_one(&answered(label, whole(bytes.clone())));
        assert_eq!(reading.fault, Some(*fault), "{label}");
        assert_eq!((reading.answer, reading.response_body), (None, None), "{label}");
        assert!(!reading.empty, "{label}: unknown is not empty");
    }
    assert_eq!(read_one(&answered("identity, gzip", whole(gzip(ANSWER)))).fault, None);
    let mut twice = answered("gzip", whole(gzip(ANSWER)));
    twice.response_headers.append(
        http::HeaderName::from_static("content-encoding"),
        HeaderValue::from_static("gzip"),
    );
    assert_eq!(read_one(&twice).fault, Some("encoding_nested"));
}

#[test]
fn bombs_stay_within_the_cap() {
    let zeros = vec![b'0'; 16 << 20];
    for (label, encode) in CODINGS {
        let bytes = encode(&zeros);
        let exchange = answered(label, whole(bytes.clone()));
        let decoded = decode(&exchange.response, &exchange.response_headers);
        assert!(decoded.head.is_empty(), "{label}");
        let reading = read_one(&exchange);
        assert_eq!((reading.fault, reading.response_body), (Some("bomb"), None), "{label}");
    }
}

#[test]
fn what_is_small_or_ordinary_is_no_bomb() {
    let ordinary = |bytes: usize| -> Vec<u8> {
        let number = |n: u64| format!("{:015} ", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16);
        (0..).flat_map(|n| number(n).into_bytes()).take(bytes).collect()
    };
    let decoded_len = |label: &str, encoded: Vec<u8>| {
        let exchange = answered(label, whole(encoded));
        let decoded = decode(&exchange.response, &exchange.response_headers);
        (decoded.head.len(), decoded.fault)
    };
    for (label, encode) in CODINGS {
        let small = encode(&vec![b' '; RATIO_FLOOR_BYTES]);
        assert_eq!(decoded_len(label, small), (RATIO_FLOOR_BYTES, None), "{label}");
        assert_eq!(decoded_len(label, encode(&ordinary(1 << 18))), (1 << 18, None), "{label}");
    }
    let brim = ordinary(OUTPUT_BYTES_MAX + 1);
    assert_eq!(decoded_len("zstd", zstd(&brim[1..])), (OUTPUT_BYTES_MAX, None));
    assert_eq!(decoded_len("zstd", zstd(&brim)), (0, Some(super::super::Fault::Bomb)));
}

#[test]
fn windows_larger_than_http_allows_are_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.window_log(27).expect("a window of 128 MiB");
    encoder.write_all(&vec![b'x'; 1 << 20]).expect("memory");
    let bytes = encoder.finish().expect("memory");
    assert_eq!(read_one(&answered("zstd", whole(bytes))).fault, Some("encoding"));
    let large_window = [&[0x11, 0x1e][..], &[0; 40]].concat();
    assert_eq!(read_one(&answered("br", whole(large_window))).fault, Some("encoding"));
}
