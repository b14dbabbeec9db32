//! `alerts`: who is told of violations, and how.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::check::names;
use super::fault::{Complaint, Report};
use super::kind::Kind::{
    Bool, Choice, Email as EmailOf, Emails, Map as MapOf, Maps, Name, Pem, Secret as SecretOf,
    SecretFile, SecretMap, SecretUrl, SmtpUrl, Text, Time, Url,
};
use super::kind::show_time;
use super::map::Map;
use super::place;
use super::secret::Secret;
use super::show::Shown;
use super::table::Default::{Is, Required, Unset};
use super::table::Key;

const DAY_MS: u64 = 86_400_000;

/// Who is told of violations.
#[derive(Clone, Debug)]
pub struct Alerts {
    /// The page that messages lead to, without a slash at its end.
    pub page: Option<String>,
    /// The same violation is told again after this long, not before. Default 4 h.
    pub quiet: Duration,
    /// How long a message is tried. Default 15 min.
    pub deadline: Duration,
    /// By e-mail.
    pub email: Option<Email>,
    /// By HTTP.
    pub webhooks: Vec<Webhook>,
}

/// A mail server, and who gets mail.
#[derive(Clone, Debug)]
pub struct Email {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// TLS from the first byte.
    pub tls: bool,
    /// Without `tls`: STARTTLS, or nothing is sent. Off only where it was said so.
    pub starttls: bool,
    /// A bundle of certificates (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// User name and password.
    pub credentials: Option<(String, Secret)>,
    /// The sender.
    pub from: String,
    /// The receivers.
    pub to: Vec<String>,
}

/// An address that messages are posted to.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// The label `target` in metrics.
    pub name: Arc<str>,
    /// Where to. Such URLs often are secrets themselves.
    pub url: Secret,
    /// The form.
    pub format: WebhookFormat,
    /// The key of the signature.
    pub secret: Option<Secret>,
    /// More headers.
    pub headers: Vec<(String, Secret)>,
    /// Whether link-local and metadata addresses may be called.
    pub link_local: bool,
}

/// The form of a posted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFormat {
    /// Our own JSON.
    Json,
    /// A Slack incoming webhook.
    Slack,
    /// Alertmanager's API v2; the URL is Alertmanager's own.
    Alertmanager,
}

const FORMATS: &[(&str, WebhookFormat)] = &[
    ("json", WebhookFormat::Json),
    ("slack", WebhookFormat::Slack),
    ("alertmanager", WebhookFormat::Alertmanager),
];

/// The keys of `alerts`.
pub(super) static KEYS: &[Key] = &[
    Key::new(
        "page",
        Url,
        Unset("messages have no link"),
        "Where people reach the page; messages link to it.",
        "https://flowtap.example.com",
    ),
    Key::new(
        "quiet",
        Time(1_000, 30 * DAY_MS),
        Is("4h"),
        "The same violation is told again after this long while it lasts, and not before, even if it \
         went and came again.",
        "4h",
    ),
    Key::new(
        "deadline",
        Time(1_000, DAY_MS),
        Is("15m"),
        "How long a message is tried before it is given up and counted.",
        "15m",
    ),
    Key::new(
        "email",
        MapOf(EMAIL),
        Unset("no e-mail is sent"),
        "E-mail by SMTP.",
        "{smtp: \"smtps://mail.example.com\", to: [ops@example.com]}",
    ),
    Key::new(
        "webhook",
        Maps(WEBHOOK),
        Unset("nothing is posted"),
        "Addresses that messages are posted to.",
        "[{url: \"https://hooks.example.com/T0/B0\", format: slack}]",
    ),
];

static EMAIL: &[Key] = &[
    Key::new(
        "smtp",
        SmtpUrl,
        Required,
        "The mail server: `smtps` is TLS from the first byte (port 465), `smtp` asks for STARTTLS \
         (port 587).",
        "smtps://mail.example.com",
    ),
    Key::new(
        "starttls",
        Choice(&["required", "off"]),
        Is("required"),
        "Whether `smtp` insists on TLS; `off` sends in the clear and refuses to send a password.",
        "required",
    ),
    Key::new(
        "ca_file",
        Pem("CERTIFICATE"),
        Unset("the system's certificates"),
        "A bundle of certificates to trust instead of the system's.",
        "/etc/flowtap/ca.pem",
    ),
    Key::new("user", Text, Unset("nobody logs in"), "The user's name.", "flowtap"),
    Key::new("password", SecretOf, Unset("nobody logs in"), "The password.", "${SMTP_PASSWORD}"),
    Key::new(
        "password_file",
        SecretFile,
        Unset("nobody logs in"),
        "The file that holds `password`.",
        "/run/secrets/smtp",
    ),
    Key::new(
        "from",
        EmailOf,
        Unset("`flowtap@` and the server's host, or `localhost` where that is an address"),
        "The sender.",
        "flowtap@example.com",
    ),
    Key::new("to", Emails, Required, "The receivers.", "[ops@example.com]"),
];

static WEBHOOK: &[Key] = &[
    Key::new(
        "name",
        Name,
        Unset("`webhook-1` and so on, by its place in the list"),
        "The label `target` in metrics.",
        "oncall",
    ),
    Key::new(
        "url",
        SecretUrl,
        Unset("needed, or `url_file`"),
        "Where messages are posted. It is treated as a secret. For `alertmanager` it is \
         Alertmanager's own URL, without `/api/v2/alerts`.",
        "https://hooks.example.com/T0/B0",
    ),
    Key::new(
        "url_file",
        SecretFile,
        Unset("needed, or `url`"),
        "The file that holds `url`.",
        "/run/secrets/hook",
    ),
    Key::new(
        "format",
        Choice(&["json", "slack", "alertmanager"]),
        Is("json"),
        "The form of messages.",
        "slack",
    ),
    Key::new(
        "secret",
        SecretOf,
        Unset("messages are not signed"),
        "The key of the signature (Standard Webhooks: HMAC-SHA256).",
        "${HOOK_SECRET}",
    ),
    Key::new(
        "secret_file",
        SecretFile,
        Unset("messages are not signed"),
        "The file that holds `secret`.",
        "/run/secrets/hook-secret",
    ),
    Key::new(
        "headers",
        SecretMap,
        Unset("none"),
        "More headers, such as authorization. Every value is a secret.",
        "{authorization: \"${HOOK_AUTHORIZATION}\"}",
    ),
    Key::new(
        "link_local",
        Bool,
        Is("false"),
        "Whether link-local and metadata addresses may be called: they hand out a machine's \
         credentials.",
        "true",
    ),
];

/// Builds `alerts`; `None` after a fault.
pub(super) fn build(map: &Map, report: &mut Report) -> Option<Alerts> {
    let email = map.map("email").map(|email| build_email(email, report));
    names(map.maps("webhook"), report);
    let webhooks = map.maps("webhook").iter().enumerate();
    let webhooks: Vec<_> = webhooks.map(|(at, hook)| build_webhook(at, hook, report)).collect();
    Some(Alerts {
        page: map.text("page").map(|page| page.trim_end_matches('/').to_owned()),
        quiet: map.time("quiet"),
        deadline: map.time("deadline"),
        email: match email {
            Some(email) => Some(email?),
            None => None,
        },
        webhooks: webhooks.into_iter().collect::<Option<Vec<_>>>()?,
    })
}

fn build_email(map: &Map, report: &mut Report) -> Option<Email> {
    let password = map.secret("password", report);
    let starttls = map.text("starttls") != Some("off");
    let credentials = map.sound(&["user", "password", "password_file"]);
    if credentials && map.text("user").is_some() != password.is_some() {
        let message =
            format!("`{}` and `{}` belong together", map.path_of("user"), map.path_of("password"));
        report.fault(map.origin("user"), Complaint::new(message).allowed("both or neither"));
    }
    if map.sound(&["to"]) && map.texts("to").is_empty() {
        let message = format!("`{}` is empty", map.path_of("to"));
        report.fault(map.origin("to"), Complaint::new(message).allowed("at least one address"));
    }
    let url = place::smtp(map.text("smtp")?).ok()?;
    if !starttls && !url.tls && password.is_some() {
        let message = format!("`{}` would send the password in the clear", map.path_of("starttls"));
        let allowed = "`required`, or no password";
        report.fault(map.origin("starttls"), Complaint::new(message).allowed(allowed));
    }
    let host = match url.host.parse::<std::net::IpAddr>() {
        Ok(_) => "localhost",
        Err(_) => &url.host,
    };
    Some(Email {
        from: map.text("from").map_or_else(|| format!("flowtap@{host}"), str::to_owned),
        host: url.host,
        port: url.port,
        tls: url.tls,
        starttls,
        ca_file: map.path_buf("ca_file"),
        credentials: map.text("user").map(str::to_owned).zip(password),
        to: map.texts("to"),
    })
}

fn build_webhook(at: usize, map: &Map, report: &mut Report) -> Option<Webhook> {
    let url = map.secret("url", report);
    if url.is_none() && map.sound(&["url", "url_file"]) {
        let message = format!("`{}` is missing", map.path_of("url"));
        report.fault(&map.origin, Complaint::new(message).allowed("`url` or `url_file`"));
    }
    // What a file holds no kind has checked.
    let wrong = |url: &Secret| SecretUrl.check(url.expose()).is_err();
    if map.given("url_file") && url.as_ref().is_some_and(wrong) {
        let message = format!("`{}` does not hold a usable URL", map.path_of("url_file"));
        report.fault(map.origin("url_file"), Complaint::new(message).allowed(SecretUrl.allowed()));
    }
    let format = FORMATS.iter().find(|(name, _)| Some(*name) == map.text("format"))?.1;
    let name = map.text("name").map_or_else(|| format!("webhook-{}", at + 1), str::to_owned);
    Some(Webhook {
        name: Arc::from(name),
        url: url?,
        format,
        secret: map.secret("secret", report),
        headers: map.secrets("headers"),
        link_local: map.bool("link_local"),
    })
}

/// `alerts` as YAML.
pub(super) fn show(alerts: &Alerts) -> Vec<(&'static str, Shown)> {
    let webhooks = alerts.webhooks.iter().map(show_webhook).collect::<Vec<_>>();
    vec![
        ("page", Shown::optional(alerts.page.as_ref())),
        ("quiet", Shown::text(show_time(alerts.quiet))),
        ("deadline", Shown::text(show_time(alerts.deadline))),
        ("email", alerts.email.as_ref().map_or(Shown::Unset, |e| Shown::Map(show_email(e)))),
        ("webhook", if webhooks.is_empty() { Shown::Unset } else { Shown::Maps(webhooks) }),
    ]
}

fn show_email(email: &Email) -> Vec<(&'static str, Shown)> {
    let scheme = if email.tls { "smtps" } else { "smtp" };
    let host = match email.host.contains(':') {
        true => format!("[{}]", email.host),
        false => email.host.clone(),
    };
    let credentials = email.credentials.as_ref();
    vec![
        ("smtp", Shown::text(format!("{scheme}://{host}:{}", email.port))),
        ("starttls", Shown::text(if email.starttls { "required" } else { "off" })),
        ("ca_file", Shown::optional(email.ca_file.as_ref().map(|path| path.display()))),
        ("user", Shown::optional(credentials.map(|(user, _)| user))),
        ("password", Shown::secret(credentials.map(|(_, password)| password))),
        ("from", Shown::text(&email.from)),
        ("to", Shown::List(email.to.clone())),
    ]
}

fn show_webhook(webhook: &Webhook) -> Vec<(&'static str, Shown)> {
    let format = FORMATS.iter().find(|(_, of)| *of == webhook.format).map_or("json", |(n, _)| n);
    let names = webhook.headers.iter().map(|(name, _)| Arc::<str>::from(name.as_str()));
    let headers: Vec<_> = names.collect();
    vec![
        ("name", Shown::text(&webhook.name)),
        ("url", Shown::secret(Some(&webhook.url))),
        ("format", Shown::text(format)),
        ("secret", Shown::secret(webhook.secret.as_ref())),
        ("headers", if headers.is_empty() { Shown::Unset } else { Shown::Secrets(headers) }),
        ("link_local", Shown::text(webhook.link_local)),
    ]
}
