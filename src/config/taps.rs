//! `taps`: the listeners, each in front of one upstream.

use std::sync::Arc;
use std::time::Duration;

use super::fault::{Complaint, Report};
use super::kind::Kind::{
    Bool, Bytes, Choice, Column, DottedName, Listen, Map as MapOf, Name, Pem, Time, Url, UrlOrMap,
    Whole,
};
use super::kind::{show_bytes, show_time};
use super::map::Map;
use super::place;
use super::show::Shown;
use super::table::Default::{Is, Required, Unset};
use super::table::Key;
use super::{
    CaptureMode, CertificateFiles, Columns, DialectChoice, IncludeUsage, Limits, ServerTls, Tap,
    Timeouts, Upstream, UpstreamHttp2,
};
use crate::domain::Dialect;

const DAY_MS: u64 = 86_400_000;

/// The keys of one tap.
pub(super) static KEYS: &[Key] = &[
    Key::new(
        "name",
        Name,
        Is("default"),
        "The label `tap` in metrics and records. No two taps share one.",
        "chat",
    ),
    Key::new(
        "listen",
        Listen,
        Is("127.0.0.1:8080"),
        "Where clients connect. `:8080` is every IPv4 address.",
        "0.0.0.0:8080",
    ),
    Key::new(
        "upstream",
        UrlOrMap(UPSTREAM),
        Required,
        "The server behind the tap: a URL, or a map where options are needed. A path in the URL \
         is put before the request's own.",
        "https://contoso.openai.azure.com",
    ),
    Key::new(
        "deployment",
        DottedName,
        Unset("the request's `azureml-model-deployment` header, else `default`"),
        "The deployment that records and metrics name.",
        "blue",
    ),
    Key::new(
        "dialect",
        Choice(&["auto", "promptflow", "openai", "anthropic", "generic"]),
        Is("auto"),
        "The wire format; `auto` goes by path, headers and body. Azure OpenAI is `openai`.",
        "promptflow",
    ),
    Key::new(
        "columns",
        MapOf(COLUMNS),
        Is("{}"),
        "Which fields of the bodies hold what: a name, a JSON pointer or a JSONPath each.",
        "{question: /data/question, answer: $.output.text}",
    ),
    Key::new(
        "capture",
        Choice(&["full", "metadata"]),
        Is("full"),
        "Whether content may be kept; `metadata` keeps no text at all, only counts, times, sizes \
         and names.",
        "metadata",
    ),
    Key::new(
        "include_usage",
        Choice(&["off", "inject"]),
        Is("off"),
        "What to do where a streaming OpenAI client did not ask for usage; `inject` asks on its \
         behalf and strips the extra event again. It alters traffic.",
        "inject",
    ),
    Key::new(
        "host",
        Choice(&["upstream", "client"]),
        Is("upstream"),
        "Whose `Host` the upstream gets: its own, as if the client had called it directly, or the \
         client's, for an application that goes by the name that it is called by.",
        "client",
    ),
    Key::new(
        "http2",
        Bool,
        Is("false"),
        "Whether clients may speak HTTP/2: by ALPN with TLS, by prior knowledge without.",
        "true",
    ),
    Key::new(
        "tls",
        MapOf(TLS),
        Unset("clients connect without TLS"),
        "TLS towards clients.",
        "{cert_file: /etc/flowtap/tls.crt, key_file: /etc/flowtap/tls.key}",
    ),
    Key::new("timeouts", MapOf(TIMEOUTS), Is("{}"), "Time limits.", "{connect: 5s}"),
    Key::new("limits", MapOf(LIMITS), Is("{}"), "Size limits.", "{headers_max: 100}"),
];

static UPSTREAM: &[Key] = &[
    Key::new(
        "url",
        Url,
        Required,
        "The upstream's URL, where `upstream` is a map.",
        "https://contoso.openai.azure.com",
    ),
    Key::new(
        "http2",
        Choice(&["auto", "off", "always"]),
        Is("auto"),
        "HTTP/2 towards the upstream: `auto` offers it by ALPN over TLS, `always` speaks it from \
         the first byte, with or without TLS.",
        "always",
    ),
    Key::new(
        "ca_file",
        Pem("CERTIFICATE"),
        Unset("the system's certificates"),
        "A bundle of certificates to trust instead of the system's.",
        "/etc/flowtap/ca.pem",
    ),
    Key::new(
        "client_cert_file",
        Pem("CERTIFICATE"),
        Unset("no client certificate"),
        "The client certificate's chain. Needs `client_key_file`.",
        "/etc/flowtap/client.crt",
    ),
    Key::new(
        "client_key_file",
        Pem("PRIVATE KEY"),
        Unset("no client certificate"),
        "The client certificate's key. Needs `client_cert_file`.",
        "/etc/flowtap/client.key",
    ),
];

static COLUMNS: &[Key] = &[
    Key::new("question", Column, Is("question"), "In the request.", "/data/question"),
    Key::new("answer", Column, Is("answer"), "In the response.", "$.output.text"),
    Key::new("context", Column, Is("context"), "In the response, else in the request.", "context"),
    Key::new(
        "ground_truth",
        Column,
        Is("ground_truth"),
        "In the request, else in the response.",
        "expected",
    ),
    Key::new("chat_history", Column, Is("chat_history"), "In the request.", "$.messages"),
];

static TLS: &[Key] = &[
    Key::new(
        "cert_file",
        Pem("CERTIFICATE"),
        Required,
        "The server certificate's chain.",
        "/etc/flowtap/tls.crt",
    ),
    Key::new(
        "key_file",
        Pem("PRIVATE KEY"),
        Required,
        "The server certificate's key.",
        "/etc/flowtap/tls.key",
    ),
];

static TIMEOUTS: &[Key] = &[
    Key::new(
        "connect",
        Time(1, 300_000),
        Is("5s"),
        "For connecting upstream, name resolution and TLS included; then 504.",
        "5s",
    ),
    Key::new(
        "response",
        Time(1, DAY_MS),
        Is("10m"),
        "For the response's head, from the moment the request was sent; then 504.",
        "10m",
    ),
    Key::new(
        "idle",
        Time(1, DAY_MS),
        Is("10m"),
        "Between two pieces of a body, either way.",
        "10m",
    ),
    Key::new(
        "header",
        Time(1, 300_000),
        Is("10s"),
        "For a request's whole head, from its first byte.",
        "10s",
    ),
    Key::new("keep_alive", Time(1, DAY_MS), Is("75s"), "For an idle client connection.", "75s"),
    Key::new(
        "pool_idle",
        Time(1, DAY_MS),
        Unset("`1500ms` for http, below the 2 to 5 seconds of Python's servers; `60s` for https"),
        "For an idle connection to the upstream. Keep it below the upstream's own limit.",
        "30s",
    ),
];

static LIMITS: &[Key] = &[
    Key::new(
        "headers_max",
        Whole(1, 1_000),
        Is("100"),
        "Header fields of a request. Any number but 100 sends the tap on hyper's way, where it bounds answers too; else they may have 1000.",
        "100",
    ),
    Key::new(
        "header_bytes_max",
        Bytes(8 * 1024, 1024 * 1024),
        Is("64KiB"),
        "Bytes of a request's head.",
        "64KiB",
    ),
    Key::new(
        "connections_max",
        Whole(1, 1_000_000),
        Is("4096"),
        "Open client connections of the tap; fewer where there are not two file descriptors for each.",
        "4096",
    ),
];

/// Whose `Host` goes upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostSent {
    /// The upstream's, as its URL names it.
    Upstream,
    /// The client's; the upstream's where the client sent none.
    Client,
}

/// A TCP connection is cheap to make again, and gunicorn closes idle ones after 2 s, uvicorn after 5:
/// one that is closed just as it is used again would cost a request.
const POOL_IDLE_HTTP: Duration = Duration::from_millis(1500);
/// A TLS connection is dear, and the front doors of clouds keep idle ones for minutes.
const POOL_IDLE_HTTPS: Duration = Duration::from_secs(60);

/// Builds a tap; `None` after a fault.
pub(super) fn build(map: &Map, report: &mut Report) -> Option<Tap> {
    let upstream = map.map("upstream").and_then(|upstream| build_upstream(upstream, report));
    let secure = upstream.as_ref().is_some_and(|upstream| upstream.secure);
    let columns = map.map("columns").map(build_columns)?;
    let (timeouts, limits) = (map.map("timeouts")?, map.map("limits")?);
    Some(Tap {
        name: Arc::from(map.text("name")?),
        listen: map.listen("listen")?,
        upstream: upstream?,
        deployment: map.text("deployment").map(Arc::from),
        dialect: dialect(map.text("dialect")?),
        columns,
        capture: match map.text("capture")? {
            "metadata" => CaptureMode::Metadata,
            _ => CaptureMode::Full,
        },
        include_usage: match map.text("include_usage")? {
            "inject" => IncludeUsage::Inject,
            _ => IncludeUsage::Off,
        },
        host: match map.text("host")? {
            "client" => HostSent::Client,
            _ => HostSent::Upstream,
        },
        http2: map.bool("http2"),
        tls: map.map("tls").and_then(|tls| {
            certificate(tls, "cert_file", "key_file").map(|certificate| ServerTls { certificate })
        }),
        timeouts: Timeouts {
            connect: timeouts.time("connect"),
            response: timeouts.time("response"),
            idle: timeouts.time("idle"),
            header: timeouts.time("header"),
            keep_alive: timeouts.time("keep_alive"),
            pool_idle: Some(timeouts.time("pool_idle"))
                .filter(|given| !given.is_zero())
                .unwrap_or(if secure { POOL_IDLE_HTTPS } else { POOL_IDLE_HTTP }),
        },
        limits: Limits {
            headers_max: limits.size("headers_max"),
            header_bytes_max: limits.size("header_bytes_max"),
            connections_max: limits.size("connections_max"),
        },
    })
}

fn dialect(word: &str) -> DialectChoice {
    let fixed = Dialect::ALL.iter().find(|dialect| dialect.label() == word);
    fixed.map_or(DialectChoice::Auto, |dialect| DialectChoice::Fixed(*dialect))
}

fn build_upstream(map: &Map, report: &mut Report) -> Option<Upstream> {
    let (cert, key) = ("client_cert_file", "client_key_file");
    for (has, lacks) in [(cert, key), (key, cert)] {
        if map.given(has) && !map.given(lacks) {
            let message = format!("`{}` needs `{}`", map.path_of(has), map.path_of(lacks));
            report.fault(map.origin(has), Complaint::new(message).allowed("both or neither"));
        }
    }
    let url = place::upstream(map.text("url")?).ok()?;
    if map.given("ca_file") && !url.secure {
        let message = format!("`{}` is of no use to an http upstream", map.path_of("ca_file"));
        report.fault(map.origin("ca_file"), Complaint::new(message).allowed("an https URL"));
    }
    Some(Upstream {
        secure: url.secure,
        host: url.host,
        port: url.port,
        authority: url.authority,
        path_prefix: url.path_prefix,
        http2: match map.text("http2")? {
            "off" => UpstreamHttp2::Off,
            "always" => UpstreamHttp2::Always,
            _ => UpstreamHttp2::Auto,
        },
        ca_file: map.path_buf("ca_file"),
        client_certificate: certificate(map, cert, key),
    })
}

fn certificate(map: &Map, cert: &str, key: &str) -> Option<CertificateFiles> {
    Some(CertificateFiles { cert_file: map.path_buf(cert)?, key_file: map.path_buf(key)? })
}

fn build_columns(map: &Map) -> Columns {
    let column = |name| map.text(name).unwrap_or_default().to_owned();
    Columns {
        question: column("question"),
        answer: column("answer"),
        context: column("context"),
        ground_truth: column("ground_truth"),
        chat_history: column("chat_history"),
        configured: COLUMNS.iter().any(|key| map.given(key.name)),
    }
}

/// A tap as YAML.
pub(super) fn show(tap: &Tap) -> Vec<(&'static str, Shown)> {
    vec![
        ("name", Shown::text(&tap.name)),
        ("listen", Shown::text(tap.listen)),
        ("upstream", Shown::Map(show_upstream(&tap.upstream))),
        ("deployment", Shown::optional(tap.deployment.as_ref())),
        (
            "dialect",
            Shown::text(match tap.dialect {
                DialectChoice::Auto => "auto",
                DialectChoice::Fixed(dialect) => dialect.label(),
            }),
        ),
        ("columns", show_columns(&tap.columns)),
        (
            "capture",
            Shown::text(match tap.capture {
                CaptureMode::Full => "full",
                CaptureMode::Metadata => "metadata",
            }),
        ),
        (
            "include_usage",
            Shown::text(match tap.include_usage {
                IncludeUsage::Off => "off",
                IncludeUsage::Inject => "inject",
            }),
        ),
        (
            "host",
            Shown::text(match tap.host {
                HostSent::Upstream => "upstream",
                HostSent::Client => "client",
            }),
        ),
        ("http2", Shown::text(tap.http2)),
        (
            "tls",
            tap.tls.as_ref().map_or(Shown::Unset, |tls| {
                Shown::Map(vec![
                    ("cert_file", Shown::text(tls.certificate.cert_file.display())),
                    ("key_file", Shown::text(tls.certificate.key_file.display())),
                ])
            }),
        ),
        ("timeouts", Shown::Map(show_timeouts(&tap.timeouts))),
        ("limits", Shown::Map(show_limits(&tap.limits))),
    ]
}

fn show_upstream(upstream: &Upstream) -> Vec<(&'static str, Shown)> {
    let scheme = if upstream.secure { "https" } else { "http" };
    let url = format!("{scheme}://{}{}", upstream.authority, upstream.path_prefix);
    let client = upstream.client_certificate.as_ref();
    vec![
        ("url", Shown::text(url)),
        (
            "http2",
            Shown::text(match upstream.http2 {
                UpstreamHttp2::Auto => "auto",
                UpstreamHttp2::Off => "off",
                UpstreamHttp2::Always => "always",
            }),
        ),
        ("ca_file", Shown::optional(upstream.ca_file.as_ref().map(|path| path.display()))),
        ("client_cert_file", Shown::optional(client.map(|client| client.cert_file.display()))),
        ("client_key_file", Shown::optional(client.map(|client| client.key_file.display()))),
    ]
}

/// Columns that nobody wrote are left out, because writing them changes what dialects do.
fn show_columns(columns: &Columns) -> Shown {
    let Columns { question, answer, context, ground_truth, chat_history, configured } = columns;
    if !configured {
        return Shown::Unset;
    }
    Shown::Map(vec![
        ("question", Shown::text(question)),
        ("answer", Shown::text(answer)),
        ("context", Shown::text(context)),
        ("ground_truth", Shown::text(ground_truth)),
        ("chat_history", Shown::text(chat_history)),
    ])
}

fn show_timeouts(timeouts: &Timeouts) -> Vec<(&'static str, Shown)> {
    vec![
        ("connect", Shown::text(show_time(timeouts.connect))),
        ("response", Shown::text(show_time(timeouts.response))),
        ("idle", Shown::text(show_time(timeouts.idle))),
        ("header", Shown::text(show_time(timeouts.header))),
        ("keep_alive", Shown::text(show_time(timeouts.keep_alive))),
        ("pool_idle", Shown::text(show_time(timeouts.pool_idle))),
    ]
}

fn show_limits(limits: &Limits) -> Vec<(&'static str, Shown)> {
    vec![
        ("headers_max", Shown::text(limits.headers_max)),
        ("header_bytes_max", Shown::text(show_bytes(limits.header_bytes_max as u64))),
        ("connections_max", Shown::text(limits.connections_max)),
    ]
}
