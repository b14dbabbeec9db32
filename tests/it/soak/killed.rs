//! The same with the process itself under fire: killed and started again, stopped for a while, told to hang
//! up, short of memory and of disk, before a store that fails in nine ways, with a queue and a collector of
//! spans that are not there. Between its lives clients see their upstream's faults alone; nothing that was
//! kept is missing, and the books account for all but the windows that the kills tore.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::store::Store;
use super::{Chance, PATHS, SEED, is_upstreams_own, upstream};
use crate::support::books::Books;
use crate::support::process::{free_port, resident_bytes};
use crate::support::tap::{Flowtap, Setup, rows};
use crate::support::wire::Peer;

/// Clients that ask one question after another.
const CLIENTS: u64 = 4;
/// What memory may be once all is quiet: the limit that it is given is 256 MiB.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// What clients and their tormentor share.
#[derive(Default)]
struct Stage {
    over: AtomicBool,
    port: AtomicU16,
    /// Odd while there is no process; another number after each.
    life: AtomicU64,
    asked: AtomicU64,
    spared: AtomicU64,
    /// What was done to the process, and when.
    deeds: Mutex<Vec<String>>,
}

impl Stage {
    fn note(&self, deed: &str) {
        self.deeds.lock().expect("not poisoned").push(format!("{}: {deed}", Timestamp::now()));
    }

    /// What was wrong, and what had been done shortly before.
    fn explained(&self, wrong: &[String]) -> String {
        let deeds = self.deeds.lock().expect("not poisoned");
        let explain = |told: &String| {
            let before = deeds.partition_point(|deed| deed < told);
            let nearby = &deeds[before.saturating_sub(4)..(before + 2).min(deeds.len())];
            format!("{told}\n    while {}", nearby.join("\n          "))
        };
        wrong.iter().map(explain).collect::<Vec<_>>().join("\n")
    }
}

/// A disk of 24 MiB, where this user may mount one.
struct Disk(Option<PathBuf>);

impl Disk {
    fn mount(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(folder).output();
        Self(mount.is_ok_and(|done| done.status.success()).then(|| folder.to_owned()))
    }

    fn fill(&self) {
        if let Some(folder) = &self.0 {
            // It is full once this fails.
            drop(std::fs::write(folder.join("ballast"), vec![0; 24 << 20]));
        }
    }

    fn empty(&self) {
        if let Some(folder) = &self.0 {
            drop(std::fs::remove_file(folder.join("ballast")));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(folder) = self.0.take() {
            drop(Command::new("umount").arg("-l").arg(folder).status());
        }
    }
}

/// Asks until it is over; gives back what was wrong while the process lived.
fn client(stage: &Stage, mut chance: Chance) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut peer: Option<(u64, Peer)> = None;
    while !stage.over.load(Ordering::SeqCst) {
        let life = stage.life.load(Ordering::SeqCst);
        if life % 2 == 1 {
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        let port = stage.port.load(Ordering::SeqCst);
        if peer.as_ref().is_none_or(|(born, _)| *born != life) {
            // Between two lives nobody answers here.
            let connected = TcpStream::connect(("127.0.0.1", port)).is_ok();
            peer = connected.then(|| (life, Peer::connect(port)));
        }
        let Some((_, client)) = &mut peer else { continue };
        let path = PATHS[chance.below(PATHS.len() as u64) as usize];
        let size = if chance.below(20) == 0 { 700_000 } else { chance.below(8_000) as usize };
        let body = format!("{{\"question\":\"{}\"}}", "q ".repeat(size / 2));
        let question = super::ask(client, path, &body);
        let answer = client.read_response();
        if stage.life.load(Ordering::SeqCst) != life {
            stage.spared.fetch_add(1, Ordering::SeqCst);
            peer = None;
            continue;
        }
        stage.asked.fetch_add(1, Ordering::SeqCst);
        if !is_upstreams_own(path, &answer) {
            super::tell(&mut wrong, Timestamp::now(), &question, &answer);
        }
        if !answer.complete || answer.header("connection") == Some("close") {
            peer = None;
        }
    }
    wrong
}

/// One thing after another happens to the process. Gives it back with the number of its deaths.
fn torment(
    mut flowtap: Flowtap,
    stage: &Stage,
    disk: &Disk,
    length: Duration,
    mut chance: Chance,
) -> (Flowtap, u64) {
    let (until, mut deaths, mut panics) = (Instant::now() + length, 0, 0);
    while Instant::now() < until {
        thread::sleep(Duration::from_millis(200 + chance.below(1_500)));
        match chance.below(6) {
            0 | 1 => {
                stage.note("killed");
                panics += panicked(&flowtap);
                stage.life.fetch_add(1, Ordering::SeqCst);
                flowtap = flowtap.kill_and_restart();
                stage.port.store(flowtap.port, Ordering::SeqCst);
                stage.life.fetch_add(1, Ordering::SeqCst);
                stage.note("back");
                deaths += 1;
            }
            2 => {
                stage.note("stopped");
                flowtap.signal("STOP");
                thread::sleep(Duration::from_millis(chance.below(800)));
                flowtap.signal("CONT");
                stage.note("goes on");
            }
            3 => {
                stage.note("told to hang up");
                (0..20).for_each(|_| flowtap.signal("HUP"));
            }
            4 => {
                stage.note("disk full");
                disk.fill();
            }
            _ => {
                stage.note("disk free");
                disk.empty();
            }
        }
        assert!(flowtap.metrics().contains("flowtap_in_flight_requests"));
    }
    disk.empty();
    panics += panicked(&flowtap);
    assert_eq!(panics, 0, "it panicked in one of its lives");
    (flowtap, deaths)
}

/// How often a life panicked, as its log tells.
fn panicked(flowtap: &Flowtap) -> usize {
    let log = flowtap.printed();
    let told = log.lines().filter(|line| line.contains("\"message\":\"panic\""));
    told.inspect(|line| println!("{line}")).count()
}

fn setup(upstream: u16, store: &Store, folder: &Path) -> Setup {
    let (nobody, port) = (free_port(), store.port());
    Setup::before(upstream)
        .command("proxy")
        .tap("timeouts: {header: 5s}")
        .top("sample: {rate: 1}\ncapture: {process_bytes_max: 256MiB}")
        .top(&format!("spool: {{dir: {}/spool, segment_age: 200ms, segment_bytes: 1MiB}}", folder.display()))
        .top(&format!("bucket: {{url: s3://samples, endpoint: \"http://127.0.0.1:{port}\", region: r, path_style: true, access_key_id: k, secret_access_key: s}}"))
        .top(&format!("queue: {{nats: \"nats://127.0.0.1:{nobody}\"}}"))
        .top(&format!("trace: {{otlp_endpoint: \"http://127.0.0.1:{nobody}\", protocol: http}}"))
}

/// Cases 34, 49, 51, 54 and 80 of the catalogue, at once. For `make soak` alone, since it takes minutes to tell
/// anything. Where an answer is wrong it says why it ended, and what was done to whom shortly before.
#[test]
fn killed_stopped_and_starved_it_loses_nothing_that_was_kept() {
    let seconds = std::env::var("TEST_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let Some(length) = seconds.map(Duration::from_secs) else {
        return eprintln!("left to make soak");
    };
    let (upstream, disk_folder) = (upstream(), tempfile::tempdir().expect("a folder"));
    let objects = tempfile::tempdir().expect("a folder");
    let disk = Disk::mount(&disk_folder.path().join("disk"));
    let store = Store::start(objects.path().join("bucket"), SEED);
    let flowtap = setup(upstream.port, &store, &disk_folder.path().join("disk")).start();
    let stage = Arc::new(Stage::default());
    stage.port.store(flowtap.port, Ordering::SeqCst);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let stage = Arc::clone(&stage);
            thread::spawn(move || client(&stage, Chance(SEED * 1000 + n)))
        })
        .collect();
    let (flowtap, deaths) = torment(flowtap, &stage, &disk, length, Chance(SEED));
    stage.over.store(true, Ordering::SeqCst);
    let wrong: Vec<String> =
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
    let told = stage.explained(&wrong);
    assert!(wrong.is_empty(), "clients saw what was not their upstream's:\n{told}");
    store.recover();
    flowtap.await_idle();
    super::all_is_brought(&flowtap);
    let memory = resident_bytes(flowtap.id());
    assert!(memory < MEMORY_BYTES_MAX, "{memory} bytes");
    assert_eq!(flowtap.metric("flowtap_panics_total", &[]), 0.0);
    drop(flowtap.stop());
    let books = Books::of(objects.path());
    let stored = rows(&objects.path().join("bucket").join("exchanges"));
    let ids: std::collections::BTreeSet<_> =
        stored.iter().map(|row| row["id"].to_string()).collect();
    assert_eq!((ids.len(), stored.len() as u64), (stored.len(), books.stored), "{books:?}");
    println!(
        "{length:?}: {} asked, {} cut by {deaths} kills, {books:?}, store {:?}, disk {}, {} MiB",
        stage.asked.load(Ordering::SeqCst),
        stage.spared.load(Ordering::SeqCst),
        store.failures(),
        disk.0.is_some(),
        memory >> 20
    );
}
