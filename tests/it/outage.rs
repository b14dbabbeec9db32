//! An object store that is away for a while, and what becomes of what waited for it. Case 55 of the catalogue.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::soak::store::Store;
use crate::support::books::Books;
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Upstream, json_post, json_response};

/// Objects that are sent at once, at most: `UPLOADS_MAX` of `archive`.
const AT_ONCE_MAX: u64 = 4;

/// Asks without a pause until `done`, and says how long each took.
fn ask_until(flowtap: &Flowtap, done: &AtomicBool) -> Vec<Duration> {
    let (mut client, mut took) = (flowtap.client(), Vec::new());
    while !done.load(Ordering::Relaxed) {
        let started = Instant::now();
        client.send(json_post("/score", "{\"question\":\"how long will it be?\"}"));
        let answer = client.read_response();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "{}"), "{:?}", answer.end);
        took.push(started.elapsed());
        // Some tens a second: what is told is what the store does to them, not how many there can be.
        std::thread::sleep(Duration::from_millis(10));
    }
    took.sort_unstable();
    took
}

/// Where a segment stands among those of one process.
fn sequence(name: &str) -> Option<u64> {
    let stem = name.strip_prefix("exchanges/")?.rsplit('/').next()?.split('.').next()?;
    stem.rsplit('-').next()?.parse().ok()
}

/// Promise (operations): while an object store is away, and while it gets what waited for it, nobody who asks
/// notices; the oldest go first, few at once, and all of them. Figure: away for 6 s (10 min in `make soak`), 4
/// objects at once at most, median below 250 ms, 0 lost.
#[test]
fn what_waited_for_a_store_goes_there_oldest_first_and_slows_nobody() {
    let seconds = std::env::var("TEST_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    // A third of the soak: ten minutes of the whole one.
    let away =
        seconds.map_or(Duration::from_secs(6), |seconds: u64| Duration::from_secs(seconds / 3));
    let (upstream, objects) =
        (Upstream::answering(json_response("{}")), tempfile::tempdir().expect("a folder"));
    let store = Store::start(objects.path().join("bucket"), 1);
    store.go_away();
    let bucket = format!(
        "bucket: {{url: s3://samples, endpoint: \"http://127.0.0.1:{}\", region: r, path_style: true, access_key_id: k, secret_access_key: s}}",
        store.port()
    );
    let flowtap = Setup::before(upstream.port)
        .command("proxy")
        .top("sample: {rate: 1}\ndrain_timeout: 25s")
        .top(&bucket)
        .start();
    let done = AtomicBool::new(false);
    let (took, drained) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_until(&flowtap, &done));
        std::thread::sleep(away);
        let waiting = flowtap.metric("flowtap_spool_segments", &[]);
        store.recover();
        let back = Instant::now();
        // All that waited has gone once something younger has.
        let deadline = back + Duration::from_secs(150);
        while (store.taken().iter().filter(|name| sequence(name).is_some()).count() as f64)
            < waiting
        {
            assert!(Instant::now() < deadline, "{waiting} wait:\n{}", flowtap.printed());
            std::thread::sleep(Duration::from_millis(50));
        }
        let drained = (waiting, back.elapsed());
        done.store(true, Ordering::Relaxed);
        (asking.join().expect("no panic"), drained)
    });
    let median = took[took.len() / 2];
    assert!(median < Duration::from_millis(250), "{median:?}");
    let sequences: Vec<u64> = store.taken().iter().filter_map(|name| sequence(name)).collect();
    assert!(sequences.is_sorted(), "oldest first: {sequences:?}");
    assert!(
        store.refused() >= 1 && store.most_at_once() <= AT_ONCE_MAX,
        "{}",
        store.most_at_once()
    );
    let (asked, most) = (took.len() as u64, store.most_at_once());
    drop(flowtap.stop());
    let books = Books::of(objects.path());
    assert_eq!((books.seen, books.stored), (asked, asked), "{books:?}");
    println!(
        "away for {away:?}: {asked} asked, median {median:?}, {} segments waited and went in {:?}, {most} at once",
        drained.0, drained.1
    );
}
