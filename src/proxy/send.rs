//! From a request to the upstream's answer: an idle connection or a fresh one, within the time limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{Method, Request, Response, Version, request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;

use super::body::RequestBody;
use super::connect::{ConnectError, Sender};
use super::failure::{
    BROKEN_BODY, CLIENT_LEFT, CONNECT_TIMEOUT, Failure, IDLE_BODY, NO_ANSWER, RESPONSE_TIMEOUT,
    UNCONNECTED, UNROUTABLE,
};
use super::forward::Passage;
use super::include_usage;
use super::observe::{Observation, RequestFault};
use super::tap::TapShared;

/// An HTTP/1.1 connection; HTTP/2 ones are shared, and nobody's to give back.
pub type Connection = Option<SendRequest<RequestBody>>;

/// The upstream's answer, the connection it came by, and whether its usage event is to be taken out.
pub struct Answered {
    /// Its head, and its body still to come.
    pub response: Response<Incoming>,
    /// The connection, where it can be used again.
    pub connection: Connection,
    /// Its usage event was asked for by us.
    pub strip_usage: bool,
}

impl Answered {
    /// The answer to a request that went as it came.
    pub fn plain((response, connection): (Response<Incoming>, Connection)) -> Self {
        Self { response, connection, strip_usage: false }
    }
}

/// Reads the body whole and asks for usage where the client streams and did not choose for itself.
/// An upstream that refuses gets the client's own body.
pub async fn send_asking_for_usage(
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
    observation.request().chunk(&passage.tap, &body, Instant::now());
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

/// Sends the request, on an idle connection if there is one. What an idle connection gave back unsent,
/// or ended without answering where the request is safe (RFC 9110, section 9.2.2) and has no body, is
/// sent once more on a fresh one; nothing else is of which a byte was sent.
pub async fn send(
    passage: &Passage,
    observation: &Observation,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Connection), Failure> {
    let mut pooled = passage.pool.take();
    loop {
        let reused = pooled.is_some();
        let copy = if reused { copy_of_safe(&request) } else { None };
        let sender = match pooled.take() {
            Some(sender) => sender,
            None => connect(passage).await?,
        };
        request = match (send_once(passage, observation, sender, request).await, copy) {
            (Ok(answered), _) => return Ok(answered),
            (Err(Unsent::GivenBack(unsent)), _) if reused => *unsent,
            (Err(Unsent::GivenBack(_)), _) => return Err(NO_ANSWER),
            (Err(Unsent::Failed(failure)), Some(copy)) if failure.reason == NO_ANSWER.reason => {
                copy
            }
            (Err(Unsent::Failed(failure)), _) => return Err(failure),
        };
        passage.tap.metrics.retried(&passage.tap.name);
    }
}

fn copy_of_safe(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_safe || !matches!(request.body(), RequestBody::Empty) {
        return None;
    }
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
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
        Err(error) => Err(unconnected(tap, &error)),
    }
}

/// Counts and tells that there is no connection.
pub fn unconnected(tap: &TapShared, error: &ConnectError) -> Failure {
    tap.metrics.upstream_connect(&tap.name, error.label());
    tracing::debug!(tap = &*tap.name, %error, "no connection to the upstream");
    if matches!(error, ConnectError::Timeout(_)) { CONNECT_TIMEOUT } else { UNCONNECTED }
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
    let host = request.headers().get(HOST);
    *request.uri_mut() = passage.tap.route.absolute_form(target, host)?;
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
