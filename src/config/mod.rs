//! Settings as the rest of the program sees them: checked, complete, defaults filled in.
//!
//! What a user typed is read by `file` (YAML into a tree with places), completed by `env`
//! (`${VAR}`, `FLOWTAP_*`, options) and walked along `table`, the one source for checking, for
//! docs/CONFIG.md and for what is shown. `check` puts it together and reports all faults at once.
//! Past this room nothing is checked again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod alerts;
mod bucket;
mod check;
mod env;
mod fault;
mod feedback;
mod file;
mod fit;
mod judge;
mod keep;
mod kind;
mod map;
mod mask;
mod monitors;
mod node;
mod place;
mod queue;
mod receive;
mod reference;
mod schedule;
mod secret;
mod serve;
mod show;
mod store;
mod table;
mod taps;
mod units;
mod walk;

pub use alerts::{Alerts, Email, Webhook, WebhookFormat};
#[cfg(any(test, feature = "fuzzing"))]
pub use check::load_bytes;
pub use check::{Overrides, load, monitors_in};
pub use fault::{Fault, Faults, Place};
pub use feedback::{Feedback, RatingScale};
pub use file::document;
pub use judge::{CustomCriterion, Evaluate, Judge, JudgeApi, WhenExhausted};
pub use monitors::{Monitor, OperationLimits, OtherLimit, QualityLimits, TokenLimits};
pub use queue::Queue;
pub use receive::Collector;
pub use reference::{key_paths, reference};
pub use schedule::{Calendar, Frequency, Recurrence, Schedule, sunday_first};
pub use secret::Secret;
pub use serve::{Admin, MetricsLimits, OtlpProtocol, Trace, Traffic};
pub use show::{effective, monitors_shown};
pub use store::{Retention, Role, Store};
pub use taps::HostSent;

/// Everything a flowtap process was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The listeners, each before one upstream; at least one for `run` and `proxy`.
    pub taps: Vec<Tap>,
    /// What share of the exchanges is kept.
    pub sample: SampleRates,
    /// How much of an exchange is held in memory.
    pub capture: CaptureLimits,
    /// How a flow's calls to models are joined to it.
    pub join: Join,
    /// What users say of answers.
    pub feedback: Feedback,
    /// Where spans are received; `None` is nowhere.
    pub collector: Option<Collector>,
    /// What is removed from text before it reaches a disk.
    pub redact: Redact,
    /// Where samples, rollups and ledger go.
    pub bucket: Bucket,
    /// The local disk queue before the bucket.
    pub spool: Spool,
    /// The language model that judges samples.
    pub judge: Option<Judge>,
    /// What is judged and computed; `None` is nothing.
    pub evaluate: Option<Evaluate>,
    /// How evaluators are told of new samples; `None` within the process.
    pub queue: Option<Queue>,
    /// The index of the bucket; `proxy` has none.
    pub store: Store,
    /// What is computed over a window, and when.
    pub monitors: Vec<Monitor>,
    /// Who is told of violations.
    pub alerts: Alerts,
    /// The admin listener.
    pub admin: Admin,
    /// OpenTelemetry traces; `None` is off.
    pub trace: Option<Trace>,
    /// The proxy's own resources.
    pub traffic: Traffic,
    /// Limits on what metrics may grow to.
    pub metrics: MetricsLimits,
    /// The name of this process in records: `instance`, else the host's name.
    pub instance: Arc<str>,
    /// How long in-flight exchanges and queues get after SIGTERM. Default 25 s.
    pub drain_timeout: Duration,
    /// The log filter, as of `tracing`'s `EnvFilter`. Default `info`.
    pub log: String,
    /// What does not stop us but should be known, for the log: secret files that others may read.
    pub warnings: Vec<String>,
}

/// One listener in front of one upstream.
#[derive(Clone, Debug)]
pub struct Tap {
    /// The label `tap`: letters, digits, `-` and `_`, unique.
    pub name: Arc<str>,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it forwards to.
    pub upstream: Upstream,
    /// The deployment; `None` takes the request's `azureml-model-deployment`, else `default`.
    pub deployment: Option<Arc<str>>,
    /// The wire format.
    pub dialect: DialectChoice,
    /// Which fields of the bodies are question, answer, and so on.
    pub columns: Columns,
    /// Whether content may be kept.
    pub capture: CaptureMode,
    /// What to do where a streaming OpenAI client did not ask for usage.
    pub include_usage: IncludeUsage,
    /// Whose `Host` the upstream gets. Default its own.
    pub host: HostSent,
    /// Whether clients may speak HTTP/2 (by ALPN on TLS, by prior knowledge without). Default no.
    pub http2: bool,
    /// TLS towards clients.
    pub tls: Option<ServerTls>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Size limits.
    pub limits: Limits,
}

/// The server behind a tap.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// True for `https`.
    pub secure: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port, the scheme's own filled in.
    pub port: u16,
    /// `Host` as sent upstream: host, and the port unless it is the scheme's own.
    pub authority: String,
    /// Path prefix without a trailing slash; empty where the URL has none.
    pub path_prefix: String,
    /// The protocol towards the upstream.
    pub http2: UpstreamHttp2,
    /// A bundle of certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and key (PEM).
    pub client_certificate: Option<CertificateFiles>,
}

/// HTTP/2 towards the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamHttp2 {
    /// Offered by ALPN over TLS; HTTP/1.1 without TLS.
    Auto,
    /// HTTP/1.1 only.
    Off,
    /// HTTP/2 from the first byte, with or without TLS.
    Always,
}

/// Certificate and key files, PEM.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain.
    pub cert_file: PathBuf,
    /// The key; refused if others may change it.
    pub key_file: PathBuf,
}

/// TLS towards clients.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The server's certificate.
    pub certificate: CertificateFiles,
}

/// A tap's wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialectChoice {
    /// By path, headers and body.
    Auto,
    /// Always this one.
    Fixed(crate::domain::Dialect),
}

/// Which fields are question, answer, context, ground truth and chat history. Each is a field's
/// name, a JSON pointer (`/data/question`) or a JSONPath (`$.messages[-1].content`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// In the request.
    pub question: String,
    /// In the response.
    pub answer: String,
    /// In the response, else in the request.
    pub context: String,
    /// In the request, else in the response.
    pub ground_truth: String,
    /// In the request.
    pub chat_history: String,
    /// True if the user wrote any of them.
    pub configured: bool,
}

/// Whether content may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMode {
    /// Bodies and allow-listed headers.
    Full,
    /// No text at all: counts, times, sizes and names only.
    Metadata,
}

/// What to do where a streaming OpenAI client did not ask for usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeUsage {
    /// Leave traffic as it is, and count.
    Off,
    /// Ask on the client's behalf, and strip the extra event again.
    Inject,
}

/// Time limits of a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For connecting upstream, TLS included. Default 5 s.
    pub connect: Duration,
    /// For the response's head, from the moment the request was sent. Default 10 min.
    pub response: Duration,
    /// Between two pieces of a body, either way. Default 10 min.
    pub idle: Duration,
    /// For a request's whole head, from its first byte. Default 10 s.
    pub header: Duration,
    /// For an idle client connection. Default 75 s.
    pub keep_alive: Duration,
    /// For an idle pooled upstream connection. Default 1.5 s for http, 60 s for https.
    pub pool_idle: Duration,
}

/// Size limits of a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Header fields of a request. Default 100.
    pub headers_max: usize,
    /// Bytes of a request's head. Default 64 KiB.
    pub header_bytes_max: usize,
    /// Open client connections. Default 4096.
    pub connections_max: usize,
}

/// What share of the exchanges is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRates {
    /// The general rate, 0 to 1. Default 0.1.
    pub rate: f64,
    /// The rate for outcomes other than `ok`, where it is higher than `rate`; `None`: no own rate.
    pub errors: Option<f64>,
    /// The rate for slow exchanges.
    pub slow: Option<SlowRate>,
    /// What is hashed for the decision.
    pub by: SampleBy,
    /// The key of the hash: the same on all replicas that shall agree. Default: a fixed key.
    pub key: Option<Secret>,
}

/// A rate for slow exchanges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowRate {
    /// Slow is what takes longer.
    pub over: Duration,
    /// The rate, 0 to 1.
    pub rate: f64,
}

/// What the sampling decision hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleBy {
    /// The request's id.
    Request,
    /// The trace's id.
    Trace,
    /// The conversation's id, else the request's.
    Session,
}

/// How much of an exchange is held in memory.
#[derive(Clone, Debug)]
pub struct CaptureLimits {
    /// Bytes of one body. Default 1 MiB.
    pub body_bytes_max: usize,
    /// Bytes of all captured bodies together. Default 64 MiB.
    pub memory_bytes_max: u64,
    /// Headers that may be stored, lower case. Default `content-type`, `user-agent`.
    pub headers: Vec<String>,
    /// Exchanges that may wait for the pipeline. Default 8192.
    pub queue_max: usize,
    /// What our own work may hold a request up for, at the 99th percentile, before less is looked at;
    /// zero where it never is. Default 1 ms.
    pub overhead_max: Duration,
    /// Bytes that the whole process may take; coming near them, less is looked at. `None`: what its
    /// control group allows.
    pub process_bytes_max: Option<u64>,
}

/// How a flow's calls, seen by another tap, are joined to the flow's exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// How long a flow's exchange waits, after its end, for calls that are still being handed over.
    /// Nobody's request waits. Default 250 ms.
    pub wait: Duration,
    /// How long it waits for spans, where they are received: exporters gather them for 5 s.
    /// Default 7 s.
    pub spans_wait: Duration,
    /// Requests whose calls may wait for their flow, and flows that may wait for calls. Default 10,000.
    pub requests_max: usize,
}

/// What is removed from text before it reaches a disk.
#[derive(Clone, Debug)]
pub struct Redact {
    /// The kinds looked for.
    pub detect: Vec<RedactKind>,
    /// What takes their place.
    pub mode: RedactMode,
    /// The key of `hash`.
    pub key: Option<Secret>,
}

/// A kind of text to redact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RedactKind {
    /// E-mail addresses.
    Email,
    /// Phone numbers.
    Phone,
    /// Payment cards, checked by Luhn.
    CreditCard,
    /// International bank account numbers, checked by mod 97.
    Iban,
    /// IPv4 and IPv6 addresses.
    Ip,
    /// API keys, tokens, private keys, passwords in URLs.
    Secret,
}

/// What takes the place of redacted text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedactMode {
    /// `[email]`.
    Mask,
    /// `[email:1f3a…]`, the same for the same text under the same key.
    Hash,
    /// Nothing is removed; it is still counted.
    Off,
}

/// Where samples, rollups and ledger go.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// The store.
    pub store: BucketStore,
    /// For one attempt of one operation. Default 30 s.
    pub attempt_timeout: Duration,
    /// For one operation with all its attempts. Default 2 min.
    pub operation_timeout: Duration,
}

/// The kinds of bucket.
#[derive(Clone, Debug)]
pub enum BucketStore {
    /// `file:///path`: a folder.
    Local {
        /// The folder.
        path: PathBuf,
    },
    /// `s3://name/prefix`: S3 or what speaks like it.
    S3(S3Bucket),
    /// `az://account/container/prefix`: Azure Blob Storage.
    Azure(AzureBucket),
    /// `gs://name/prefix`: Google Cloud Storage.
    Gcs(GcsBucket),
}

/// An S3 bucket. Credentials come from the AWS chain unless given.
#[derive(Clone, Debug)]
pub struct S3Bucket {
    /// The bucket's name.
    pub name: String,
    /// Key prefix, without slashes at its ends.
    pub prefix: String,
    /// The region; `None` asks the AWS chain.
    pub region: Option<String>,
    /// Another endpoint than AWS's.
    pub endpoint: Option<String>,
    /// `http://endpoint/name/key` instead of `http://name.endpoint/key`.
    pub path_style: bool,
    /// Access key id and secret access key.
    pub credentials: Option<(String, Secret)>,
    /// Server-side encryption.
    pub encryption: S3Encryption,
    /// When a checksum is sent with a PUT.
    pub checksum: S3Checksum,
}

/// Server-side encryption of S3 objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3Encryption {
    /// What the bucket does by itself.
    None,
    /// SSE-S3 (AES256).
    S3,
    /// SSE-KMS, with a key id or the bucket's own.
    Kms {
        /// The key's id or ARN.
        key_id: Option<String>,
    },
}

/// When a checksum is sent with a PUT to S3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum S3Checksum {
    /// Always (CRC32C), as AWS advises.
    Always,
    /// Only where the operation requires one: for S3-compatible stores that refuse it.
    WhenRequired,
}

/// An Azure Blob container. Credentials come from the environment unless given.
#[derive(Clone, Debug)]
pub struct AzureBucket {
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
    /// Blob prefix, without slashes at its ends.
    pub prefix: String,
    /// Another endpoint than `https://ACCOUNT.blob.core.windows.net`.
    pub endpoint: Option<String>,
    /// The account's key.
    pub access_key: Option<Secret>,
    /// A shared access signature.
    pub sas: Option<Secret>,
}

/// A Google Cloud Storage bucket. Credentials come from the environment unless given.
#[derive(Clone, Debug)]
pub struct GcsBucket {
    /// The bucket's name.
    pub name: String,
    /// Object prefix, without slashes at its ends.
    pub prefix: String,
    /// Another endpoint than Google's.
    pub endpoint: Option<String>,
    /// A service account's JSON.
    pub service_account: Option<Secret>,
    /// Sends no credentials at all: for emulators.
    pub anonymous: bool,
}

/// The local disk queue before the bucket.
#[derive(Clone, Debug)]
pub struct Spool {
    /// The folder.
    pub dir: PathBuf,
    /// Bytes it may take. Default 1 GiB.
    pub bytes_max: u64,
    /// A segment is sealed at this size. Default 16 MiB.
    pub segment_bytes: u64,
    /// A segment is sealed at this age. Default 60 s; 5 s where `run` writes to a folder.
    pub segment_age: Duration,
    /// At most this long between two fsyncs: the loss window. Default 100 ms.
    pub sync: Duration,
}
