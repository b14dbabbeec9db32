//! The table of keys: the one source for checking, for docs/CONFIG.md and for what is shown.

use super::kind::Kind;
use super::{alerts, bucket, feedback, judge, keep, monitors, queue, receive, serve, store, taps};

/// One key of a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
    /// What it means: a sentence or two.
    pub(super) doc: &'static str,
    /// A value that is allowed, as YAML.
    pub(super) example: &'static str,
}

/// What a key is where nobody gave it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Default {
    /// It has to be given.
    Required,
    /// This, as YAML.
    Is(&'static str),
    /// Not set; the text says what that means.
    Unset(&'static str),
}

impl Key {
    /// A key with a default.
    pub(super) const fn new(
        name: &'static str,
        kind: Kind,
        default: Default,
        doc: &'static str,
        example: &'static str,
    ) -> Self {
        Self { name, kind, default, doc, example }
    }

    /// The keys below this one.
    pub(super) fn below(&self) -> &'static [Key] {
        match self.kind {
            Kind::Map(keys) | Kind::Maps(keys) | Kind::UrlOrMap(keys) => keys,
            _ => &[],
        }
    }

    /// Its path below the path `above`; `[]` stands for any entry of a list.
    pub(super) fn path(&self, above: &str) -> String {
        let name = match self.kind {
            Kind::Maps(_) => format!("{}[]", self.name),
            _ => self.name.to_owned(),
        };
        if above.is_empty() { name } else { format!("{above}.{name}") }
    }
}

const MONITORS_KEY: Key = Key::new(
    "monitors",
    Kind::Maps(monitors::KEYS),
    Default::Unset("nothing is monitored"),
    "What is computed over a window, and when (docs/MONITORS.md).",
    "[{name: daily, schedule: \"15 10 * * *\", signals: {operations: {error_rate_max: 0.01}}}]",
);

/// The keys of a text that holds monitors and nothing else.
pub(super) static MONITORS: &[Key] = &[MONITORS_KEY];

/// The keys of the file.
pub(super) static ROOT: &[Key] = &[
    Key::new(
        "taps",
        Kind::Maps(taps::KEYS),
        Default::Unset("`--upstream` makes one"),
        "The listeners, each in front of one upstream.",
        "[{listen: 127.0.0.1:8080, upstream: http://127.0.0.1:9000}]",
    ),
    Key::new(
        "sample",
        Kind::Map(keep::SAMPLE),
        Default::Is("{}"),
        "What share of the exchanges is kept.",
        "{rate: 0.1, errors: 1.0}",
    ),
    Key::new(
        "capture",
        Kind::Map(keep::CAPTURE),
        Default::Is("{}"),
        "How much of an exchange is held in memory, whatever the tap.",
        "{body_bytes_max: 1MiB}",
    ),
    Key::new(
        "join",
        Kind::Map(keep::JOIN),
        Default::Is("{}"),
        "How a flow's calls to models, seen by a second tap, are joined to the flow's request.",
        "{wait: 250ms}",
    ),
    Key::new(
        "feedback",
        Kind::Map(feedback::KEYS),
        Default::Is("{}"),
        "How what users say of answers (`POST /feedback`) becomes scores.",
        "{scale: 0-1}",
    ),
    Key::new(
        "collector",
        Kind::Map(receive::KEYS),
        Default::Unset("no spans are received"),
        "Where spans are received: the steps inside a flow, with the tokens that each spent.",
        "{azureml: 127.0.0.1:50011, otlp_grpc: 127.0.0.1:4317, otlp_http: 127.0.0.1:4318}",
    ),
    Key::new(
        "redact",
        Kind::Map(keep::REDACT),
        Default::Is("{}"),
        "What is removed from text before it reaches a disk.",
        "{detect: [email, secret], mode: mask}",
    ),
    Key::new(
        "bucket",
        Kind::UrlOrMap(bucket::KEYS),
        Default::Unset("the folder `bucket` of `data_dir`"),
        "Where samples, rollups and ledger go: a URL, or a map where options are needed.",
        "s3://name/prefix",
    ),
    Key::new(
        "spool",
        Kind::Map(keep::SPOOL),
        Default::Is("{}"),
        "The queue on the local disk before the bucket.",
        "{dir: /var/lib/flowtap/spool, bytes_max: 1GiB}",
    ),
    Key::new(
        "judge",
        Kind::Map(judge::JUDGE),
        Default::Unset("no sample is judged"),
        "The language model that judges samples, off the request path.",
        "{url: \"https://contoso.openai.azure.com\", api: azure_openai, model: gpt-4}",
    ),
    Key::new(
        "evaluate",
        Kind::Map(judge::EVALUATE),
        Default::Unset("what the defaults say where there is a `judge`, else nothing"),
        "What is judged and computed of the samples.",
        "{rate: 1.0, criteria: [groundedness, relevance, coherence, fluency]}",
    ),
    Key::new(
        "queue",
        Kind::Map(queue::QUEUE),
        Default::Unset("evaluators of other processes look into the bucket"),
        "NATS JetStream, by which sidecars tell evaluators of new samples.",
        "{nats: \"nats://127.0.0.1:4222\"}",
    ),
    Key::new(
        "store",
        Kind::Map(store::STORE),
        Default::Is("{}"),
        "The index of the bucket that the page, the API and monitors read; `flowtap proxy` has none.",
        "{dir: /var/lib/flowtap/store}",
    ),
    MONITORS_KEY,
    Key::new(
        "alerts",
        Kind::Map(alerts::KEYS),
        Default::Is("{}"),
        "Who is told of violations.",
        "{webhook: [{url: \"https://alerts.example.com/hook\"}]}",
    ),
    Key::new(
        "admin",
        Kind::Map(serve::ADMIN),
        Default::Is("{}"),
        "The listener for metrics, health, the API and the page.",
        "{listen: 127.0.0.1:9464}",
    ),
    Key::new(
        "trace",
        Kind::Map(serve::TRACE),
        Default::Unset("no traces are sent"),
        "OpenTelemetry traces, one span an exchange.",
        "{otlp_endpoint: \"http://127.0.0.1:4317\"}",
    ),
    Key::new(
        "traffic",
        Kind::Map(serve::TRAFFIC),
        Default::Is("{}"),
        "The proxy's own resources.",
        "{threads: 2}",
    ),
    Key::new(
        "metrics",
        Kind::Map(serve::METRICS),
        Default::Is("{}"),
        "Limits on what metrics may grow to.",
        "{models_max: 50}",
    ),
    Key::new(
        "instance",
        Kind::DottedName,
        Default::Unset("the environment's `HOSTNAME`, else `localhost`"),
        "The name of this process in records and in the names of bucket objects. No two processes \
         that write to one bucket may share it.",
        "pod-7f9c",
    ),
    Key::new(
        "data_dir",
        Kind::Path,
        Default::Is("./flowtap-data"),
        "The folder of `spool.dir`, `store.dir`, `admin.monitors_dir` and `bucket` where they are not \
         given.",
        "/var/lib/flowtap",
    ),
    Key::new(
        "drain_timeout",
        Kind::Time(0, 3_600_000),
        Default::Is("25s"),
        "How long exchanges in flight and queues get after SIGTERM. Keep it below the \
         orchestrator's own limit (Kubernetes: `terminationGracePeriodSeconds`, 30 s).",
        "25s",
    ),
    Key::new(
        "log",
        Kind::Filter,
        Default::Is("info"),
        "The log filter: a level, or `target=level` pairs.",
        "info,flowtap::proxy=debug",
    ),
];
