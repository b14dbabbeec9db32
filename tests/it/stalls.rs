//! Whatever stands still behind the traffic, for half a minute at a time: nobody who asks notices. Case 36 of
//! the catalogue.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use crate::support::books::Books;
use crate::support::judge::{ScriptedJudge, completion};
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Peer, Upstream, json_post, json_response};

/// How long it stands still, each time it comes by.
const STALL: Duration = Duration::from_secs(30);

/// Asks on one connection, with questions of `bytes`; how long the median took, and the slowest.
fn asked(flowtap: &Flowtap, times: usize, bytes: usize) -> (Duration, Duration) {
    let mut client = flowtap.client();
    let question = json_post("/score", &format!("{{\"question\":\"{}\"}}", "q ".repeat(bytes / 2)));
    let mut ask = |_| {
        let started = Instant::now();
        client.send(&question);
        let answer = client.read_response();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "{\"answer\":\"yes\"}"));
        started.elapsed()
    };
    let mut took: Vec<_> = (0..times).map(&mut ask).collect();
    took.sort_unstable();
    (took[times / 2], took[times - 1])
}

/// Nobody waits for what stalls: neither half of those who ask, nor a single one.
#[track_caller]
fn nobody_waits(place: &str, (median, worst): (Duration, Duration)) {
    assert!(median < Duration::from_millis(250), "{place}: {median:?}");
    assert!(worst < STALL / 3, "{place}: {worst:?}");
}

/// Ends what stands still as a power cut would, and has the next run bring the rest.
fn books_after(flowtap: Flowtap) -> Books {
    let flowtap = flowtap.kill_and_restart();
    Books::of(flowtap.stop().folder())
}

fn judge() -> ScriptedJudge {
    ScriptedJudge::start(|asked| Some(completion(&asked.verdict(4)).into_bytes()))
}

/// The look at an exchange stalls where the traffic itself would, and is left out: that one is
/// `faults::where_looking_takes_too_long...`.
/// Promise (operations): whatever stalls behind the traffic, nobody waits for it. Figure: 8 places (pipeline,
/// count of tokens, spool's write and fsync, upload, ledger, judging, scrape), 30 s each time, 100 questions
/// each: median below 250 ms, none waits, books exact after a kill.
#[test]
fn whatever_stalls_behind_the_traffic_nobody_waits_for_it() {
    let upstream = Upstream::answering(json_response("{\"answer\":\"yes\"}"));
    let judge = judge();
    for place in [
        "pipeline",
        "tokens",
        "spool_written",
        "spool_synced",
        "archive_begun",
        "ledger_put",
        "evaluate",
        "scrape",
    ] {
        let setup = Setup::before(upstream.port)
            .top("sample: {rate: 1}\nevaluate: {poll: 200ms}")
            .top(&format!("judge: {{url: \"{}\", model: scripted}}", judge.url()));
        let flowtap = setup.failing_at(&format!("{place}:stall={}", STALL.as_millis())).start();
        let admin = flowtap.admin;
        let mut scraper = Peer::connect(admin);
        scraper.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        nobody_waits(place, asked(&flowtap, 100, 100));
        let books = books_after(flowtap);
        let lost: u64 = books.dropped.values().sum();
        assert!(books.seen <= 100 && books.stored + lost == books.seen, "{place}: {books:?}");
    }
}

/// Promise (operations): where the disk stands still, what waits for it is bounded, and what does not fit is
/// counted. Figure: 30 MB of samples against 16 MiB that may wait.
#[test]
fn where_the_disk_stands_still_what_does_not_fit_is_counted() {
    let upstream = Upstream::answering(json_response("{\"answer\":\"yes\"}"));
    let setup = Setup::before(upstream.port).top("sample: {rate: 1}");
    let flowtap = setup.failing_at(&format!("spool_written:stall={}", STALL.as_millis())).start();
    nobody_waits("spool", asked(&flowtap, 300, 100_000));
    flowtap.await_metric("flowtap_dropped_total", &["stage=\"spool\"", "reason=\"full\""], 1.0);
    let books = books_after(flowtap);
    let lost: u64 = books.dropped.values().sum();
    assert_eq!(books.stored + lost, books.seen, "{books:?}");
}
