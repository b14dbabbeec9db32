//! Floods of HTTP/2 frames, written by hand: the connection that floods ends, all others are served, and
//! memory stays. Case 19 of the catalogue.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use crate::support::process::resident_bytes;
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Peer, Upstream, json_post, json_response};

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
/// Flags of HEADERS.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:method GET`, `:path /`, `:scheme http` of the static table, and `:authority: a` (RFC 7541).
const GET: &[u8] = b"\x82\x84\x86\x01\x01a";
/// What memory may grow by in one flood.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// A flood that nobody stops ends by itself.
const FLOOD_BYTES_MAX: usize = 64 << 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A tap that is open to HTTP/2 and warm: what is built once has been built.
fn open() -> (Flowtap, Upstream) {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = Setup::before(upstream.port).tap("http2: true").start();
    for _ in 0..50 {
        is_served(&flowtap);
    }
    (flowtap, upstream)
}

fn is_served(flowtap: &Flowtap) -> Duration {
    let (mut client, started) = (flowtap.client(), Instant::now());
    client.send(json_post("/score", "{}"));
    assert_eq!(client.read_response().status(), 200);
    started.elapsed()
}

/// Sends what `flood` makes, piece after piece, until the connection ends: it has to, before 64 MiB
/// were sent, and others are served meanwhile and after.
fn is_stopped(flood: impl Fn(u32) -> Vec<u8>) {
    let (flowtap, _upstream) = open();
    let before = resident_bytes(flowtap.id());
    let mut client = flowtap.client();
    client.send([PREFACE.as_bytes(), &frame(SETTINGS, 0, 0, &[])].concat());
    let (mut sent, mut turn) = (0, 0);
    while sent < FLOOD_BYTES_MAX {
        let piece = flood(turn);
        (sent, turn) = (sent + piece.len(), turn + 1);
        if !client.send(&piece) {
            break;
        }
        if turn % 100 == 1 {
            is_served(&flowtap);
        }
    }
    assert!(sent < FLOOD_BYTES_MAX, "nobody stopped it");
    assert!(client.is_closed_within(Duration::from_secs(20)));
    assert!(is_served(&flowtap) < Duration::from_secs(10));
    flowtap.await_idle();
    let grown = resident_bytes(flowtap.id()).saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "memory grew by {grown} bytes");
}

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)
}

/// Promise (security): a client that opens HTTP/2 streams and resets them at once is cut off. Figure: before
/// 64 MiB were sent; others served, memory below +64 MiB.
#[test]
fn rapid_resets_are_stopped() {
    is_stopped(|turn| {
        let both = |n: u32| {
            let stream = turn * 200 + 2 * n + 1;
            [request(stream), frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
        };
        (0..100).flat_map(both).collect()
    });
}

/// Promise (security): header blocks without an end are cut off, empty ones too. Figure: as above.
#[test]
fn continuations_without_end_are_stopped() {
    let begun = |turn: u32, flood: Vec<u8>| match turn {
        0 => [frame(HEADERS, END_STREAM, 1, GET), flood].concat(),
        _ => flood,
    };
    let fields = b"\x00\x01x\x01y".repeat(3_000);
    is_stopped(|turn| begun(turn, frame(CONTINUATION, 0, 1, &fields)));
    is_stopped(|turn| begun(turn, frame(CONTINUATION, 0, 1, &[]).repeat(500)));
}

/// Promise (security): DATA frames without data are cut off. Figure: as above.
#[test]
fn empty_data_frames_are_stopped() {
    let post = b"\x83\x84\x86\x01\x01a";
    is_stopped(|turn| match turn {
        0 => frame(HEADERS, END_HEADERS, 1, post),
        _ => frame(DATA, 0, 1, &[]).repeat(500),
    });
}

/// Promise (security): a small header block that unfolds to a huge one (an HPACK bomb) is cut off. Figure: 14
/// kB that unfold to 55 MB; as above.
#[test]
fn header_blocks_that_unfold_are_stopped() {
    // A field of 3900 bytes enters the dynamic table, and is then named again and again.
    let value = "y".repeat(3_900);
    let length = [0x7f, (((3_900 - 127) & 0x7f) | 0x80) as u8, ((3_900 - 127) >> 7) as u8];
    let first = [GET, b"\x40\x01x", &length, value.as_bytes()].concat();
    let bomb = [GET, &b"\xbe".repeat(14_000)].concat();
    is_stopped(|turn| {
        let block = if turn == 0 { &first } else { &bomb };
        frame(HEADERS, END_STREAM | END_HEADERS, 2 * turn + 1, block)
    });
}

/// Promise (security): a client that grants no window and opens stream after stream is cut off. Figure: as
/// above.
#[test]
fn streams_that_take_no_answer_are_stopped() {
    // SETTINGS_INITIAL_WINDOW_SIZE (4) is 0.
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    is_stopped(|turn| {
        let streams = (0..100).flat_map(|n| request(turn * 200 + 2 * n + 1));
        if turn == 0 {
            no_window.clone().into_iter().chain(streams).collect()
        } else {
            streams.collect()
        }
    });
}

/// Promise (security): frames that ask for nothing but an answer, or for nothing at all, cost neither memory
/// nor others. Figure: 4 MiB each of PING, SETTINGS, PRIORITY, WINDOW_UPDATE and unknown frames, memory
/// below +64 MiB, others served within 10 s.
#[test]
fn frames_that_ask_for_nothing_cost_nothing() {
    const PRIORITY: u8 = 2;
    const WINDOW_UPDATE: u8 = 8;
    let (flowtap, _upstream) = open();
    for (name, piece) in [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("unknown", frame(0xbb, 0, 0, &[0; 100])),
    ] {
        let before = resident_bytes(flowtap.id());
        let mut client = flowtap.client();
        client.send([PREFACE.as_bytes(), &frame(SETTINGS, 0, 0, &[])].concat());
        // Whoever answers each frame stops reading while nobody reads the answers: then that is the bound.
        client.send_within(Duration::from_secs(2), &piece.repeat((4 << 20) / piece.len()));
        assert!(is_served(&flowtap) < Duration::from_secs(10), "{name}");
        let grown = resident_bytes(flowtap.id()).saturating_sub(before);
        assert!(grown < GROWTH_BYTES_MAX, "{name}: memory grew by {grown} bytes");
    }
}

/// A field that enters no table (RFC 7541, section 6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).expect("a short text");
        [&[length], text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

/// Promise (security): what an HTTP/2 request would smuggle into HTTP/1.1's heads and framing goes nowhere.
/// Figure: 34 forms, 0 reach the upstream.
#[test]
fn what_http2_would_smuggle_into_http1_goes_nowhere() {
    const INJECTED: &str = "x\r\nGET /smug HTTP/1.1\r\nHost: a\r\n\r\n";
    let plain = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/a")];
    let more = |name, value| plain.into_iter().chain([(name, value)]).collect::<Vec<_>>();
    let other = |name, value| {
        let changed = |(one, was)| if one == name { (one, value) } else { (one, was) };
        plain.into_iter().map(changed).collect::<Vec<_>>()
    };
    let lengths = ["3", "9", "+5", "", " 5", "-1", "5, 5", "9223372036854775808"];
    let codings = ["chunked", "identity", "gzip, chunked"];
    let fields = [
        ("connection", "close"),
        ("upgrade", "websocket"),
        ("keep-alive", "5"),
        ("X-Upper", "c"),
        ("x y", "c"),
        ("x:y", "c"),
        ("x: a\r\nb", "c"),
        ("x", INJECTED),
        ("x", "a\nb: c"),
        ("x", "a\rb"),
        ("x", "a\0b"),
        ("host", "b"),
        (":method", "POST"),
        (":path", "/a"),
        (":status", "200"),
    ];
    let changed = [
        (":path", "/a b"),
        (":path", "/a\r\nX: y"),
        (":path", "/ HTTP/1.1\r\n\r\nGET /smug"),
        (":method", "G ET"),
        (":method", "GET /smug HTTP/1.1\r\nHost: a\r\n\r\nX"),
        (":authority", "a\r\nX: y"),
        (":authority", "a@b"),
        (":scheme", "h ttp"),
    ];
    let mut forms: Vec<_> = fields.into_iter().map(|(name, value)| more(name, value)).collect();
    forms.extend(changed.into_iter().map(|(name, value)| other(name, value)));
    forms.extend(lengths.into_iter().map(|length| more("content-length", length)));
    forms.extend(codings.into_iter().map(|coding| more("transfer-encoding", coding)));
    assert_eq!(forms.len(), 34);
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = Setup::before(upstream.port).tap("http2: true").start();
    for form in forms {
        let block: Vec<u8> = form.iter().flat_map(|(name, value)| field(name, value)).collect();
        let mut client = flowtap.client();
        client.send([PREFACE.as_bytes(), &frame(SETTINGS, 0, 0, &[])].concat());
        client.send(
            [frame(HEADERS, END_HEADERS, 1, &block), frame(DATA, END_STREAM, 1, b"hello")].concat(),
        );
        // Whatever became of it, it has been read once this comes back.
        client.send(frame(PING, 0, 0, b"12345678"));
        client.read_until(b"12345678");
        is_served(&flowtap);
        let received = upstream.received_text();
        assert!(!received.contains("/a") && !received.contains("smug"), "{form:?}: {received}");
    }
}

/// Promise (security): frames that break the protocol end the connection. Figure: 4 forms.
#[test]
fn frames_that_break_the_protocol_end_the_connection() {
    let (flowtap, _upstream) = open();
    for broken in [
        request(2),
        frame(DATA, 0, 1, &[0; 20_000]),
        frame(8, 0, 0, &[0; 4]),
        frame(SETTINGS, 0, 1, &[]),
    ] {
        let mut client: Peer = flowtap.client();
        client.send([PREFACE.as_bytes(), &frame(SETTINGS, 0, 0, &[]), &broken].concat());
        assert!(client.is_closed_within(Duration::from_secs(20)), "{broken:?}");
        is_served(&flowtap);
    }
}
