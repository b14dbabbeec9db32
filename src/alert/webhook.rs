//! Messages by HTTP: our own JSON, Slack's, Alertmanager's. No redirect is followed, no proxy of the
//! environment is used, and of the answer only the status is read.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url, redirect};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Undelivered, text};
use crate::config::{Alerts, Secret, Webhook, WebhookFormat};
use crate::domain::{Notice, NoticeKind};
use crate::reach::{self, Forbidden, Lookup};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);

/// An address that messages are posted to.
pub(super) struct Hook {
    client: Client,
    url: Url,
    format: WebhookFormat,
    secret: Option<Secret>,
    headers: HeaderMap,
    link_local: bool,
    page: Option<String>,
    quiet: Duration,
}

impl Hook {
    /// The address of the settings. The error is for people, and without the URL.
    pub(super) fn new(webhook: &Webhook, alerts: &Alerts) -> Result<Self, String> {
        let mut url = Url::parse(webhook.url.expose()).map_err(|error| error.to_string())?;
        if webhook.format == WebhookFormat::Alertmanager {
            let path = format!("{}/api/v2/alerts", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &webhook.headers {
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
            let mut value =
                HeaderValue::from_str(value.expose()).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("flowtap/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Lookup { link_local: webhook.link_local }))
            .build()
            .map_err(|error| told(&error))?;
        Ok(Self {
            client,
            url,
            format: webhook.format,
            secret: webhook.secret.clone(),
            headers,
            link_local: webhook.link_local,
            page: alerts.page.clone(),
            quiet: alerts.quiet,
        })
    }

    /// Posts one message.
    pub(super) async fn send(&self, notice: &Notice) -> Result<(), Undelivered> {
        reach::check(&self.url, self.link_local)
            .map_err(|error| Undelivered::Never(error.to_string()))?;
        let (now, page) = (Timestamp::now(), self.page.as_deref());
        let body = match self.format {
            WebhookFormat::Json => plain(notice, page),
            WebhookFormat::Slack => slack(notice, page),
            WebhookFormat::Alertmanager => alertmanager(notice, page, self.quiet),
        };
        let body = serde_json::to_vec(&body).map_err(|e| Undelivered::Never(e.to_string()))?;
        let id = format!("{}/{}/{}", notice.key(), notice.kind.label(), notice.time.as_second());
        let mut request = self.client.post(self.url.clone()).headers(self.headers.clone());
        request = request.header(CONTENT_TYPE, "application/json").header("webhook-id", &id);
        if let Some(secret) = &self.secret {
            let seconds = now.as_second();
            request = request
                .header("webhook-timestamp", seconds)
                .header("webhook-signature", signature(secret, &id, seconds, &body));
        }
        let answer = request.body(body).send().await.map_err(|error| {
            let told = told(&error);
            if is_forbidden(&error) { Undelivered::Never(told) } else { Undelivered::Later(told) }
        })?;
        judge(answer.status())
    }
}

/// What an answer's status means. A redirect is no delivery: it would take the message elsewhere.
fn judge(status: StatusCode) -> Result<(), Undelivered> {
    let told = format!("the answer was {}", status.as_u16());
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    match status {
        status if status.is_success() => Ok(()),
        status if status.is_server_error() || again.contains(&status) => {
            Err(Undelivered::Later(told))
        }
        _ => Err(Undelivered::Never(told)),
    }
}

/// The causes of an error, without the URL, which may be a secret.
fn told(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    match causes.is_empty() {
        true if error.is_timeout() => "no answer in time".to_owned(),
        true => "the request failed".to_owned(),
        false => causes.join(": "),
    }
}

fn is_forbidden(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if error.is::<Forbidden>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// As of Standard Webhooks (<https://www.standardwebhooks.com>): HMAC-SHA256 of id, time and body. A
/// secret that begins with `whsec_` is base64 behind it.
fn signature(secret: &Secret, id: &str, seconds: i64, body: &[u8]) -> String {
    let text = secret.expose();
    let decoded = text.strip_prefix("whsec_").and_then(|rest| STANDARD.decode(rest).ok());
    let key = decoded.unwrap_or_else(|| text.as_bytes().to_vec());
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else { return String::new() };
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// Our own form; docs/MONITORS.md has it.
fn plain(notice: &Notice, page: Option<&str>) -> Value {
    json!({
        "schema": "flowtap.alert.v1",
        "kind": notice.kind,
        "key": notice.key(),
        "title": text::title(notice),
        "text": text::lines(notice, page).join("\n"),
        "monitor": notice.monitor,
        "scope": notice.scope,
        "signal": notice.signal,
        "measure": notice.measure,
        "since": notice.since,
        "at": notice.time,
        "from": notice.window.0,
        "to": notice.window.1,
        "link": text::link(page, notice),
    })
}

/// <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>
fn slack(notice: &Notice, page: Option<&str>) -> Value {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let title = escape(&text::title(notice));
    let lines = escape(&text::lines(notice, page).join("\n"));
    let section =
        |text: String| json!({"type": "section", "text": {"type": "mrkdwn", "text": text}});
    json!({"text": title, "blocks": [section(format!("*{title}*")), section(lines)]})
}

/// <https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>: `postableAlerts`.
/// Alertmanager takes an alert as resolved at `endsAt`: an open one gets twice the quiet time, within
/// which it is told again.
fn alertmanager(notice: &Notice, page: Option<&str>, quiet: Duration) -> Value {
    let name = match notice.kind {
        NoticeKind::Test => "FlowtapTest",
        _ => "FlowtapViolation",
    };
    let mut labels = json!({
        "alertname": name,
        "monitor": notice.monitor,
        "signal": notice.signal,
        "metric": notice.measure.metric,
    });
    let scope = &notice.scope;
    for (label, value) in
        [("tap", &scope.tap), ("deployment", &scope.deployment), ("model", &scope.model)]
    {
        if let (Some(value), Some(labels)) = (value, labels.as_object_mut()) {
            labels.insert(label.to_owned(), json!(value));
        }
    }
    let open = SignedDuration::try_from(quiet * 2).unwrap_or(SignedDuration::MAX);
    let ends = match notice.kind {
        NoticeKind::Resolved => Some(notice.time),
        NoticeKind::Test => Timestamp::now().checked_add(SignedDuration::from_mins(5)).ok(),
        NoticeKind::Opened | NoticeKind::Repeated => Timestamp::now().checked_add(open).ok(),
    };
    json!([{
        "labels": labels,
        "annotations": {
            "summary": text::title(notice),
            "description": text::lines(notice, page).join("\n"),
        },
        "startsAt": notice.since,
        "endsAt": ends,
        "generatorURL": text::link(page, notice).unwrap_or_default(),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own tests (svix and standard-webhooks libraries).
    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = br#"{"test": 2432232314}"#;
        let told = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(told, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn an_answer_decides_whether_it_is_tried_again() {
        let of = |status: u16| judge(StatusCode::from_u16(status).unwrap_or_default());
        assert_eq!(of(204), Ok(()));
        for later in [408, 425, 429, 500, 502, 503] {
            assert!(matches!(of(later), Err(Undelivered::Later(_))), "{later}");
        }
        for never in [301, 302, 307, 400, 401, 403, 404, 410] {
            assert!(matches!(of(never), Err(Undelivered::Never(_))), "{never}");
        }
    }
}
