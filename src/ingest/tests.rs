//! The worker by itself: what it reads again, what it does not, and what it survives.

use std::path::Path;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::config::{BucketStore, MetricsLimits, Retention};
use crate::drain::Drain;
use crate::store::Window;

/// A worker over a folder.
async fn bench(folder: &Path) -> (Ingest, Arc<dyn Bucket>, Store) {
    let second = Duration::from_secs(1);
    let settings = config::Store {
        dir: folder.join("store"),
        look: second,
        retention: Retention { age: second * 86_400 * 365, bytes_max: 1 << 30 },
    };
    let place = config::Bucket {
        store: BucketStore::Local { path: folder.join("bucket") },
        attempt_timeout: second * 5,
        operation_timeout: second * 5,
    };
    let bucket = crate::bucket::open(&place).await.expect("a folder");
    let (store, writer) = Store::open(&settings, false).expect("a store");
    Drain::default().thread("store", move || writer.run()).expect("a thread");
    let metrics = Metrics::new(&MetricsLimits { models_max: 5, deployments_max: 5 });
    let uploaded = Arc::default();
    let ingest = Ingest::new(Arc::clone(&bucket), store.clone(), metrics, settings, uploaded);
    (ingest, bucket, store)
}

fn packed(text: &str) -> Bytes {
    use std::io::Write as _;
    let level = flate2::Compression::fast();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), level);
    packer.write_all(text.as_bytes()).expect("packed");
    packer.finish().expect("packed").into()
}

fn hour(at: Timestamp) -> String {
    crate::ledger::Hour::of(at).partition()
}

fn ledger(at: Timestamp, seen: u64, closed: bool) -> Bytes {
    let start = crate::ledger::Hour::of(at).start();
    let row = json!({
        "schema": "flowtap.ledger.v1", "instance": "pod", "incarnation": "0011223344556677",
        "hour": start, "updated": at, "seen": seen, "not_sampled": seen, "kept": 0, "stored": 0,
        "pending": 0, "in_flight": 0, "dropped": [], "usage_dropped": 0, "unaccounted": [],
        "closed": closed,
    });
    packed(&format!("{row}\n"))
}

fn ever() -> Window {
    Window { from: Timestamp::UNIX_EPOCH, to: "2200-01-01T00:00:00Z".parse().expect("a time") }
}

#[tokio::test]
async fn the_ledger_is_read_again_until_it_is_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut ingest, bucket, store) = bench(folder.path()).await;
    let now = Timestamp::now();
    let name = format!("ledger/{}/pod-0011223344556677.jsonl.gz", hour(now));
    let seen = || store.ledger(ever(), 10).expect("read").iter().map(|row| row.seen).sum::<u64>();
    for (figure, closed, told) in [(4, false, 4), (7, false, 7), (8, true, 8), (9, true, 8)] {
        // Of the same size each time: the size alone would not tell.
        bucket.put(&name, ledger(now, figure, closed)).await.expect("put");
        ingest.read_ledger = None;
        ingest.look().await;
        assert_eq!(seen(), told, "closed is final");
    }
    assert!(ingest.progress().caught_up().is_some());
}

#[tokio::test]
async fn what_comes_late_is_found_by_the_wider_look() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut ingest, bucket, store) = bench(folder.path()).await;
    ingest.look().await;
    let late = Timestamp::now() - jiff::SignedDuration::from_hours(24 * 20);
    let name = format!("monitors/monitor=daily/{}/run.jsonl.gz", hour(late));
    let run = json!({"schema": "flowtap.monitor.v1", "id": "daily@1", "monitor": "daily",
                     "at": late, "state": "ok"});
    bucket.put(&name, packed(&format!("{run}\n"))).await.expect("put");
    ingest.look().await;
    assert_eq!(store.runs(None, ever(), 10).expect("read").len(), 0, "not in the last hours");
    ingest.walked_all = None;
    ingest.look().await;
    assert_eq!(store.runs(None, ever(), 10).expect("read").len(), 1);
}

#[tokio::test]
async fn a_bucket_that_fails_is_told_and_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut ingest, _bucket, _store) = bench(folder.path()).await;
    let path = folder.path().join("bucket");
    std::fs::write(&path, "in the way").expect("written");
    ingest.look().await;
    assert!(ingest.told.is_some() && ingest.progress().caught_up().is_none());
    std::fs::remove_file(&path).expect("removed");
    ingest.look().await;
    assert!(ingest.told.is_none() && ingest.progress().caught_up().is_some());
}
