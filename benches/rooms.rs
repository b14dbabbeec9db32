//! What each room costs by itself: time, bytes a second, allocations.
//!
//! ```sh
//! cargo bench --bench rooms                # all rooms
//! cargo bench --bench rooms -- redactor    # those with this in their name
//! ```
//!
//! Divan rather than criterion: it counts allocations as well.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a program for a terminal, whose faults end it"
)]

mod given;

use std::sync::Arc;

use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher, black_box};
use flowtap::config::{Redact, RedactKind, RedactMode, Tap};
use flowtap::dialect::{self, sse};
use flowtap::domain::{ChatTurn, Countable, Dataset, Exchange, Operation, Reading, Row};
use flowtap::metrics::Metrics;
use flowtap::redact::Redactor;
use flowtap::spool::Spool;
use flowtap::tokens::Counting;
use given::{bodies, configured, exchange, prose};
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[global_allocator]
static ALLOCATOR: AllocProfiler<mimalloc::MiMalloc> = AllocProfiler::new(mimalloc::MiMalloc);

fn main() {
    divan::main();
}

/// Server-sent events, in pieces as a socket brings them.
#[divan::bench(args = [1, 16, 1024])]
fn sse_parser(bencher: Bencher<'_, '_>, piece_kib: usize) {
    let (_, events, _) = bodies("stream");
    let stream = events.repeat((1 << 20) / events.len() + 1);
    bencher.counter(BytesCount::of_str(&stream)).bench(|| {
        let (mut parser, mut bytes) = (sse::Parser::new(sse::Limits::default()), 0);
        for piece in stream.as_bytes().chunks(piece_kib << 10) {
            parser.push(piece, &mut |event| bytes += event.data.len());
        }
        bytes
    });
}

fn read(bencher: Bencher<'_, '_>, case: &str, reader: fn(&Exchange, &Tap) -> Reading) {
    let config = configured("unused", 1.0);
    let (request, response, media) = bodies(case);
    let exchange = exchange(&config, &request, &response, media);
    bencher
        .counter(BytesCount::new(request.len() + response.len()))
        .bench(|| reader(black_box(&exchange), &config.taps[0]));
}

/// The figures of an exchange that is not kept.
#[divan::bench(args = given::CASES)]
fn dialect_figures(bencher: Bencher<'_, '_>, case: &str) {
    read(bencher, case, dialect::read_figures);
}

/// The whole of one that is.
#[divan::bench(args = given::CASES)]
fn dialect_whole(bencher: Bencher<'_, '_>, case: &str) {
    read(bencher, case, dialect::read);
}

fn text(kind: &str) -> String {
    let unit = match kind {
        "prose" => prose(400),
        "personal" => {
            format!("{} joe@example.com, +1 (555) 123-4567, 4111 1111 1111 1111. ", prose(400))
        }
        "numbers" => "order 20241123-0017 of 3 items at 12.50, total 37.50; ".to_owned(),
        _ => "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo0NTY3ODkwMTIzNDU2Nzg5".to_owned(),
    };
    unit.repeat((64 << 10) / unit.len())
}

/// 64 KiB of text, all kinds of findings.
#[divan::bench(args = ["prose", "personal", "numbers", "base64"])]
fn redactor(bencher: Bencher<'_, '_>, kind: &str) {
    use RedactKind::{CreditCard, Email, Iban, Ip, Phone, Secret};
    let detect = vec![Secret, Email, CreditCard, Iban, Phone, Ip];
    let redactor = Redactor::new(&Redact { detect, mode: RedactMode::Mask, key: None }, &[]);
    let text = text(kind);
    bencher.counter(BytesCount::of_str(&text)).bench(|| redactor.text(black_box(&text)).len());
}

/// Text, plain and made to be slow.
const TEXTS: &[&str] = &[
    "words",
    "one letter",
    "carets",
    "blanks",
    "newlines",
    "digits",
    "punctuation",
    "letters",
    "base64",
    "chinese",
    "emoji",
    "specials",
];

/// `bytes` of it; what is random is so from a seed.
fn adversary(kind: &str, bytes: usize) -> String {
    let mut random = StdRng::seed_from_u64(7);
    let mut drawn = |signs: &str| -> String {
        let signs: Vec<char> = signs.chars().collect();
        (0..bytes / signs[0].len_utf8())
            .map(|_| signs[random.random_range(0..signs.len())])
            .collect()
    };
    let unit = match kind {
        "words" => prose(400),
        "one letter" => "a".to_owned(),
        "carets" => "^".to_owned(),
        "blanks" => return " ".repeat(bytes - 1) + "x",
        "newlines" => "\n".to_owned(),
        "digits" => "7".to_owned(),
        "punctuation" => return drawn("!@#$%^&*()_+-=[]{}|;:,.<>?/~`"),
        "letters" => return drawn("abcdefghijklmnopqrstuvwxyz"),
        "base64" => {
            return drawn("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
        }
        "chinese" => return drawn(&('\u{4e00}'..='\u{9fa5}').collect::<String>()),
        "emoji" => "\u{1f469}\u{200d}\u{1f680}".to_owned(),
        _ => "<|endoftext|>".to_owned(),
    };
    unit.repeat(bytes / unit.len())
}

fn count(bencher: Bencher<'_, '_>, text: String) {
    let counter = BytesCount::of_str(&text);
    let turn = ChatTurn { role: "user".into(), name: None, text };
    let texts = Countable { turns: vec![turn], ..Countable::default() };
    // The vocabulary is read when it is first needed.
    Counting::Vocabularies.count(Some("gpt-4o"), Operation::Chat, &texts);
    bencher
        .counter(counter)
        .bench(|| Counting::Vocabularies.count(Some("gpt-4o"), Operation::Chat, black_box(&texts)));
}

/// 64 KiB of text: what is counted is linear if four times the bytes, below, take four times as long.
#[divan::bench(args = TEXTS)]
fn token_count(bencher: Bencher<'_, '_>, kind: &str) {
    count(bencher, adversary(kind, 64 << 10));
}

/// 256 KiB, the most that is counted of one text.
#[divan::bench(args = TEXTS)]
fn token_count_of_four_times_the_bytes(bencher: Bencher<'_, '_>, kind: &str) {
    count(bencher, adversary(kind, 256 << 10));
}

/// Rows of 8 KiB, from the first that is handed over until the last is safe on disk.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn spool_append(bencher: Bencher<'_, '_>) {
    const ROWS: u64 = 2000;
    let row = || Row {
        dataset: Dataset::Exchanges,
        deployment: Arc::from("default"),
        time: Timestamp::now(),
        json: vec![b'x'; 8 << 10],
    };
    bencher
        .counter(BytesCount::new(ROWS * (8 << 10)))
        .counter(ItemsCount::new(ROWS))
        .with_inputs(|| {
            let folder = tempfile::tempdir().expect("a folder");
            let config = configured(&folder.path().display().to_string(), 1.0);
            let metrics = Metrics::new(&config.metrics);
            let (instance, now) = (Arc::clone(&config.instance), Timestamp::now());
            (Spool::open(&config.spool, instance, metrics, now).expect("a spool").0, folder)
        })
        .bench_refs(|(spool, _folder)| {
            let writer = spool.writer();
            for _ in 0..ROWS {
                while writer.try_append(row()).is_err() {
                    std::thread::yield_now();
                }
            }
            let kept =
                || spool.ledger().rows(Timestamp::now()).iter().map(|row| row.kept).sum::<u64>();
            while kept() < ROWS {
                std::thread::yield_now();
            }
        });
}

/// What a scrape writes once a thousand exchanges are counted.
#[divan::bench]
fn metrics_scrape(bencher: Bencher<'_, '_>) {
    let config = configured("unused", 1.0);
    let metrics = Metrics::new(&config.metrics);
    metrics.tap_opened("default");
    bencher.bench(|| metrics.encode().len());
}
