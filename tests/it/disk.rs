//! Disks that fail in one call, take no more, or were never ours. Cases 52 and 53 of the catalogue.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::books::Books;
use crate::support::process::program;
use crate::support::tap::{Flowtap, Setup, rows};
use crate::support::wire::{Upstream, json_post, json_response};

/// For what has to happen, on a busy machine too.
const WITHIN: Duration = Duration::from_secs(60);

/// What broken, full, read-only and forbidden disks say.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EACCES: i32 = 13;

/// Calls that fail when told to, of a flowtap that `support/disk.c` is preloaded into.
struct Faults(tempfile::TempDir);

impl Faults {
    /// Those of calls below paths that hold `part`.
    fn at(part: &str, setup: Setup) -> (Self, Setup) {
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join("disk.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/disk.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
        assert!(compiler.status().expect("a C compiler, as for the build").success());
        let setup = setup
            .environment("LD_PRELOAD", &library.display().to_string())
            .environment("FAULTS", &folder.path().display().to_string())
            .environment("FAULTS_AT", part);
        (Self(folder), setup)
    }

    fn file(&self, call: &str) -> PathBuf {
        self.0.path().join(call)
    }

    /// The next `call` fails with `errno`.
    fn once(&self, call: &str, errno: i32) {
        let fresh = self.file("fresh");
        fs::write(&fresh, errno.to_string()).expect("written");
        fs::rename(&fresh, self.file(call)).expect("there at once");
    }

    /// True once that has happened.
    fn is_spent(&self, call: &str) -> bool {
        !self.file(call).exists()
    }

    /// Each `call` fails with `errno` from now on.
    fn always(&self, call: &str, errno: i32) {
        self.once(&format!("{call}.all"), errno);
    }

    /// All is well again.
    fn end(&self, call: &str) {
        fs::remove_file(self.file(&format!("{call}.all"))).expect("it was there");
    }
}

fn before(upstream: &Upstream) -> Setup {
    Setup::before(upstream.port).top("sample: {rate: 1}\ndrain_timeout: 25s")
}

/// Asks so many questions, each of which is answered at once, whatever the disk does.
fn ask(flowtap: &Flowtap, times: u64) {
    let mut client = flowtap.client();
    for number in 0..times {
        let asked = Instant::now();
        client.send(json_post("/score", &format!("{{\"question\":\"{number}\"}}")));
        let answer = client.read_response();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "{}"), "{:?}", answer.end);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    }
}

/// Asks on until `holds`, and says how often that was.
#[track_caller]
fn ask_until(flowtap: &Flowtap, what: &str, mut holds: impl FnMut() -> bool) -> u64 {
    let (deadline, mut asked) = (Instant::now() + WITHIN, 0);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} in vain:\n{}", flowtap.printed());
        ask(flowtap, 1);
        asked += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    asked
}

fn stored(flowtap: &Flowtap) -> usize {
    rows(&flowtap.folder().join("bucket").join("exchanges")).len()
}

/// Asks until more is stored than now.
#[track_caller]
fn ask_until_stored(flowtap: &Flowtap) -> u64 {
    let before = stored(flowtap);
    ask_until(flowtap, "stored again", || stored(flowtap) > before)
}

const OF_DISK: [&str; 2] = ["stage=\"spool\"", "reason=\"disk\""];

/// Case 52: the program itself, its `fdatasync` failing once. That the rows which an earlier fsync made safe
/// are saved is a unit test of `spool`.
/// Promise (operations): an fsync that fails once (EIO) costs what it was to make safe, which is counted; the
/// segment is set aside, and never taken for clean. Figure: 20 of 20 stored before, 1 file set aside, stored
/// again after, books exact.
#[test]
fn an_fsync_that_fails_once_costs_what_it_was_to_make_safe() {
    let upstream = Upstream::answering(json_response("{}"));
    let (faults, setup) = Faults::at("/spool", before(&upstream));
    let flowtap = setup.start();
    ask(&flowtap, 20);
    let deadline = Instant::now() + WITHIN;
    while stored(&flowtap) < 20 {
        assert!(Instant::now() < deadline, "stored: {}", flowtap.printed());
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut asked = 20;
    // One that comes between two groups of rows makes nothing unsafe.
    while flowtap.metric("flowtap_dropped_total", &OF_DISK) < 1.0 {
        assert!(Instant::now() < deadline, "lost: {}", flowtap.printed());
        faults.once("fdatasync", EIO);
        asked += ask_until(&flowtap, "the fsync", || faults.is_spent("fdatasync"));
    }
    asked += ask_until_stored(&flowtap);
    let aside = fs::read_dir(flowtap.folder().join("spool/corrupt")).expect("set aside").count();
    assert!(aside >= 1, "not trusted any more");
    let stopped = flowtap.stop();
    let books = Books::of(stopped.folder());
    let lost = books.lost("spool", "disk");
    assert_eq!((books.seen, books.stored + lost), (asked, asked), "{books:?}");
    assert!(lost >= 1 && books.stored >= 20, "{books:?}");
}

/// Promise (operations): whichever call of the spool the disk fails in, once, traffic passes, and every sample
/// is stored or counted as lost. Figure: 8 faults of 6 calls, stored again after each, books exact.
#[test]
fn whichever_call_of_the_spool_fails_every_sample_is_stored_or_counted() {
    let upstream = Upstream::answering(json_response("{}"));
    let (faults, setup) = Faults::at("/spool", before(&upstream));
    let flowtap = setup.start();
    let mut asked = 0;
    for (call, errno) in [
        ("open64", EROFS),
        ("open64", ENOSPC),
        ("pwrite64", ENOSPC),
        ("pwrite64", EIO),
        ("fdatasync", EIO),
        ("fsync", EIO),
        ("rename", EACCES),
        ("unlink", EACCES),
    ] {
        faults.once(call, errno);
        asked += ask_until(&flowtap, call, || faults.is_spent(call));
        asked += ask_until_stored(&flowtap);
    }
    let books = Books::of(flowtap.stop().folder());
    let lost: u64 = books.dropped.values().sum();
    assert_eq!((books.seen, books.stored + lost), (asked, asked), "{books:?}");
    assert!(books.dropped.keys().all(|reason| reason.starts_with("spool/disk")), "{books:?}");
}

/// Promise (operations): where the bucket's folder or the index has no room, or cannot be written, traffic
/// passes, no sample is lost, and all is there once it can. Figure: 2 places, 4 faults each, 0 lost.
#[test]
fn a_bucket_or_an_index_that_cannot_be_written_costs_no_sample() {
    let upstream = Upstream::answering(json_response("{}"));
    for (place, calls) in [
        ("/bucket", ["open64", "write", "rename", "fsync"]),
        ("/store", ["open64", "pwrite64", "fdatasync", "fsync"]),
    ] {
        let (faults, setup) = Faults::at(place, before(&upstream));
        let flowtap = setup.start();
        let mut asked = 0;
        for (call, errno) in calls.into_iter().zip([ENOSPC, ENOSPC, EIO, EIO]) {
            faults.always(call, errno);
            ask(&flowtap, 20);
            // Some of what fails is looked at again but once a second or rarer.
            std::thread::sleep(Duration::from_millis(700));
            faults.end(call);
            asked += 20 + ask_until_stored(&flowtap);
        }
        let books = Books::of(flowtap.stop().folder());
        assert_eq!((books.seen, books.stored), (asked, asked), "{place}: {books:?}");
    }
}

/// A user without rights, where we are root.
const NOBODY: u32 = 65532;
/// Starts a program as that user.
pub const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups"];

/// True where this user may do everything.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").expect("proc").uid() == 0
}

/// True where a user without rights can be had, and could start flowtap from `folder`.
pub fn has_nobody(folder: &Path) -> bool {
    let reaches = |path: &Path| {
        let mut command = Command::new(AS_NOBODY[0]);
        command.args(&AS_NOBODY[1..]).args(["test", "-x"]).arg(path);
        command.status().is_ok_and(|status| status.success())
    };
    !is_root() || (reaches(Path::new(&program())) && reaches(folder))
}

/// Gives `path` the mode.
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

/// Takes `folder` from whom flowtap runs as, or gives it back.
pub fn set_usable(folder: &Path, usable: bool) {
    if is_root() {
        let owner = Some(if usable { NOBODY } else { 0 });
        chown(folder, owner, owner).expect("root may");
    }
    set_mode(folder, if usable { 0o700 } else { 0o500 });
}

/// A flowtap without rights of its own; its spool is `home/spool`, in a `home` that it may use. `None` where
/// root cannot start one.
fn unprivileged(upstream: &Upstream) -> Option<(Setup, PathBuf)> {
    let setup = before(upstream).command("proxy");
    set_mode(setup.folder(), 0o755);
    if !has_nobody(setup.folder()) {
        eprintln!("left out: no user without rights can start {}", program());
        return None;
    }
    let setup = if is_root() { setup.by(&AS_NOBODY) } else { setup };
    let (home, bucket) = (setup.folder().join("home"), setup.folder().join("bucket"));
    for folder in [&home, &bucket] {
        fs::create_dir(folder).expect("a folder");
        set_usable(folder, true);
    }
    let spool = format!("spool: {{dir: {}/spool, segment_age: 200ms}}", home.display());
    Some((setup.top(&spool), home))
}

/// Starts before the spool can be used, and goes on after it can.
fn starts_without(what: &str, prevent: impl Fn(&Path) -> Option<PathBuf>, allow: impl Fn(&Path)) {
    let upstream = Upstream::answering(json_response("{}"));
    let Some((setup, home)) = unprivileged(&upstream) else { return };
    let victim = prevent(&home);
    let flowtap = setup.start();
    ask(&flowtap, 20);
    flowtap.await_metric("flowtap_dropped_total", &OF_DISK, 20.0);
    assert!(flowtap.printed().contains("cannot"), "{what}: it is said: {}", flowtap.printed());
    if let Some(victim) = victim {
        let kept = fs::read_to_string(&victim).expect("still there");
        assert_eq!(kept, "precious", "{what}");
    }
    allow(&home);
    let asked = 20 + ask_until_stored(&flowtap);
    let stopped = flowtap.stop();
    let books = Books::of(stopped.folder());
    let lost = books.lost("spool", "disk");
    assert_eq!((books.seen, books.stored + lost), (asked, asked), "{what}: {books:?}");
    let mode = |path: PathBuf| path.metadata().expect("there").mode() & 0o777;
    assert_eq!((mode(home.join("spool")), mode(home.join("spool/lock"))), (0o700, 0o600), "{what}");
}

/// Promise (operations): with a spool that cannot be used it starts and carries traffic; each sample is counted
/// as lost, which is said; once the spool can be used it is, without a restart, and a link in a file's place is
/// not followed. Figure: 3 ways (folder that may not be made, lock that is a link, folder that is a file), 20
/// lost of 20, books exact, modes 0700 and 0600.
#[test]
fn with_a_spool_that_cannot_be_used_it_starts_and_uses_it_once_it_can() {
    let forbid = |home: &Path| {
        set_usable(home, false);
        None
    };
    starts_without("forbidden", forbid, |home| set_usable(home, true));
    let link = |home: &Path| {
        let (spool, victim) = (home.join("spool"), home.join("victim"));
        fs::create_dir(&spool).expect("a folder");
        set_usable(&spool, true);
        fs::write(&victim, "precious").expect("written");
        set_mode(&victim, 0o666);
        symlink(&victim, spool.join("lock")).expect("linked");
        Some(victim)
    };
    starts_without("linked", link, |home| {
        fs::remove_file(home.join("spool/lock")).expect("removed");
    });
    let block = |home: &Path| {
        fs::write(home.join("spool"), "precious").expect("written");
        Some(home.join("spool"))
    };
    starts_without("blocked", block, |home| fs::remove_file(home.join("spool")).expect("removed"));
}

/// Promise (operations): a spool that is taken away while it is used, or made read-only, costs what could not be
/// written, which is counted; it is used again once it can be. Figure: 2 ways, books exact.
#[test]
fn a_spool_that_is_taken_away_under_way_is_used_again_once_it_can_be() {
    let upstream = Upstream::answering(json_response("{}"));
    let Some((setup, home)) = unprivileged(&upstream) else { return };
    let flowtap = setup.start();
    let mut asked = ask_until_stored(&flowtap);
    let spool = home.join("spool");
    for away in [true, false] {
        let hidden = home.join("hidden");
        match away {
            true => fs::rename(&spool, &hidden).expect("moved"),
            false => set_usable(&spool, false),
        }
        if away {
            fs::write(&spool, "in the way").expect("written");
        }
        let before = flowtap.metric("flowtap_dropped_total", &OF_DISK);
        asked += ask_until(&flowtap, "lost", || {
            flowtap.metric("flowtap_dropped_total", &OF_DISK) > before
        });
        match away {
            true => {
                fs::remove_file(&spool).expect("removed");
                fs::rename(&hidden, &spool).expect("moved back");
            }
            false => set_usable(&spool, true),
        }
        asked += ask_until_stored(&flowtap);
    }
    let books = Books::of(flowtap.stop().folder());
    let lost: u64 = books.dropped.values().sum();
    assert_eq!((books.seen, books.stored + lost), (asked, asked), "{books:?}");
}

/// Promise (operations): a run that never had a spool and is killed in the midst of an answer leaves books that
/// are in balance, with the time of which they cannot tell; what the next one sees is beside them. Figure: 20
/// seen before, 1 under way, 20 after, books exact after the kill and at the end.
#[test]
fn a_run_that_never_had_a_spool_and_is_killed_leaves_books_in_balance() {
    let upstream = Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            if !request.head.starts_with("POST /stream") {
                peer.send(json_response("{}"));
                continue;
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun");
            peer.is_closed_within(WITHIN);
        }
    });
    let setup = before(&upstream);
    let (spool, bucket) = (setup.folder().join("spool"), setup.folder().join("bucket"));
    fs::write(&spool, "in the way").expect("written");
    let flowtap = setup.start();
    let mut streaming = flowtap.client();
    streaming.send(json_post("/stream", "{}"));
    assert!(streaming.read_until(b"begun").is_some());
    ask(&flowtap, 20);
    let figures = |name: &str| {
        let rows = rows(&bucket.join("ledger"));
        rows.iter().map(|row| row[name].as_u64().expect("a figure")).sum::<u64>()
    };
    let deadline = Instant::now() + WITHIN;
    while figures("seen") < 20 {
        assert!(Instant::now() < deadline, "booked in vain: {}", flowtap.printed());
        std::thread::sleep(Duration::from_millis(20));
    }
    let home = flowtap.folder().to_owned();
    let flowtap = flowtap.kill_and_restart_after(|| {
        let books = Books::of(&home);
        assert_eq!((books.seen, books.lost("spool", "disk")), (20, 20), "{books:?}");
        let untold = rows(&bucket.join("ledger"))
            .iter()
            .any(|row| row["unaccounted"].as_array().is_some_and(|windows| !windows.is_empty()));
        assert!(untold, "the answer that was under way is not passed over in silence");
        fs::remove_file(&spool).expect("removed");
    });
    ask(&flowtap, 20);
    let books = Books::of(flowtap.stop().folder());
    assert_eq!((books.seen, books.stored, books.lost("spool", "disk")), (40, 20, 20), "{books:?}");
}
