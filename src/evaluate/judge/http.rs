//! A judge behind HTTP: a tower stack that tries again, waits in line, keeps the rate and the time.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use tower::retry::Policy;
use tower::util::{BoxCloneSyncService, ServiceExt};
use tower::{BoxError, ServiceBuilder};

use super::wire::{self, Shape};
use super::{Ask, Judge, Reply, Replying};
use crate::capture::JUDGE_HEADER;
use crate::config;
use crate::domain::ScoreError;
use crate::metrics::Metrics;
use crate::reach::Lookup;

/// Calls that may wait in line.
const WAITING_MAX: usize = 4096;
/// Bytes of an answer: a verdict has a few hundred.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// After the first failure; doubled by each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// After many failures.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a judge cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the judge's HTTP client cannot be made: {0}")]
pub struct JudgeFault(String);

/// A model behind chat completions, OpenAI's or Azure's.
pub struct HttpJudge {
    model: String,
    max_tokens: u64,
    retry_for: Duration,
    shape: Mutex<Shape>,
    stack: BoxCloneSyncService<Call, Answer, BoxError>,
}

/// One request, to be sent until it is answered or its time is over.
#[derive(Clone, Debug)]
struct Call {
    body: Bytes,
    deadline: Instant,
}

/// What came back, whatever the status.
#[derive(Clone, Debug)]
struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    body: Bytes,
}

/// No answer came.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Broken {
    #[error("no connection, or it broke off")]
    Connect,
    #[error("the answer is too large")]
    TooLarge,
}

impl HttpJudge {
    /// A judge by its settings. Call it within a runtime. `marker` is the mark by which taps of ours
    /// know the judge's calls, should it be asked through one.
    pub fn new(
        settings: &config::Judge,
        marker: HeaderValue,
        metrics: &Metrics,
    ) -> Result<Self, JudgeFault> {
        let sender = Sender {
            client: client(settings, marker).map_err(|error| JudgeFault(error.to_string()))?,
            url: endpoint(settings),
        };
        let measured = metrics.clone();
        let per_minute = settings
            .calls_per_minute
            .map(|calls| tower::limit::RateLimitLayer::new(calls, Duration::from_secs(60)));
        let stack = ServiceBuilder::new()
            .retry(Attempts { made: 0 })
            .buffer(WAITING_MAX)
            .concurrency_limit(settings.concurrency)
            .option_layer(per_minute)
            .map_future(move |attempt| measure(attempt, measured.clone()))
            .timeout(settings.timeout)
            .service_fn(move |call: Call| {
                let sender = sender.clone();
                async move { sender.send(call).await }
            });
        Ok(Self {
            model: settings.model.clone(),
            max_tokens: settings.max_tokens,
            retry_for: settings.retry_for,
            shape: Mutex::new(Shape::FULL),
            stack: BoxCloneSyncService::new(stack),
        })
    }

    /// Asks in the shape that worked last; what the judge refuses is left out, and stays left out
    /// once it has answered without.
    async fn asked(&self, ask: &Ask) -> Reply {
        let known = self.shape();
        let mut shape = known;
        let deadline = Instant::now() + self.retry_for;
        loop {
            let body = shape.body(ask, &self.model, self.max_tokens).to_string();
            let call = Call { body: Bytes::from(body), deadline };
            let answer = match self.stack.clone().oneshot(call).await {
                Ok(answer) => answer,
                Err(error) => return Reply::failed(why_broken(&error)),
            };
            match why_not(&answer) {
                None => {
                    if shape != known {
                        tracing::info!(?shape, "the judge answers in another shape");
                        *self.shape.lock().unwrap_or_else(PoisonError::into_inner) = shape;
                    }
                    return wire::read(&answer.body);
                }
                Some(error) if refuses_shape(&answer) => {
                    let text = String::from_utf8_lossy(&answer.body);
                    match shape.after_refusal(&text) {
                        Some(next) => shape = next,
                        None => return Reply::failed(error),
                    }
                }
                Some(error) => return Reply::failed(error),
            }
        }
    }

    fn shape(&self) -> Shape {
        *self.shape.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Judge for HttpJudge {
    fn ask<'a>(&'a self, ask: &'a Ask) -> Replying<'a> {
        Box::pin(self.asked(ask))
    }
}

fn client(settings: &config::Judge, marker: HeaderValue) -> Result<reqwest::Client, BoxError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static(JUDGE_HEADER), marker);
    if let Some(key) = &settings.api_key {
        let (name, value) = match settings.api {
            config::JudgeApi::OpenAi => (header::AUTHORIZATION, format!("Bearer {}", key.expose())),
            config::JudgeApi::AzureOpenAi { .. } => {
                (HeaderName::from_static("api-key"), key.expose().to_owned())
            }
        };
        let mut value = HeaderValue::try_from(value).map_err(|_| "the key is no header value")?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let builder = reqwest::Client::builder()
        .user_agent(concat!("flowtap/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10).min(settings.timeout));
    let lookup = Lookup { link_local: settings.allow_link_local };
    Ok(builder.dns_resolver(std::sync::Arc::new(lookup)).build()?)
}

fn endpoint(settings: &config::Judge) -> String {
    let url = &settings.url;
    match &settings.api {
        config::JudgeApi::AzureOpenAi { version } => format!(
            "{url}/openai/deployments/{}/chat/completions?api-version={}",
            segment(&settings.model),
            segment(version)
        ),
        config::JudgeApi::OpenAi => {
            let bare = url.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'));
            format!("{url}{}/chat/completions", if bare { "/v1" } else { "" })
        }
    }
}

/// A part of a path that cannot leave its place.
fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[derive(Clone)]
struct Sender {
    client: reqwest::Client,
    url: String,
}

impl Sender {
    async fn send(self, call: Call) -> Result<Answer, Broken> {
        let sent = self.client.post(&self.url).body(call.body).send().await;
        let mut response = sent.map_err(|_| Broken::Connect)?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| Broken::Connect)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Broken::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, retry_after, body: body.freeze() })
    }
}

/// Counts each attempt by how it ended.
async fn measure<F>(attempt: F, metrics: Metrics) -> Result<Answer, BoxError>
where
    F: Future<Output = Result<Answer, BoxError>>,
{
    let began = Instant::now();
    let ended = attempt.await;
    let error = match &ended {
        Ok(answer) => why_not(answer),
        Err(error) => Some(why_broken(error)),
    };
    let result = error.map_or("ok", ScoreError::label);
    metrics.judge_attempted(result, began.elapsed().as_secs_f64());
    ended
}

/// `Retry-After` in seconds, or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let wait = at.duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(wait).unwrap_or(Duration::ZERO))
}

/// Why this answer is none; `None` for a 2xx.
fn why_not(answer: &Answer) -> Option<ScoreError> {
    match answer.status {
        200..=299 => None,
        300..=399 => Some(ScoreError::Redirected),
        408 => Some(ScoreError::Timeout),
        429 => Some(ScoreError::RateLimited),
        400 | 403 if wire::is_filtered(&answer.body) => Some(ScoreError::Refused),
        400..=499 => Some(ScoreError::Http4xx),
        _ => Some(ScoreError::Http5xx),
    }
}

fn why_broken(error: &BoxError) -> ScoreError {
    if error.is::<tower::timeout::error::Elapsed>() {
        return ScoreError::Timeout;
    }
    match error.downcast_ref::<Broken>() {
        Some(Broken::TooLarge) => ScoreError::TooLarge,
        _ => ScoreError::Connect,
    }
}

/// Tries again what may pass later, until the call's deadline.
#[derive(Clone, Copy, Debug)]
struct Attempts {
    made: u32,
}

impl Policy<Call, Answer, BoxError> for Attempts {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        call: &mut Call,
        ended: &mut Result<Answer, BoxError>,
    ) -> Option<Self::Future> {
        let (passing, asked_for) = match ended {
            Ok(answer) => (is_passing(answer), answer.retry_after),
            Err(error) => (why_broken(error) != ScoreError::TooLarge, None),
        };
        let wait = asked_for.unwrap_or_else(|| growing(self.made, chance()));
        self.made += 1;
        let in_time = Instant::now() + wait < call.deadline;
        (passing && in_time).then(|| tokio::time::sleep(wait))
    }

    fn clone_request(&mut self, call: &Call) -> Option<Call> {
        Some(call.clone())
    }
}

/// True where the judge does not take what was asked in this shape. Some servers answer 500 to what
/// they do not know, and say so in words.
fn refuses_shape(answer: &Answer) -> bool {
    match answer.status {
        400 | 422 => !wire::is_filtered(&answer.body),
        500..=599 => wire::names_the_format(&answer.body),
        _ => false,
    }
}

fn is_passing(answer: &Answer) -> bool {
    match answer.status {
        _ if refuses_shape(answer) => false,
        429 => !wire::is_out_of_quota(&answer.body),
        408 | 409 | 425 => true,
        status => status >= 500 && status != 501,
    }
}

/// Half to all of a wait that doubles with each attempt.
fn growing(made: u32, chance: f64) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(1 << made.min(10)).min(LONGEST_WAIT);
    wait.mul_f64(0.5 + chance / 2.0)
}

/// A number from 0 to 1, different each time: enough to spread attempts.
fn chance() -> f64 {
    (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, api: config::JudgeApi) -> config::Judge {
        config::Judge {
            url: url.to_owned(),
            api,
            model: "gpt 4/o".to_owned(),
            api_key: None,
            concurrency: 1,
            calls_per_minute: None,
            tokens_per_day: None,
            when_exhausted: config::WhenExhausted::Wait,
            timeout: Duration::from_secs(1),
            retry_for: Duration::ZERO,
            max_tokens: 16,
            allow_link_local: false,
        }
    }

    #[test]
    fn endpoints_are_those_of_the_protocol() {
        let azure = config::JudgeApi::AzureOpenAi { version: "2024-10-21".to_owned() };
        let of = |url, api| endpoint(&settings(url, api));
        assert_eq!(
            of("https://c.openai.azure.com", azure),
            "https://c.openai.azure.com/openai/deployments/gpt%204%2Fo/chat/completions?api-version=2024-10-21"
        );
        let openai = || config::JudgeApi::OpenAi;
        assert_eq!(of("http://h:1", openai()), "http://h:1/v1/chat/completions");
        assert_eq!(of("http://h/api/v2", openai()), "http://h/api/v2/chat/completions");
    }

    #[test]
    fn waits_grow_spread_and_end() {
        assert_eq!(growing(0, 1.0), FIRST_WAIT);
        assert_eq!(growing(0, 0.0), FIRST_WAIT / 2);
        assert_eq!(growing(40, 1.0), LONGEST_WAIT);
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
        headers
            .insert(header::RETRY_AFTER, HeaderValue::from_static("Wed, 21 Oct 2015 07:28:00 GMT"));
        assert_eq!(retry_after(&headers), Some(Duration::ZERO), "a date that has passed");
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("soon"));
        assert_eq!(retry_after(&headers), None);
    }
}
