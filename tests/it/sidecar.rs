//! A native sidecar's life beside its application, as the kubelet makes it: started first, restarted in the
//! midst of traffic, killed where no time is left.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::image::variables;
use crate::support::process::Process;
use crate::support::tap::{address, rows};
use crate::support::wire::{Peer, Upstream, json_post, json_response};

/// A port that stays free between two processes that listen on it: the kernel gives it to no connection,
/// since it lies below those that it gives away (32768 and up).
fn kept_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let first = usize::try_from(std::process::id()).unwrap_or_default() * 16;
    let mut tried = (0..10_000).map(|_| {
        let port = 21_000 + (first + NEXT.fetch_add(1, Ordering::SeqCst)) % 10_000;
        u16::try_from(port).expect("a port")
    });
    tried.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// A pod's ports and its volume; the container in it may be started many times.
struct Pod {
    app: u16,
    tap: u16,
    admin: u16,
    volume: tempfile::TempDir,
}

impl Pod {
    fn before(app: u16) -> Self {
        let volume = tempfile::tempdir().expect("a folder");
        Self { app, tap: kept_port(), admin: kept_port(), volume }
    }

    /// The container that `flowtap inject` makes of the example, on loopback.
    fn start(&self) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
        let folder = self.volume.path().display();
        command.arg("proxy").env_clear();
        command.envs(variables("deploy/kubernetes/app-with-flowtap.yaml"));
        command.envs([
            ("FLOWTAP_TAPS__0__UPSTREAM", format!("http://127.0.0.1:{}", self.app)),
            ("FLOWTAP_TAPS__0__LISTEN", format!("127.0.0.1:{}", self.tap)),
            ("FLOWTAP_ADMIN__LISTEN", format!("127.0.0.1:{}", self.admin)),
            ("FLOWTAP_DATA_DIR", folder.to_string()),
            ("FLOWTAP_BUCKET", format!("file://{folder}/bucket")),
            ("FLOWTAP_SAMPLE__RATE", "1".to_owned()),
            ("FLOWTAP_SPOOL__SEGMENT_AGE", "200ms".to_owned()),
        ]);
        Process::start("the sidecar", &mut command)
    }

    fn await_ready(&self, process: &mut Process) {
        process.await_http(self.admin, "/readyz", Duration::from_secs(60));
    }

    /// The status that a caller with a connection of its own gets, or how it fails.
    fn ask(&self, question: &str) -> Result<u16, ErrorKind> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.tap));
        let limit = Duration::from_secs(30);
        let status = || {
            let mut stream = TcpStream::connect_timeout(&address, limit)?;
            stream.set_read_timeout(Some(limit))?;
            let body = format!("{{\"question\":\"{question}\"}}");
            stream.write_all(json_post("/score", &body).as_bytes())?;
            let mut head = [0; 12];
            stream.read_exact(&mut head)?;
            Ok(String::from_utf8_lossy(&head[9..]).parse().unwrap_or_default())
        };
        status().map_err(|error: std::io::Error| error.kind())
    }
}

/// The CPU time that a process has taken, in seconds.
fn cpu_seconds(process: &Process) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("it runs");
    let (_, after) = stat.rsplit_once(") ").expect("its name stands in brackets");
    // Fields 14 and 15, in hundredths: the third is the first after the name.
    let ticks = |field: usize| after.split(' ').nth(field - 3)?.parse::<f64>().ok();
    (ticks(14).expect("utime") + ticks(15).expect("stime")) / 100.0
}

/// Promise (operations): the sidecar is ready before its application is; until that listens, callers are
/// told 502 at once, and from then on they are served. Figure: ready after less than 1 s of CPU time, with
/// the unoptimised program.
#[test]
fn it_is_ready_before_its_application_and_serves_once_that_listens() {
    let pod = Pod::before(kept_port());
    let began = Instant::now();
    let mut sidecar = pod.start();
    pod.await_ready(&mut sidecar);
    let took = cpu_seconds(&sidecar);
    println!("ready after {:?}, of them {took} s of CPU time", began.elapsed());
    assert!(took < 1.0, "{took}");
    assert_eq!(pod.ask("early"), Ok(502));
    let app = TcpListener::bind(("127.0.0.1", pod.app)).expect("its port is free");
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = app.accept().expect("a connection");
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).expect("a request") > 0);
        stream.write_all(json_response("{\"answer\":\"yes\"}").as_bytes()).expect("sent");
    });
    assert_eq!(pod.ask("then"), Ok(200));
    serving.join().expect("the application");
    sidecar.terminate();
    assert!(sidecar.await_end(Duration::from_secs(60)).success(), "{}", sidecar.printed());
}

/// What callers saw of a restart: when each began and ended, and how.
type Seen = Vec<(Instant, Instant, Result<u16, ErrorKind>)>;

/// Asks on and on until told to end.
fn call(pod: &Pod, ending: &AtomicBool, answered: &AtomicUsize) -> Seen {
    let mut seen = Vec::new();
    while !ending.load(Ordering::SeqCst) {
        let began = Instant::now();
        let result = pod.ask("again");
        answered.fetch_add(usize::from(result.is_ok()), Ordering::SeqCst);
        seen.push((began, Instant::now(), result));
        if result.is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    seen
}

#[track_caller]
fn await_more(answered: &AtomicUsize, count: usize) {
    let wanted = answered.load(Ordering::SeqCst) + count;
    let deadline = Instant::now() + Duration::from_secs(60);
    while answered.load(Ordering::SeqCst) < wanted {
        assert!(Instant::now() < deadline, "nobody is answered");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Promise (operations): a sidecar that is killed in the midst of traffic costs what is under way and what
/// comes until it is ready again, which is refused at once and never left hanging; nothing before, nothing
/// after. Figure: 4 callers, 400 answers, 0 errors outside of that window.
#[test]
fn a_restart_in_the_midst_of_traffic_costs_the_window_until_it_is_ready_and_nothing_else() {
    let app = Upstream::answering(json_response("{\"answer\":\"yes\"}"));
    let pod = Pod::before(app.port);
    let mut sidecar = pod.start();
    pod.await_ready(&mut sidecar);
    let (ending, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (killed, ready, seen) = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| call(&pod, &ending, &answered))).collect();
        await_more(&answered, 200);
        let killed = Instant::now();
        sidecar.signal("KILL");
        sidecar.await_end(Duration::from_secs(60));
        let mut next = pod.start();
        pod.await_ready(&mut next);
        let ready = Instant::now();
        await_more(&answered, 200);
        ending.store(true, Ordering::SeqCst);
        let seen: Vec<Seen> =
            callers.into_iter().map(|caller| caller.join().expect("a caller")).collect();
        (killed, ready, seen.concat())
    });
    println!("ready again {:?} after it was killed", ready - killed);
    for (began, ended, result) in seen {
        match result {
            Ok(status) => assert_eq!(status, 200),
            Err(kind) => {
                assert!(ended >= killed && began <= ready, "{kind} outside of the window");
                assert!(kind != ErrorKind::WouldBlock && kind != ErrorKind::TimedOut, "{kind}");
            }
        }
    }
}

/// Promise (operations): where a pod's time is over, what was synced to the volume is uploaded by the next
/// container. Figure: 30 requests and a stream, SIGTERM and SIGKILL at once, with the bucket away.
#[test]
fn with_no_time_left_what_was_synced_is_uploaded_by_the_next_container() {
    let app = Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            match request.text().contains("\"endless\"") {
                true => {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
                    peer.chunk("data: {\"answer\": \"word\"}\n\n");
                }
                false => {
                    peer.send(json_response("{\"answer\":\"yes\"}"));
                }
            }
        }
    });
    let pod = Pod::before(app.port);
    let bucket = pod.volume.path().join("bucket");
    fs::write(&bucket, "in the way").expect("a file where the bucket's folder would be");
    let mut sidecar = pod.start();
    pod.await_ready(&mut sidecar);
    let mut stream = Peer::connect(pod.tap);
    stream.send(json_post("/score", "{\"question\":\"endless\"}"));
    assert!(stream.read_until(b"word").is_some());
    for number in 0..30 {
        assert_eq!(pod.ask(&number.to_string()), Ok(200));
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let synced = || {
        crate::support::servers::ask(
            SocketAddr::from(([127, 0, 0, 1], pod.admin)),
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
        .is_ok_and(|text| {
            !text.contains("flowtap_spool_unsynced_seconds_count 0\n")
                && text.contains("flowtap_spool_unsynced_seconds_count ")
        })
    };
    while !synced() {
        assert!(Instant::now() < deadline, "nothing is synced: {}", sidecar.printed());
        std::thread::sleep(Duration::from_millis(20));
    }
    sidecar.terminate();
    sidecar.signal("KILL");
    sidecar.await_end(Duration::from_secs(60));
    fs::remove_file(&bucket).expect("the way is clear");
    let mut next = pod.start();
    pod.await_ready(&mut next);
    assert_eq!(pod.ask("after"), Ok(200));
    next.terminate();
    assert!(next.await_end(Duration::from_secs(60)).success(), "{}", next.printed());
    let stored = rows(&bucket.join("exchanges"));
    let count = |question: &str| stored.iter().filter(|row| row["question"] == question).count();
    assert_eq!(count("after"), 1, "{stored:?}\n{}", next.printed());
    let kept: Vec<usize> = (0..30).map(|number| count(&number.to_string())).collect();
    assert!(kept.iter().all(|count| *count <= 1), "none is there twice: {kept:?}");
    assert!(kept.contains(&1), "{}", next.printed());
}

/// Promise (operations): told to end at any moment from when it listens, it drains; no moment of its start
/// leaves a signal to the kernel, which ends a process without a drain, and the first of a container not
/// at all. Figure: 8 of 8 told as soon as the tap listens.
#[test]
fn it_drains_though_it_is_told_to_end_as_soon_as_it_listens() {
    let app = Upstream::answering(json_response("{\"answer\":\"yes\"}"));
    let pod = Pod::before(app.port);
    for _ in 0..8 {
        let mut sidecar = pod.start();
        address(&sidecar, "\"tap\":");
        sidecar.terminate();
        assert!(sidecar.await_end(Duration::from_secs(60)).success(), "{}", sidecar.printed());
        assert!(sidecar.printed().contains("\"drained\""), "{}", sidecar.printed());
    }
}
