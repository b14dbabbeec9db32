//! The deployment that requests are sent to: one attempt each, within a time and a size.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use reqwest::{Client, Url, redirect};

use super::ReplayError;
use super::recorded::Recorded;
use crate::capture::{BodyLimits, JUDGE_HEADER, Recorder};
use crate::config::Secret;
use crate::domain::{
    CapturedBody, Dialect, Exchange, ExchangeId, Fields, MemoryBudget, Outcome, SpanId, Timing,
    TraceContext, TraceId,
};
use crate::reach::{self, Lookup};

/// To connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read; what is longer is no answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Of the API, where the recorded request's own was not kept.
const ANTHROPIC_VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");
/// What the connection is made of is not for users to say.
const OURS: [HeaderName; 5] = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE];

/// Where requests go, and as what.
#[derive(Clone, Debug)]
pub struct Address {
    /// The base URL, or a full scoring URL. A query is sent with every request.
    pub url: String,
    /// Headers of every request, such as `authorization`.
    pub headers: Vec<(String, Secret)>,
    /// The model that is asked for instead of the recorded one.
    pub model: Option<String>,
    /// For one request, from the connection to the last byte.
    pub timeout: Duration,
}

/// A deployment that can be sent to.
pub(super) struct Target {
    client: Client,
    url: Url,
    headers: HeaderMap,
    model: Option<String>,
}

impl Target {
    /// A target. `marker` is the mark by which taps of ours know flowtap's own calls.
    pub(super) fn new(address: &Address, marker: HeaderValue) -> Result<Self, ReplayError> {
        let unusable = |why: &str| ReplayError::Target(why.to_owned());
        let url = Url::parse(&address.url).map_err(|error| unusable(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(unusable("allowed: http:// and https:// addresses"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(unusable("credentials belong into a header, and headers into a file"));
        }
        reach::check(&url, false)
            .map_err(|_| unusable("metadata and link-local addresses hand out credentials"))?;
        let mut headers = headers(&address.headers)?;
        headers.insert(HeaderName::from_static(JUDGE_HEADER), marker);
        let client = Client::builder()
            .user_agent(concat!("flowtap/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .dns_resolver(Arc::new(Lookup { link_local: false }))
            .connect_timeout(CONNECT_TIMEOUT.min(address.timeout))
            .timeout(address.timeout)
            .build()
            .map_err(|error| unusable(&error.to_string()))?;
        Ok(Self { client, url, headers, model: address.model.clone() })
    }

    /// The address without its query, for reports.
    pub(super) fn describe(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.to_string()
    }

    /// Sends a recorded request once. What came back is an exchange like any other, raw and in memory
    /// only.
    pub(super) async fn send(&self, recorded: &Recorded, now: Timestamp) -> Exchange {
        let id = ExchangeId::new(now);
        // A UUID: some servers (starlette-context) answer 400 to anything else.
        let request_id = id.as_uuid();
        let (path, body) = (self.path(&recorded.path), self.body(&recorded.body));
        let headers = self.headers_of(recorded, &request_id);
        let mut url = self.url.clone();
        url.set_path(&path);
        let began = Instant::now();
        let request = self.client.post(url).headers(headers.clone()).body(body.clone());
        let answer = receive(request, began).await;
        Exchange {
            id,
            tap: Arc::clone(&recorded.tap),
            time: now,
            method: Method::POST,
            path,
            request_headers: Fields::from(&headers),
            request: whole(&body),
            status: answer.status,
            response_headers: Fields::from(&answer.headers),
            response: answer.body,
            outcome: answer.outcome,
            fault: None,
            timing: answer.timing,
            request_id: Some(request_id),
            trace: TraceContext {
                trace_id: TraceId::random(),
                span_id: SpanId::random(),
                parent_span_id: None,
                sampled: false,
            },
            alone: false,
        }
    }

    /// The target's own path is put before the recorded one, unless it is there already: both a base
    /// URL and a full scoring URL may be given, as with a tap's upstream.
    fn path(&self, recorded: &str) -> String {
        let prefix = self.url.path().trim_end_matches('/');
        let rest = recorded.strip_prefix(prefix);
        let there = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let path = if there { recorded.to_owned() } else { format!("{prefix}{recorded}") };
        match (&self.model, path.split_once("/deployments/")) {
            (Some(model), Some((before, after))) => {
                let rest = after.split_once('/').map_or("", |(_, rest)| rest);
                format!("{before}/deployments/{model}/{rest}")
            }
            _ => path,
        }
    }

    fn body(&self, recorded: &Bytes) -> Bytes {
        let Some(model) = &self.model else { return recorded.clone() };
        let parsed = serde_json::from_slice::<serde_json::Value>(recorded).ok();
        let renamed = parsed.and_then(|mut body| {
            *body.as_object_mut()?.get_mut("model")? = model.as_str().into();
            serde_json::to_vec(&body).ok()
        });
        renamed.map_or_else(|| recorded.clone(), Bytes::from)
    }

    fn headers_of(&self, recorded: &Recorded, request_id: &str) -> HeaderMap {
        let json = HeaderValue::from_static("application/json");
        let value =
            |text: &Option<String>| text.as_ref().and_then(|text| HeaderValue::from_str(text).ok());
        let accept = match recorded.told.stream {
            true => HeaderValue::from_static("text/event-stream"),
            false => json.clone(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, value(&recorded.content_type).unwrap_or(json));
        headers.insert(ACCEPT, accept);
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert(HeaderName::from_static("x-request-id"), id);
        }
        if recorded.dialect == Dialect::Anthropic {
            let version = value(&recorded.anthropic_version).unwrap_or(ANTHROPIC_VERSION);
            headers.insert(HeaderName::from_static("anthropic-version"), version);
        }
        // The user's word is the last.
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
        headers
    }
}

fn headers(typed: &[(String, Secret)]) -> Result<HeaderMap, ReplayError> {
    let mut headers = HeaderMap::new();
    for (name, value) in typed {
        let unusable = |why: &str| ReplayError::Header(name.clone(), why.to_owned());
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| unusable("is no name of a header"))?;
        if OURS.contains(&name) {
            return Err(unusable("belongs to the connection and is set by flowtap"));
        }
        let mut value =
            HeaderValue::from_str(value.expose()).map_err(|_| unusable("has no valid value"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// What came back.
#[derive(Default)]
struct Received {
    status: Option<u16>,
    headers: HeaderMap,
    body: CapturedBody,
    outcome: Option<Outcome>,
    timing: Timing,
}

struct Answer {
    status: Option<u16>,
    headers: HeaderMap,
    body: CapturedBody,
    outcome: Outcome,
    timing: Timing,
}

async fn receive(request: reqwest::RequestBuilder, began: Instant) -> Answer {
    let since = || u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut received = Received::default();
    let limits = BodyLimits { head_bytes_max: ANSWER_BYTES_MAX, tail_bytes_max: 0, marks_max: 256 };
    let mut recorder = Recorder::new(limits, &MemoryBudget::new(ANSWER_BYTES_MAX as u64));
    match request.send().await {
        Err(error) => received.outcome = Some(broken(&error, Outcome::ConnectError)),
        Ok(mut response) => {
            received.status = Some(response.status().as_u16());
            received.headers = response.headers().clone();
            received.timing.head_us = Some(since());
            received.outcome = loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => recorder.record(&chunk, since()),
                    Ok(None) => {
                        recorder.complete();
                        break None;
                    }
                    Err(error) => break Some(broken(&error, Outcome::UpstreamAbort)),
                }
                if recorder.bytes() > ANSWER_BYTES_MAX as u64 {
                    break Some(Outcome::UpstreamAbort);
                }
            };
        }
    }
    received.timing.total_us = since();
    received.timing.first_byte_us = recorder.first_byte_us();
    received.body = recorder.finish();
    let Received { status, headers, body, outcome, timing } = received;
    let outcome = outcome.unwrap_or_else(|| by_status(status, &headers));
    Answer { status, headers, body, outcome, timing }
}

/// As a tap tells it (Azure's front door turns any failure of the model's container into 424).
fn by_status(status: Option<u16>, headers: &HeaderMap) -> Outcome {
    match status {
        Some(424) if headers.contains_key("ms-azureml-model-error-statuscode") => {
            Outcome::UpstreamError
        }
        Some(500..) => Outcome::UpstreamError,
        Some(400..) => Outcome::ClientError,
        _ => Outcome::Ok,
    }
}

fn broken(error: &reqwest::Error, otherwise: Outcome) -> Outcome {
    if error.is_timeout() {
        return Outcome::Timeout;
    }
    // The name of the fault, for whoever looks for it; an URL may hold a secret in its query.
    let why = error.source().map(ToString::to_string).unwrap_or_default();
    tracing::debug!(why, outcome = otherwise.label(), "a replayed request was not answered");
    otherwise
}

fn whole(body: &Bytes) -> CapturedBody {
    CapturedBody {
        head: body.to_vec(),
        bytes: body.len() as u64,
        complete: true,
        ..CapturedBody::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Address {
        Address {
            url: url.to_owned(),
            headers: Vec::new(),
            model: None,
            timeout: Duration::from_secs(1),
        }
    }

    fn target(url: &str, model: Option<&str>) -> Target {
        let address = Address { model: model.map(str::to_owned), ..address(url) };
        Target::new(&address, HeaderValue::from_static("mark")).unwrap()
    }

    #[test]
    fn paths_are_those_of_a_tap_s_upstream() {
        let of = |url: &str, path: &str| target(url, None).path(path);
        assert_eq!(of("http://h", "/score"), "/score");
        assert_eq!(of("http://h/score", "/score"), "/score");
        assert_eq!(of("http://h/v1", "/v1/chat/completions"), "/v1/chat/completions");
        assert_eq!(of("http://h/api/", "/v1/chat/completions"), "/api/v1/chat/completions");
        assert_eq!(of("http://h/scor", "/score"), "/scor/score");
    }

    #[test]
    fn another_model_is_asked_for_in_body_and_path() {
        let target = target("http://h", Some("gpt-5"));
        let body = target.body(&Bytes::from_static(br#"{"a":1,"model":"gpt-4","b":2}"#));
        assert_eq!(&body[..], br#"{"a":1,"model":"gpt-5","b":2}"#);
        let other = Bytes::from_static(br#"{"question":"the model?"}"#);
        assert_eq!(target.body(&other), other);
        let path = "/openai/deployments/gpt-4/chat/completions";
        assert_eq!(target.path(path), "/openai/deployments/gpt-5/chat/completions");
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused() {
        let mark = || HeaderValue::from_static("mark");
        for url in [
            "ftp://h",
            "no url",
            "http://user:secret@h/score",
            "http://169.254.169.254/latest",
            "http://metadata.google.internal",
        ] {
            let told = Target::new(&address(url), mark()).err().map(|error| error.to_string());
            assert!(told.is_some_and(|told| !told.contains("secret")), "{url}");
        }
        for (name, value) in [("Host", "h"), ("a b", "c"), ("authorization", "two\nlines")] {
            let headers = vec![(name.to_owned(), Secret::new(value))];
            let address = Address { headers, ..address("http://h") };
            assert!(Target::new(&address, mark()).is_err(), "{name}");
        }
        let shown = target("http://h/score?code=secret", None).describe();
        assert_eq!(shown, "http://h/score");
    }
}
