//! One exchange: the client's head becomes the upstream's, the upstream's answer the client's.

use std::sync::Arc;
use std::time::Instant;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version, request, response};
use hyper::body::{Body, Incoming};
use jiff::Timestamp;

use super::body::{RequestBody, ResponseBody};
use super::failure::{BAD_FRAMING, Failure, UNROUTABLE};
use super::held::Holder;
use super::include_usage::Stripper;
use super::io::ConnectionState;
use super::observe::{Beginning, Observation};
use super::pool::Pool;
use super::send::{Answered, TakesInterim, send, send_asking_for_usage};
use super::tap::TapShared;
use super::upgrade::Pending;
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

/// Carries one request to the upstream and its answer back. Whatever fails is answered, never raised.
pub async fn forward(passage: &Passage, mut request: Request<Incoming>) -> Response<ResponseBody> {
    let started = Instant::now();
    let protocols = asked_protocols(&request);
    let switches = protocols.is_some();
    let pending = names_protocol(&request).then(|| Pending::of(&mut request, passage));
    let (mut head, body) = request.into_parts();
    let upgrade_named = head.headers.contains_key(UPGRADE);
    let client = head.version;

    let time = Timestamp::now();
    let exchange = ExchangeId::new(time);
    let given = head.headers.get(X_REQUEST_ID).or_else(|| head.headers.get(MS_REQUEST_ID));
    let id = RequestId::of(given.map(HeaderValue::as_bytes), exchange);
    let incoming = context::Incoming::read(&head.headers);
    let trace = context::begin(incoming);
    let request_id = Some(id.text());
    let beginning = Beginning { id: exchange, time, started, request_id, trace };
    let mut observation = Observation::begin(
        &passage.tap,
        &passage.connection,
        &head.method,
        head.uri.path(),
        |selection| selection.of_request(&head.headers),
        beginning,
    );
    passage.connection.trailers().clear();
    if pending.is_some() {
        passage.connection.leave_http();
    } else {
        let is_chunked = head.headers.contains_key(TRANSFER_ENCODING);
        passage.connection.begin_body(is_chunked, body.size_hint().exact().unwrap_or(0));
    }
    if let Err(refused) = guard::check(&head, passage.tap.settings.limits.headers_max) {
        passage.tap.metrics.rejected(&passage.tap.name, refused.reason);
        passage.connection.leave_unread();
        observation.answered_by_us(refused.status, Outcome::ClientError, refused.reason);
        return refuse::answer(refused.status, refused.reason, refused.message);
    }
    if prepare(passage, &mut head, &id, &trace, protocols).is_none() {
        return answer_failure(observation, UNROUTABLE);
    }
    observation.own_time(started);

    let sent = if passage.tap.injection.concerns(&head) {
        send_asking_for_usage(passage, &observation, head, body).await
    } else {
        let body = RequestBody::streamed(body, &observation);
        send(passage, &observation, Request::from_parts(head, body)).await.map(Answered::plain)
    };
    passage.connection.said_ahead().await;
    let back = Instant::now();
    let answered = match sent {
        Ok(answered) => answered,
        Err(failure) => return answer_failure(observation, failure),
    };
    observation.own_time(back);
    if answered.response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match pending.filter(|_| switches) {
            Some(client) => upgrade::tunnel(passage, client, answered.response, observation),
            None => answer_failure(observation, BAD_FRAMING),
        };
    }
    reply(passage, answered, observation, Client { version: client, upgrade_named })
}

/// True where hyper lets go of the connection behind the answer, whatever that is.
fn names_protocol(request: &Request<Incoming>) -> bool {
    let names = request.method() == Method::CONNECT || request.headers().contains_key(UPGRADE);
    names && request.version() < Version::HTTP_2
}

/// Other protocols that the client would go on with, instead of with a body.
fn asked_protocols(request: &Request<Incoming>) -> Option<HeaderValue> {
    let asks = request.version() == Version::HTTP_11 && request.body().is_end_stream();
    asks.then(|| guard::asked_protocols(request.headers()))?
}

fn answer_failure(mut observation: Observation, failure: Failure) -> Response<ResponseBody> {
    observation.connection().leave_unread();
    told(&mut observation, &failure);
    refuse::answer(failure.status, failure.reason, failure.message)
}

/// Notes that the client is told of `failure`.
pub fn told(observation: &mut Observation, failure: &Failure) {
    let tap = observation.tap();
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
}

/// Turns the client's head into the one that goes upstream.
fn prepare(
    passage: &Passage,
    head: &mut request::Parts,
    id: &RequestId,
    trace: &TraceContext,
    protocols: Option<HeaderValue>,
) -> Option<()> {
    let host = passage.tap.route.host(&head.headers, &head.uri);
    head.uri = passage.tap.route.origin_form(&head.uri)?;
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    guard::write_length_plainly(&mut head.headers);
    if head.version == Version::HTTP_11 {
        head.extensions.insert(TakesInterim);
    }
    head.version = Version::HTTP_11;
    guard::strip_hop_by_hop(&mut head.headers);
    head.headers.insert(HOST, host);
    if let Some(protocols) = protocols {
        head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers.insert(UPGRADE, protocols);
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
pub enum RequestId {
    /// The client's.
    Given(String),
    /// The exchange's id, since the client gave none.
    Minted(String),
}

impl RequestId {
    /// The name `given`, else one made of `exchange`.
    pub fn of(given: Option<&[u8]>, exchange: ExchangeId) -> Self {
        match given {
            Some(given) => Self::Given(String::from_utf8_lossy(given).chars().take(128).collect()),
            None => Self::Minted(exchange.as_uuid()),
        }
    }

    /// The name alone.
    pub fn into_text(self) -> String {
        match self {
            Self::Given(id) | Self::Minted(id) => id,
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
    observation.response_head(head.status.as_u16(), Instant::now(), |selection| {
        selection.of_response(&head.headers)
    });
    settle_framing(&mut head, client.version);
    let holder = answered.connection.as_ref().and_then(|http1| http1.holder.as_ref());
    // Whether a body that was not asked for still comes is the client's to choose (RFC 9110, section 10.1.1).
    let open = holder.is_some_and(Holder::answered);
    if open || (client.upgrade_named && client.version < Version::HTTP_2) {
        // Nor must bytes behind a request for another protocol be read as a next request.
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        passage.connection.leave_unread();
    }
    observation.own_time(began);
    let stripper = answered.strip_usage.then(|| Stripper::for_answer(&head)).flatten();
    if stripper.is_some() {
        guard::remove_in_order(&mut head.headers, |name| *name == CONTENT_LENGTH);
    }
    let is_chunked =
        client.version == Version::HTTP_11 && !head.headers.contains_key(CONTENT_LENGTH);
    let connection = answered.connection.map(|sender| (sender, Arc::clone(&passage.pool)));
    let body = ResponseBody::streamed(body, observation, connection, stripper, is_chunked);
    Response::from_parts(head, body)
}

/// An answer whose `Transfer-Encoding` is other than one `chunked` would change its meaning here; one with two
/// lengths has none.
fn is_framed_safely(head: &response::Parts) -> bool {
    if !guard::agree_on_length(&head.headers) {
        return false;
    }
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
    let (bodiless, chunked) =
        (head.status == StatusCode::NO_CONTENT, head.headers.contains_key(TRANSFER_ENCODING));
    if bodiless || chunked {
        let codings_end = bodiless || client != Version::HTTP_11;
        guard::remove_in_order(&mut head.headers, |name| {
            *name == CONTENT_LENGTH || (codings_end && *name == TRANSFER_ENCODING)
        });
    }
    guard::write_length_plainly(&mut head.headers);
    head.version = Version::HTTP_11;
}
