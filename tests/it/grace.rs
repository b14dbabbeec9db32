//! What Kubernetes does to a pod that ends: SIGTERM, and SIGKILL once the grace period is over. With 30
//! seconds nothing is cut, with 5 all is told, with 0 what was fsynced survives on the volume.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use crate::streams::{chat_post, delta};
use crate::support::books::Books;
use crate::support::tap::{Flowtap, Setup, rows};
use crate::support::wire::{Peer, Upstream, json_post, json_response};

const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What `flowtap inject` makes of a pod's grace period.
fn drain_timeout(grace_seconds: u64) -> String {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  terminationGracePeriodSeconds: \
         {grace_seconds}\n  containers:\n    - {{name: a, image: b, ports: [{{containerPort: 80}}]}}\n"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pod.yaml");
    fs::write(&file, pod).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    let input = fs::File::open(&file).expect("opened");
    let output = command.arg("inject").stdin(input).output().expect("flowtap runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let line =
        text.lines().find(|line| line.contains("FLOWTAP_DRAIN_TIMEOUT")).expect("a variable");
    line.rsplit("value: ").next().expect("a value").trim_end_matches('}').replace('"', "")
}

/// A stream that goes on until its sender is dropped.
fn endless() -> (Upstream, Sender<()>) {
    let (hold, held) = channel::<()>();
    let held = std::sync::Mutex::new(held);
    let upstream = Upstream::start(move |peer| {
        while peer.read_request().is_some() {
            peer.send(STREAM_HEAD);
            peer.chunk(delta("word"));
            let _ended = held.lock().expect("one stream").recv();
            peer.chunk(delta("the end"));
            peer.send("0\r\n\r\n");
        }
    });
    (upstream, hold)
}

fn begin_stream(flowtap: &Flowtap) -> Peer {
    let mut client = flowtap.client();
    client.send(chat_post());
    assert!(client.read_until(b"word").is_some());
    client
}

fn with_grace(upstream: &Upstream, grace_seconds: u64) -> Setup {
    let drain = drain_timeout(grace_seconds);
    Setup::before(upstream.port)
        .command("proxy")
        .top(&format!("sample: {{rate: 1}}\ndrain_timeout: {drain}"))
}

#[test]
fn with_30_seconds_a_stream_that_ends_in_time_is_whole() {
    assert_eq!(drain_timeout(30), "25s");
    let (upstream, hold) = endless();
    let flowtap = with_grace(&upstream, 30).start();
    let mut client = begin_stream(&flowtap);
    flowtap.terminate();
    while !flowtap.printed().contains("\"draining\"") {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(hold);
    assert!(client.read_until(b"the end").is_some(), "it was cut");
    assert!(client.read_to_end().ends_with(b"0\r\n\r\n"));
    let asked = Instant::now();
    let stopped = flowtap.ended();
    println!("ended {:?} after its last stream", asked.elapsed());
    assert!(stopped.printed.contains("\"drained\""), "{}", stopped.printed);
    assert_eq!(stopped.rows("exchanges")[0]["outcome"], "ok");
}

#[test]
fn with_5_seconds_what_does_not_end_is_cut_and_all_is_told() {
    assert_eq!(drain_timeout(5), "2s");
    let (upstream, _hold) = endless();
    let flowtap = with_grace(&upstream, 5).start();
    let mut client = begin_stream(&flowtap);
    let asked = Instant::now();
    flowtap.terminate();
    let stopped = flowtap.ended();
    println!("ended after {:?}", asked.elapsed());
    assert!(stopped.printed.contains("cut at the drain deadline"), "{}", stopped.printed);
    assert!(!client.read_to_end().ends_with(b"0\r\n\r\n"), "a cut stream looks cut");
    let books = Books::of(stopped.folder());
    assert_eq!((books.seen, books.stored), (1, 1), "{books:?}");
}

/// The deadline has passed when SIGTERM comes; what no longer carries traffic gets its moment.
#[test]
fn with_0_seconds_left_it_ends_by_itself_and_all_is_told() {
    assert_eq!(drain_timeout(0), "0s");
    let (upstream, _hold) = endless();
    let flowtap = with_grace(&upstream, 0).start();
    let _client = begin_stream(&flowtap);
    let asked = Instant::now();
    flowtap.terminate();
    let stopped = flowtap.ended();
    println!("ended after {:?}", asked.elapsed());
    let kept = Books::of(stopped.folder());
    assert_eq!(kept.seen, 1, "{kept:?}");
}

/// A small file system of its own, unmounted with the test.
struct Volume(PathBuf);

impl Volume {
    /// `None` where the machine lets nobody mount one.
    fn of(folder: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(folder).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "spool"]).arg(folder);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(folder.to_owned()))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a test that failed may have left a process there.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// An `emptyDir` with a `sizeLimit`, full; then the container is killed and starts again on it.
#[test]
fn a_full_volume_costs_samples_alone_and_outlives_the_container() {
    let upstream = Upstream::answering(json_response("{\"answer\":\"yes\"}"));
    let setup = Setup::before(upstream.port).command("proxy");
    let folder = setup.folder().to_owned();
    let Some(_volume) = Volume::of(&folder.join("spool"), "1m") else {
        return eprintln!("skipped: needs root and mounts");
    };
    let bucket = folder.join("bucket");
    fs::write(&bucket, "in the way").expect("a file where the bucket's folder would be");
    let spool = folder.join("spool").display().to_string();
    let flowtap = setup
        .top(&format!(
            "sample: {{rate: 1}}\nspool: {{dir: {spool}, bytes_max: 1GiB, segment_age: 200ms}}"
        ))
        .start();
    let lost = ["stage=\"spool\"", "reason=\"disk_full\""];
    let mut client = flowtap.client();
    let mut sent = 0;
    while flowtap.metric("flowtap_dropped_total", &lost) < 1.0 {
        assert!(sent < 500, "{}", flowtap.printed());
        let question = format!("{{\"question\":\"{sent} {}\"}}", "why ".repeat(10_000));
        client.send(json_post("/score", &question));
        assert_eq!(client.read_response().status(), 200, "traffic needs no disk");
        sent += 1;
    }
    let kept = flowtap.metric("flowtap_spool_bytes", &[]);
    assert!(kept > 100_000.0, "{kept}");
    fs::remove_file(&bucket).expect("the way is clear");
    drop(client);
    let flowtap = flowtap.kill_and_restart();
    let deadline = Instant::now() + Duration::from_secs(60);
    while rows(&folder.join("bucket/exchanges")).len() < 5 {
        assert!(Instant::now() < deadline, "{}", flowtap.printed());
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut client = flowtap.client();
    client.send(json_post("/score", "{\"question\":\"after\"}"));
    assert_eq!(client.read_response().status(), 200);
    drop(client);
    let stopped = flowtap.stop();
    let last = |row: &serde_json::Value| row["question"] == "after";
    assert!(stopped.rows("exchanges").iter().any(last), "there is room again: {}", stopped.printed);
}
