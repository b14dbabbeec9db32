//! Server-sent events: any split of the bytes gives the same events, within bounds, at linear cost.

use proptest::prelude::*;

use super::super::sse::{Limits, Parser, boundary};
use super::fixture;

/// Name, data, id, start, end; and whether the stream left it unfinished.
type Seen = (String, String, String, u64, u64, bool);

fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: Limits) -> (Vec<Seen>, u64) {
    let mut parser = Parser::new(limits);
    let mut seen = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut |e| {
            seen.push((e.name.into(), e.data.into(), e.id.into(), e.start, e.end, false));
        });
    }
    if let Some(e) = parser.finish() {
        seen.push((e.name.into(), e.data.into(), e.id.into(), e.start, e.end, true));
    }
    (seen, parser.skipped())
}

fn whole(bytes: &[u8]) -> Vec<Seen> {
    parse([bytes], Limits::default()).0
}

fn data(bytes: &[u8]) -> Vec<String> {
    whole(bytes).into_iter().map(|seen| seen.1).collect()
}

const TANGLED: &[u8] = b"\xef\xbb\xbfdata: one\r\n\r\n: note\rdata:two\rdata:  three\r\revent: ping\nid: 7\nid: a\0b\n\
data: \xf0\x9f\x98\x80 \xff\xf0\x9f\n\nretry: 1500\r\ndata\r\n\r\nnonsense\ndata: {\"a\":\"\xe2\x82\xac\"}\n\r\n\
event: lost\n\ndata: last";

#[test]
fn the_specification_is_followed() {
    let seen = whole(TANGLED);
    let told: Vec<_> =
        seen.iter().map(|s| (s.0.as_str(), s.1.as_str(), s.2.as_str(), s.5)).collect();
    assert_eq!(
        told,
        [
            ("", "one", "", false),
            ("", "two\n three", "", false),
            ("ping", "\u{1f600} \u{fffd}\u{fffd}", "7", false),
            ("", "", "7", false),
            ("", "{\"a\":\"\u{20ac}\"}", "7", false),
            ("", "last", "7", true),
        ]
    );
    assert_eq!((seen[0].3, seen[0].4), (0, 15), "from the mark to past the blank line");
    assert_eq!(seen[1].3, 23, "comments are no part of an event");
    assert_eq!(seen[5].4, TANGLED.len() as u64);
}

#[test]
fn a_mark_counts_only_at_the_start() {
    assert_eq!(data(b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n"), ["a", "c"]);
}

#[test]
fn retry_is_digits_only() {
    let mut parser = Parser::new(Limits::default());
    parser.push(b"retry: 250\nretry: 2s\nretry:\n", &mut |_| ());
    assert_eq!(parser.retry_ms(), Some(250));
}

#[test]
fn every_split_in_two_gives_the_same_events() {
    let streams = [
        TANGLED.to_vec(),
        fixture("openai/chat-reasoning.sse"),
        fixture("anthropic/message-tools.sse"),
    ];
    for stream in streams {
        let expected = whole(&stream);
        for at in 0..=stream.len() {
            let (left, right) = stream.split_at(at);
            assert_eq!(parse([left, right], Limits::default()).0, expected, "split at {at}");
        }
        assert_eq!(parse(stream.chunks(1), Limits::default()).0, expected, "byte by byte");
    }
}

#[test]
fn a_line_or_event_too_long_is_skipped_and_counted_whatever_the_split() {
    let limits = Limits { line_bytes_max: 10, event_bytes_max: 12 };
    let stream = b"data: 0123456789\ndata: a\n\ndata: b\n\ndata: 1234\ndata: 5678\ndata: 9012\n\ndata: c\n\n";
    for size in 1..stream.len() {
        let (seen, skipped) = parse(stream.chunks(size), limits);
        let told: Vec<_> = seen.iter().map(|s| s.1.as_str()).collect();
        assert_eq!((told.as_slice(), skipped), (["a", "b", "c"].as_slice(), 2), "chunks of {size}");
    }
}

#[test]
fn an_endless_line_costs_no_memory_and_every_byte_is_copied_at_most_twice() {
    let mut parser = Parser::new(Limits { line_bytes_max: 1000, event_bytes_max: 4000 });
    let line = [b'x'; 777];
    for _ in 0..10_000 {
        parser.push(&line, &mut |_| panic!("no event"));
    }
    assert!(parser.bytes_copied <= 1000, "{} bytes copied of an endless line", parser.bytes_copied);
    parser.push(b"\ndata: y\n\n", &mut |event| assert_eq!(event.data, "y"));
    assert_eq!(parser.skipped(), 1);

    let stream = b"data: abc\r\ndata: def\r\r\n:c\n\n".repeat(5_000);
    let mut parser = Parser::new(Limits::default());
    stream.chunks(1).for_each(|byte| parser.push(byte, &mut |_| ()));
    assert!(parser.bytes_copied <= 2 * stream.len() as u64);
}

#[test]
fn a_boundary_is_past_the_first_blank_line() {
    let cases: &[(&[u8], Option<usize>)] = &[
        (b"rest\n\ndata: a", Some(6)),
        (b"rest\r\n\r\ndata", Some(8)),
        (b"rest\r\rdata", Some(6)),
        (b"\ndata: a\n\nb", Some(10)),
        (b"no blank line\nat all\n", None),
        (b"", None),
    ];
    for (bytes, expected) in cases {
        assert_eq!(boundary(bytes), *expected, "{bytes:?}");
    }
}

fn bytes_like_a_stream() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just(b"data: ".to_vec()),
        Just(b"data:x".to_vec()),
        Just(b"event: e".to_vec()),
        Just(b"id: 1".to_vec()),
        Just(b": c".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n\n".to_vec()),
        Just(b"\xef\xbb\xbf".to_vec()),
        Just("\u{1f600}".as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events(
        stream in bytes_like_a_stream(),
        cuts in prop::collection::vec(0usize..200, 0..12),
        line_bytes_max in 1usize..40,
    ) {
        let limits = Limits { line_bytes_max, event_bytes_max: 30 };
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([stream.len()]) {
            pieces.push(&stream[from..cut]);
            from = cut;
        }
        prop_assert_eq!(parse(pieces, limits), parse([stream.as_slice()], limits));
    }

    #[test]
    fn events_lie_in_order_within_the_stream(stream in bytes_like_a_stream()) {
        let mut end = 0;
        for seen in whole(&stream) {
            prop_assert!(end <= seen.3 && seen.3 < seen.4 && seen.4 <= stream.len() as u64);
            end = seen.4;
        }
    }
}
