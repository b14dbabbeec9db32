//! `sample`, `capture`, `redact`, `spool`: what is kept, and how much of it.

use std::path::Path;
use std::time::Duration;

use super::fault::{Complaint, Report};
use super::kind::Kind::{
    self, Bytes, Choice, Choices, HeaderNames, Map as MapOf, Rate, Secret, SecretFile, Time, Whole,
};
use super::kind::{show_bytes, show_time};
use super::map::Map;
use super::show::Shown;
use super::table::Default::{Is, Required, Unset};
use super::table::Key;
use super::{
    CaptureLimits, Join, Redact, RedactKind, RedactMode, SampleBy, SampleRates, SlowRate, Spool,
};

const KIB: u64 = 1024;
const GIB: u64 = 1024 * 1024 * KIB;
const DAY_MS: u64 = 86_400_000;
/// `spool.segment_age` where it is not given.
const SEGMENT_AGE: Duration = Duration::from_secs(60);
/// The same where the bucket is a folder and `run` shows it.
const SEGMENT_AGE_IN_SIGHT: Duration = Duration::from_secs(5);

/// The keys of `sample`.
pub(super) static SAMPLE: &[Key] = &[
    Key::new("rate", Rate, Is("0.1"), "The share of all exchanges that is kept.", "0.1"),
    Key::new(
        "errors",
        Rate,
        Unset("`rate`"),
        "The share of exchanges with another outcome than `ok`, where it is higher than `rate`.",
        "1.0",
    ),
    Key::new(
        "slow",
        MapOf(SLOW),
        Unset("`rate`"),
        "An own rate for slow exchanges, where it is higher than `rate`.",
        "{over: 10s, rate: 1.0}",
    ),
    Key::new(
        "by",
        Choice(&["request", "trace", "session"]),
        Is("request"),
        "What the decision hashes: what shares a trace or a session is kept or left as a whole.",
        "session",
    ),
    Key::new(
        "key",
        Secret,
        Unset("a fixed key"),
        "The key of the hash: the same on all replicas that shall agree. With a key of your own, \
         a client cannot choose ids that are always kept.",
        "${SAMPLE_KEY}",
    ),
    Key::new(
        "key_file",
        SecretFile,
        Unset("a fixed key"),
        "The file that holds `key`.",
        "/run/secrets/sample",
    ),
];

static SLOW: &[Key] = &[
    Key::new("over", Time(1, DAY_MS), Required, "Slow is what takes longer.", "10s"),
    Key::new("rate", Rate, Is("1"), "The share of slow exchanges that is kept.", "1.0"),
];

/// The keys of `capture`.
pub(super) static CAPTURE: &[Key] = &[
    Key::new(
        "body_bytes_max",
        Bytes(KIB, GIB),
        Is("1MiB"),
        "Bytes of one body that are recorded; past them it is forwarded unrecorded.",
        "1MiB",
    ),
    Key::new(
        "memory_bytes_max",
        Bytes(KIB, 1024 * GIB),
        Is("64MiB"),
        "Bytes of all captured bodies together.",
        "64MiB",
    ),
    Key::new(
        "headers",
        HeaderNames,
        Is("[content-type, user-agent]"),
        "The headers that may be stored. Credentials (`authorization`, `cookie`, `api-key` and \
         their like) may not.",
        "[content-type, user-agent]",
    ),
    Key::new(
        "queue_max",
        Whole(1, 1_000_000),
        Is("8192"),
        "Exchanges that may wait for the pipeline; what comes then is dropped and counted.",
        "8192",
    ),
    Key::new(
        "overhead_max",
        Time(0, 60_000),
        Is("1ms"),
        "What our own work may hold a request up for, at the 99th percentile; past it less is looked \
         at, and the traffic is spared. 0: never less.",
        "1ms",
    ),
    Key::new(
        "process_bytes_max",
        Bytes(16 * 1024 * KIB, 1024 * GIB),
        Unset(
            "the limit of the process's control group (a container's); without one nothing is shed",
        ),
        "What the whole process may take of memory. From 60% of it on no bodies are looked at, from \
         75% on requests are only counted, from 85% on they only pass. Below 512MiB it bounds other \
         sizes too (docs/OPERATIONS.md).",
        "64MiB",
    ),
];

/// The keys of `join`.
pub(super) static JOIN: &[Key] = &[
    Key::new(
        "wait",
        Time(0, 60_000),
        Is("250ms"),
        "How long the record of a flow's request waits, after the answer went out, for calls that \
         are still being handed over. No request waits, and with one tap no record does.",
        "250ms",
    ),
    Key::new(
        "spans_wait",
        Time(0, 60_000),
        Is("7s"),
        "How long that record waits for the flow's spans, where `collector` receives them: exporters \
         gather them for 5 seconds. It ends earlier once all are there. What comes later is added to \
         the stored trace, but not to the record.",
        "7s",
    ),
    Key::new(
        "requests_max",
        Whole(1, 1_000_000),
        Is("10000"),
        "Requests whose calls may wait for their flow; the oldest go first. As many flows may wait \
         for calls.",
        "10000",
    ),
];

/// The keys of `redact`.
pub(super) static REDACT: &[Key] = &[
    Key::new(
        "detect",
        Choices(&["email", "phone", "credit_card", "iban", "ip", "secret"]),
        Is("[secret, credit_card]"),
        "The kinds of text that are looked for.",
        "[email, phone, credit_card, iban, ip, secret]",
    ),
    Key::new(
        "mode",
        Choice(&["mask", "hash", "off"]),
        Is("mask"),
        "What takes their place: `mask` writes `[email]`; `hash` writes a keyed hash, the same \
         for the same text; `off` removes nothing and still counts.",
        "hash",
    ),
    Key::new("key", Secret, Unset("needed by `hash` only"), "The key of `hash`.", "${REDACT_KEY}"),
    Key::new(
        "key_file",
        SecretFile,
        Unset("needed by `hash` only"),
        "The file that holds `key`.",
        "/run/secrets/redact",
    ),
];

/// The keys of `spool`.
pub(super) static SPOOL: &[Key] = &[
    Key::new(
        "dir",
        Kind::Path,
        Unset("the folder `spool` of `data_dir`"),
        "The spool's folder. One process owns it.",
        "/var/lib/flowtap/spool",
    ),
    Key::new(
        "bytes_max",
        Bytes(64 * KIB, 1024 * 1024 * GIB),
        Is("1GiB"),
        "Bytes the spool may take; what comes then is dropped and counted.",
        "1GiB",
    ),
    Key::new(
        "segment_bytes",
        Bytes(4 * KIB, GIB),
        Is("16MiB"),
        "A segment is sealed at this size.",
        "16MiB",
    ),
    Key::new(
        "segment_age",
        Time(10, DAY_MS),
        Unset("`5s` where `flowtap run` writes to a folder, else `60s`"),
        "A segment is sealed at this age: how long a sample takes to the bucket, and so to the page, \
         at most, while the bucket is well. Every segment becomes an object for each dataset.",
        "60s",
    ),
    Key::new(
        "sync",
        Time(1, 60_000),
        Is("100ms"),
        "At most this long between two fsyncs: what a crash of the machine can cost.",
        "100ms",
    ),
];

/// Builds `sample`.
pub(super) fn build_sample(map: &Map, report: &mut Report) -> SampleRates {
    let slow = map
        .map("slow")
        .and_then(|slow| Some(SlowRate { over: slow.time("over"), rate: slow.number("rate")? }));
    SampleRates {
        rate: map.number("rate").unwrap_or_default(),
        errors: map.number("errors"),
        slow,
        by: match map.text("by") {
            Some("trace") => SampleBy::Trace,
            Some("session") => SampleBy::Session,
            _ => SampleBy::Request,
        },
        key: map.secret("key", report),
    }
}

/// Headers that carry credentials: never stored, whatever the configuration says.
const CREDENTIAL_HEADERS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "ocp-apim-subscription-key",
    "x-amz-security-token",
    "x-ms-authorization-auxiliary",
];

/// Builds `capture`.
pub(super) fn build_capture(map: &Map, report: &mut Report) -> CaptureLimits {
    let headers = map.texts("headers");
    for name in headers.iter().filter(|name| CREDENTIAL_HEADERS.contains(&name.as_str())) {
        let message =
            format!("`{}` has `{name}`, which carries credentials", map.path_of("headers"));
        report.fault(map.origin("headers"), Complaint::new(message).allowed("other headers"));
    }
    in_order(map, "body_bytes_max", "memory_bytes_max", report);
    CaptureLimits {
        body_bytes_max: map.size("body_bytes_max"),
        memory_bytes_max: map.whole("memory_bytes_max").unwrap_or_default(),
        headers,
        queue_max: map.size("queue_max"),
        overhead_max: map.time("overhead_max"),
        process_bytes_max: map.whole("process_bytes_max"),
    }
}

/// Builds `join`.
pub(super) fn build_join(map: &Map) -> Join {
    Join {
        wait: map.time("wait"),
        spans_wait: map.time("spans_wait"),
        requests_max: map.size("requests_max"),
    }
}

const KINDS: &[(&str, RedactKind)] = &[
    ("email", RedactKind::Email),
    ("phone", RedactKind::Phone),
    ("credit_card", RedactKind::CreditCard),
    ("iban", RedactKind::Iban),
    ("ip", RedactKind::Ip),
    ("secret", RedactKind::Secret),
];

/// Builds `redact`.
pub(super) fn build_redact(map: &Map, report: &mut Report) -> Redact {
    let mode = match map.text("mode") {
        Some("hash") => RedactMode::Hash,
        Some("off") => RedactMode::Off,
        _ => RedactMode::Mask,
    };
    let key = map.secret("key", report);
    let sound = map.sound(&["mode", "key", "key_file"]);
    if sound && mode == RedactMode::Hash && key.is_none() {
        let message = format!("`{}` is `hash`, which needs a key", map.path_of("mode"));
        let allowed = "`hash` with `key` or `key_file`; or `mask` or `off`";
        report.fault(map.origin("mode"), Complaint::new(message).allowed(allowed));
    }
    let words = map.texts("detect");
    let detect = words.iter().filter_map(|word| KINDS.iter().find(|(name, _)| name == word));
    Redact { detect: detect.map(|(_, kind)| *kind).collect(), mode, key }
}

/// Builds `spool`; its folder is below `data_dir` unless given.
pub(super) fn build_spool(map: &Map, data_dir: &Path, report: &mut Report) -> Spool {
    in_order(map, "segment_bytes", "bytes_max", report);
    Spool {
        dir: map.path_buf("dir").unwrap_or_else(|| data_dir.join("spool")),
        bytes_max: map.whole("bytes_max").unwrap_or_default(),
        segment_bytes: map.whole("segment_bytes").unwrap_or_default(),
        segment_age: if map.given("segment_age") { map.time("segment_age") } else { SEGMENT_AGE },
        sync: map.time("sync"),
    }
}

/// Where the bucket is a folder beside us and somebody looks at the page, samples come sooner:
/// objects cost nothing there.
pub(super) fn hurry(spool: &mut Spool, map: &Map) {
    if !map.given("segment_age") {
        spool.segment_age = SEGMENT_AGE_IN_SIGHT;
    }
}

/// Reports where one size is larger than the one it has to fit into.
fn in_order(map: &Map, small: &str, large: &str, report: &mut Report) {
    let (Some(smaller), Some(larger)) = (map.whole(small), map.whole(large)) else { return };
    if !map.sound(&[small, large]) || smaller <= larger {
        return;
    }
    let (small_path, large_path) = (map.path_of(small), map.path_of(large));
    let message = format!(
        "`{small_path}` ({}) is larger than `{large_path}` ({})",
        show_bytes(smaller),
        show_bytes(larger)
    );
    let place = if map.given(small) { small } else { large };
    let allowed = format!("`{small_path}` up to `{large_path}`");
    report.fault(map.origin(place), Complaint::new(message).allowed(allowed));
}

/// `sample` as YAML.
pub(super) fn show_sample(sample: &SampleRates) -> Vec<(&'static str, Shown)> {
    vec![
        ("rate", Shown::text(sample.rate)),
        ("errors", Shown::optional(sample.errors)),
        (
            "slow",
            sample.slow.as_ref().map_or(Shown::Unset, |slow| {
                Shown::Map(vec![
                    ("over", Shown::text(show_time(slow.over))),
                    ("rate", Shown::text(slow.rate)),
                ])
            }),
        ),
        (
            "by",
            Shown::text(match sample.by {
                SampleBy::Request => "request",
                SampleBy::Trace => "trace",
                SampleBy::Session => "session",
            }),
        ),
        ("key", Shown::secret(sample.key.as_ref())),
    ]
}

/// `capture` as YAML.
pub(super) fn show_capture(capture: &CaptureLimits) -> Vec<(&'static str, Shown)> {
    vec![
        ("body_bytes_max", Shown::text(show_bytes(capture.body_bytes_max as u64))),
        ("memory_bytes_max", Shown::text(show_bytes(capture.memory_bytes_max))),
        ("headers", Shown::List(capture.headers.clone())),
        ("queue_max", Shown::text(capture.queue_max)),
        ("overhead_max", Shown::text(show_time(capture.overhead_max))),
        ("process_bytes_max", Shown::optional(capture.process_bytes_max.map(show_bytes))),
    ]
}

/// `join` as YAML.
pub(super) fn show_join(join: Join) -> Vec<(&'static str, Shown)> {
    vec![
        ("wait", Shown::text(show_time(join.wait))),
        ("spans_wait", Shown::text(show_time(join.spans_wait))),
        ("requests_max", Shown::text(join.requests_max)),
    ]
}

/// `redact` as YAML.
pub(super) fn show_redact(redact: &Redact) -> Vec<(&'static str, Shown)> {
    let name = |kind| KINDS.iter().find(|(_, of)| of == kind).map(|(name, _)| (*name).to_owned());
    vec![
        ("detect", Shown::List(redact.detect.iter().filter_map(name).collect())),
        (
            "mode",
            Shown::text(match redact.mode {
                RedactMode::Mask => "mask",
                RedactMode::Hash => "hash",
                RedactMode::Off => "off",
            }),
        ),
        ("key", Shown::secret(redact.key.as_ref())),
    ]
}

/// `spool` as YAML.
pub(super) fn show_spool(spool: &Spool) -> Vec<(&'static str, Shown)> {
    vec![
        ("dir", Shown::text(spool.dir.display())),
        ("bytes_max", Shown::text(show_bytes(spool.bytes_max))),
        ("segment_bytes", Shown::text(show_bytes(spool.segment_bytes))),
        ("segment_age", Shown::text(show_time(spool.segment_age))),
        ("sync", Shown::text(show_time(spool.sync))),
    ]
}
