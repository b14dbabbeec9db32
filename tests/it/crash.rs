//! Crash after crash, in one spool and one bucket: nothing fsynced is missing, nothing is counted twice,
//! and the ledger proves it. Each run ends at a step that a seed draws: of the spool, of the archive, or
//! at any moment by `kill -9`. `make test` has 20 runs, `make soak` 200 (`TEST_KILLS`).

#![allow(clippy::expect_used, clippy::print_stdout)]

mod program;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flowtap::archive::{Archive, verify};
use flowtap::bucket::{Boxed, Bucket, BucketError, BucketErrorKind, Listed};
use flowtap::config;
use flowtap::domain::{Dataset, Row};
use flowtap::ledger::Hour;
use flowtap::metrics::Metrics;
use flowtap::spool::{Recovery, Spool, Writer};
use jiff::Timestamp;
use tokio::sync::watch;

/// Tells the child where to work, and which run it is.
const CHILD: &str = "FLOWTAP_TEST_SPOOL_CHILD";
/// The steps at which a run ends, and within how many passages. See `capture::failpoint`.
const STEPS: [(&str, u64); 10] = [
    ("spool_created", 4),
    ("spool_written", 40),
    ("spool_synced", 30),
    ("spool_noted", 12),
    ("spool_sealed", 4),
    ("spool_booked", 4),
    ("spool_removed", 4),
    ("archive_begun", 8),
    ("archive_put", 8),
    ("ledger_put", 2),
];
/// What the runs are drawn from.
const SEED: u64 = 8;
/// No run lives longer; most that are not killed from outside end sooner, at their step.
const LIFE_MS_MAX: u64 = 10_000;

/// How one run ends.
struct End {
    /// What the child reads as `FLOWTAP_FAILPOINT`.
    step: String,
    life: Duration,
}

fn ends(count: u64) -> Vec<End> {
    let seed = std::env::var("TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut state = seed.unwrap_or(SEED);
    // SplitMix64: any seed gives the same runs on every machine.
    let mut draw = move |below: u64| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    };
    let mut end = |run: u64| match STEPS.get((run % (STEPS.len() as u64 + 1)) as usize) {
        Some((step, passages)) => End {
            step: format!("{step}:kill={}", draw(*passages) + 1),
            life: Duration::from_millis(LIFE_MS_MAX),
        },
        None => End { step: String::new(), life: Duration::from_millis(draw(500)) },
    };
    (0..count).map(&mut end).collect()
}

/// Rows that may wait for their fsync.
const WAITING_MAX: u64 = 400;
/// Segments that may wait for the bucket: each run begins with those that the ones before it left.
const SEALED_MAX: usize = 40;

/// A bucket that is a folder, as plain as can be.
struct Plain(PathBuf);

impl Plain {
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path if path.extension().is_some_and(|e| e == "tmp") => {}
                    path => names
                        .push(path.strip_prefix(&self.0).expect("inside").display().to_string()),
                }
            }
        }
        names.sort();
        names
    }

    fn write(&self, name: &str, body: &[u8]) -> std::io::Result<()> {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a folder"))?;
        let fresh = path.with_extension("tmp");
        fs::write(&fresh, body)?;
        fs::rename(fresh, path)
    }
}

fn failed(error: std::io::Error) -> BucketError {
    BucketError::new(BucketErrorKind::Unavailable, error.to_string())
}

impl Bucket for Plain {
    fn put<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, ()> {
        Box::pin(async move { self.write(name, &body).map_err(failed) })
    }

    fn put_if_absent<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, bool> {
        Box::pin(async move { self.write(name, &body).map(|()| true).map_err(failed) })
    }

    fn get<'a>(&'a self, name: &'a str) -> Boxed<'a, Bytes> {
        Box::pin(async move { fs::read(self.0.join(name)).map(Bytes::from).map_err(failed) })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<Listed>> {
        let names = self.names().into_iter().filter(move |name| name.starts_with(prefix));
        let listed = names.map(|name| Listed { name, bytes: 0 }).collect();
        Box::pin(async move { Ok(listed) })
    }

    fn delete<'a>(&'a self, name: &'a str) -> Boxed<'a, ()> {
        Box::pin(async move { fs::remove_file(self.0.join(name)).map_err(failed) })
    }

    fn describe(&self) -> String {
        "a folder".to_owned()
    }
}

fn metrics() -> Metrics {
    Metrics::new(&config::MetricsLimits { models_max: 10, deployments_max: 10 })
}

fn open(dir: &Path) -> (Spool, Recovery) {
    let settings = config::Spool {
        dir: dir.join("spool"),
        bytes_max: 1 << 30,
        segment_bytes: 16 << 10,
        segment_age: Duration::from_millis(50),
        sync: Duration::from_millis(2),
    };
    let opened = Spool::open(&settings, Arc::from("pod-1"), metrics(), Timestamp::now());
    opened.expect("whatever lies there, it opens")
}

fn archive(spool: &Spool, dir: &Path) -> Archive {
    let bucket = Arc::new(Plain(dir.join("bucket")));
    Archive::new(spool.clone(), bucket, spool.ledger(), metrics(), Arc::from("pod-1"))
}

/// The process that is killed: offers samples as fast as they are taken, uploads, and says on its
/// standard output how many are kept.
#[test]
fn child_that_is_killed() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (run, dir) = order.split_once(' ').expect("run and folder");
    let (spool, _) = open(Path::new(dir));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (_stop, shutdown) = watch::channel(None);
    runtime.spawn(archive(&spool, Path::new(dir)).run(shutdown));
    let (writer, ledger) = (spool.writer(), spool.ledger());
    let own = ledger.incarnation();
    for i in 0..2_000_000_u64 {
        ledger.seen(Hour::of(Timestamp::now()), 1);
        append(&writer, run, i);
        // As fast as the disk is, and no faster: nothing is dropped, whatever the machine does besides.
        while i.is_multiple_of(20) {
            let rows = ledger.rows(Timestamp::now());
            let kept: u64 =
                rows.iter().filter(|row| row.incarnation == own).map(|row| row.kept).sum();
            println!("kept {kept}");
            std::thread::sleep(Duration::from_millis(1));
            if i - kept.min(i) < WAITING_MAX && spool.sealed().len() < SEALED_MAX {
                break;
            }
        }
    }
}

/// Offers a row until it is taken; nothing is dropped, so that kept rows are the first ones.
fn append(writer: &Writer, run: &str, i: u64) {
    let row = Row {
        dataset: Dataset::Exchanges,
        deployment: Arc::from("blue"),
        time: Timestamp::now(),
        json: format!("{{\"id\":\"{run}-{i}\",\"text\":\"{}\"}}", "x".repeat(100)).into_bytes(),
    };
    writer.try_append(row).expect("slow enough for any disk");
}

/// How a run ended, and how many samples it knew to be kept.
struct Ended {
    kept: u64,
    at_its_step: bool,
}

fn live_and_die(dir: &Path, run: usize, end: &End) -> Ended {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["crash::child_that_is_killed", "--exact", "--nocapture"])
        .env(CHILD, format!("{run} {}", dir.display()))
        .env("FLOWTAP_FAILPOINT", &end.step)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut output = child.stdout.take().expect("piped");
    let reading = std::thread::spawn(move || {
        let mut said = String::new();
        output.read_to_string(&mut said).expect("reads");
        said
    });
    let deadline = Instant::now() + end.life;
    let at_its_step = loop {
        if let Some(status) = child.try_wait().expect("waits") {
            assert!(status.signal().is_some(), "run {run} ended by itself: {status}");
            break true;
        }
        if Instant::now() > deadline {
            child.kill().expect("kills");
            child.wait().expect("ended");
            break false;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let said = reading.join().expect("no panic");
    // The last line may be cut.
    let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let kept = whole.lines().filter_map(|line| line.strip_prefix("kept ")?.parse().ok());
    Ended { kept: kept.max().unwrap_or(0), at_its_step }
}

/// The ids in the bucket, each as often as it lies there.
fn stored_ids(bucket: &Plain) -> Vec<String> {
    let mut ids = Vec::new();
    for name in bucket.names().iter().filter(|name| name.starts_with("exchanges/")) {
        let body = fs::read(bucket.0.join(name)).expect("reads");
        let lines = BufReader::new(flate2::read::MultiGzDecoder::new(body.as_slice())).lines();
        for line in lines {
            let line: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("json");
            ids.push(line["id"].as_str().expect("an id").to_owned());
        }
    }
    ids
}

fn bring_all(dir: &Path) -> Recovery {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (spool, recovery) = open(dir);
    runtime.block_on(async {
        let (stop, shutdown) = watch::channel(None);
        let task = tokio::spawn(archive(&spool, dir).run(shutdown));
        assert!(spool.close(Duration::from_secs(20)).await);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        stop.send(Some(deadline)).expect("it runs");
        task.await.expect("no panic");
    });
    recovery
}

/// Case 51 of the catalogue.
/// Promise (operations): after a crash at any step nothing fsynced is missing or there twice, and the
/// books balance. Figure: 20 kills (200 in `make soak`) over 10 steps, 0 missing, 0 twice.
#[test]
fn after_kills_at_every_step_nothing_fsynced_is_missing_and_the_ledger_balances() {
    let runs = std::env::var("TEST_KILLS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(20);
    let dir = tempfile::tempdir().expect("a folder");
    let ended: Vec<_> = ends(runs)
        .iter()
        .enumerate()
        .map(|(run, end)| live_and_die(dir.path(), run, end))
        .collect();
    let at_steps = ended.iter().filter(|ended| ended.at_its_step).count();
    let kept = ended.iter().map(|ended| ended.kept).sum::<u64>();
    assert!(
        kept > 100 && at_steps * 2 > ended.len(),
        "{kept} kept, {at_steps} ended at their step"
    );

    let recovery = bring_all(dir.path());
    assert_eq!((recovery.damages, recovery.set_aside), (0, 0), "a kill tears no file");
    let bucket = Plain(dir.path().join("bucket"));
    let ids = stored_ids(&bucket);
    let distinct: BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(ids.len(), distinct.len(), "no sample lies in two objects");
    for (run, ended) in ended.iter().enumerate() {
        let missing = (0..ended.kept).find(|i| !distinct.contains(&format!("{run}-{i}")));
        assert_eq!(missing, None, "run {run} had fsynced {}", ended.kept);
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let report = runtime.block_on(verify(&bucket)).expect("reads");
    assert!(report.ok, "{report}");
    let windows = report.checked.iter().filter_map(|hour| hour.ledger.as_ref());
    let windows: usize = windows.map(|row| row.unaccounted.len()).sum();
    assert!(windows >= 1, "published: {report}");
    println!(
        "{runs} kills, {at_steps} of them at their step: {kept} samples known to be fsynced, {} stored, 0 \
         missing, 0 twice",
        ids.len()
    );
}
