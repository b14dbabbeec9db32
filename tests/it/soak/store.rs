//! An object store that fails as stores do: errors, silence, resets, drips, lies. What it takes lies in a
//! folder in the layout of the bucket, so that it can be verified afterwards. It speaks as much of S3 as an
//! evaluator and a hub need: PUT, PUT if absent, GET, DELETE and listings by pages.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::Chance;
use crate::support::wire::{Message, Peer, Upstream};

/// Objects of one page of a listing: as many as S3's.
const PAGE: usize = 1000;

/// The store, and how often it failed in which way.
pub struct Store {
    upstream: Upstream,
    shared: Arc<Shared>,
}

/// How it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    /// Half of all requests fail.
    Ill,
    /// All goes well.
    Well,
    /// Nothing is taken.
    Away,
}

struct Shared {
    health: Mutex<Health>,
    chance: Mutex<Chance>,
    failures: [AtomicU64; FAULTS.len()],
    refused: AtomicU64,
    /// The names of what was taken, in the order in which it came.
    taken: Mutex<Vec<String>>,
    /// What is under way, and how much that was at most.
    under_way: AtomicU64,
    most: AtomicU64,
}

/// Its faults. Each as often as the others; half of all requests go well.
const FAULTS: [&str; 9] = [
    "500",
    "503",
    "403",
    "404",
    "redirect",
    "silence",
    "reset",
    "taken, then reset",
    "a slow answer",
];

impl Store {
    /// Starts it over `folder`.
    pub fn start(folder: PathBuf, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            health: Mutex::new(Health::Ill),
            chance: Mutex::new(Chance(seed)),
            failures: Default::default(),
            refused: AtomicU64::new(0),
            taken: Mutex::default(),
            under_way: AtomicU64::new(0),
            most: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        let upstream = Upstream::start(move |peer| {
            while let Some(request) = peer.read_request() {
                let under_way = serving.under_way.fetch_add(1, Ordering::SeqCst) + 1;
                serving.most.fetch_max(under_way, Ordering::SeqCst);
                let goes_on = answer(peer, &request, &folder, serving.fault(&request));
                serving.under_way.fetch_sub(1, Ordering::SeqCst);
                if !goes_on {
                    return;
                }
            }
        });
        Self { upstream, shared }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.upstream.port
    }

    /// From now on all goes well.
    pub fn recover(&self) {
        *self.shared.health.lock().expect("not poisoned") = Health::Well;
    }

    /// From now on half of all requests fail.
    pub fn fall_ill(&self) {
        *self.shared.health.lock().expect("not poisoned") = Health::Ill;
    }

    /// From now on nothing is taken.
    pub fn go_away(&self) {
        *self.shared.health.lock().expect("not poisoned") = Health::Away;
    }

    /// How often it failed, by fault.
    pub fn failures(&self) -> Vec<(&'static str, u64)> {
        let counted = self.shared.failures.iter().map(|count| count.load(Ordering::SeqCst));
        FAULTS.into_iter().zip(counted).collect()
    }

    /// How often it refused while it was away.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// The names of what was taken, in the order in which it came.
    pub fn taken(&self) -> Vec<String> {
        self.shared.taken.lock().expect("not poisoned").clone()
    }

    /// How many requests were under way at once, at most.
    pub fn most_at_once(&self) -> u64 {
        self.shared.most.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// How a request fails, if it does.
    fn fault(&self, request: &Message) -> Option<&'static str> {
        let health = *self.health.lock().expect("not poisoned");
        if health == Health::Away {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Some("503");
        }
        let drawn = self.chance.lock().expect("not poisoned").below(2 * FAULTS.len() as u64);
        let drawn = usize::try_from(drawn).expect("small");
        let fault = FAULTS.get(drawn).filter(|_| health == Health::Ill);
        match (fault, self.failures.get(drawn)) {
            (Some(_), Some(counter)) => drop(counter.fetch_add(1, Ordering::SeqCst)),
            _ => self.taken.lock().expect("not poisoned").extend(name(request)),
        }
        fault.copied()
    }
}

fn answer(peer: &mut Peer, request: &Message, folder: &Path, fault: Option<&str>) -> bool {
    let said = |status: &str, code: &str| {
        xml(status, &format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code></Error>"))
    };
    match fault {
        Some("500") => peer.send(said("500 Internal Server Error", "InternalError")),
        Some("503") => peer.send(said("503 Slow Down", "SlowDown")),
        Some("403") => peer.send(said("403 Forbidden", "RequestTimeTooSkewed")),
        Some("404") => peer.send(said("404 Not Found", "NoSuchBucket")),
        Some("redirect") => peer.send(said("301 Moved Permanently", "PermanentRedirect")),
        Some("silence") => {
            peer.is_closed_within(Duration::from_secs(3));
            false
        }
        Some("reset") => {
            peer.reset();
            false
        }
        Some("taken, then reset") => {
            obey(request, folder);
            peer.reset();
            false
        }
        slow => {
            let answer = obey(request, folder);
            let (head, rest) =
                answer.split_at(answer.len().min(if slow.is_some() { 80 } else { 0 }));
            for bytes in head.chunks(4) {
                peer.send(bytes);
                thread::sleep(Duration::from_millis(20));
            }
            peer.send(rest)
        }
    }
}

/// Method, name and query of a request, the name without the bucket's.
fn target(request: &Message) -> (&str, String, String) {
    let mut words = request.head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let name = path.strip_prefix("/samples").unwrap_or(path).replace("%3D", "=");
    assert!(!name.contains(".."), "{name}");
    (method, name.trim_start_matches('/').to_owned(), query.to_owned())
}

/// The name of the object of a PUT.
fn name(request: &Message) -> Option<String> {
    let (method, name, _) = target(request);
    (method == "PUT").then_some(name)
}

/// Does what is asked, and says what came of it.
fn obey(request: &Message, folder: &Path) -> Vec<u8> {
    let (method, name, query) = target(request);
    let path = folder.join(&name);
    let empty = |status: &str| {
        format!("HTTP/1.1 {status}\r\nETag: \"x\"\r\nContent-Length: 0\r\n\r\n").into_bytes()
    };
    match method {
        "PUT" if request.header("if-none-match").is_some() && path.exists() => {
            xml("412 Precondition Failed", "<Error><Code>PreconditionFailed</Code></Error>").into()
        }
        "PUT" => {
            take(request, &path, folder);
            empty("200 OK")
        }
        "DELETE" => {
            drop(std::fs::remove_file(&path));
            empty("204 No Content")
        }
        _ if name.is_empty() => xml("200 OK", &page(folder, &query)).into(),
        _ => match std::fs::read(&path) {
            Ok(body) => [object_head(body.len()).into_bytes(), body].concat(),
            Err(_) => xml("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>").into(),
        },
    }
}

fn xml(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn object_head(bytes: usize) -> String {
    let modified = "Last-Modified: Mon, 23 Nov 2026 22:47:50 GMT";
    format!("HTTP/1.1 200 OK\r\nETag: \"x\"\r\n{modified}\r\nContent-Length: {bytes}\r\n\r\n")
}

/// One page of a listing (`ListObjectsV2`), with folders where a delimiter is asked for.
fn page(folder: &Path, query: &str) -> String {
    let asked: HashMap<String, String> =
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let given = |key: &str| asked.get(key).map_or("", String::as_str);
    let (prefix, after) = (given("prefix"), given("continuation-token").max(given("start-after")));
    let mut entries: BTreeMap<String, Option<u64>> = BTreeMap::new();
    for (name, bytes) in names(folder, folder) {
        let Some(rest) = name.strip_prefix(prefix) else { continue };
        match rest.split_once('/').filter(|_| given("delimiter") == "/") {
            Some((first, _)) => entries.insert(format!("{prefix}{first}/"), None),
            None => entries.insert(name, Some(bytes)),
        };
    }
    let rest: Vec<_> = entries.into_iter().filter(|(name, _)| name.as_str() > after).collect();
    let told = rest.iter().take(PAGE).map(|(name, bytes)| match bytes {
        None => format!("<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>"),
        Some(bytes) => format!(
            "<Contents><Key>{name}</Key><LastModified>2026-11-23T22:47:50.000Z</LastModified>\
             <ETag>&quot;x&quot;</ETag><Size>{bytes}</Size></Contents>"
        ),
    });
    let next = rest.get(PAGE - 1).filter(|_| rest.len() > PAGE);
    let next =
        next.map(|(name, _)| format!("<NextContinuationToken>{name}</NextContinuationToken>"));
    format!(
        "<ListBucketResult><IsTruncated>{}</IsTruncated>{}{}</ListBucketResult>",
        next.is_some(),
        next.unwrap_or_default(),
        told.collect::<String>()
    )
}

/// The objects below `folder`, by name, with their sizes.
fn names(root: &Path, folder: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(names(root, &path)),
            false if path.extension().is_some_and(|ending| ending == "tmp") => {}
            false => {
                let name = path.strip_prefix(root).expect("below it").display().to_string();
                found.push((name, entry.metadata().map_or(0, |meta| meta.len())));
            }
        }
    }
    found
}

/// Keeps the object of a PUT, whole or not at all.
fn take(request: &Message, path: &Path, folder: &Path) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let coding = request.header("content-encoding");
    let body = match coding.is_some_and(|coding| coding.contains("aws-chunked")) {
        true => unchunked(&request.body()),
        false => request.body(),
    };
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let fresh = folder.join(format!("{}.tmp", NUMBER.fetch_add(1, Ordering::SeqCst)));
    std::fs::write(&fresh, body).expect("written");
    std::fs::rename(&fresh, path).expect("in place");
}

/// The data of AWS's own chunks, which the checksum follows.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        let size =
            usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        data.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
    data
}
