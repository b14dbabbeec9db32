//! One exchange: from the client's head to the upstream's answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version, request, response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use jiff::Timestamp;

use super::body::{RequestBody, ResponseBody};
use super::connect::{ConnectError, Sender};
use super::include_usage::{self, Stripper};
use super::io::ConnectionState;
use super::observe::{Beginning, Observation, RequestFault};
use super::pool::Pool;
use super::tap::TapShared;
use super::{guard, refuse, upgrade};
use crate::domain::{ExchangeId, Outcome, TraceContext};
use crate::trace::context;

/// What an exchange needs of its worker and its connection.
pub struct Passage {
    /// The tap.
    pub tap: Arc<TapShared>,
    /// The worker's idle connections to the tap's upstream.
    pub pool: Arc<Pool>,
    /// The client's connection.
    pub connection: Arc<ConnectionState>,
    /// Counts what may outlive the connection.
    pub tasks: tokio_util::task::TaskTracker,
}

/// A fault on the way that we answer ourselves.
struct Failure {
    status: StatusCode,
    outcome: Outcome,
    reason: &'static str,
    message: &'static str,
}

const fn failure(
    status: StatusCode,
    outcome: Outcome,
    reason: &'static str,
    message: &'static str,
) -> Failure {
    Failure { status, outcome, reason, message }
}

const BAD_FRAMING: Failure = failure(
    StatusCode::BAD_GATEWAY,
    Outcome::UpstreamError,
    "upstream_framing",
    "the upstream's answer cannot be framed safely",
);
const UNCONNECTED: Failure = failure(
    StatusCode::BAD_GATEWAY,
    Outcome::ConnectError,
    "upstream_connect",
    "no connection to the upstream",
);
const CONNECT_TIMEOUT: Failure = failure(
    StatusCode::GATEWAY_TIMEOUT,
    Outcome::Timeout,
    "upstream_connect_timeout",
    "connecting to the upstream took too long",
);
const NO_ANSWER: Failure = failure(
    StatusCode::BAD_GATEWAY,
    Outcome::ConnectError,
    "upstream_closed",
    "the upstream closed the connection before it answered, or its answer is no HTTP",
);
const RESPONSE_TIMEOUT: Failure = failure(
    StatusCode::GATEWAY_TIMEOUT,
    Outcome::Timeout,
    "upstream_timeout",
    "the upstream did not answer in time",
);
const BROKEN_BODY: Failure = failure(
    StatusCode::BAD_REQUEST,
    Outcome::ClientError,
    "body",
    "the request's body broke its framing",
);
const CLIENT_LEFT: Failure = failure(
    StatusCode::BAD_REQUEST,
    Outcome::ClientAbort,
    "body_incomplete",
    "the request's body ended before its length",
);
const IDLE_BODY: Failure = failure(
    StatusCode::REQUEST_TIMEOUT,
    Outcome::Timeout,
    "body_idle",
    "the request's body stopped coming",
);
const UNROUTABLE: Failure = failure(
    StatusCode::BAD_REQUEST,
    Outcome::ClientError,
    "target",
    "the request's target cannot be forwarded",
);

/// Carries one request to the upstream and its answer back. Whatever fails is answered, never raised.
pub async fn forward(passage: &Passage, mut request: Request<Incoming>) -> Response<ResponseBody> {
    let started = Instant::now();
    let on_upgrade = asks_upgrade(&request).then(|| hyper::upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    let upgrade_named = head.headers.contains_key(UPGRADE);
    let client = head.version;

    let time = Timestamp::now();
    let exchange = ExchangeId::new(time);
    let id = RequestId::of(&head.headers, exchange);
    let incoming = context::Incoming::read(&head.headers);
    let trace = context::begin(incoming);
    let request_id = Some(id.text());
    let beginning = Beginning { id: exchange, time, started, request_id, trace };
    let mut observation = Observation::begin(&passage.tap, &passage.connection, &head, beginning);
    if let Err(refused) = guard::check(&head) {
        passage.tap.metrics.rejected(&passage.tap.name, refused.reason);
        observation.answered_by_us(refused.status, Outcome::ClientError, refused.reason);
        return refuse::answer(refused.status, refused.reason, refused.message);
    }
    if prepare(passage, &mut head, &id, &trace, on_upgrade.is_some()).is_none() {
        return answer_failure(observation, UNROUTABLE);
    }
    observation.own_time(started);

    let sent = if passage.tap.injection.concerns(&head) {
        send_asking_for_usage(passage, &observation, head, body).await
    } else {
        let body = RequestBody::streamed(body, &observation);
        send(passage, &observation, Request::from_parts(head, body)).await.map(Answered::plain)
    };
    let back = Instant::now();
    let answered = match sent {
        Ok(answered) => answered,
        Err(failure) => return answer_failure(observation, failure),
    };
    observation.own_time(back);
    if answered.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match on_upgrade {
            Some(on_upgrade) => {
                upgrade::tunnel(passage, on_upgrade, answered.response, observation)
            }
            None => answer_failure(observation, BAD_FRAMING),
        };
    }
    reply(passage, answered, observation, Client { version: client, upgrade_named })
}

fn asks_upgrade(request: &Request<Incoming>) -> bool {
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && guard::asks_websocket(request.headers())
}

fn answer_failure(mut observation: Observation, failure: Failure) -> Response<ResponseBody> {
    let tap = Arc::clone(observation.tap());
    tracing::info!(
        tap = &*tap.name,
        upstream = tap.settings.upstream.authority,
        reason = failure.reason,
        "answered by flowtap"
    );
    if failure.outcome == Outcome::ClientAbort {
        observation.ended(failure.outcome); // nobody is there to be answered
    } else {
        observation.answered_by_us(failure.status, failure.outcome, failure.reason);
    }
    refuse::answer(failure.status, failure.reason, failure.message)
}

/// Turns the client's head into the one that goes upstream.
fn prepare(
    passage: &Passage,
    head: &mut request::Parts,
    id: &RequestId,
    trace: &TraceContext,
    websocket: bool,
) -> Option<()> {
    head.uri = passage.tap.route.origin_form(&head.uri)?;
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    head.version = Version::HTTP_11;
    guard::strip_hop_by_hop(&mut head.headers);
    head.headers.insert(HOST, passage.tap.route.host());
    if websocket {
        head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    if let RequestId::Minted(minted) = id {
        head.headers.insert(MS_REQUEST_ID, HeaderValue::from_str(minted).ok()?);
    }
    if passage.tap.tracing {
        head.headers.insert(TRACEPARENT, context::traceparent(trace));
    }
    Some(())
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MS_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The name that the request goes by.
enum RequestId {
    /// The client's.
    Given(String),
    /// The exchange's id, since the client gave none.
    Minted(String),
}

impl RequestId {
    fn of(headers: &HeaderMap, exchange: ExchangeId) -> Self {
        let given = headers.get(X_REQUEST_ID).or_else(|| headers.get(MS_REQUEST_ID));
        match given {
            Some(given) => {
                Self::Given(String::from_utf8_lossy(given.as_bytes()).chars().take(128).collect())
            }
            None => Self::Minted(exchange.as_uuid()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Given(id) | Self::Minted(id) => id.clone(),
        }
    }
}

/// HTTP/2 clients may send `cookie` in pieces; HTTP/1.1 wants one line (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let pieces: Vec<&[u8]> =
            headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

type Connection = Option<SendRequest<RequestBody>>;

/// The upstream's answer, the connection it came by, and whether its usage event is to be taken out.
struct Answered {
    response: Response<Incoming>,
    connection: Connection,
    strip_usage: bool,
}

impl Answered {
    fn plain((response, connection): (Response<Incoming>, Connection)) -> Self {
        Self { response, connection, strip_usage: false }
    }
}

/// Reads the body whole and asks for usage where the client streams and did not choose for itself.
/// An upstream that refuses gets the client's own body.
async fn send_asking_for_usage(
    passage: &Passage,
    observation: &Observation,
    head: request::Parts,
    body: Incoming,
) -> Result<Answered, Failure> {
    let idle = passage.tap.settings.timeouts.idle;
    let body = match tokio::time::timeout(idle, body.collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return Err(unanswered(RequestFault::of(&error))),
        Err(_) => return Err(IDLE_BODY),
    };
    observation.request().chunk(&passage.tap, &body);
    observation.request().complete();
    let whole = |body: Bytes| {
        let mut head = head.clone();
        head.headers.insert(CONTENT_LENGTH, body.len().into());
        Request::from_parts(head, RequestBody::Whole(Full::new(body)))
    };
    let Some(asking) = include_usage::inject(&body) else {
        return send(passage, observation, whole(body)).await.map(Answered::plain);
    };
    let (response, connection) = send(passage, observation, whole(asking)).await?;
    if !include_usage::is_refusal(response.status()) {
        return Ok(Answered { response, connection, strip_usage: true });
    }
    let second = send(passage, observation, whole(body)).await?;
    if second.0.status().is_success() {
        passage.tap.injection.give_up();
    }
    Ok(Answered::plain(second))
}

/// Sends the request, on an idle connection if there is one. A request that an idle connection gave
/// back unsent is sent once more on a fresh one; one of which a byte was sent never is.
async fn send(
    passage: &Passage,
    observation: &Observation,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Connection), Failure> {
    let mut pooled = passage.pool.take();
    loop {
        let reused = pooled.is_some();
        let sender = match pooled.take() {
            Some(sender) => sender,
            None => connect(passage).await?,
        };
        match send_once(passage, observation, sender, request).await {
            Ok(answered) => return Ok(answered),
            Err(Unsent::GivenBack(unsent)) if reused => {
                passage.tap.metrics.retried(&passage.tap.name);
                request = *unsent;
            }
            Err(Unsent::GivenBack(_)) => return Err(NO_ANSWER),
            Err(Unsent::Failed(failure)) => return Err(failure),
        }
    }
}

async fn connect(passage: &Passage) -> Result<Sender, Failure> {
    let tap = &passage.tap;
    match tap.connector.connect().await {
        Ok(sender) => {
            tap.metrics.upstream_connect(&tap.name, "ok");
            if let Sender::Http2(shared) = &sender {
                passage.pool.share(shared.clone());
            }
            Ok(sender)
        }
        Err(error) => {
            tap.metrics.upstream_connect(&tap.name, error.label());
            tracing::debug!(tap = &*tap.name, %error, "no connection to the upstream");
            Err(if matches!(error, ConnectError::Timeout(_)) {
                CONNECT_TIMEOUT
            } else {
                UNCONNECTED
            })
        }
    }
}

/// Why a request was not answered.
enum Unsent {
    /// No byte of it was sent.
    GivenBack(Box<Request<RequestBody>>),
    /// It is gone.
    Failed(Failure),
}

async fn send_once(
    passage: &Passage,
    observation: &Observation,
    sender: Sender,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Connection), Unsent> {
    let dropped = (passage.tap.metrics.clone(), Arc::clone(&passage.tap.name));
    hyper::ext::on_informational(&mut request, move |_| {
        dropped.0.informational_dropped(&dropped.1)
    });
    let limit = passage.tap.settings.timeouts.response;
    match sender {
        Sender::Http1(mut sender) => {
            let answered = within(limit, observation, sender.try_send_request(request)).await;
            answered.map(|response| (response, Some(sender)))
        }
        Sender::Http2(mut sender) => {
            let request = for_http2(passage, request).ok_or(Unsent::Failed(UNROUTABLE))?;
            let answered = within(limit, observation, sender.try_send_request(request)).await;
            answered.map(|response| (response, None))
        }
    }
}

fn for_http2(passage: &Passage, mut request: Request<RequestBody>) -> Option<Request<RequestBody>> {
    let target = std::mem::take(request.uri_mut());
    *request.uri_mut() = passage.tap.route.absolute_form(target)?;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(HOST);
    request.headers_mut().remove(TRANSFER_ENCODING);
    Some(request)
}

type TrySend = hyper::client::conn::TrySendError<Request<RequestBody>>;

/// Waits for the answer's head for `limit` after the last piece of the request was sent.
async fn within(
    limit: Duration,
    observation: &Observation,
    answer: impl Future<Output = Result<Response<Incoming>, TrySend>>,
) -> Result<Response<Incoming>, Unsent> {
    tokio::pin!(answer);
    let side = observation.request();
    let mut wait = limit;
    loop {
        match tokio::time::timeout(wait, answer.as_mut()).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(mut error)) => {
                return Err(match error.take_message() {
                    Some(request) => Unsent::GivenBack(Box::new(request)),
                    None => Unsent::Failed(unanswered(side.fault())),
                });
            }
            Err(_) => {
                let quiet =
                    Duration::from_micros(side.elapsed_us().saturating_sub(side.activity_us()));
                match limit.checked_sub(quiet) {
                    Some(left) if !left.is_zero() => wait = left,
                    _ => return Err(Unsent::Failed(RESPONSE_TIMEOUT)),
                }
            }
        }
    }
}

fn unanswered(fault: RequestFault) -> Failure {
    match fault {
        RequestFault::None => NO_ANSWER,
        RequestFault::Broken => BROKEN_BODY,
        RequestFault::Left => CLIENT_LEFT,
        RequestFault::Idle => IDLE_BODY,
    }
}

/// What the answer has to know of its client.
#[derive(Clone, Copy)]
struct Client {
    version: Version,
    /// The request named a protocol to switch to.
    upgrade_named: bool,
}

/// Turns the upstream's answer into the client's.
fn reply(
    passage: &Passage,
    answered: Answered,
    mut observation: Observation,
    client: Client,
) -> Response<ResponseBody> {
    let began = Instant::now();
    let (mut head, body) = answered.response.into_parts();
    if !is_framed_safely(&head) {
        return answer_failure(observation, BAD_FRAMING);
    }
    observation.response_head(&head);
    settle_framing(&mut head, client.version);
    if client.upgrade_named && client.version < Version::HTTP_2 {
        // Bytes behind a request for another protocol must not be read as a next request.
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    observation.own_time(began);
    let stripper = answered.strip_usage.then(|| Stripper::for_answer(&head)).flatten();
    if stripper.is_some() {
        guard::remove_in_order(&mut head.headers, |name| *name == CONTENT_LENGTH);
    }
    let connection = answered.connection.map(|sender| (sender, Arc::clone(&passage.pool)));
    Response::from_parts(head, ResponseBody::streamed(body, observation, connection, stripper))
}

/// An answer whose `Transfer-Encoding` is other than one `chunked` would change its meaning here.
fn is_framed_safely(head: &response::Parts) -> bool {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

/// hyper decodes by `Transfer-Encoding` but leaves `Content-Length` standing beside it.
fn settle_framing(head: &mut response::Parts, client: Version) {
    guard::strip_hop_by_hop(&mut head.headers);
    if head.headers.contains_key(TRANSFER_ENCODING) {
        guard::remove_in_order(&mut head.headers, |name| {
            *name == CONTENT_LENGTH || (client != Version::HTTP_11 && *name == TRANSFER_ENCODING)
        });
    }
    head.version = Version::HTTP_11;
}
