//! `admin`, `trace`, `traffic`, `metrics`: how the process shows itself, and its resources.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Secret as SecretValue;
use super::fault::Report;
use super::kind::Kind::{
    Bool, Choice, Hosts, Listen, Path as PathOf, Secret, SecretFile, SecretMap, Text, Url, Whole,
};
use super::map::Map;
use super::place;
use super::show::Shown;
use super::table::Default::{Is, Required, Unset};
use super::table::Key;

/// The admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens. Default 127.0.0.1:9464.
    pub listen: SocketAddr,
    /// The bearer token that `/api` and the page ask for; `/metrics`, `/livez` and `/readyz` do not.
    pub token: Option<SecretValue>,
    /// `Host` values answered besides addresses and `localhost`: against DNS rebinding.
    pub hosts: Vec<String>,
    /// Whether nothing can be changed there. Default no.
    pub read_only: bool,
    /// Where monitors are saved.
    pub monitors_dir: PathBuf,
}

/// OpenTelemetry traces.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The collector, e.g. `http://127.0.0.1:4317`.
    pub otlp_endpoint: String,
    /// The protocol; by default gRPC, and HTTP where the port is 4318 or the URL has a path.
    pub protocol: OtlpProtocol,
    /// Headers for the collector (authorization).
    pub headers: Vec<(String, SecretValue)>,
    /// `service.name`. Default `flowtap`.
    pub service_name: String,
}

/// OTLP over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// gRPC.
    Grpc,
    /// HTTP with protobuf.
    Http,
}

/// The proxy's own resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Threads that carry traffic. Default: one a core.
    pub threads: usize,
}

/// Limits on what metrics may grow to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsLimits {
    /// Distinct model names as labels; the rest is `other`. Default 50.
    pub models_max: usize,
    /// Distinct deployments as labels and folders; the rest is `other`. Default 50.
    pub deployments_max: usize,
}

/// The keys of `admin`.
pub(super) static ADMIN: &[Key] = &[
    Key::new(
        "listen",
        Listen,
        Is("127.0.0.1:9464"),
        "Where `/metrics`, `/livez`, `/readyz`, `/api` and the page are served.",
        "0.0.0.0:9464",
    ),
    Key::new(
        "token",
        Secret,
        Unset("`/api` and the page ask for none"),
        "The bearer token that `/api` and the page ask for. `/metrics`, `/livez` and `/readyz` do \
         not.",
        "${ADMIN_TOKEN}",
    ),
    Key::new(
        "token_file",
        SecretFile,
        Unset("`/api` and the page ask for none"),
        "The file that holds `token`.",
        "/run/secrets/admin",
    ),
    Key::new(
        "hosts",
        Hosts,
        Is("[]"),
        "`Host` values that are answered besides addresses and `localhost`: against DNS rebinding.",
        "[flowtap.example.com]",
    ),
    Key::new(
        "read_only",
        Bool,
        Is("false"),
        "Whether the page and the API may change nothing: no monitor can be saved. Without a `token`, \
         they may change nothing anyway where `listen` is no loopback address.",
        "true",
    ),
    Key::new(
        "monitors_dir",
        PathOf,
        Unset("the folder `saved-monitors` of `data_dir`"),
        "The folder of the monitors that were saved on the page, one file each. One that bears the \
         name of a configured monitor takes its place.",
        "/var/lib/flowtap/saved-monitors",
    ),
];

/// The keys of `trace`.
pub(super) static TRACE: &[Key] = &[
    Key::new("otlp_endpoint", Url, Required, "The collector's URL.", "http://127.0.0.1:4317"),
    Key::new(
        "protocol",
        Choice(&["grpc", "http"]),
        Unset("`http` where the port is 4318 or the URL has a path, else `grpc`"),
        "OTLP over gRPC, or over HTTP with protobuf.",
        "http",
    ),
    Key::new(
        "headers",
        SecretMap,
        Unset("none"),
        "Headers for the collector, such as authorization. Every value is a secret.",
        "{authorization: \"${OTLP_AUTHORIZATION}\"}",
    ),
    Key::new("service_name", Text, Is("flowtap"), "`service.name` of the spans.", "flowtap-chat"),
];

/// The keys of `traffic`.
pub(super) static TRAFFIC: &[Key] = &[Key::new(
    "threads",
    Whole(1, 1_024),
    Unset("one a core"),
    "Threads that carry traffic.",
    "2",
)];

/// The keys of `metrics`.
pub(super) static METRICS: &[Key] = &[
    Key::new(
        "models_max",
        Whole(1, 10_000),
        Is("50"),
        "Distinct model names as labels; the rest is `other`.",
        "50",
    ),
    Key::new(
        "deployments_max",
        Whole(1, 10_000),
        Is("50"),
        "Distinct deployments as labels and folders; the rest is `other`.",
        "50",
    ),
];

/// Builds `admin`; `None` after a fault.
pub(super) fn build_admin(map: &Map, data_dir: &Path, report: &mut Report) -> Option<Admin> {
    let token = map.secret("token", report);
    Some(Admin {
        listen: map.listen("listen")?,
        token,
        hosts: map.texts("hosts"),
        read_only: map.bool("read_only"),
        monitors_dir: map
            .path_buf("monitors_dir")
            .unwrap_or_else(|| data_dir.join("saved-monitors")),
    })
}

/// Builds `trace`; `None` after a fault.
pub(super) fn build_trace(map: &Map) -> Option<Trace> {
    let endpoint = map.text("otlp_endpoint")?;
    let url = place::upstream(endpoint).ok()?;
    let http = url.port == 4318 || !url.path_prefix.is_empty();
    Some(Trace {
        otlp_endpoint: endpoint.to_owned(),
        protocol: match map.text("protocol") {
            Some("http") => OtlpProtocol::Http,
            None if http => OtlpProtocol::Http,
            _ => OtlpProtocol::Grpc,
        },
        headers: map.secrets("headers"),
        service_name: map.text("service_name")?.to_owned(),
    })
}

/// Builds `traffic`; `cores` is what the machine lends us.
pub(super) fn build_traffic(map: &Map, cores: usize) -> Traffic {
    Traffic { threads: map.whole("threads").map_or(cores, |_| map.size("threads")) }
}

/// Builds `metrics`.
pub(super) fn build_metrics(map: &Map) -> MetricsLimits {
    MetricsLimits {
        models_max: map.size("models_max"),
        deployments_max: map.size("deployments_max"),
    }
}

/// `admin` as YAML.
pub(super) fn show_admin(admin: &Admin) -> Vec<(&'static str, Shown)> {
    vec![
        ("listen", Shown::text(admin.listen)),
        ("token", Shown::secret(admin.token.as_ref())),
        ("hosts", Shown::List(admin.hosts.clone())),
        ("read_only", Shown::text(admin.read_only)),
        ("monitors_dir", Shown::text(admin.monitors_dir.display())),
    ]
}

/// `trace` as YAML.
pub(super) fn show_trace(trace: &Trace) -> Vec<(&'static str, Shown)> {
    let protocol = match trace.protocol {
        OtlpProtocol::Grpc => "grpc",
        OtlpProtocol::Http => "http",
    };
    let names = trace.headers.iter().map(|(name, _)| Arc::<str>::from(name.as_str()));
    let headers: Vec<_> = names.collect();
    vec![
        ("otlp_endpoint", Shown::text(&trace.otlp_endpoint)),
        ("protocol", Shown::text(protocol)),
        ("headers", if headers.is_empty() { Shown::Unset } else { Shown::Secrets(headers) }),
        ("service_name", Shown::text(&trace.service_name)),
    ]
}

/// `traffic` as YAML.
pub(super) fn show_traffic(traffic: &Traffic) -> Vec<(&'static str, Shown)> {
    vec![("threads", Shown::text(traffic.threads))]
}

/// `metrics` as YAML.
pub(super) fn show_metrics(metrics: &MetricsLimits) -> Vec<(&'static str, Shown)> {
    vec![
        ("models_max", Shown::text(metrics.models_max)),
        ("deployments_max", Shown::text(metrics.deployments_max)),
    ]
}
