//! Stores that cannot be trusted or that point elsewhere, before the whole program: who asks notices nothing,
//! samples wait, what belongs to the store goes to nobody else, and all of them go once it is well.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::certs::{Authority, read_head};
use crate::support::servers::AZURE_KEY;
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{READ_WITHIN, Upstream, json_post, json_response};

/// What a store says of a PUT that it has taken; each of the three finds what it looks for.
const TAKEN: &str =
    "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nx-goog-generation: 1\r\nContent-Length: 0\r\n\r\n";

/// How a server shows itself to whoever connects.
#[derive(Clone)]
enum Face {
    Tls(Arc<ServerConfig>),
    /// Accepts, and says nothing.
    Silent,
    /// Speaks HTTP where TLS is meant.
    Plain,
}

/// A store that takes whatever is PUT there, if it is trusted.
struct Store {
    port: u16,
    face: Arc<Mutex<Face>>,
    puts: Arc<AtomicUsize>,
}

impl Store {
    fn start(face: Face) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (face, puts) = (Arc::new(Mutex::new(face)), Arc::new(AtomicUsize::new(0)));
        let (shown, counter) = (Arc::clone(&face), Arc::clone(&puts));
        thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                let (face, puts) = (shown.lock().unwrap().clone(), Arc::clone(&counter));
                thread::spawn(move || serve(tcp, face, &puts));
            }
        });
        Self { port, face, puts }
    }

    fn shows(&self, face: Face) {
        *self.face.lock().unwrap() = face;
    }

    fn puts(&self) -> usize {
        self.puts.load(Ordering::SeqCst)
    }
}

fn serve(mut tcp: TcpStream, face: Face, puts: &AtomicUsize) {
    tcp.set_read_timeout(Some(READ_WITHIN)).unwrap();
    match face {
        Face::Tls(config) => {
            let session = ServerConnection::new(config).unwrap();
            take_all(StreamOwned::new(session, tcp), puts);
        }
        Face::Silent => drop(tcp.read_to_end(&mut Vec::new())),
        Face::Plain => drop(tcp.write_all(TAKEN.as_bytes())),
    }
}

fn take_all(mut stream: impl Read + Write, puts: &AtomicUsize) {
    while let Some(head) = read_head(&mut stream) {
        let head = head.to_ascii_lowercase();
        if head.contains("expect: 100-continue") {
            drop(stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n"));
        }
        let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        if stream.read_exact(&mut body).is_err() || stream.write_all(TAKEN.as_bytes()).is_err() {
            return;
        }
        puts.fetch_add(1, Ordering::SeqCst);
    }
}

/// A bucket of each kind at `url`.
fn buckets(url: &str) -> [String; 3] {
    let limits = "attempt_timeout: 2s, operation_timeout: 4s";
    [
        format!(
            "url: s3://samples, endpoint: \"{url}\", region: r, path_style: true, access_key_id: k, secret_access_key: s, {limits}"
        ),
        format!(
            "url: az://account/samples, endpoint: \"{url}/account\", access_key: \"{AZURE_KEY}\", {limits}"
        ),
        format!("url: gs://samples, endpoint: \"{url}\", anonymous: true, {limits}"),
    ]
}

fn start(upstream: &Upstream, bucket: &str, drain: &str, ca: Option<&Authority>) -> Flowtap {
    let setup = Setup::before(upstream.port)
        .top(&format!("sample: {{rate: 1}}\ndrain_timeout: {drain}"))
        .top(&format!("bucket: {{{bucket}}}"))
        .command("proxy");
    match ca {
        Some(ca) => setup.environment("SSL_CERT_FILE", &ca.ca_file().display().to_string()).start(),
        None => setup.start(),
    }
}

fn ask(flowtap: &Flowtap, times: usize) {
    let mut client = flowtap.client();
    for number in 0..times {
        let asked = Instant::now();
        client.send(json_post("/score", &format!("{{\"question\":\"{number}\"}}")));
        assert_eq!(client.read_response().status(), 200);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    }
}

/// Nothing is stored while each of `faces` is shown, which `says` is told of; all is once `good` is.
fn distrusts(store: &Store, flowtap: Flowtap, faces: &[Face], good: &Face, says: &str) {
    for face in faces {
        store.shows(face.clone());
        let failures = flowtap.metric("flowtap_archive_failures_total", &[]);
        ask(&flowtap, 5);
        flowtap.await_metric("flowtap_archive_failures_total", &[], failures + 1.0);
    }
    assert_eq!(store.puts(), 0, "{}", flowtap.printed());
    assert!(flowtap.printed().contains(says), "{}", flowtap.printed());
    assert_eq!(flowtap.metric("flowtap_dropped_total", &[]), 0.0);
    store.shows(good.clone());
    flowtap.await_metric("flowtap_archive_objects_total", &["dataset=\"exchanges\""], 1.0);
    let stopped = flowtap.stop();
    assert!(!stopped.printed.contains("stay in the spool"), "{}", stopped.printed);
}

/// Promise (security): a store whose certificate is not valid gets no sample and no credential, and costs no
/// sample. Figure: expired, another host's, an unknown authority's, no TLS, a handshake that hangs; on S3,
/// Azure and GCS; 0 requests, all stored once it is valid.
#[test]
fn a_store_that_cannot_be_trusted_gets_nothing_until_it_can() {
    let (upstream, ca, stranger) =
        (Upstream::answering(json_response("{}")), Authority::new(), Authority::new());
    let tls = |ca: &Authority, identity| Face::Tls(ca.server(&identity, false, &["http/1.1"]));
    let good = tls(&ca, ca.issue("localhost"));
    let faces = [
        tls(&ca, ca.issue_expired("localhost")),
        tls(&ca, ca.issue("other.test")),
        tls(&stranger, stranger.issue("localhost")),
        Face::Plain,
        Face::Silent,
    ];
    thread::scope(|scope| {
        for kind in 0..3 {
            let (upstream, ca, faces, good) = (&upstream, &ca, &faces, &good);
            scope.spawn(move || {
                let store = Store::start(faces[0].clone());
                let bucket = &buckets(&format!("https://localhost:{}", store.port))[kind];
                let flowtap = start(upstream, bucket, "20s", Some(ca));
                distrusts(&store, flowtap, faces, good, "certificate expired");
            });
        }
    });
}

/// Promise (security): a store that points elsewhere is not followed: neither samples nor credentials go there.
/// Figure: 301, 302, 307 and 308, on S3, Azure and GCS; 0 connections, and the samples wait.
#[test]
fn a_store_that_points_elsewhere_is_not_followed() {
    let (upstream, elsewhere) =
        (Upstream::answering(json_response("{}")), Upstream::answering(TAKEN));
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary", "308 Permanent"] {
        let to = format!("Location: http://127.0.0.1:{}/samples/x", elsewhere.port);
        let store =
            Upstream::answering(format!("HTTP/1.1 {status}\r\n{to}\r\nContent-Length: 0\r\n\r\n"));
        let started = buckets(&format!("http://127.0.0.1:{}", store.port))
            .map(|bucket| start(&upstream, &bucket, "1s", None));
        for flowtap in &started {
            ask(flowtap, 5);
        }
        for flowtap in started {
            flowtap.await_metric("flowtap_archive_failures_total", &["configuration"], 1.0);
            flowtap.await_metric("flowtap_spool_segments", &[], 1.0);
            assert_eq!(flowtap.metric("flowtap_dropped_total", &[]), 0.0);
            assert!(flowtap.stop().printed.contains("stay in the spool"), "{status}");
        }
    }
    assert!(elsewhere.received().is_empty(), "{}", elsewhere.received_text());
}
