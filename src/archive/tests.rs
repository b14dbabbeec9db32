//! The archive against a bucket in memory that fails as it is told to.

use std::collections::BTreeSet;
use std::future;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use super::*;
use crate::bucket::{Boxed, BucketErrorKind, Listed};
use crate::config;
use crate::domain::{Dataset, DropReason, DropStage, Row};
use crate::ledger::{Hour, metrics_for_tests};

/// What the bucket does with a PUT.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mood {
    Takes,
    Fails(BucketErrorKind),
    Hangs,
    /// Refuses the objects whose names hold this.
    Refuses(String),
}

struct Memory {
    mood: Mutex<Mood>,
    objects: Mutex<BTreeMap<String, Bytes>>,
    puts: Mutex<Vec<String>>,
}

impl Memory {
    fn new(mood: Mood) -> Arc<Self> {
        let (objects, puts) = (Mutex::default(), Mutex::default());
        Arc::new(Self { mood: Mutex::new(mood), objects, puts })
    }

    fn becomes(&self, mood: Mood) {
        *self.mood.lock().expect("no test panics here") = mood;
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.objects.lock().expect("no test panics here")
    }

    /// Names of `dataset`, in the order in which they were put.
    fn puts(&self, dataset: Dataset) -> Vec<String> {
        let puts = self.puts.lock().expect("no test panics here");
        puts.iter().filter(|name| name.starts_with(dataset.label())).cloned().collect()
    }
}

impl Bucket for Memory {
    fn put<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, ()> {
        let mood = self.mood.lock().expect("no test panics here").clone();
        Box::pin(async move {
            match mood {
                Mood::Hangs => future::pending().await,
                Mood::Fails(kind) => return Err(BucketError::new(kind, "as told")),
                Mood::Refuses(text) if name.contains(&text) => {
                    return Err(BucketError::new(BucketErrorKind::Denied, "this one"));
                }
                _ => {}
            }
            self.puts.lock().expect("no test panics here").push(name.to_owned());
            self.objects().insert(name.to_owned(), body);
            Ok(())
        })
    }

    fn put_if_absent<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, bool> {
        Box::pin(async move {
            let absent = !self.objects().contains_key(name);
            if absent {
                self.put(name, body).await?;
            }
            Ok(absent)
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> Boxed<'a, Bytes> {
        let found = self.objects().get(name).cloned();
        let missing = || BucketError::new(BucketErrorKind::NotFound, "no such object");
        Box::pin(async move { found.ok_or_else(missing) })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<Listed>> {
        let objects = self.objects();
        let listed = objects.iter().filter(|(name, _)| name.starts_with(prefix));
        let listed =
            listed.map(|(name, body)| Listed { name: name.clone(), bytes: body.len() as u64 });
        let listed: Vec<_> = listed.collect();
        Box::pin(async move { Ok(listed) })
    }

    fn delete<'a>(&'a self, name: &'a str) -> Boxed<'a, ()> {
        self.objects().remove(name);
        Box::pin(async move { Ok(()) })
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

fn open(dir: &Path) -> Spool {
    let settings = config::Spool {
        dir: dir.to_owned(),
        bytes_max: 1 << 30,
        segment_bytes: 8 << 10,
        segment_age: Duration::from_secs(600),
        sync: Duration::from_millis(5),
    };
    let opened = Spool::open(&settings, Arc::from("pod-1"), metrics_for_tests(), Timestamp::now());
    opened.expect("opens").0
}

fn row(i: usize, dataset: Dataset) -> Row {
    let json = format!("{{\"id\":\"{i:026}\"}}").into_bytes();
    // Two hours and two deployments.
    let time = if i.is_multiple_of(2) { "2026-11-23T22:47:50Z" } else { "2026-11-23T23:00:00Z" };
    let deployment = if i.is_multiple_of(3) { "blue" } else { "green" };
    let time = time.parse().expect("a time");
    Row { dataset, deployment: Arc::from(deployment), time, json }
}

/// What the pipeline does: half of what is seen is sampled, one in ten of the rest is lost on the way.
fn offer(spool: &Spool, range: Range<usize>) {
    let (writer, ledger) = (spool.writer(), spool.ledger());
    for i in range {
        let row = row(i, Dataset::Exchanges);
        let hour = Hour::of(row.time);
        ledger.seen(hour, 2);
        match i % 10 {
            0 => ledger.dropped(hour, DropStage::Pipeline, DropReason::Panic, 1),
            _ => ledger.not_sampled(hour, 1),
        }
        writer.try_append(row).expect("the queue is large enough");
    }
}

struct Running {
    stop: watch::Sender<Option<Instant>>,
    task: tokio::task::JoinHandle<()>,
}

fn archive(spool: &Spool, bucket: &Arc<Memory>) -> Archive {
    let bucket: Arc<dyn Bucket> = bucket.clone();
    let (ledger, metrics) = (spool.ledger(), metrics_for_tests());
    let tempo = Tempo {
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_millis(50),
        drain_wait: Duration::from_millis(50),
        refused_for: Duration::from_millis(100),
        gauge_every: Duration::from_millis(50),
    };
    let archive = Archive::new(spool.clone(), bucket, ledger, metrics, Arc::from("pod-1"));
    Archive { tempo, pace: Pace::new(tempo.first_wait, tempo.longest_wait), ..archive }
}

fn start(spool: &Spool, bucket: &Arc<Memory>) -> Running {
    let (stop, shutdown) = watch::channel(None);
    Running { stop, task: tokio::spawn(archive(spool, bucket).run(shutdown)) }
}

/// Shuts down as the process does: spool first, then the archive within `seconds`.
async fn stop(spool: &Spool, running: Running, seconds: u64) {
    assert!(spool.close(Duration::from_secs(20)).await);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    running.stop.send(Some(deadline)).expect("it runs");
    let limit = Duration::from_secs(seconds + 20);
    tokio::time::timeout(limit, running.task).await.expect("in time").expect("no panic");
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn all(spool: &Spool, figure: fn(&LedgerRow) -> u64) -> u64 {
    spool.ledger().rows(Timestamp::now()).iter().map(figure).sum()
}

#[tokio::test]
async fn samples_reach_their_folders_and_the_ledger_proves_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, bucket) = (open(dir.path()), Memory::new(Mood::Takes));
    let running = start(&spool, &bucket);
    offer(&spool, 0..1000);
    stop(&spool, running, 20).await;
    assert!(spool.sealed().is_empty(), "nothing is left in the spool");
    let report = verify(bucket.as_ref()).await.expect("reads");
    assert!(report.ok, "{report}");
    assert_eq!(report.checked.len(), 2, "two hours of one run");
    assert_eq!(report.checked.iter().map(|hour| hour.distinct).sum::<u64>(), 1000);
    let rows: Vec<_> = report.checked.iter().filter_map(|hour| hour.ledger.as_ref()).collect();
    assert_eq!(rows.iter().map(|row| row.seen).sum::<u64>(), 2000);
    assert!(rows.iter().all(|row| row.closed && row.is_settled() && row.balances()));
    let folders: BTreeSet<_> =
        bucket.puts(Dataset::Exchanges).iter().map(|name| name[..50].to_owned()).collect();
    assert_eq!(folders.len(), 4, "two deployments in two hours: {folders:?}");
}

#[tokio::test]
async fn usage_rows_travel_beside_and_enter_no_equation() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, bucket) = (open(dir.path()), Memory::new(Mood::Takes));
    let running = start(&spool, &bucket);
    offer(&spool, 0..10);
    spool.writer().try_append(row(0, Dataset::Usage)).expect("taken");
    stop(&spool, running, 20).await;
    assert_eq!(bucket.puts(Dataset::Usage).len(), 1);
    assert!(bucket.puts(Dataset::Usage)[0].starts_with("usage/deployment=blue/date=2026-11-23/"));
    let report = verify(bucket.as_ref()).await.expect("reads");
    assert!(report.ok, "{report}");
}

#[tokio::test]
async fn after_an_outage_the_oldest_come_first_and_nothing_is_missing() {
    let dir = tempfile::tempdir().expect("a folder");
    let bucket = Memory::new(Mood::Fails(BucketErrorKind::Unavailable));
    let spool = open(dir.path());
    let running = start(&spool, &bucket);
    offer(&spool, 0..1500);
    until("sealed", || spool.sealed().len() > 5).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(bucket.objects().is_empty());
    bucket.becomes(Mood::Takes);
    stop(&spool, running, 120).await;
    let names = bucket.puts(Dataset::Exchanges);
    let sequences: Vec<_> = names.iter().map(|name| name.rsplit('-').next()).collect();
    assert!(sequences.windows(2).all(|pair| pair[0] <= pair[1]), "oldest first");
    let report = verify(bucket.as_ref()).await.expect("reads");
    assert!(report.ok, "{report}");
    assert_eq!(report.checked.iter().map(|hour| hour.distinct).sum::<u64>(), 1500);
}

#[tokio::test]
async fn a_dead_bucket_is_asked_rarely() {
    let dir = tempfile::tempdir().expect("a folder");
    let bucket = Memory::new(Mood::Fails(BucketErrorKind::Unavailable));
    let spool = open(dir.path());
    let mut archive = archive(&spool, &bucket);
    offer(&spool, 0..10);
    spool.close(Duration::from_secs(20)).await;
    let start = Instant::now();
    let mut attempts = 0;
    while start.elapsed() < Duration::from_millis(600) || attempts < 10 {
        let Turn::Failed(wait) = archive.turn().await else { panic!("it cannot work") };
        attempts += 1;
        archive.rest(wait).await;
    }
    assert!(attempts < 40, "{attempts} attempts in twelve of the longest waits");
    assert!(archive.pace.is_open());
}

#[tokio::test]
async fn a_bucket_that_hangs_does_not_keep_the_process_past_its_deadline() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, bucket) = (open(dir.path()), Memory::new(Mood::Hangs));
    let running = start(&spool, &bucket);
    offer(&spool, 0..10);
    let start = Instant::now();
    stop(&spool, running, 2).await;
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(spool.sealed().len(), 1, "what was not uploaded stays");
    assert_eq!(all(&spool, |row| row.pending), 10);
}

#[tokio::test]
async fn a_refused_bucket_is_tried_again_and_recovers() {
    let dir = tempfile::tempdir().expect("a folder");
    let bucket = Memory::new(Mood::Fails(BucketErrorKind::Denied));
    let spool = open(dir.path());
    let running = start(&spool, &bucket);
    offer(&spool, 0..100);
    tokio::time::sleep(Duration::from_millis(300)).await;
    bucket.becomes(Mood::Takes);
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop(&spool, running, 60).await;
    assert_eq!(all(&spool, |row| row.stored), 100);
}

#[tokio::test]
async fn one_refused_object_does_not_hold_up_the_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let bucket = Memory::new(Mood::Refuses("-00000001.jsonl".to_owned()));
    let spool = open(dir.path());
    let running = start(&spool, &bucket);
    offer(&spool, 0..1000);
    until("sealed", || spool.sealed().len() > 2).await;
    until("only the refused one is left", || spool.sealed().len() <= 1).await;
    bucket.becomes(Mood::Takes);
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop(&spool, running, 60).await;
    assert_eq!(all(&spool, |row| row.stored), 1000);
}

#[tokio::test]
async fn an_upload_repeated_after_a_crash_gives_the_same_object() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, bucket) = (open(dir.path()), Memory::new(Mood::Takes));
    offer(&spool, 0..50);
    assert!(spool.close(Duration::from_secs(20)).await);
    let mut archive = archive(&spool, &bucket);
    let id = spool.sealed().remove(0);
    let packed = archive.pack(id, Some("pod-1")).await.expect("packs");
    archive.put_all(&packed.objects, 2).await.expect("puts");
    let before = bucket.objects().clone();
    // The process ends here; the next one does it again.
    while !matches!(archive.turn().await, Turn::Idle) {}
    let after = bucket.objects().clone();
    assert!(before.iter().all(|(name, body)| after.get(name) == Some(body)));
    assert_eq!(bucket.puts(Dataset::Exchanges).len(), 2 * before.len());
    archive.publish().await.expect("publishes");
    let report = verify(bucket.as_ref()).await.expect("reads");
    assert!(report.ok, "{report}");
}

#[tokio::test]
async fn a_damaged_segment_is_set_aside_and_its_whole_rows_are_stored() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, bucket) = (open(dir.path()), Memory::new(Mood::Takes));
    offer(&spool, 0..90);
    assert!(spool.close(Duration::from_secs(20)).await);
    let id = spool.sealed().remove(0);
    let path = dir.path().join(format!("{id}.seg"));
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[2000] ^= 1;
    std::fs::write(&path, bytes).expect("writes");
    let running = start(&spool, &bucket);
    stop(&spool, running, 20).await;
    assert_eq!((all(&spool, |row| row.stored), all(&spool, LedgerRow::dropped_total)), (89, 10));
    assert!(dir.path().join("corrupt").join(format!("{id}.seg")).exists());
    let report = verify(bucket.as_ref()).await.expect("reads");
    assert!(report.ok, "{report}");
}

#[tokio::test]
async fn a_segment_that_vanished_is_counted_and_does_not_block_the_rest() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, bucket) = (open(dir.path()), Memory::new(Mood::Takes));
    offer(&spool, 0..1000);
    assert!(spool.close(Duration::from_secs(20)).await);
    let id = spool.sealed().remove(0);
    let sealed = spool.segment(id).expect("there");
    std::fs::remove_file(dir.path().join(format!("{id}.seg"))).expect("removes");
    let running = start(&spool, &bucket);
    stop(&spool, running, 20).await;
    assert_eq!(all(&spool, |row| row.stored), 1000 - sealed.tally.rows());
    assert!(spool.ledger().rows(Timestamp::now()).iter().all(LedgerRow::balances));
}

/// What the bucket would hold of the ledger, if the process ended now.
async fn last_words(archive: &mut Archive, bucket: &Memory) -> Vec<LedgerRow> {
    archive.publish().await.expect("publishes");
    let report = verify(bucket).await.expect("reads");
    assert!(report.ok, "{report}");
    report.checked.into_iter().filter_map(|hour| hour.ledger).collect()
}

#[tokio::test]
async fn a_row_whose_figures_are_on_no_disk_stands_as_if_it_were_the_last() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("spool");
    std::fs::write(&path, "in the way").expect("writes");
    let (spool, bucket) = (open(&path), Memory::new(Mood::Takes));
    let (ledger, hour) = (spool.ledger(), Hour::of(Timestamp::now()));
    let mut archive = archive(&spool, &bucket);
    ledger.seen(hour, 5);
    ledger.not_sampled(hour, 3);
    let row = last_words(&mut archive, &bucket).await.remove(0);
    assert_eq!((row.seen, row.in_flight, row.closed), (3, 0, false));
    let window = row.unaccounted.first().expect("what comes now is not accounted for");
    assert_eq!((window.from, window.to), (row.updated, hour.end().max(row.updated)));

    std::fs::remove_file(&path).expect("removes");
    until("usable", || path.join("lock").exists()).await;
    let row = last_words(&mut archive, &bucket).await.remove(0);
    assert_eq!((row.seen, row.in_flight), (5, 2), "the next run will know");
    assert!(row.unaccounted.is_empty());

    ledger.not_sampled(hour, 2);
    std::fs::remove_dir_all(&path).expect("removes");
    std::fs::write(&path, "in the way").expect("writes");
    ledger.seen(hour, 1);
    let row = last_words(&mut archive, &bucket).await.remove(0);
    assert_eq!((row.seen, row.in_flight, row.unaccounted.len()), (5, 0, 1), "no longer");

    assert!(spool.close(Duration::from_secs(20)).await);
    ledger.not_sampled(hour, 1);
    let row = last_words(&mut archive, &bucket).await.remove(0);
    assert_eq!((row.seen, row.unaccounted.len(), row.closed), (6, 0, true));
}

#[tokio::test]
async fn verify_finds_what_is_missing_doubled_unledgered_or_unreadable() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, bucket) = (open(dir.path()), Memory::new(Mood::Takes));
    let running = start(&spool, &bucket);
    offer(&spool, 0..200);
    stop(&spool, running, 20).await;
    assert!(verify(bucket.as_ref()).await.expect("reads").ok);
    let whole = bucket.objects().clone();
    let first = |dataset: Dataset| {
        whole.keys().find(|name| name.starts_with(dataset.label())).cloned().expect("one")
    };
    let (object, ledger) = (first(Dataset::Exchanges), first(Dataset::Ledger));
    let twice = object.replace(".jsonl.gz", "9.jsonl.gz");
    type Change<'a> = Box<dyn Fn(&mut BTreeMap<String, Bytes>) + 'a>;
    let changes: [(Finding, Change<'_>); 5] = [
        (Finding::Missing, Box::new(|all| drop(all.remove(&object)))),
        (Finding::NoLedger, Box::new(|all| drop(all.remove(&ledger)))),
        (
            Finding::Duplicate,
            Box::new(|all| drop(all.insert(twice.clone(), whole[&object].clone()))),
        ),
        (
            Finding::Unreadable,
            Box::new(|all| drop(all.insert(object.clone(), Bytes::from("no gzip")))),
        ),
        (
            Finding::Unbalanced,
            Box::new(|all| drop(all.insert(ledger.clone(), forged(&whole[&ledger])))),
        ),
    ];
    for (finding, change) in changes {
        *bucket.objects() = whole.clone();
        change(&mut bucket.objects());
        let report = verify(bucket.as_ref()).await.expect("reads");
        let found: Vec<_> = report.checked.iter().flat_map(|hour| hour.findings.clone()).collect();
        assert!(!report.ok && found.contains(&finding), "{finding:?}: {report}");
    }
}

/// The ledger's line with one more seen than there was.
fn forged(body: &Bytes) -> Bytes {
    let mut text = String::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(body.as_ref());
    std::io::Read::read_to_string(&mut decoder, &mut text).expect("gzip");
    let mut row: LedgerRow = serde_json::from_str(&text).expect("a row");
    row.seen += 1;
    line(&row).expect("writes")
}
