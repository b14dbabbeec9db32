//! The same with the process itself under fire: killed and started again, stopped for a while, told to hang
//! up, on a disk that fills, freezes, turns read-only and is forbidden, by a clock that is set, before a store
//! that fails in nine ways and is away for a third of the time, with a judge that hangs and lies, clients
//! that trickle and do not read, and a queue and a collector of spans that are not there. Between its lives
//! clients see their upstream's faults alone; nothing that was kept is missing, and the books account for
//! all but the windows that the kills tore.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use super::store::Store;
use super::surroundings::Disk;
use super::{Chance, PATHS, SEED, is_upstreams_own, upstream};
use crate::disk::{AS_NOBODY, set_mode};
use crate::support::books::Books;
use crate::support::process::{free_port, resident_bytes};
use crate::support::tap::{Flowtap, Setup, rows};
use crate::support::wire::{Peer, json_post};

/// Clients that ask one question after another.
const CLIENTS: u64 = 4;
/// What memory may be once all is quiet: the limit that it is given is 256 MiB.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// What memory may grow by from the first half's highest to the second half's.
const GROWTH_BYTES_MAX: u64 = 48 << 20;
/// The same of open files.
const GROWTH_FILES_MAX: usize = 32;
/// How long before a kill the last books may lie that are on the disk, on a busy machine.
const BOOKED_WITHIN: Duration = Duration::from_secs(2);

/// What clients and their tormentor share.
#[derive(Default)]
struct Stage {
    over: AtomicBool,
    port: AtomicU16,
    /// Where spans are taken.
    spans: AtomicU16,
    /// Odd while there is no process; another number after each.
    life: AtomicU64,
    /// Requests that were begun, whatever came of them.
    sent: AtomicU64,
    spared: AtomicU64,
    /// When each answer came that was the upstream's own.
    answered: Mutex<Vec<Instant>>,
    /// What was done to the process, and when.
    deeds: Mutex<Vec<String>>,
}

impl Stage {
    /// From now on this is the process that is asked.
    fn reach(&self, flowtap: &Flowtap) {
        self.spans.store(flowtap.port_of_endpoint("otlp_http"), Ordering::SeqCst);
        self.port.store(flowtap.port, Ordering::SeqCst);
    }

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
        let size = if chance.below(50) == 0 { 700_000 } else { chance.below(8_000) as usize };
        let body = format!("{{\"question\":\"{}\"}}", "q ".repeat(size / 2));
        stage.sent.fetch_add(1, Ordering::SeqCst);
        let question = super::ask(client, path, &body);
        let answer = client.read_response();
        if stage.life.load(Ordering::SeqCst) != life {
            stage.spared.fetch_add(1, Ordering::SeqCst);
            peer = None;
            continue;
        }
        stage.answered.lock().expect("not poisoned").push(Instant::now());
        if !is_upstreams_own(path, &answer) {
            super::tell(&mut wrong, Timestamp::now(), &question, &answer);
        }
        if !answer.complete || answer.header("connection") == Some("close") {
            peer = None;
        }
        // Some tens a second: ten minutes of them have room on the disk.
        thread::sleep(Duration::from_millis(20));
    }
    wrong
}

/// Sends what is no request, heads that never end and requests whose answers nobody reads, to the tap, and
/// spans that are none to the collector.
fn nuisance(stage: &Stage, mut chance: Chance) {
    let mut unread = Vec::new();
    while !stage.over.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(100));
        let drawn = chance.below(5);
        let port = if drawn == 4 { &stage.spans } else { &stage.port }.load(Ordering::SeqCst);
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { continue };
        let ask = |path: &str, body: &str| {
            stage.sent.fetch_add(1, Ordering::SeqCst);
            json_post(path, body)
        };
        let text = match drawn {
            0 => "POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
                .to_owned(),
            1 => "G".to_owned(),
            2 => ask("/stream", "{}"),
            3 => "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbegun".to_owned(),
            _ => json_post("/v1/traces", "{\"resourceSpans\":[{\"scopeSpans\":7}]}"),
        };
        if drawn == 3 {
            stage.sent.fetch_add(1, Ordering::SeqCst);
        }
        drop(stream.write_all(text.as_bytes()));
        unread.push(stream);
        if unread.len() > 40 {
            unread.clear();
        }
    }
}

/// The process, what happens to it, and what is seen of it meanwhile.
struct Tormentor<'a> {
    flowtap: Flowtap,
    stage: &'a Stage,
    disk: Disk,
    store: &'a Store,
    chance: Chance,
    born: Instant,
    /// Since when the disk could not be written; until when it could not.
    unusable: Option<(Instant, Instant)>,
    deaths: u64,
    panics: usize,
    /// Spans of time of which the books cannot know all, one for each kill.
    blind: Vec<(Instant, Instant)>,
    /// Memory and open files of lives that are no longer young.
    used: Vec<(u64, usize)>,
}

impl Tormentor<'_> {
    /// One thing after another happens to the process, and to what it stands on.
    fn torment(&mut self, length: Duration) {
        let begun = Instant::now();
        let mut away = false;
        while begun.elapsed() < length {
            thread::sleep(Duration::from_millis(200 + self.chance.below(1_500)));
            let third = begun.elapsed().as_secs_f64() / length.as_secs_f64() * 3.0;
            if away != (1.0..2.0).contains(&third) {
                away = !away;
                self.stage.note(if away { "the store is away" } else { "the store is back" });
                if away { self.store.go_away() } else { self.store.fall_ill() }
            }
            let drawn = self.chance.below(18);
            self.happen(drawn);
            let now = Instant::now();
            if !self.disk.is_usable() {
                let since = self.unusable.map_or(now, |(since, _)| since);
                self.unusable = Some((since, now));
            }
            assert!(self.flowtap.metrics().contains("flowtap_in_flight_requests"));
            if self.born.elapsed() > Duration::from_secs(3) {
                let id = self.flowtap.id();
                self.used.push((resident_bytes(id), super::files_open(id)));
            }
        }
        self.disk.mend();
        self.disk.set_clock(0);
        self.panics += panicked(&self.flowtap);
        assert_eq!(self.panics, 0, "it panicked in one of its lives");
    }

    fn happen(&mut self, drawn: u64) {
        let length = Duration::from_millis(self.chance.below(1_500));
        let said = match drawn {
            0 | 1 => return self.kill(),
            2 => "stopped",
            3 => "told to hang up",
            4 | 5 => "disk full",
            6 | 7 => "disk free",
            8 => "disk read-only",
            9 => "disk writable",
            10 => "folders forbidden",
            11 => "folders allowed",
            12 => "disk frozen",
            13 => "clock set",
            _ => "all is well",
        };
        self.stage.note(said);
        match drawn {
            2 => {
                self.flowtap.signal("STOP");
                thread::sleep(length);
                self.flowtap.signal("CONT");
            }
            3 => (0..20).for_each(|_| self.flowtap.signal("HUP")),
            4 | 5 => self.disk.fill(),
            6 | 7 => self.disk.empty(),
            8 => self.disk.turn_read_only(),
            9 => self.disk.turn_writable(),
            10 => self.disk.forbid(),
            11 => self.disk.allow(),
            12 => self.disk.freeze(length),
            13 => {
                const AHEAD: [i64; 7] = [0, 1, -1, 3_600, -3_600, 3 * 86_400, -40];
                self.disk.set_clock(AHEAD[self.chance.below(7) as usize]);
            }
            _ => self.disk.mend(),
        }
        self.stage.note("done");
    }

    fn kill(&mut self) {
        self.stage.note("killed");
        self.panics += panicked(&self.flowtap);
        let killed = Instant::now();
        self.stage.life.fetch_add(1, Ordering::SeqCst);
        self.flowtap.restart_after_kill();
        self.stage.reach(&self.flowtap);
        self.stage.life.fetch_add(1, Ordering::SeqCst);
        self.stage.note("back");
        // Where the disk could not be written, the books go back to when it could.
        let late = self.unusable.filter(|(_, until)| *until + 3 * BOOKED_WITHIN > killed);
        let from = late.map_or(killed, |(since, _)| since) - BOOKED_WITHIN;
        self.blind.push((from, Instant::now()));
        self.unusable = None;
        self.born = Instant::now();
        self.deaths += 1;
    }

    /// Answers that the books must know of.
    fn booked(&self) -> u64 {
        let answered = self.stage.answered.lock().expect("not poisoned");
        let blind = |at: &Instant| self.blind.iter().any(|(from, to)| (from..=to).contains(&at));
        answered.iter().filter(|at| !blind(at)).count() as u64
    }

    /// The highest memory and number of files of both halves of the time.
    fn halves(&self) -> [(u64, usize); 2] {
        let (first, second) = self.used.split_at(self.used.len() / 2);
        [first, second].map(|half| {
            let memory = half.iter().map(|(memory, _)| *memory).max().unwrap_or(0);
            (memory, half.iter().map(|(_, files)| *files).max().unwrap_or(0))
        })
    }
}

impl<'a> Tormentor<'a> {
    fn new(flowtap: Flowtap, stage: &'a Stage, disk: Disk, store: &'a Store) -> Self {
        Self {
            flowtap,
            stage,
            disk,
            store,
            chance: Chance(SEED),
            born: Instant::now(),
            unusable: None,
            deaths: 0,
            panics: 0,
            blind: Vec::new(),
            used: Vec::new(),
        }
    }

    /// Once all is well again: what is in the bucket, and what the books say of it.
    fn end(self, objects: &std::path::Path) {
        let (stage, store) = (self.stage, self.store);
        self.flowtap.await_idle();
        super::all_is_brought(&self.flowtap);
        let memory = resident_bytes(self.flowtap.id());
        assert!(memory < MEMORY_BYTES_MAX, "{memory} bytes");
        assert_eq!(self.flowtap.metric("flowtap_panics_total", &[]), 0.0);
        let (booked, halves) = (self.booked(), self.halves());
        let sent = stage.sent.load(Ordering::SeqCst);
        let answered = stage.answered.lock().expect("not poisoned").len();
        drop(self.flowtap.stop());
        let books = Books::of(objects);
        let scores = rows(&objects.join("bucket").join("scores")).len();
        println!(
            "{sent} sent, {answered} answered ({booked} of them far from kills), {} cut by {} kills, {books:?}, \
             {scores} scores, store {:?} and away {}, disk {}, memory and files {halves:?}, {} MiB",
            stage.spared.load(Ordering::SeqCst),
            self.deaths,
            store.failures(),
            store.refused(),
            self.disk.is_mounted(),
            memory >> 20
        );
        if books.lost("spool", "corrupt") > 0 {
            let lines = rows(&objects.join("bucket").join("ledger"));
            let torn = |row: &&Value| row["dropped"].to_string().contains("corrupt");
            lines.iter().filter(torn).for_each(|row| println!("{row}"));
            println!("{}", stage.deeds.lock().expect("not poisoned").join("\n"));
        }
        is_all_there(objects, &books);
        assert!((booked..=sent).contains(&books.seen), "{booked} <= {} <= {sent}", books.seen);
        let [(memory, files), (memory_after, files_after)] = halves;
        assert!(memory_after <= memory + GROWTH_BYTES_MAX, "memory grew: {halves:?}");
        assert!(files_after <= files + GROWTH_FILES_MAX, "files open: {halves:?}");
    }
}

/// How often a life panicked, as its log tells.
fn panicked(flowtap: &Flowtap) -> usize {
    let log = flowtap.printed();
    let told = log.lines().filter(|line| line.contains("\"message\":\"panic\""));
    told.inspect(|line| println!("{line}")).count()
}

fn setup(upstream: u16, store: &Store, disk: &Disk, judge: &str) -> Setup {
    let (nobody, port, folder) = (free_port(), store.port(), disk.folder().display());
    let setup = Setup::before(upstream)
        .tap("timeouts: {header: 5s}")
        .top("sample: {rate: 1}\ncapture: {process_bytes_max: 256MiB}")
        .top(&format!("spool: {{dir: {folder}/spool, segment_age: 1s, segment_bytes: 1MiB, bytes_max: 384MiB}}"))
        .top(&format!("data_dir: {folder}/data"))
        .top(&format!("bucket: {{url: s3://samples, endpoint: \"http://127.0.0.1:{port}\", region: r, path_style: true, access_key_id: k, secret_access_key: s}}"))
        .top(&format!("queue: {{nats: \"nats://127.0.0.1:{nobody}\"}}"))
        .top("collector: {otlp_http: 127.0.0.1:0}\nevaluate: {poll: 2s}")
        .top(&format!("judge: {{url: \"{judge}\", model: scripted, retry_for: 1s}}"))
        .top(&format!("trace: {{otlp_endpoint: \"http://127.0.0.1:{nobody}\", protocol: http}}"));
    set_mode(setup.folder(), 0o755);
    let [preload, clock] = disk.clock();
    let setup = setup.environment(preload.0, &preload.1).environment(clock.0, &clock.1);
    if disk.has_nobody() { setup.by(&AS_NOBODY) } else { setup }
}

/// What the bucket holds in the end: each sample once, each score once, as many as the books say.
fn is_all_there(objects: &std::path::Path, books: &Books) {
    let stored = rows(&objects.join("bucket").join("exchanges"));
    let ids: BTreeSet<_> = stored.iter().map(|row| row["id"].to_string()).collect();
    assert_eq!((ids.len(), stored.len() as u64), (stored.len(), books.stored), "{books:?}");
    let scores = rows(&objects.join("bucket").join("scores"));
    let of = |row: &Value| format!("{} {} {}", row["exchange"], row["criterion"], row["name"]);
    let distinct: BTreeSet<_> = scores.iter().map(of).collect();
    assert_eq!(distinct.len(), scores.len(), "a sample was judged and stored twice");
    let safe = |reason: &String| !(reason.starts_with("archive/") || reason == "spool/corrupt");
    assert!(books.dropped.keys().all(safe), "fsynced and lost: {books:?}");
}

/// Promise (operations): killed, stopped, its disk full, frozen, read-only and forbidden, its clock set and its
/// store failing, all at once, it gives no wrong answer, stores each sample once, and its books balance. Figure:
/// `make soak` alone: 300 s with 32 kills, 16,533 stored once, 0 wrong answers.
///
/// Cases 34, 49, 51, 53, 54, 55 and 80 of the catalogue, at once. For `make soak` alone, since it takes minutes
/// to tell anything. Where an answer is wrong it says why it ended, and what was done to whom shortly before.
#[test]
fn killed_stopped_and_starved_it_loses_nothing_that_was_kept() {
    let seconds = std::env::var("TEST_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let Some(length) = seconds.map(Duration::from_secs) else {
        return eprintln!("left to make soak");
    };
    let (upstream, judge, home) =
        (upstream(), super::judge(), tempfile::tempdir().expect("a folder"));
    let objects = tempfile::tempdir().expect("a folder");
    let disk = Disk::mount(home.path());
    let store = Store::start(objects.path().join("bucket"), SEED);
    let flowtap = setup(upstream.port, &store, &disk, &judge.url()).start();
    let stage = Arc::new(Stage::default());
    stage.reach(&flowtap);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let stage = Arc::clone(&stage);
            thread::spawn(move || client(&stage, Chance(SEED * 1000 + n)))
        })
        .collect();
    let shared = Arc::clone(&stage);
    let nuisance = thread::spawn(move || nuisance(&shared, Chance(SEED)));
    let mut tormentor = Tormentor::new(flowtap, &stage, disk, &store);
    tormentor.torment(length);
    stage.over.store(true, Ordering::SeqCst);
    let wrong: Vec<String> =
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
    nuisance.join().expect("no panic");
    let told = stage.explained(&wrong);
    assert!(wrong.is_empty(), "clients saw what was not their upstream's:\n{told}");
    store.recover();
    tormentor.end(objects.path());
}
