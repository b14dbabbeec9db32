//! From what was typed to checked types: all faults at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::{Complaint, Report};
use super::map::Map;
use super::node::{Node, Origin};
use super::table::{MONITORS, ROOT};
use super::walk::walk;
use super::{
    Admin, Bucket, BucketStore, Config, Evaluate, Faults, Monitor, Role, Spool, Store, Tap,
};
use super::{
    alerts, bucket, env, feedback, file, judge, keep, monitors, queue, receive, serve, store, taps,
};

/// What the command line adds to the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--upstream`.
    pub upstream: Option<String>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--admin`.
    pub admin: Option<String>,
    /// `--data-dir`.
    pub data_dir: Option<String>,
    /// The command: a hub needs no tap.
    pub role: Role,
}

/// Reads, merges and checks everything that was typed: defaults, then the file, then `FLOWTAP_*`
/// of `env`, then the command line. `env` also holds what `${VAR}` may name, and `HOSTNAME`.
///
/// # Errors
/// All faults at once, each with its place; no secret is in them.
pub fn load(
    file: Option<&Path>,
    overrides: &Overrides,
    env: &[(String, String)],
) -> Result<Config, Faults> {
    let mut report = Report::new(file.map(|path| path.display().to_string()));
    let bytes = match file {
        None => Some(Vec::new()),
        Some(path) => file::read(path, &mut report),
    };
    let config = bytes.and_then(|bytes| from_bytes(bytes, overrides, env, &mut report));
    match config {
        Some(config) if report.count() == 0 => Ok(config),
        _ => Err(report.into_faults()),
    }
}

/// As [`load`], of a file that holds `bytes`.
///
/// # Errors
/// As [`load`].
#[cfg(any(test, feature = "fuzzing"))]
pub fn load_bytes(
    bytes: Vec<u8>,
    overrides: &Overrides,
    env: &[(String, String)],
) -> Result<Config, Faults> {
    let mut report = Report::new(None);
    let config = from_bytes(bytes, overrides, env, &mut report);
    match config {
        Some(config) if report.count() == 0 => Ok(config),
        _ => Err(report.into_faults()),
    }
}

/// The monitors that `text` describes, as a file would that holds `monitors` and nothing else. Nothing
/// but the text is read: no file, and no variable of the environment. Limits of custom criteria are held
/// against those of `evaluate`.
///
/// # Errors
/// All faults at once, each with its place in the text.
pub fn monitors_in(text: &str, evaluate: Option<&Evaluate>) -> Result<Vec<Monitor>, Faults> {
    let mut report = Report::new(Some("monitors".to_owned()));
    report.source(text);
    let monitors = file::parse(text, &mut report).and_then(|mut root| {
        env::expand(&mut root, &[], &mut report);
        let map = walk(&root, "", MONITORS, &mut report);
        let monitors = build_monitors(&map, &mut report);
        monitors::known(map.maps("monitors"), monitors.as_deref(), evaluate, &mut report);
        monitors
    });
    match monitors {
        Some(monitors) if report.count() == 0 => Ok(monitors),
        _ => Err(report.into_faults()),
    }
}

/// Builds `monitors`; `None` after a fault.
fn build_monitors(map: &Map, report: &mut Report) -> Option<Vec<Monitor>> {
    names(map.maps("monitors"), report);
    let built: Vec<_> =
        map.maps("monitors").iter().map(|monitor| monitors::build(monitor, report)).collect();
    built.into_iter().collect()
}

/// `load` from what the file holds.
fn from_bytes(
    bytes: Vec<u8>,
    overrides: &Overrides,
    env: &[(String, String)],
    report: &mut Report,
) -> Option<Config> {
    let text = file::text(bytes, report)?;
    report.source(&text);
    let mut root = file::parse(&text, report)?;
    env::expand(&mut root, env, report);
    env::lay_environment(&mut root, env, report);
    env::lay_options(&mut root, overrides, report);
    let map = walk(&root, "", ROOT, report);
    build(&map, &root, overrides.role, env, report)
}

/// Builds the whole; `None` after a fault.
fn build(
    map: &Map,
    root: &Node,
    role: Role,
    env: &[(String, String)],
    report: &mut Report,
) -> Option<Config> {
    let data_dir = map.path_buf("data_dir").unwrap_or_else(|| PathBuf::from("."));
    let tap_maps = map.maps("taps");
    if tap_maps.is_empty() && role != Role::Hub && map.sound(&["taps"]) {
        no_tap(root, report);
    }
    let taps: Vec<Option<Tap>> = tap_maps.iter().map(|tap| taps::build(tap, report)).collect();
    names(tap_maps, report);
    let monitors = build_monitors(map, report);
    let alerts = alerts::build(map.map("alerts")?, report);
    listeners(map, &taps, report);
    let sample = keep::build_sample(map.map("sample")?, report);
    let capture = keep::build_capture(map.map("capture")?, report);
    let join = keep::build_join(map.map("join")?);
    let feedback = feedback::build(map.map("feedback")?);
    let collector = map.map("collector").map(|map| receive::build(map, report));
    let redact = keep::build_redact(map.map("redact")?, report);
    let mut spool = keep::build_spool(map.map("spool")?, &data_dir, report);
    let bucket = match map.sound(&["bucket"]) {
        true => bucket::build(map.map("bucket"), &data_dir, report),
        false => None,
    };
    let judge = map.map("judge").and_then(|map| judge::build_judge(map, report));
    // Without the key, the defaults hold wherever there is a judge.
    let evaluate = match (map.map("evaluate"), map.given("judge")) {
        (Some(evaluate), judged) => Some(judge::build_evaluate(evaluate, judged, report)),
        (None, true) => Some(judge::evaluate_by_default(report)),
        (None, false) => None,
    };
    monitors::known(map.maps("monitors"), monitors.as_deref(), evaluate.as_ref(), report);
    let queue = map.map("queue").and_then(|map| queue::build(map, report));
    if role == Role::Run && bucket.as_ref().is_some_and(is_folder) {
        keep::hurry(&mut spool, map.map("spool")?);
    }
    let store = store::build_store(map.map("store")?, &data_dir);
    let admin = serve::build_admin(map.map("admin")?, &data_dir, report);
    apart(map, &spool, store.as_ref(), admin.as_ref(), bucket.as_ref(), report);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Some(Config {
        taps: taps.into_iter().collect::<Option<Vec<Tap>>>()?,
        sample,
        capture,
        join,
        feedback,
        collector: if let Some(built) = collector { Some(built?) } else { None },
        redact,
        bucket: bucket?,
        spool,
        judge,
        evaluate,
        queue,
        store: store?,
        monitors: monitors?,
        alerts: alerts?,
        admin: admin?,
        trace: map.map("trace").and_then(serve::build_trace),
        traffic: serve::build_traffic(map.map("traffic")?, cores),
        metrics: serve::build_metrics(map.map("metrics")?),
        instance: instance(map.text("instance"), env),
        drain_timeout: map.time("drain_timeout"),
        log: map.text("log")?.to_owned(),
        warnings: std::mem::take(&mut report.warnings),
    })
}

fn no_tap(root: &Node, report: &mut Report) {
    let origin = root.get("taps").map_or(&Origin::Nowhere, |taps| &taps.origin);
    let complaint = Complaint::new("there is no tap: nothing to listen on or to forward to")
        .allowed("`taps` with at least one entry, or `--upstream URL`");
    report.fault(origin, complaint);
}

/// The instance's name: as given, else the host's with what names cannot have replaced.
fn instance(given: Option<&str>, env: &[(String, String)]) -> Arc<str> {
    if let Some(given) = given {
        return Arc::from(given);
    }
    let host = env.iter().find(|(name, _)| name == "HOSTNAME").map_or("", |(_, host)| host);
    let plain: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .collect();
    // The end of a pod's name is what tells it from its siblings.
    let tail = plain.get(plain.len().saturating_sub(64)..).unwrap_or_default();
    let name = tail.trim_start_matches(['.', '-']);
    Arc::from(if name.is_empty() { "localhost" } else { name })
}

/// Reports entries of one list that bear the same name.
pub(super) fn names(entries: &[Map], report: &mut Report) {
    for (index, entry) in entries.iter().enumerate() {
        let Some(name) = entry.text("name").filter(|_| entry.sound(&["name"])) else { continue };
        let before = entries.iter().take(index);
        let Some(first) = before.clone().find(|entry| entry.text("name") == Some(name)) else {
            continue;
        };
        let place = report.place_in_words(first.origin("name"));
        let message = format!(
            "`{}` is the same as `{}` ({place})",
            entry.path_of("name"),
            first.path_of("name")
        );
        report.fault(entry.origin("name"), Complaint::new(message).allowed("a name of its own"));
    }
}

fn is_folder(bucket: &Bucket) -> bool {
    matches!(bucket.store, BucketStore::Local { .. })
}

/// Reports spool, bucket, store or saved monitors in one folder: each would take the other's files for its own.
fn apart(
    map: &Map,
    spool: &Spool,
    store: Option<&Store>,
    admin: Option<&Admin>,
    bucket: Option<&Bucket>,
    report: &mut Report,
) {
    let mut taken = Vec::new();
    if let Some(BucketStore::Local { path }) = bucket.map(|bucket| &bucket.store) {
        taken.push((path.as_path(), "the bucket's folder"));
    }
    for (name, key, dir, whose) in [
        ("spool", "dir", Some(&*spool.dir), "the spool's folder"),
        ("store", "dir", store.map(|store| &*store.dir), "the store's folder"),
        (
            "admin",
            "monitors_dir",
            admin.map(|admin| &*admin.monitors_dir),
            "the folder of saved monitors",
        ),
    ] {
        let Some(dir) = dir else { continue };
        if let Some((_, taker)) = taken.iter().find(|(path, _)| *path == dir) {
            let origin = map.map(name).map_or(&Origin::Nowhere, |section| section.origin(key));
            let message = format!("`{name}.{key}` is {taker}");
            report.fault(origin, Complaint::new(message).allowed("a folder of its own"));
        }
        taken.push((dir, whose));
    }
}

/// A socket we listen on, with its place.
struct Listener<'a> {
    map: &'a Map,
    name: &'static str,
    address: SocketAddr,
}

impl Listener<'_> {
    fn path(&self) -> String {
        self.map.path_of(self.name)
    }
}

/// Reports listeners that take the same socket, and taps that forward to one of them.
fn listeners(root: &Map, built: &[Option<Tap>], report: &mut Report) {
    let taps = root.maps("taps");
    let of_collector = root.map("collector").into_iter();
    let all: Vec<Listener<'_>> = taps
        .iter()
        .chain(root.map("admin"))
        .map(|map| (map, "listen"))
        .chain(of_collector.flat_map(|map| receive::LISTENERS.iter().map(move |name| (map, *name))))
        .filter(|(map, name)| map.sound(&[name]))
        .filter_map(|(map, name)| Some(Listener { map, name, address: map.listen(name)? }))
        .filter(|listener| listener.address.port() != 0)
        .collect();
    for (index, listener) in all.iter().enumerate() {
        let taken = all.iter().take(index).find(|first| collide(first.address, listener.address));
        if let Some(first) = taken {
            let place = report.place_in_words(first.map.origin(first.name));
            let message = format!(
                "`{}` takes the same address as `{}` ({place})",
                listener.path(),
                first.path()
            );
            let complaint = Complaint::new(message).allowed("an address of its own");
            report.fault(listener.map.origin(listener.name), complaint);
        }
    }
    for (map, tap) in taps.iter().zip(built) {
        let Some(tap) = tap else { continue };
        let own =
            all.iter().find(|own| reaches(&tap.upstream.host, tap.upstream.port, own.address));
        if let Some(own) = own {
            let message =
                format!("`{}` leads back to flowtap: to `{}`", map.path_of("upstream"), own.path());
            let complaint = Complaint::new(message).allowed("a server other than flowtap itself");
            report.fault(map.origin("upstream"), complaint);
        }
    }
}

/// Whether two listeners cannot both be bound.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    // Linux binds `[::]` to IPv4 too.
    let covers =
        |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    a.port() == b.port() && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

/// Whether a connection to `host` and `port` ends at the listener.
fn reaches(host: &str, port: u16, listener: SocketAddr) -> bool {
    let ip = match host {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => match host.parse() {
            Ok(ip) => ip,
            Err(_) => return false,
        },
    };
    let local = ip.is_loopback() || ip.is_unspecified();
    let same = ip == listener.ip() || (host == "localhost" && listener.ip().is_loopback());
    port == listener.port()
        && (same
            || (local && listener.ip().is_unspecified())
            || (ip.is_unspecified() && listener.ip().is_loopback()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{DialectChoice, RedactKind, SampleBy, effective};

    fn check(text: &str, overrides: &Overrides, env: &[(&str, &str)]) -> Result<Config, String> {
        let env: Vec<_> = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut report = Report::new(Some("flowtap.yaml".to_owned()));
        let config = from_bytes(text.as_bytes().to_vec(), overrides, &env, &mut report);
        match config.filter(|_| report.count() == 0) {
            Some(config) => Ok(config),
            None => Err(report.into_faults().to_string()),
        }
    }

    fn upstream(url: &str) -> Overrides {
        Overrides { upstream: Some(url.to_owned()), ..Overrides::default() }
    }

    const EXAMPLE: &str = "\
taps:
  - name: chat                     # label `tap`
    listen: 0.0.0.0:8080
    upstream: http://127.0.0.1:9000
    deployment: blue
    dialect: auto
    columns: {question: question, answer: answer, context: context, ground_truth: ground_truth, chat_history: chat_history}
  - name: models
    listen: 127.0.0.1:8081
    upstream: https://contoso.openai.azure.com
sample:  {rate: 0.1, errors: 1.0, slow: {over: 10s, rate: 1.0}, by: request}
capture: {body_bytes_max: 1MiB, memory_bytes_max: 64MiB, headers: [content-type, user-agent]}
redact:  {detect: [email, phone, credit_card, iban, ip, secret], mode: hash, key: k}
bucket:  file:///var/lib/flowtap/bucket
spool:   {dir: /var/lib/flowtap/spool, bytes_max: 1GiB, segment_bytes: 16MiB, segment_age: 60s, sync: 100ms}
admin:   {listen: 127.0.0.1:9464, token: t}
trace:   {otlp_endpoint: http://127.0.0.1:4317}
";

    #[test]
    fn loads_the_example_of_the_contract() {
        let config = check(EXAMPLE, &Overrides::default(), &[]).unwrap();
        let [chat, models] = &*config.taps else { panic!("two taps") };
        assert_eq!((&*chat.name, &*models.name), ("chat", "models"));
        assert_eq!(models.upstream.authority, "contoso.openai.azure.com");
        assert_eq!((models.upstream.secure, models.upstream.port), (true, 443));
        assert_eq!(chat.dialect, DialectChoice::Auto);
        assert!(chat.columns.configured && !models.columns.configured);
        assert_eq!(config.sample.slow.unwrap().over, Duration::from_secs(10));
        assert_eq!(config.redact.detect.len(), 6);
        assert_eq!(config.spool.segment_bytes, 16 << 20);
        assert_eq!(&*config.instance, "localhost");
    }

    #[test]
    fn an_upstream_alone_is_enough() {
        let config =
            check("", &upstream("http://127.0.0.1:9000"), &[("HOSTNAME", "Pod 7.x")]).unwrap();
        let [tap] = &*config.taps else { panic!("one tap") };
        assert_eq!((&*tap.name, tap.listen.to_string()), ("default", "127.0.0.1:8080".to_owned()));
        assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9464");
        assert_eq!(config.spool.dir, Path::new("./flowtap-data/spool"));
        let BucketStore::Local { path } = &config.bucket.store else { panic!("a folder") };
        assert_eq!(path, Path::new("./flowtap-data/bucket"));
        assert_eq!(config.redact.detect, [RedactKind::Secret, RedactKind::CreditCard]);
        assert_eq!(config.sample.by, SampleBy::Request);
        assert_eq!(&*config.instance, "Pod-7.x");
    }

    #[test]
    fn what_is_effective_loads_again() {
        let config = check(EXAMPLE, &Overrides::default(), &[]).unwrap();
        let shown = effective(&config);
        let mut again = check(&shown, &Overrides::default(), &[]).unwrap();
        assert_eq!(again.warnings.len(), 2, "{:?}", again.warnings);
        again.warnings.clear();
        assert_eq!(format!("{config:?}"), format!("{again:?}"), "{shown}");
        assert_eq!(shown, effective(&again));
    }

    #[test]
    fn the_instance_keeps_the_end_of_a_long_host_name() {
        let name = |host: &str| instance(None, &[("HOSTNAME".to_owned(), host.to_owned())]);
        assert_eq!(&*name(&format!("{}-7f9c", "x".repeat(80))), format!("{}-7f9c", "x".repeat(59)));
        assert_eq!((&*name("../a b"), &*name("ä"), &*name("")), ("a-b", "localhost", "localhost"));
    }

    #[test]
    fn knows_which_listeners_collide_and_which_upstreams_lead_back() {
        let at = |text: &str| text.parse().unwrap();
        assert!(collide(at("0.0.0.0:1"), at("127.0.0.1:1")));
        assert!(collide(at("127.0.0.1:1"), at("[::]:1")));
        assert!(!collide(at("0.0.0.0:1"), at("[::1]:1")));
        assert!(!collide(at("127.0.0.1:1"), at("127.0.0.2:1")));
        assert!(reaches("localhost", 1, at("[::1]:1")) && reaches("::1", 1, at("[::]:1")));
        assert!(
            reaches("0.0.0.0", 1, at("127.0.0.1:1")) && reaches("10.0.0.1", 1, at("10.0.0.1:1"))
        );
        assert!(
            !reaches("10.0.0.1", 1, at("0.0.0.0:1")) && !reaches("example.com", 1, at("0.0.0.0:1"))
        );
        assert!(!reaches("127.0.0.1", 2, at("127.0.0.1:1")));
    }
}
