//! `queue`: how evaluators are told of new samples.

use std::path::PathBuf;

use super::fault::{Complaint, Report};
use super::kind::Kind::{Name, Pem, Secret, SecretFile, Text};
use super::map::Map;
use super::secret;
use super::show::Shown;
use super::table::Default::{Is, Required, Unset};
use super::table::Key;

/// NATS JetStream between sidecars and evaluators.
#[derive(Clone, Debug)]
pub struct Queue {
    /// The server's URL, `nats://host:port` or `tls://host:port`.
    pub nats: String,
    /// The stream's name; subjects begin with it.
    pub stream: String,
    /// A token.
    pub token: Option<secret::Secret>,
    /// A bundle of certificates (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// The keys of `queue`.
pub(super) static QUEUE: &[Key] = &[
    Key::new(
        "nats",
        Text,
        Required,
        "The server's URL, `nats://` or `tls://`.",
        "nats://127.0.0.1:4222",
    ),
    Key::new(
        "stream",
        Name,
        Is("FLOWTAP"),
        "The JetStream stream, made if it is not there. It holds names of objects, no content.",
        "FLOWTAP",
    ),
    Key::new(
        "token",
        Secret,
        Unset("none is sent"),
        "The token that is sent to the server.",
        "${NATS_TOKEN}",
    ),
    Key::new(
        "token_file",
        SecretFile,
        Unset("none is sent"),
        "The file that holds `token`.",
        "/run/secrets/nats",
    ),
    Key::new(
        "ca_file",
        Pem("CERTIFICATE"),
        Unset("the system's certificates"),
        "Certificates (PEM) to trust besides the system's.",
        "/etc/ssl/nats.pem",
    ),
];

/// Builds `queue`; `None` where there is none, or after a fault.
pub(super) fn build(map: &Map, report: &mut Report) -> Option<Queue> {
    let token = map.secret("token", report);
    let nats = map.text("nats")?;
    if let Err(why) = checked(nats) {
        let complaint = Complaint::new(format!("`{}` {why}", map.path_of("nats")));
        report.fault(
            map.origin("nats"),
            complaint.allowed("`nats://host:port` or `tls://host:port`"),
        );
        return None;
    }
    Some(Queue {
        nats: nats.to_owned(),
        stream: map.text("stream")?.to_owned(),
        token,
        ca_file: map.path_buf("ca_file"),
    })
}

fn checked(text: &str) -> Result<(), &'static str> {
    let url = url::Url::parse(text).map_err(|_| "is no URL")?;
    match url.scheme() {
        _ if !url.username().is_empty() || url.password().is_some() => {
            Err("holds a user or a password, which have no place in it")
        }
        "nats" | "tls" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(()),
        "nats" | "tls" => Err("has no host"),
        _ => Err("has another scheme"),
    }
}

/// `queue` as YAML.
pub(super) fn show(queue: &Queue) -> Vec<(&'static str, Shown)> {
    vec![
        ("nats", Shown::text(&queue.nats)),
        ("stream", Shown::text(&queue.stream)),
        ("token", Shown::secret(queue.token.as_ref())),
        ("ca_file", Shown::optional(queue.ca_file.as_ref().map(|path| path.display()))),
    ]
}
