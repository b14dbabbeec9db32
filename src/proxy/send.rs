//! From a request to the upstream's answer: an idle connection or a fresh one, within the time limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, Version, request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::body::{Again, RequestBody};
use super::connect::{ConnectError, Http1, Sender};
use super::failure::{
    BROKEN_BODY, CLIENT_LEFT, CONNECT_TIMEOUT, Failure, IDLE_BODY, NO_ANSWER, RESPONSE_TIMEOUT,
    UNCONNECTED, UNROUTABLE,
};
use super::forward::Passage;
use super::held::Holder;
use super::observe::{Observation, RequestFault};
use super::remains::Remains;
use super::tap::TapShared;
use super::{guard, include_usage};

/// An HTTP/1.1 connection; HTTP/2 ones are shared, and nobody's to give back.
pub type Connection = Option<Http1>;

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
    if passage.connection.is_broken() {
        return Err(BROKEN_BODY);
    }
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

/// Sends the request, on an idle connection if there is one. What an idle connection gave back unsent is
/// sent once more on a fresh one; so is what ended without an answer, all of it being kept, where the
/// request is safe (RFC 9110, section 9.2.2) or the upstream cannot have taken it.
pub async fn send(
    passage: &Passage,
    observation: &Observation,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Connection), Failure> {
    let mut pooled = passage.pool.take();
    loop {
        let reused = pooled.is_some();
        let repeat = reused.then(|| Repeat::of(&mut request));
        #[cfg(feature = "failpoints")]
        if reused {
            crate::capture::failpoint::hit("upstream_taken");
        }
        let sender = match pooled.take() {
            Some(sender) => sender,
            None => connect(passage).await?,
        };
        request = match (send_once(passage, observation, sender, request).await, repeat) {
            (Ok(answered), _) => return Ok(answered),
            (Err(Unsent::GivenBack(unsent)), _) if reused => *unsent,
            (Err(Unsent::GivenBack(_)), _) => return Err(NO_ANSWER),
            (Err(Unsent::Failed(failure, remains)), Some(repeat))
                if failure.reason == NO_ANSWER.reason =>
            {
                repeat.into_request(remains).await.ok_or(failure)?
            }
            (Err(Unsent::Failed(failure, _)), _) => return Err(failure),
        };
        passage.tap.metrics.retried(&passage.tap.name);
    }
}

/// A request that went on a kept connection, to be sent once more.
struct Repeat {
    head: Request<()>,
    body: Again,
}

impl Repeat {
    fn of(request: &mut Request<RequestBody>) -> Self {
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        *head.extensions_mut() = request.extensions().clone();
        Self { head, body: request.body_mut().again() }
    }

    /// The request, where it shall be sent once more after its connection left `remains`.
    async fn into_request(self, remains: Option<Remains>) -> Option<Request<RequestBody>> {
        let is_safe = matches!(*self.head.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        let body = self.body.body()?;
        if remains.as_ref().is_some_and(|remains| !remains.is_unanswered()) {
            return None;
        }
        if !is_safe && !remains?.closed_before().await {
            return None;
        }
        Some(self.head.map(|()| body))
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
    /// It is gone, and so is the connection, of which something may be left.
    Failed(Failure, Option<Remains>),
}

/// The client is asked for nothing but may be told things ahead of the answer: it speaks HTTP/1.1.
#[derive(Clone, Copy)]
pub struct TakesInterim;

/// What the upstream says ahead of its answer goes to the client, where it can be told. That it shall go on is
/// told by hyper, which does so when a body that was held is asked for: it is `told`.
fn pass_interim(
    passage: &Passage,
    request: &mut Request<RequestBody>,
    told: Option<impl Fn() + Send + Sync + 'static>,
) {
    let takes = takes_interim(request);
    let (tap, client) = (Arc::clone(&passage.tap), Arc::clone(&passage.connection));
    hyper::ext::on_informational(request, move |interim| {
        if let (Some(told), StatusCode::CONTINUE) = (&told, interim.status()) {
            return told();
        }
        let head = interim_head(interim.status(), interim.headers());
        if !(takes && client.say_ahead(&head)) {
            tap.metrics.informational_dropped(&tap.name);
        }
    });
}

fn takes_interim(request: &Request<RequestBody>) -> bool {
    request.extensions().get::<TakesInterim>().is_some()
}

/// Holds the body of a client that waits to be told to go on.
fn hold(passage: &Passage, request: &mut Request<RequestBody>) -> Option<Holder> {
    let expected = request.headers().get(EXPECT).map(HeaderValue::as_bytes);
    let waits = expected.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    (waits && takes_interim(request)).then(|| request.body_mut().hold(&passage.connection))?
}

fn interim_head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    let mut headers = headers.clone();
    guard::strip_hop_by_hop(&mut headers);
    guard::remove_in_order(&mut headers, |name| [CONTENT_LENGTH, TRANSFER_ENCODING].contains(name));
    for (name, value) in &headers {
        head.extend_from_slice(
            &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat(),
        );
    }
    head.extend_from_slice(b"\r\n");
    head
}

async fn send_once(
    passage: &Passage,
    observation: &Observation,
    sender: Sender,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Connection), Unsent> {
    let holder = matches!(sender, Sender::Http1(_)).then(|| hold(passage, &mut request)).flatten();
    pass_interim(passage, &mut request, holder.as_ref().map(Holder::teller));
    let limit = passage.tap.settings.timeouts.response;
    match sender {
        Sender::Http1(mut http1) => {
            http1.remains.mark();
            request.body_mut().end_with(http1.remains.trailers());
            http1.holder = holder;
            let answer = http1.sender.try_send_request(request);
            match within(limit, observation, answer).await {
                Ok(response) => Ok((response, Some(http1))),
                Err(Unsent::Failed(failure, _)) => {
                    Err(Unsent::Failed(failure, Some(http1.remains)))
                }
                Err(unsent) => Err(unsent),
            }
        }
        Sender::Http2(mut sender) => {
            let request = for_http2(passage, request).ok_or(Unsent::Failed(UNROUTABLE, None))?;
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
                    None => Unsent::Failed(unanswered(side.fault()), None),
                });
            }
            Err(_) => {
                let quiet =
                    Duration::from_micros(side.elapsed_us().saturating_sub(side.activity_us()));
                match limit.checked_sub(quiet) {
                    Some(left) if !left.is_zero() => wait = left,
                    _ => return Err(Unsent::Failed(RESPONSE_TIMEOUT, None)),
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
