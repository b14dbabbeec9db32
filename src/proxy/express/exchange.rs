//! One plain exchange up to its answer's head: the request goes up, and what comes back is looked at.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use tokio::time::Instant;

use super::answer;
use super::ask::{self, Ask};
use super::buffer::Inbox;
use super::digest::Came;
use super::field;
use super::framing::{Broken, Framing};
use super::rest::Rest;
use super::{Keep, Lane, Next, body};
use crate::domain::ExchangeId;
use crate::proxy::failure::{
    BROKEN_BODY, CLIENT_LEFT, Failure, IDLE_BODY, LONG_EXTENSIONS, NO_ANSWER, RESPONSE_TIMEOUT,
};
use crate::proxy::forward::RequestId;
use crate::proxy::io::AHEAD_BYTES_MAX;
use crate::proxy::observe::{Beginning, Observation};
use crate::proxy::remains::closed_before;
use crate::proxy::send::unconnected;
use crate::proxy::stream::Stream;
use crate::trace::context;

/// A plain exchange under way.
pub struct Exchange {
    /// What is noted of it.
    pub observation: Observation,
    /// The upstream's connection, until it can be used again.
    pub upstream: Option<Stream>,
    /// What came from the upstream.
    pub from_upstream: Inbox,
    /// How the answer's body is framed.
    pub framing: Framing,
    /// The upstream's connection can be used again.
    pub reusable: bool,
    /// The client's connection ends with this exchange.
    pub close: bool,
    /// When the last byte moved, either way.
    pub moved: Instant,
    /// The client may still be found gone by asking its socket.
    pub is_watching: bool,
    /// The answer's framing broke.
    pub is_broken: bool,
    /// What came of the bodies, where they are attested.
    pub came: Came,
    /// The client has been waited for since bytes moved last.
    pub is_slow: bool,
    /// Some of an answer has come.
    is_answered: bool,
    method: Method,
    upload: Upload,
    /// How what was not read yet of the request's body is framed.
    body: Framing,
    /// The client waits to be told before it sends the body.
    expects: bool,
}

/// Where the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    /// No byte of it was sent.
    Unsent,
    /// Some of it was.
    Sending,
    /// All of it was.
    Done,
    /// The rest of it cannot be.
    Failed,
}

/// What the request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// For the client to send more.
    Client,
    /// For the upstream to take more.
    Upstream,
}

/// Why there is no answer.
pub enum Fault {
    /// The upstream's connection took no byte of the request.
    Unsent,
    /// The upstream's connection ended, and brought no byte of an answer.
    Unanswered,
    /// The client is told.
    Failed(Failure),
    /// There is no client any more.
    Gone,
}

/// The exchange and the client's connection ended together, in the middle of the answer.
pub struct Stop;

impl Exchange {
    /// True once the request went up whole.
    pub fn is_sent(&self) -> bool {
        self.upload == Upload::Done
    }

    /// True while some of the request is still to go up.
    pub fn is_sending(&self) -> bool {
        matches!(self.upload, Upload::Unsent | Upload::Sending)
    }

    /// True where the client asked for an answer's head alone.
    pub fn is_head_only(&self) -> bool {
        self.method == Method::HEAD
    }

    /// The rest of the request cannot go up any more.
    pub fn give_up(&mut self) {
        self.upload = Upload::Failed;
    }

    /// All that came was written: waiting for more begins.
    pub fn client_took_all(&mut self) {
        if let Some(recorded) = self.from_upstream.give_back_full() {
            self.observation.response_lent(recorded);
        }
        if std::mem::take(&mut self.is_slow) {
            self.moved = Instant::now();
        }
    }
}

impl Drop for Exchange {
    /// However it ends, what was read into the recorder's memory is handed over with the rest.
    fn drop(&mut self) {
        if let Some(recorded) = self.from_upstream.give_back() {
            self.observation.response_lent(recorded);
        }
    }
}

impl Lane<'_> {
    /// Begins the exchange whose head has come; `None` while it has not come whole.
    pub fn begin(&mut self) -> Option<Next> {
        let started = std::time::Instant::now();
        let mut table = field::table();
        let ask = match ask::read(self.from_client.rest(), &mut table) {
            ask::Read::Partial => return None,
            ask::Read::Other => return Some(Next::Other),
            ask::Read::Plain(ask) => ask,
        };
        let tap = &self.listener.tap;
        let time = Timestamp::now();
        let id = ExchangeId::new(time);
        let request_id = RequestId::of(ask.given_id, id);
        let trace = context::begin(ask.traceparent.and_then(context::Incoming::parse));
        let ours = tap.tracing.then(|| context::traceparent(&trace));
        let ours = ours.as_ref().map(|value| value.as_bytes());
        ask.write(self.to_upstream.own(&self.depot.buffers), &tap.route, &request_id, ours);
        let fields = ask.fields.iter().map(|field| (field.name, field.value));
        let mut observation = Observation::begin(
            tap,
            &self.state,
            &ask.method,
            ask.path(),
            |selection| selection.of_request_fields(fields),
            Beginning { id, time, started, request_id: Some(request_id.into_text()), trace },
        );
        observation.own_time(started);
        let Ask { method, head_bytes, body, expects, close, .. } = ask;
        self.from_client.consume(head_bytes);
        self.from_client.expect(body.known_bytes());
        if body == Framing::Done {
            observation.request().complete();
        }
        let came = Came::of(id);
        self.to_upstream.digest(came.is_attested());
        self.to_client.digest(came.is_attested());
        Some(Next::Plain(Box::new(Exchange {
            observation,
            upstream: None,
            from_upstream: Inbox::for_answer(),
            framing: Framing::Done,
            reusable: false,
            close,
            moved: started.into(),
            is_watching: true,
            is_broken: false,
            is_slow: false,
            is_answered: false,
            method,
            upload: Upload::Unsent,
            came,
            body,
            expects,
        })))
    }

    /// Carries an exchange to its end.
    pub async fn carry(&mut self, mut exchange: Box<Exchange>) -> Result<Keep, Stop> {
        match self.ask(&mut exchange).await {
            Ok(()) => {}
            Err(Fault::Gone) => return Err(Stop),
            Err(Fault::Unsent | Fault::Unanswered) => return self.fail(exchange, NO_ANSWER).await,
            Err(Fault::Failed(failure)) => return self.fail(exchange, failure).await,
        }
        poll_fn(|cx| self.poll_relay(&mut exchange, cx)).await?;
        exchange.from_upstream.release(&self.depot.buffers);
        self.attest(&exchange);
        let (is_sent, close, moved) = (exchange.is_sent(), exchange.close, exchange.moved);
        let rest = Rest::of(exchange.body, exchange.upstream.take());
        // Whether the client sends what it was not asked to send is for it to say: it is not waited for.
        let open = exchange.expects;
        // The exchange ends here: what comes after its answer is none of its time.
        drop(exchange);
        let whole = is_sent || (!open && self.finish_request(rest).await);
        self.to_upstream.clear(&self.depot.buffers);
        self.waiting = Some(moved);
        self.from_client.expect(0);
        // What was sent behind the last request would reset the connection, and its answer with it.
        let unread = !whole || !self.from_client.is_empty();
        Ok(if whole && !close { Keep::Yes } else { Keep::No { unread } })
    }

    /// Sends the request, on an idle connection if there is one, and waits for its answer's head. One
    /// that takes no byte of it, or is found to have been closed before, is followed by a fresh one.
    async fn ask(&mut self, exchange: &mut Exchange) -> Result<(), Fault> {
        exchange.upstream = self.depot.take(exchange.moved.into());
        if exchange.upstream.is_some() {
            #[cfg(feature = "failpoints")]
            crate::capture::failpoint::hit("upstream_taken");
            self.take_request(exchange)?;
            if exchange.body == Framing::Done {
                self.to_upstream.keep();
            }
            match poll_fn(|cx| self.poll_head(exchange, cx)).await {
                Err(Fault::Unsent) => self.to_upstream.let_go(),
                Err(Fault::Unanswered) if self.repeats(exchange).await => {}
                answered => return answered,
            }
            self.listener.tap.metrics.retried(&self.listener.tap.name);
        }
        exchange.upstream = Some(self.connect(exchange).await?);
        poll_fn(|cx| self.poll_head(exchange, cx)).await
    }

    /// True where the request shall be sent once more, all of it being kept: a safe one always
    /// (RFC 9110, section 9.2.2), any other where the upstream cannot have taken it.
    async fn repeats(&mut self, exchange: &mut Exchange) -> bool {
        let is_safe = matches!(exchange.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let was_refused = match &exchange.upstream {
            Some(upstream) if exchange.is_sent() && !is_safe => closed_before(upstream.tcp()).await,
            _ => false,
        };
        if !(exchange.is_sent() && (is_safe || was_refused) && self.to_upstream.repeat()) {
            return false;
        }
        exchange.upload = Upload::Unsent;
        exchange.moved = Instant::now();
        true
    }

    /// Holds what came of the bodies against what went on.
    fn attest(&mut self, exchange: &Exchange) {
        let up = self.to_upstream.take_digest().filter(|_| exchange.is_sent());
        let Some(altered) = exchange.came.differs(up, self.to_client.take_digest()) else { return };
        let tap = &self.listener.tap;
        tap.metrics.attested(&tap.name, altered);
        if altered.contains(&true) {
            tracing::error!(tap = &*tap.name, "a body did not pass as it came");
        }
    }

    async fn connect(&mut self, exchange: &mut Exchange) -> Result<Stream, Fault> {
        let tap = &self.listener.tap;
        let mut connecting = pin!(tap.connector.connect_stream());
        let connected = poll_fn(|cx| match connecting.as_mut().poll(cx) {
            Poll::Ready(connected) => Poll::Ready(Ok(connected)),
            Poll::Pending if self.is_client_gone(exchange, cx) => Poll::Ready(Err(Fault::Gone)),
            Poll::Pending => Poll::Pending,
        });
        let connected = connected.await?;
        exchange.moved = Instant::now();
        connected.map_err(|error| Fault::Failed(unconnected(tap, &error))).inspect(|_| {
            tap.metrics.upstream_connect(&tap.name, "ok");
        })
    }

    /// Sends the request and reads until the answer's head has come whole.
    fn poll_head(
        &mut self,
        exchange: &mut Exchange,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        loop {
            let waiting = match self.poll_upload(exchange, cx) {
                Ok(waiting) => waiting,
                Err(fault) => return Poll::Ready(Err(fault)),
            };
            match self.poll_interim(exchange, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                Poll::Pending => return self.poll_late(exchange, waiting, cx),
            }
            let Some(upstream) = &mut exchange.upstream else { return failed(NO_ANSWER) };
            match exchange.from_upstream.poll_fill(upstream, &self.depot.buffers, cx) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.to_upstream.let_go();
                    exchange.is_answered = true;
                    match self.read_answer(exchange) {
                        Ok(true) => return Poll::Ready(Ok(())),
                        Ok(false) => {}
                        Err(failure) => return failed(failure),
                    }
                }
                Poll::Ready(_) if !exchange.is_answered => {
                    return Poll::Ready(Err(Fault::Unanswered));
                }
                Poll::Ready(_) => return failed(NO_ANSWER),
                Poll::Pending => return self.poll_late(exchange, waiting, cx),
            }
        }
    }

    /// Passes on what the upstream said ahead of its answer; nothing more is read of it meanwhile.
    fn poll_interim(
        &mut self,
        exchange: &mut Exchange,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        if self.to_client.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let (inbox, buffers) = (&mut exchange.from_upstream, &self.depot.buffers);
        self.to_client.poll_send(&mut self.client, inbox, buffers, cx).map_err(|_| Fault::Gone)
    }

    /// Ready where the answer's head is waited for in vain.
    fn poll_late(
        &mut self,
        exchange: &mut Exchange,
        waiting: Option<Waiting>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        if self.is_client_gone(exchange, cx) {
            return Poll::Ready(Err(Fault::Gone));
        }
        let (limit, failure) = self.limit(waiting);
        let late = self.timer.poll_own(exchange.moved + limit, cx);
        late.map(|()| Err(Fault::Failed(failure)))
    }

    fn limit(&self, waiting: Option<Waiting>) -> (Duration, Failure) {
        let timeouts = &self.listener.tap.settings.timeouts;
        match waiting {
            Some(Waiting::Client) if timeouts.idle <= timeouts.response => {
                (timeouts.idle, IDLE_BODY)
            }
            _ => (timeouts.response, RESPONSE_TIMEOUT),
        }
    }

    /// Sends what can be sent of the request. `None` where nothing is left to be done for it.
    pub fn poll_upload(
        &mut self,
        exchange: &mut Exchange,
        cx: &mut Context<'_>,
    ) -> Result<Option<Waiting>, Fault> {
        while exchange.is_sending() {
            self.take_request(exchange)?;
            let Some(upstream) = exchange.upstream.as_mut() else { return Ok(None) };
            let buffers = &self.depot.buffers;
            match self.to_upstream.poll_send(upstream, &mut self.from_client, buffers, cx) {
                Poll::Pending => return Ok(Some(Waiting::Upstream)),
                Poll::Ready(Err(_))
                    if exchange.upload == Upload::Unsent && self.to_upstream.is_untouched() =>
                {
                    return Err(Fault::Unsent);
                }
                // What it answered before it closed may still be read.
                Poll::Ready(Err(_)) => exchange.upload = Upload::Failed,
                Poll::Ready(Ok(())) if exchange.body == Framing::Done => {
                    exchange.upload = Upload::Done;
                    self.from_client.release(buffers);
                }
                Poll::Ready(Ok(())) => {
                    exchange.upload = Upload::Sending;
                    match self.from_client.poll_fill(&mut self.client, buffers, cx) {
                        Poll::Pending => return Ok(Some(Waiting::Client)),
                        Poll::Ready(Ok(count)) if count > 0 => exchange.moved = Instant::now(),
                        Poll::Ready(_) => return Err(Fault::Failed(CLIENT_LEFT)),
                    }
                }
            }
        }
        Ok(None)
    }

    /// Takes what came of the request's body.
    fn take_request(&mut self, exchange: &mut Exchange) -> Result<(), Fault> {
        if exchange.body == Framing::Done {
            return Ok(());
        }
        let Exchange { body, observation, came, moved, .. } = exchange;
        let (side, tap) = (observation.request(), &self.listener.tap);
        let (inbox, outbox) = (&mut self.from_client, &mut self.to_upstream);
        let taken = body::take(body, inbox, outbox, &self.depot.buffers, |data| {
            side.chunk(tap, data, (*moved).into());
            came.up(data);
        });
        if *body == Framing::Done {
            side.complete();
        }
        taken.map_err(|broken| match broken {
            Broken::Grammar => Fault::Failed(BROKEN_BODY),
            Broken::Extensions => Fault::Failed(LONG_EXTENSIONS),
        })
    }

    /// Reads the answer's head and puts the client's into its outbox; false while it has not come whole.
    fn read_answer(&mut self, exchange: &mut Exchange) -> Result<bool, Failure> {
        let (listener, began) = (self.listener, Instant::now());
        loop {
            let mut tables = field::tables();
            let bytes = exchange.from_upstream.rest();
            let answer = match answer::read(bytes, &mut tables, &exchange.method)? {
                answer::Read::Partial => return Ok(false),
                answer::Read::Interim(interim) => {
                    let ahead = self.to_client.own(&self.depot.buffers);
                    match ahead.len() < AHEAD_BYTES_MAX {
                        true => interim.write(ahead),
                        false => listener.tap.metrics.informational_dropped(&listener.tap.name),
                    }
                    exchange.expects &= interim.status != 100;
                    let head_bytes = interim.head_bytes;
                    exchange.from_upstream.consume(head_bytes);
                    continue;
                }
                answer::Read::Final(answer) => answer,
            };
            let fields = answer.fields.iter().map(|field| (field.name, field.value));
            exchange.observation.response_head(answer.status, began.into(), |selection| {
                selection.of_response_fields(fields)
            });
            let expected = answer.framing.known_bytes();
            exchange.observation.response_expected(expected);
            // Whether the body still comes is the client's to choose then (RFC 9110, section 10.1.1).
            let open = exchange.expects && exchange.body != Framing::Done;
            exchange.close |= open || listener.stopping.is_cancelled();
            answer.write(self.to_client.own(&self.depot.buffers), exchange.close);
            (exchange.framing, exchange.reusable) = (answer.framing, answer.reusable);
            let head_bytes = answer.head_bytes;
            exchange.from_upstream.consume(head_bytes);
            exchange.from_upstream.expect(expected);
            self.lend(exchange, expected);
            exchange.observation.own_time(began.into());
            exchange.moved = began;
            if exchange.framing == Framing::Done {
                self.finish_body(exchange);
            }
            return Ok(true);
        }
    }

    /// True once the client has reset the connection. Its end alone says nothing: it may have closed its
    /// half only.
    pub fn is_client_gone(&self, exchange: &mut Exchange, cx: &mut Context<'_>) -> bool {
        if !exchange.is_watching {
            return false;
        }
        let tcp = self.client.tcp();
        match tcp.poll_read_ready(cx) {
            Poll::Pending => false,
            Poll::Ready(Err(_)) => true,
            Poll::Ready(Ok(())) => {
                exchange.is_watching = false;
                tcp.take_error().ok().flatten().is_some()
            }
        }
    }
}

fn failed(failure: Failure) -> Poll<Result<(), Fault>> {
    Poll::Ready(Err(Fault::Failed(failure)))
}
