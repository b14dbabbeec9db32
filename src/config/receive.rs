//! `collector`: where spans are received.

use std::net::SocketAddr;

use super::fault::{Complaint, Report};
use super::kind::Kind::{Bytes, Listen, Secret, SecretFile};
use super::kind::show_bytes;
use super::map::Map;
use super::secret::Secret as Token;
use super::show::Shown;
use super::table::Default::{Is, Unset};
use super::table::Key;

/// Where spans are received.
#[derive(Clone, Debug)]
pub struct Collector {
    /// The endpoint of Azure ML's data collector.
    pub azureml: Option<SocketAddr>,
    /// OTLP over gRPC.
    pub otlp_grpc: Option<SocketAddr>,
    /// OTLP over HTTP.
    pub otlp_http: Option<SocketAddr>,
    /// The bearer token that every sender needs.
    pub token: Option<Token>,
    /// Bytes of one post, before and after it is unpacked. Default 4 MiB.
    pub body_bytes_max: usize,
}

/// The keys that name a listener.
pub(super) const LISTENERS: &[&str] = &["azureml", "otlp_grpc", "otlp_http"];

/// The keys of `collector`.
pub(super) static KEYS: &[Key] = &[
    Key::new(
        "azureml",
        Listen,
        Unset("the endpoint is not served"),
        "Where the endpoint of Azure ML's data collector is served: its client posts to \
         127.0.0.1:50011 unless told otherwise.",
        "127.0.0.1:50011",
    ),
    Key::new(
        "otlp_grpc",
        Listen,
        Unset("OTLP over gRPC is not served"),
        "Where OTLP over gRPC is served. Exporters send to port 4317 unless told otherwise.",
        "127.0.0.1:4317",
    ),
    Key::new(
        "otlp_http",
        Listen,
        Unset("OTLP over HTTP is not served"),
        "Where OTLP over HTTP is served, protobuf and JSON. Exporters send to port 4318 unless told \
         otherwise.",
        "127.0.0.1:4318",
    ),
    Key::new(
        "token",
        Secret,
        Unset("no sender needs one"),
        "The token that every sender needs: `Authorization: Bearer TOKEN`, or Basic with the token \
         as password, which is what Azure ML's client sends for a host `flowtap:TOKEN@127.0.0.1`.",
        "${COLLECTOR_TOKEN}",
    ),
    Key::new(
        "token_file",
        SecretFile,
        Unset("no sender needs one"),
        "The file that holds `token`.",
        "/run/secrets/collector",
    ),
    Key::new(
        "body_bytes_max",
        Bytes(64 * 1024, 64 * 1024 * 1024),
        Is("4MiB"),
        "Bytes of one post, before and after it is unpacked; a larger one is refused.",
        "4MiB",
    ),
];

/// Builds `collector`; `None` after a fault.
pub(super) fn build(map: &Map, report: &mut Report) -> Option<Collector> {
    if map.sound(LISTENERS) && !LISTENERS.iter().any(|name| map.given(name)) {
        let message = format!("`{}` receives nothing", map.path);
        let allowed = "at least one of azureml, otlp_grpc and otlp_http";
        report.fault(&map.origin, Complaint::new(message).allowed(allowed));
        return None;
    }
    let collector = Collector {
        azureml: map.listen("azureml"),
        otlp_grpc: map.listen("otlp_grpc"),
        otlp_http: map.listen("otlp_http"),
        token: map.secret("token", report),
        body_bytes_max: map.size("body_bytes_max"),
    };
    let open = |name: &&&str| {
        let is_far = |address: SocketAddr| !address.ip().is_loopback();
        collector.token.is_none() && map.listen(name).is_some_and(is_far)
    };
    for name in LISTENERS.iter().filter(open) {
        let path = map.path_of(name);
        report.warnings.push(format!(
            "`{path}` takes spans from other machines without a token: set `{}`",
            map.path_of("token_file")
        ));
    }
    Some(collector)
}

/// `collector` as YAML.
pub(super) fn show(collector: &Collector) -> Shown {
    Shown::Map(vec![
        ("azureml", Shown::optional(collector.azureml)),
        ("otlp_grpc", Shown::optional(collector.otlp_grpc)),
        ("otlp_http", Shown::optional(collector.otlp_http)),
        ("token", Shown::secret(collector.token.as_ref())),
        ("body_bytes_max", Shown::text(show_bytes(collector.body_bytes_max as u64))),
    ])
}
